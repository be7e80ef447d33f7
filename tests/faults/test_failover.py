"""A home is lost, moves, and comes back: clients at the other sites notice nothing but a short wait."""

import asyncio
import contextlib
import json
import os
import signal
import time

import msgspec
import pytest

from cluster.control.partitions import Partition
from cluster.log.jetstream import Backbone, JetStreamLog
from node.assembly import BACKBONE_DOMAIN
from node.config import REPLICAS
from tests.faults.clients import GONE, Imap, Smtp
from tests.faults.site import Site
from tests.faults.test_sites import SHOWN_S_MAX, message, person, seen, signed_in, until_alike

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

PARTITION = "mail-pune-1"
FAILOVER_S_MAX = 12.0


async def log_of(site: Site) -> JetStreamLog:
    nats = site.config.nats
    made = JetStreamLog(
        nats.url, nats.user, nats.password, node_id="test", site=site.config.site, backbone=Backbone(BACKBONE_DOMAIN, REPLICAS)
    )
    await made.start()
    return made


async def until(log: JetStreamLog, what: str, is_so, timeout_s: float = 30.0) -> Partition:  # type: ignore[no-untyped-def]
    """The partition's record, as soon as it is so."""
    try:
        async with asyncio.timeout(timeout_s):
            while (record := log.record(PARTITION)) is None or not is_so(record):
                await log.watch.looked()
    except TimeoutError:
        raise AssertionError(f"{what}: {log.record(PARTITION)}") from None
    return record


class Writer:
    """Sends mail through one site without a pause, and keeps what was acknowledged."""

    def __init__(self, site: Site, address: str, first: int) -> None:
        self.acknowledged: list[int] = []
        self.longest_s = 0.0
        self.last_at = time.monotonic()
        self._site, self._address, self._number = site, address, first
        self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while True:
            try:
                client = await Smtp.connect(self._site.config.ports.smtp)
                while True:
                    self._number += 1
                    if await client.send([self._address], message(self._number, 500)) == 250:
                        now = time.monotonic()
                        self.longest_s = max(self.longest_s, now - self.last_at)
                        self.last_at = now
                        self.acknowledged.append(self._number)
            except GONE:
                await asyncio.sleep(0.05)

    async def more(self, count: int) -> None:
        goal = len(self.acknowledged) + count
        async with asyncio.timeout(60):
            while len(self.acknowledged) < goal:
                assert not self._task.done(), self._task
                await asyncio.sleep(0.02)

    async def stop(self) -> list[int]:
        self._task.cancel()
        await asyncio.wait((self._task,))
        return self.acknowledged


async def subjects(client: Imap) -> list[int]:
    """As soon as the site answers: a copy that lacks what it heard that its home has says UNAVAILABLE after a while, and
    not fewer messages (ops/decisions/reads-are-always-served.md)."""
    async with asyncio.timeout(SHOWN_S_MAX):
        while (selected := await client.ask("SELECT INBOX")).text.startswith("[UNAVAILABLE]"):
            pass
    assert selected.state == "OK", selected
    found = []
    for line in (await client.ask("UID FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])")).untagged:
        if b"Subject: " in line:
            found.append(int(line.partition(b"Subject: ")[2].split()[0]))
    return found


async def quota(client: Imap) -> str:
    """As soon as the site knows that there is one."""
    async with asyncio.timeout(SHOWN_S_MAX):
        while True:
            for line in (await client.ask("GETQUOTAROOT INBOX")).untagged:
                if line.startswith(b"QUOTA "):
                    return line.decode().partition("(")[2].partition(")")[0]


async def until_all_there(client: Imap, acknowledged: list[int]) -> list[int]:
    found: list[int] = []
    try:
        async with asyncio.timeout(SHOWN_S_MAX):
            while not set(acknowledged) <= set(found := await subjects(client)):
                pass
    except TimeoutError:
        raise AssertionError(f"not there: {sorted(set(acknowledged) - set(found))}") from None
    return found


