"""Three sites with real engines on this machine: mail has its home at one and is the same at all."""

import asyncio
import hashlib
import random
import re
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

import pytest
import pytest_asyncio

from cluster.log.connection import Connection
from cluster.log.engine import Engine
from cluster.log.wire import Stream, record, stream_of
from cluster.position import split
from node.config import STANDARD_PORTS, load
from storage.blobs.disk import DiskBlobs
from storage.postgres.pool import Database
from tests.faults.clients import Imap, Smtp
from tests.faults.lines import Line, lines
from tests.faults.site import Site
from tests.live import CLI, REPOSITORY

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

NAMES = ("pune", "mumbai", "dr")
OFFSETS = (*STANDARD_PORTS.values(), 4223, 6222, 6223, 6994, 7422, 7423)
PASSWORD = "correct horse battery"
SHOWN_S_MAX = 20.0
MOVES_AGAIN_S_MAX = 5.0
ALONE_S_MAX = 30.0
REFUSED_S_MAX = 15.0

_ROW = re.compile(rb"(\d+) FETCH \(UID (\d+) MODSEQ \((\d+)\) FLAGS \(([^)]*)\)(?: BODY\[\] \{\d+\}\r\n(.*))?\)\r\n", re.DOTALL)


class Seen(NamedTuple):
    """A mailbox as a client sees it: `rows` are (uid, hash, modseq, flags)."""

    uidvalidity: int
    uidnext: int
    rows: tuple[tuple[int, str, int, frozenset[bytes]], ...]


def bases() -> list[int]:
    """One for each site, from which all its ports are free and below those that the kernel gives away."""
    while True:
        found = random.SystemRandom().sample(range(8_000, 25_000, 20), len(NAMES))
        with ExitStack() as probes:
            try:
                # All at once: two sites must not want the same port either.
                for port in (base + offset for base in found for offset in OFFSETS):
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return found


class Place(NamedTuple):
    """`cuts`: the lines from mumbai to the other sites' members."""

    sites: list[Site]
    cuts: list[Line]