async def test_a_killed_home_is_followed_and_comes_back_as_a_copy(sites: list[Site]) -> None:
    pune, mumbai, dr = sites
    anna = await person(pune, "anna")
    reader = await signed_in(mumbai, anna)
    log = await log_of(mumbai)
    await log.place(lambda record: msgspec.structs.replace(record, remote=True), PARTITION)
    await until(log, "both copies are waited for", lambda record: record.remote and len(record.members) == 2)
    writer = Writer(mumbai, anna, 0)
    await writer.more(50)
    before = await seen(reader)
    assert pune._process is not None
    writer.longest_s = 0
    pune._process.kill()
    await asyncio.to_thread(pune._process.wait)
    took = asyncio.create_task(writer.more(20))
    while not took.done():
        assert (await reader.ask("NOOP")).state == "OK"
        assert len((await seen(reader)).rows) >= len(before.rows), "reads go on"
    await took
    record = await until(log, "somebody else is home", lambda record: record.home != "pune")
    print(f"\nfrom the last write before the kill of the home to the first after it: {writer.longest_s:.2f} s ({record.home})")
    assert writer.longest_s < FAILOVER_S_MAX
    await pune.start()
    await until(log, "the old home is a copy that is waited for", lambda record: any(m.site == "pune" for m in record.members))
    await writer.more(20)
    acknowledged = await writer.stop()
    clients = [await signed_in(site, anna) for site in sites]
    found = [await until_all_there(client, acknowledged) for client in clients]
    assert all(len(set(each)) == len(each) for each in found), "each once"
    after = await until_alike(clients, len(found[0]))
    assert after.uidvalidity == before.uidvalidity
    assert set(before.rows) <= set(after.rows), "what a client knew is as it was"
    # RFC 9208 §4.2.1: how full it is comes from the log, and is the same at every site.
    assert json.loads(await asyncio.to_thread(mumbai.cli, "account", "set", anna, "--quota-messages", "100000", "--json"))
    roots = [await quota(client) for client in clients]
    assert roots == [f"MESSAGE {len(found[0])} 100000"] * 3
    await log.stop()


async def test_a_planned_switchover_there_and_back(sites: list[Site]) -> None:
    pune, mumbai, dr = sites
    log = await log_of(dr)
    record = await until(log, "there is a home", lambda record: len(record.members) == 2)
    home = record.home
    ben = await person(next(site for site in sites if site.config.site == home), "ben")
    # His mail lies in that site's own partition, so move that one.
    reader = await signed_in(dr, ben)
    writer = Writer(dr, ben, 10_000)
    await writer.more(10)
    waits = []
    for target in ("pune", "dr", "mumbai"):
        if (now := log.record(PARTITION)) is not None and now.home == target:
            continue
        writer.longest_s = 0
        await log.switchover(PARTITION, target)
        await until(log, f"home at {target}", lambda record, target=target: record.home == target and record.begun)
        await writer.more(10)
        waits.append(writer.longest_s)
        await until(log, "copies are waited for again", lambda record: len(record.members) == 2)
    acknowledged = await writer.stop()
    print(f"\nwriters waited at a switchover: {', '.join(f'{each:.2f} s' for each in waits)}")
    found = await until_all_there(reader, acknowledged)
    assert len(set(found)) == len(found)
    assert not any(old.gap for old in log.record(PARTITION).ended[-len(waits) :])  # type: ignore[union-attr]
    await log.stop()


@pytest.mark.long
async def test_losing_members_of_the_backbone_moves_nothing(sites: list[Site]) -> None:
    """One after the other, so the control plane's leader is among them."""
    log = await log_of(sites[2])
    while len(log.watch.found) < 7 or any(not each.partition.members and each.partition.copies for each in log.watch.found.values()):
        await log.watch.looked()
    before = {name: (found.partition.home, found.partition.epoch) for name, found in log.watch.found.items()}
    hal = await person(next(site for site in sites if site.config.site == before[PARTITION][0]), "hal")
    await signed_in(sites[1], hal)
    writer = Writer(sites[1], hal, 70_000)
    await writer.more(10)
    pauses = []
    for site in sites:
        writer.longest_s = 0
        old = site.pid("backbone")
        await site.kill("backbone")
        async with asyncio.timeout(60):
            while await site.running("backbone") == old:
                pass
        await writer.more(30)
        pauses.append(f"{writer.longest_s:.1f} s")
        await log.watch.looked()
    await writer.stop()
    async with asyncio.timeout(30):
        while any(not log.watch.found[name].partition.holder for name in before):
            await log.watch.looked()
    after = {name: (found.partition.home, found.partition.epoch) for name, found in log.watch.found.items()}
    print(f"\nwrites paused while a member of the backbone was lost: {', '.join(pauses)}")
    assert after == before
    await log.stop()