def made(folder: Path) -> list[Site]:
    places = list(zip(NAMES, bases(), strict=True))
    sites: list[Site] = []
    for name, base in places:
        words = ["init", str(folder / name), "--site", name, "--domain", "example.org", "--port-base", str(base)]
        if sites:
            words += ["--like", str(folder / NAMES[0])]
        else:
            words += [f"--member={each}=127.0.0.1:{its}" for each, its in places]
        subprocess.run((*CLI, *words), cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
        file = folder / name / "angarium.toml"
        file.write_text(file.read_text().replace("plaintext_networks = []", 'plaintext_networks = ["127.0.0.0/8"]'))
        sites.append(Site(load(folder / name)))
    return sites


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    three = await asyncio.to_thread(made, tmp_path_factory.mktemp("sites"))
    cuts = lines(three[1], [three[0], three[2]])
    for line in cuts:
        await line.start()
    try:
        await asyncio.gather(*(site.start() for site in three))
        yield Place(three, cuts)
    finally:
        await asyncio.gather(*(site.stop() for site in three))
        for line in cuts:
            line.close()


@pytest.fixture(scope="module")
def sites(place: Place) -> list[Site]:
    return place.sites


async def person(site: Site, name: str, *words: str) -> str:
    """At home at `site`."""
    address = f"{name}@example.org"
    command = (*CLI, "--dir", str(site.config.dir), "account", "add", address, "--name", name, "--password-file", "-", *words)
    process = await asyncio.create_subprocess_exec(
        *command, cwd=REPOSITORY, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )  # fmt: skip
    said, _ = await process.communicate(f"{PASSWORD}\n".encode())
    assert process.returncode == 0, said
    return address


async def signed_in(site: Site, address: str) -> Imap:
    """As soon as the site knows the account."""
    words = ""
    try:
        async with asyncio.timeout(SHOWN_S_MAX):
            while True:
                try:
                    return await Imap.connect(site.config.ports.imap, address, f'"{PASSWORD}"')
                except (EOFError, OSError) as error:
                    words = str(error)
                    await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{site.config.site}: {words}") from None


def message(number: int, size: int = 3_000) -> bytes:
    body = "\r\n".join(f"{number:06d} {line:06d} and so on to the end of it" for line in range(size // 42))
    return f"From: a@elsewhere.example\r\nSubject: {number}\r\nMessage-ID: <{number}@x>\r\n\r\n{body}\r\n".encode()


async def seen(client: Imap) -> Seen:
    opened = await client.ask("SELECT INBOX (CONDSTORE)")
    assert opened.state == "OK", opened
    told = b"".join(opened.untagged)
    rows = []
    for line in (await client.ask("UID FETCH 1:* (UID MODSEQ FLAGS BODY.PEEK[])")).untagged:
        if (row := _ROW.match(line)) is not None:
            flags = frozenset(row[4].split()) - {b"\\Recent"}
            rows.append((int(row[2]), hashlib.sha256(row[5]).hexdigest(), int(row[3]), flags))
    uidvalidity, uidnext = re.search(rb"UIDVALIDITY (\d+)", told), re.search(rb"UIDNEXT (\d+)", told)
    assert uidvalidity is not None and uidnext is not None
    return Seen(int(uidvalidity[1]), int(uidnext[1]), tuple(rows))


async def until_alike(clients: list[Imap], count: int) -> Seen:
    """What all of them see, as soon as it is the same and has so many messages."""
    found: list[Seen] = []
    try:
        async with asyncio.timeout(SHOWN_S_MAX):
            while not found or len(found[0].rows) != count or any(other != found[0] for other in found[1:]):
                found = [await seen(client) for client in clients]
    except TimeoutError:
        raise AssertionError([(each.uidvalidity, each.uidnext, len(each.rows)) for each in found]) from None
    return found[0]


async def test_mail_is_the_same_at_every_site(sites: list[Site]) -> None:
    pune, mumbai, dr = sites
    anna = await person(pune, "anna")
    await signed_in(mumbai, anna)
    sender = await Smtp.connect(pune.config.ports.smtp)
    for number in range(50):
        assert await sender.send([anna], message(number)) == 250
    at_pune, at_mumbai, at_dr = [await signed_in(site, anna) for site in sites]
    everywhere = [at_pune, at_mumbai, at_dr]
    before = await until_alike(everywhere, 50)
    assert [uid for uid, *_ in before.rows] == list(range(1, 51))

    # A flag set at a copy's site wakes who idles at another one.
    await at_dr.begin_idle()
    assert (await at_mumbai.ask("UID STORE 7 +FLAGS (\\Flagged)")).state == "OK"
    assert b"\\Flagged" in (await at_mumbai.ask("UID FETCH 7 (FLAGS)")).untagged[0], "its own write, at its own site"
    async with asyncio.timeout(SHOWN_S_MAX):
        while b"\\Flagged" not in await at_dr.news():
            pass
    at_dr.close()

    # Appended and expunged where there are only copies.
    at_dr = await signed_in(dr, anna)
    answer = await at_dr.ask("APPEND INBOX", message(1000, 300_000))
    assert answer.text.startswith(f"[APPENDUID {before.uidvalidity} 51]"), answer
    assert (await at_dr.ask("SELECT INBOX")).state == "OK"
    assert (await at_dr.ask("UID STORE 3 +FLAGS (\\Deleted)")).state == "OK"
    assert (await at_dr.ask("UID EXPUNGE 3")).state == "OK"
    after = await until_alike([at_pune, at_mumbai, at_dr], 50)
    assert after.uidvalidity == before.uidvalidity
    assert [uid for uid, *_ in after.rows] == [uid for uid in range(1, 52) if uid != 3]
    assert {uid: hash for uid, hash, *_ in after.rows if uid < 51} == {uid: hash for uid, hash, *_ in before.rows if uid != 3}


async def test_someone_at_home_at_another_site_and_mail_that_comes_in_at_a_third(sites: list[Site]) -> None:
    pune, mumbai, dr = sites
    ben = await person(mumbai, "ben")
    clients = [await signed_in(site, ben) for site in sites]
    for number, site in enumerate((pune, dr, mumbai)):
        sender = await Smtp.connect(site.config.ports.smtp)
        assert await sender.send([ben], message(number)) == 250
    found = await until_alike(clients, 3)
    assert [uid for uid, *_ in found.rows] == [1, 2, 3]


async def test_a_killed_worker_of_the_home(sites: list[Site]) -> None:
    pune, _, dr = sites
    cleo = await person(pune, "cleo")
    await signed_in(dr, cleo)
    sender = await Smtp.connect(dr.config.ports.smtp)
    assert await sender.send([cleo], message(1)) == 250
    await pune.kill("worker-0")
    async with asyncio.timeout(60):
        while await sender.send([cleo], message(2)) != 250:
            pass
    clients = [await signed_in(site, cleo) for site in sites]
    await until_alike(clients, 2)


@pytest.mark.long
async def test_a_site_that_was_away_catches_up(sites: list[Site]) -> None:
    pune, mumbai, dr = sites
    dora = await person(pune, "dora")
    await signed_in(mumbai, dora)
    await mumbai.stop()
    async with asyncio.timeout(60):
        sender = await Smtp.connect(pune.config.ports.smtp)
        for number in range(20):
            while await sender.send([dora], message(number)) != 250:
                pass
    await mumbai.start()
    clients = [await signed_in(site, dora) for site in sites]
    found = await until_alike(clients, 20)
    assert [uid for uid, *_ in found.rows] == list(range(1, 21))


@pytest.mark.long
async def test_a_site_that_is_cut_off_reads_on_and_goes_on_when_the_cut_heals(place: Place) -> None:
    pune, mumbai, _ = place.sites
    fay = await person(pune, "fay")
    sender = await Smtp.connect(pune.config.ports.smtp)
    assert await sender.send([fay], message(0)) == 250
    client = await signed_in(mumbai, fay)
    await until_alike([client], 1)
    for line in place.cuts:
        line.cut()
    with mumbai.freeze("backbone"):
        for number in range(1, 21):
            async with asyncio.timeout(60):
                while await sender.send([fay], message(number)) != 250:
                    pass
        # What it cannot tell the home it refuses, after it has tried; what it has it shows, to who comes now too.
        assert (await client.ask("UID STORE 1 +FLAGS (\\Seen)")).state == "NO"
        assert len((await seen(client)).rows) == 1
        assert len((await seen(await signed_in(mumbai, fay))).rows) == 1
        await client.begin_idle()
    for line in place.cuts:
        line.heal()
    began = time.perf_counter()
    async with asyncio.timeout(SHOWN_S_MAX):
        while not (await client.news()).startswith(b"* 21 EXISTS"):
            pass
    took = time.perf_counter() - began
    print(f"\nfrom the end of the cut to the last message at the site that was cut off: {took:.2f} s")
    assert took < MOVES_AGAIN_S_MAX
    clients = [await signed_in(site, fay) for site in place.sites]
    await until_alike(clients, 21)


@pytest.mark.long
async def test_how_long_it_takes_to_another_site(sites: list[Site]) -> None:
    pune, mumbai, _ = sites
    eva = await person(pune, "eva")
    async with AsyncExitStack() as closing:
        client = await signed_in(mumbai, eva)
        closing.callback(client.close)
        assert (await client.ask("SELECT INBOX")).state == "OK"
        await client.begin_idle()
        sender = await Smtp.connect(pune.config.ports.smtp)
        took = []
        for number in range(1, 101):
            assert await sender.send([eva], message(number)) == 250
            began = time.perf_counter()
            async with asyncio.timeout(SHOWN_S_MAX):
                while not (await client.news()).startswith(b"* %d EXISTS" % number):
                    pass
            took.append((time.perf_counter() - began) * 1000)
    cuts = quantiles(took, n=100)
    print(f"\nfrom 250 at the home to EXISTS at another site: p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms")
    assert cuts[49] < 1000


async def events(site: Site, stream: Stream) -> list[tuple[int, str, bytes]]:
    """All that a stream holds, as the site's engine has it: position, entity, payload."""
    connection = Connection(site.config.nats.url, site.config.nats.user, site.config.nats.password)
    await connection.start()
    try:
        engine, found, sequence = Engine(connection), [], 1
        while (part := (await engine.read(stream.name, sequence, 500, stream.events)).messages):
            found += [(each.position, each.entity, each.payload) for kept in part if (each := record(stream, kept))]
            sequence = part[-1].sequence + 1
        return found
    finally:
        await connection.stop()


async def test_every_copy_holds_what_its_home_holds_each_event_once(sites: list[Site]) -> None:
    """After all that the tests before this one did."""
    pune, mumbai, dr = sites
    for home, partition in ((pune, "directory"), (pune, "mail-pune-1"), (mumbai, "mail-mumbai-1")):
        there = await events(home, stream_of(partition, 1))
        assert there
        for site in (pune, mumbai, dr):
            if site is not home:
                assert await events(site, stream_of(partition, 1, copy=True)) == there, (partition, site.config.site)


@pytest.mark.long
async def test_a_site_whose_blobs_were_wiped_reads_on_and_is_whole_again(sites: list[Site]) -> None:
    pune, _, dr = sites
    gus = await person(pune, "gus")
    await signed_in(dr, gus)
    sender = await Smtp.connect(pune.config.ports.smtp)
    for number in range(20):
        assert await sender.send([gus], message(number, 500_000 if number == 7 else 3_000)) == 250
    before = await until_alike([await signed_in(dr, gus)], 20)
    database = Database(dr.config.database_url)
    await database.start()

    async def until(question: str) -> None:
        async with asyncio.timeout(SHOWN_S_MAX):
            while not (row := await database.row(question)) or not row[0]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    all_kept = (
        "SELECT k.position >= f.position FROM folded f JOIN blobs_kept k USING (partition) WHERE partition = 'mail-pune-1'"
    )
    await until(all_kept)
    row = await database.row("SELECT position FROM folded WHERE partition = 'mail-pune-1'")
    assert row is not None
    async with asyncio.timeout(SHOWN_S_MAX):
        while await contents(dr, "mail-pune-1", split(row[0]).epoch):
            pass
    await database.stop()
    had = await blobs_of(dr)
    await dr.stop()
    shutil.rmtree(dr.config.blob_dir)
    await dr.start()
    assert await seen(await signed_in(dr, gus)) == before, "who reads at once waits for the other sites"
    await database.start()
    await until("SELECT count(*) = 0 FROM wanted_blob WHERE NOT lost")
    await until(all_kept)
    assert len(had) >= 20 and had <= await blobs_of(dr)
    await database.stop()


async def contents(site: Site, partition: str, epoch: int) -> int:
    """How many messages of content the site's log still has of an epoch, at home there or not (500 if more)."""
    connection = Connection(site.config.nats.url, site.config.nats.user, site.config.nats.password)
    await connection.start()
    try:
        engine, own = Engine(connection), stream_of(partition, epoch)
        stream = own if await engine.exists(own.name) else stream_of(partition, epoch, copy=True)
        return len((await engine.read(stream.name, 1, 500, stream.contents)).messages)
    finally:
        await connection.stop()


async def blobs_of(site: Site) -> set[bytes]:
    blobs = DiskBlobs(site.config.blob_dir)
    found = {name async for names in blobs.walk() for name in names}
    await blobs.close()
    return found


@pytest.mark.long
async def test_a_site_that_starts_while_it_is_cut_off_is_read_at_once(sites: list[Site]) -> None:
    pune, mumbai, dr = sites
    hal, ida = await person(pune, "hal"), await person(dr, "ida")
    await signed_in(dr, hal)
    sender = await Smtp.connect(pune.config.ports.smtp)
    for number in range(10):
        assert await sender.send([hal], message(number)) == 250
        assert await sender.send([ida], message(number)) == 250
    before = [await until_alike([await signed_in(site, who) for site in (pune, dr)], 10) for who in (hal, ida)]
    await asyncio.gather(pune.stop(), mumbai.stop())
    began = time.perf_counter()
    await dr.kill("supervisor")
    # Copies of what is at home elsewhere, and what is at home here and has no quorum: both as they were shown.
    clients = [await signed_in(dr, who) for who in (hal, ida)]
    assert [await seen(client) for client in clients] == before
    took = time.perf_counter() - began
    print(f"\nfrom the kill of all of a site that is cut off to the last FETCH there: {took:.1f} s")
    assert took < ALONE_S_MAX
    for client in clients:
        began = time.perf_counter()
        refused = await client.ask("UID STORE 1 +FLAGS (\\Flagged)")
        assert refused.state == "NO" and refused.text.startswith("[UNAVAILABLE]"), refused
        assert time.perf_counter() - began < REFUSED_S_MAX
        # A MODSEQ that this site has not come to, and perhaps never will: it does not know, and does not say VANISHED.
        assert (await client.ask("UNSELECT")).state == (await client.ask("ENABLE QRESYNC")).state == "OK"
        ahead = (1 << 40) + max(modseq for _, _, modseq, _ in before[0].rows)
        waits = await client.ask(f"SELECT INBOX (QRESYNC ({before[0].uidvalidity} {ahead}))")
        assert waits.state == "NO" and waits.text.startswith("[UNAVAILABLE]"), waits
        assert b"VANISHED" not in b"".join(waits.untagged)
    await asyncio.gather(pune.start(), mumbai.start())
    async with asyncio.timeout(60):
        for client in clients:
            assert (await client.ask("SELECT INBOX")).state == "OK"
            while (await client.ask("UID STORE 1 +FLAGS (\\Flagged)")).state != "OK":
                pass
    for who in (hal, ida):
        found = await until_alike([await signed_in(site, who) for site in sites], 10)
        assert [uid for uid, *_ in found.rows] == list(range(1, 11)) and b"\\Flagged" in found.rows[0][3]