@pytest.mark.long
async def test_what_only_the_lost_home_had_comes_back_with_it(sites: list[Site]) -> None:
    """Durability `local`: acknowledged, and on no other site's disk yet when the home was killed."""
    pune, mumbai, dr = sites
    gus = await person(dr, "gus")
    log = await log_of(mumbai)
    partition = "mail-dr-1"
    while (home := log.record(partition)) is None or len(home.members) < 2:
        await log.watch.looked()
    assert home.home == "dr" and not home.remote
    await signed_in(mumbai, gus)
    writer = Writer(dr, gus, 50_000)
    await writer.more(30)
    before = await seen(await signed_in(mumbai, gus))
    # What is acknowledged from here on no copy hears of: both stand still.
    with pune.freeze("worker-0"), mumbai.freeze("worker-0"):
        await writer.more(30)
        assert dr._process is not None
        engines = [dr.pid(part) for part in ("nats", "backbone")]
        dr._process.kill()
        for pid in engines:  # At once: going down in order they would still give away what they have.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(dr._process.wait)
    acknowledged = await writer.stop()
    at_mumbai = await signed_in(mumbai, gus)
    async with asyncio.timeout(40):
        while (now := log.record(partition)) is None or now.home == "dr":
            await log.watch.looked()
    sender = await Smtp.connect(mumbai.config.ports.smtp)
    await sent(sender, gus, 60_000)
    missing = set(acknowledged) - set(await subjects(at_mumbai))
    assert len(missing) >= 20, "the tail is with the lost home only"
    await dr.start()
    found = await until_all_there(at_mumbai, [*acknowledged, 60_000])
    assert len(found) == len(set(found))
    clients = [at_mumbai, *[await signed_in(site, gus) for site in (pune, dr)]]
    after = await until_alike(clients, len(found))
    assert after.uidvalidity == before.uidvalidity
    assert {row[:2] for row in before.rows} <= {row[:2] for row in after.rows}, "what others knew names the same content"
    print(f"\n{len(missing)} acknowledged messages that only the lost home had are back")
    await log.stop()


@pytest.mark.long
async def test_a_pinned_home_goes_on_while_it_is_cut_off(sites: list[Site]) -> None:
    """Its engine reaches no other: as if the line of an office were down."""
    pune, mumbai, dr = sites
    fay = await person(mumbai, "fay")
    log = await log_of(pune)
    partition = "mail-mumbai-1"
    await log.place(lambda record: msgspec.structs.replace(record, pinned=True), partition)
    client = await signed_in(mumbai, fay)
    sender = await Smtp.connect(mumbai.config.ports.smtp)
    await sent(sender, fay, 30_000)
    elsewhere = await signed_in(dr, fay)
    await until_all_there(elsewhere, [30_000])
    with pune.freeze("backbone"), dr.freeze("backbone"):
        # No majority of the control plane, and nobody to copy: writes go on all the same, for longer than any lease.
        began, number = time.monotonic(), 30_000
        while time.monotonic() - began < 8:
            number += 1
            await sent(sender, fay, number)
        print(f"\n{number - 30_000} messages taken while cut off")
        assert (await client.ask("SELECT INBOX")).state == "OK"
        assert (await client.ask("UID STORE 1 +FLAGS (\\Seen)")).state == "OK"
        assert set(await subjects(client)) == set(range(30_000, number + 1))
    found = await until_all_there(elsewhere, list(range(30_000, number + 1)))
    assert len(found) == len(set(found)) == number - 30_000 + 1
    await until_alike([client, elsewhere], number - 30_000 + 1)
    await log.stop()


async def sent(sender: Smtp, address: str, number: int) -> None:
    async with asyncio.timeout(10):
        while await sender.send([address], message(number, 500)) != 250:
            pass


@pytest.mark.long
async def test_all_sites_lose_their_power_at_once(sites: list[Site]) -> None:
    log = await log_of(sites[0])
    home = (await until(log, "there is a home", lambda record: len(record.members) == 2 and record.remote)).home
    ida = await person(next(site for site in sites if site.config.site == home), "ida")
    await signed_in(sites[0], ida)
    writer = Writer(sites[0], ida, 80_000)
    await writer.more(30)
    await log.stop()
    for site in sites:
        assert site._process is not None
        site._process.kill()
    acknowledged = await writer.stop()
    for site in sites:
        assert site._process is not None
        await asyncio.to_thread(site._process.wait)
    await asyncio.gather(*(site.start() for site in sites))
    sender = await Smtp.connect(sites[1].config.ports.smtp)
    async with asyncio.timeout(60):
        while await sender.send([ida], message(90_000, 500)) != 250:
            pass
    clients = [await signed_in(site, ida) for site in sites]
    found = [await until_all_there(client, [*acknowledged, 90_000]) for client in clients]
    assert all(len(each) == len(set(each)) for each in found)
