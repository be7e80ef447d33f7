"""What mail programs see when a home is lost or moves: QRESYNC with a cache, mbsync between sites, IDLE."""

import asyncio
import hashlib
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from cluster.log.jetstream import JetStreamLog
from tests.clients.place import found, said
from tests.faults.clients import Imap, Smtp
from tests.faults.device import Counter, Device
from tests.faults.site import Site
from tests.faults.test_failover import PARTITION, Writer, log_of, sent, until, until_all_there
from tests.faults.test_sites import PASSWORD, SHOWN_S_MAX, message, person, seen, signed_in, until_alike
from tests.mbsync import configuration

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]

MOVES = 20
KILLED_EVERY = 5
MESSAGE_BYTES = 6_000
OVERHEAD_BYTES_MAX = 12_000  # of one run of mbsync with seven mailboxes, without what it says of messages
ROW_BYTES_MAX = 120

ACCOUNT = """\
IMAPAccount site
Host 127.0.0.1
Port {port}
User {user}
Pass "{password}"
SSLType None
AuthMechs LOGIN
"""


async def lost(site: Site) -> None:
    """`kill -9` of all of it."""
    assert site._process is not None
    site._process.kill()
    await asyncio.to_thread(site._process.wait)


async def until_exists(client: Imap, count: int) -> None:
    """Until an idle session was told of so many messages."""
    async with asyncio.timeout(SHOWN_S_MAX):
        while True:
            number, _, word = (await client.news()).removeprefix(b"* ").partition(b" ")
            if word.strip() == b"EXISTS" and int(number) >= count:
                return


async def idle(site: Site, address: str) -> Imap:
    client = await signed_in(site, address)
    assert (await client.ask("SELECT INBOX")).state == "OK"
    await client.begin_idle()
    return client


async def whole(client: Imap) -> tuple[int, int]:
    """Bytes of a full resynchronisation: of the flags, of the contents."""
    assert (await client.ask("SELECT INBOX")).state == "OK"
    flags = await client.ask("UID FETCH 1:* (UID FLAGS MODSEQ)")
    contents = await client.ask("UID FETCH 1:* (BODY.PEEK[])")
    return sum(map(len, flags.untagged)), sum(map(len, contents.untagged))


async def test_a_killed_home_costs_a_client_the_difference_only(sites: list[Site]) -> None:
    """Durability `remote`, under writes: the cache stays good, and what the client did not know is all it is told."""
    pune, mumbai, dr = sites
    log = await log_of(mumbai)
    anna = await person(pune, "anna")
    waiting = await idle(dr, anna)
    await log.place(lambda record: msgspec.structs.replace(record, remote=True), PARTITION)
    await until(log, "both copies are waited for", lambda record: record.remote and len(record.members) == 2)
    writer = Writer(dr, anna, 0)
    await writer.more(100)
    device = Device(anna)
    await device.sync(pune)
    meanwhile = await signed_in(pune, anna)
    assert (await meanwhile.ask("SELECT INBOX")).state == "OK"
    assert (await meanwhile.ask("UID STORE 2:4 +FLAGS (\\Flagged)")).state == "OK"
    assert (await meanwhile.ask("UID STORE 5 +FLAGS (\\Deleted)")).state == "OK"
    assert (await meanwhile.ask("UID EXPUNGE 5")).state == "OK"
    meanwhile.close()
    knew, hasty = set(device.cache), device.clone()
    await lost(pune)
    delta = await hasty.sync(dr)
    assert delta.vanished == {5} and delta.told == {2, 3, 4}, "who comes before anybody is home"
    print(f"\nwho came at once was refused {hasty.refused} times")
    await writer.more(20)
    await until(log, "somebody else is home", lambda record: record.home != "pune")
    delta = await device.sync(mumbai)
    flags, contents = await whole(await signed_in(mumbai, anna))
    print(f"\nafter a lost home {delta.bytes} bytes of flags, where all are {flags}, and contents {contents}")
    assert delta.vanished == {5} and delta.told == {2, 3, 4}
    assert delta.bytes < flags / 4
    assert not delta.fetched & knew and len(delta.fetched) >= 20
    acknowledged = await writer.stop()
    await until_exists(waiting, len(acknowledged) - 1)
    await pune.start()
    await until(
        log, "the old home is waited for", lambda record: any(member.site == "pune" for member in record.members)
    )
    for site in (pune, dr, mumbai):
        delta = await device.sync(site)
        # The old home's last writes may have been shown to somebody, so their UIDs may be told once more.
        assert not delta.vanished and delta.bytes < flags / 4
    clients = [await signed_in(site, anna) for site in sites]
    there = await until_all_there(clients[0], [number for number in acknowledged if number != 5])
    assert len(there) == len(set(there))
    now = await until_alike(clients, len(there))
    await device.sync(pune)
    device.is_level(now)
    await log.stop()


async def test_idle_hears_of_mail_that_came_while_the_home_moved(sites: list[Site]) -> None:
    log = await log_of(sites[2])
    record = await until(log, "there is a home", lambda record: len(record.members) == 2 and record.begun)
    cleo = await person(next(site for site in sites if site.config.site == record.home), "cleo")
    listening = [await idle(site, cleo) for site in sites]
    senders = [await Smtp.connect(site.config.ports.smtp) for site in sites]
    count = 0
    for target in [site.config.site for site in sites if site.config.site != record.home]:
        moving = asyncio.create_task(log.switchover(PARTITION, target))
        began = time.monotonic()
        while not moving.done():
            for sender in senders:
                count += 1
                await sent(sender, cleo, 20_000 + count)
        await moving
        await asyncio.gather(*(until_exists(client, count) for client in listening))
        print(
            f"\nhome to {target}: {count} messages known to all who idle {time.monotonic() - began:.1f} s after it began"
        )
        await until(log, "copies are waited for", lambda now, at=target: now.home == at and len(now.members) == 2)
    for client in listening:
        client.close()
    now = await until_alike([await signed_in(site, cleo) for site in sites], count)
    assert [uid for uid, *_ in now.rows] == list(range(1, count + 1)), "no gap, no message twice"
    await log.stop()


async def until_moved(log: JetStreamLog, home: str) -> None:
    await until(log, "somebody else is home", lambda now: now.home != home and now.begun)


class Laptop:
    """mbsync with a Maildir of its own, by way of whatever site its owner is at."""

    def __init__(self, folder: Path, command: str, address: str) -> None:
        self.home, self.counter = folder / "mail", Counter()
        self._file, self._command, self._address = folder / "mbsyncrc", command, address

    async def start(self) -> "Laptop":
        self.home.mkdir(parents=True)
        port = await self.counter.start()
        self._file.write_text(configuration(ACCOUNT).format(port=port, user=self._address, password=PASSWORD, near=self.home))
        return self

    async def sync(self, site: Site) -> None:
        self.counter.target = site.config.ports.imap
        await asyncio.to_thread(said, self._command, "-c", str(self._file), "-a")

    def files(self, mailbox: str) -> list[Path]:
        return sorted(path for sub in ("new", "cur") for path in (self.home / mailbox / sub).iterdir())

    def tree(self) -> list[tuple[str, str, str]]:
        """Mailbox, hash, flags of every message, whatever mbsync called its file; without the mark that it puts in."""
        rows = []
        for mailbox in sorted(path.name for path in self.home.iterdir() if path.is_dir()):
            for path in self.files(mailbox):
                lines = path.read_bytes().splitlines(True)
                content = b"".join(line for line in lines if not line.startswith(b"X-TUID:"))
                rows.append((mailbox, hashlib.sha256(content).hexdigest(), path.name.partition(":2,")[2]))
        return sorted(rows)


async def given(site: Site, address: str, number: int) -> None:
    async with asyncio.timeout(30):
        sender = await Smtp.connect(site.config.ports.smtp)
        while await sender.send([address], message(number, MESSAGE_BYTES)) != 250:
            pass
        sender.close()


@pytest.mark.timeout(900)
async def test_mbsync_between_two_sites_while_the_home_moves(sites: list[Site], tmp_path: Path) -> None:
    """Twenty times, of which every fifth by `kill -9` of the home; durability `remote`."""
    command = await asyncio.to_thread(found, "mbsync", "isync")
    pune, mumbai, dr = sites
    log = await log_of(dr)
    await log.place(lambda record: msgspec.structs.replace(record, remote=True), PARTITION)
    record = await until(log, "there is a home", lambda record: len(record.members) == 2 and record.begun)
    by_name = {site.config.site: site for site in sites}
    ben = await person(by_name[record.home], "ben", "--partition", PARTITION)
    laptop = await Laptop(tmp_path / "laptop", command, ben).start()
    await signed_in(pune, ben), await signed_in(mumbai, ben)
    came = 0

    async def mail(count: int, at: list[Site]) -> None:
        nonlocal came
        for _ in range(count):
            came += 1
            await given(at[came % len(at)], ben, 30_000 + came)

    await mail(20, sites)
    await until_alike([await signed_in(pune, ben), await signed_in(mumbai, ben)], came)
    await laptop.sync(pune)
    places = [site.config.site for site in sites]
    for move in range(MOVES):
        home = (await until(log, "settled", lambda now: len(now.members) == 2 and now.begun, 60)).home
        killed = by_name[home] if move % KILLED_EVERY == KILLED_EVERY - 1 else None
        if killed is None:
            moving = asyncio.create_task(log.switchover(PARTITION, places[(places.index(home) + 1) % 3]))
        else:
            await log.stop()
            await lost(killed)
            log = await log_of(next(site for site in sites if site is not killed))
            moving = asyncio.create_task(until_moved(log, home))
        await mail(5, [site for site in sites if site is not killed])
        near = laptop.files("INBOX")
        near[move].rename(near[move].parents[1] / "cur" / f"{near[move].name.partition(':2,')[0]}:2,S")
        written = message(40_000 + move, 1_000).replace(b"\r\n", b"\n")
        (laptop.home / "Sent" / "new" / f"{move}.near").write_bytes(written)
        # As one travels: with the home under way, at the other site than before.
        await laptop.sync(next(site for site in ((mumbai, pune), (pune, mumbai))[move % 2] if site is not killed))
        await moving
        if killed is not None:
            await killed.start()
    now = await until_alike([await signed_in(site, ben) for site in sites], came)
    assert len({hash for _, hash, *_ in now.rows}) == came
    for site in (pune, mumbai):
        await laptop.sync(site)
    downloads, received = laptop.counter.downloads(), len(laptop.counter.received)
    trees = [laptop.tree()]
    for site in (pune, mumbai):
        other = await Laptop(tmp_path / site.config.site, command, ben).start()
        await other.sync(site)
        trees.append(other.tree())
        other.counter.close()
    laptop.counter.close()
    print(
        f"\n{MOVES} moves, {came} messages came: {len(downloads)} downloads of {sum(downloads)} bytes, {received} bytes in all"
    )
    assert trees[0] == trees[1] == trees[2]
    assert [row[0] for row in trees[0]].count("INBOX") == came == len(downloads), "each came down once"
    assert [row[0] for row in trees[0]].count("Sent") == MOVES
    assert received - sum(downloads) < (MOVES + 3) * (OVERHEAD_BYTES_MAX + (came + MOVES) * ROW_BYTES_MAX)
    shutil.rmtree(tmp_path)
    await log.stop()


async def test_a_cache_of_a_lost_tail_unlearns_it_and_gets_it_back_under_new_uids(sites: list[Site]) -> None:
    """Durability `local`: two devices know mail that only the lost home had. One comes back before it does, one after."""
    pune, mumbai, dr = sites
    log = await log_of(mumbai)
    gus = await person(dr, "gus")
    partition = "mail-dr-1"
    while (record := log.record(partition)) is None or len(record.members) < 2:
        await log.watch.looked()
    assert record.home == "dr" and not record.remote
    sender, acknowledged = await Smtp.connect(dr.config.ports.smtp), list(range(50_000, 50_060))
    for number in acknowledged[:30]:
        await sent(sender, gus, number)
    at_mumbai = await signed_in(mumbai, gus)
    await until_all_there(at_mumbai, acknowledged[:30])
    other = await idle(mumbai, gus)
    common = Device(gus)
    await common.sync(mumbai)
    device = common.clone()
    with pune.freeze("worker-0"), mumbai.freeze("worker-0"):
        for number in acknowledged[30:]:
            await sent(sender, gus, number)
        client = await signed_in(dr, gus)
        await until_all_there(client, acknowledged)
        assert (await client.ask("UID STORE 1:3 +FLAGS (\\Flagged)")).state == "OK"
        await device.sync(dr)
        await lost(dr)
    hasty, late, back = device.clone(), device.clone(), device.clone()
    await hasty.sync(mumbai)
    tail = set(device.cache) - set(common.cache)
    assert b"\\Flagged" in device.flags[1] and len(device.cache) == len(acknowledged)
    async with asyncio.timeout(40):
        while (record := log.record(partition)) is None or record.home == "dr":
            await log.watch.looked()
    await sent(await Smtp.connect(mumbai.config.ports.smtp), gus, 60_000)
    await until_all_there(at_mumbai, [60_000])
    now = await seen(at_mumbai)
    delta = await device.sync(mumbai)
    gone = {uid for uid in late.cache if uid not in {row[0] for row in now.rows}}
    print(f"\na lost token: {delta.bytes} bytes, {len(gone)} of {len(tail)} UIDs it knew of the tail went")
    assert len(gone) >= 20 and gone <= tail and delta.vanished == gone
    assert {1, 2, 3} <= delta.told <= set(late.cache) - gone
    assert max(late.cache) < min(delta.fetched), "no UID is given twice"
    assert device.flags[1] == frozenset()
    device.is_level(now)
    assert hasty.cache == common.cache, "who came before anybody was home is told the same"
    await at_mumbai.ask("ENABLE CONDSTORE")
    refused = await at_mumbai.ask(f"UID STORE 1 (UNCHANGEDSINCE {late.modseq}) +FLAGS (\\Answered)")
    assert "[MODIFIED 1]" in refused.text, "it decided on what is no more"
    await dr.start()
    # What dr has at first is its tail; nobody is told of it as if it were history.
    await back.sync(dr)
    back.check(now)
    there = await until_all_there(at_mumbai, [*acknowledged, 60_000])
    assert len(there) == len(set(there)), "none twice"
    await until_exists(other, len(there))
    clients = [await signed_in(site, gus) for site in sites]
    now = await until_alike(clients, len(there))
    hashes = [row[1] for row in now.rows]
    assert {late.cache[uid] for uid in tail} <= set(hashes) and len(hashes) == len(set(hashes))
    assert not gone & {row[0] for row in now.rows}, "under new UIDs"
    assert b"\\Flagged" in now.rows[0][3], "the flag of the tail is back too"
    for each, at in ((device, dr), (late, mumbai), (common, pune), (back, dr), (hasty, pune)):
        delta = await each.sync(at)
        print(
            f"then at {at.config.site}: {delta.bytes} bytes, {len(delta.vanished)} vanished, {len(delta.fetched)} fetched"
        )
        each.is_level(now)
    assert gone == late.names.keys() - late.cache.keys()
    print(f"who came at once was refused {hasty.refused} times, who came back to dr {back.refused} times")
    await log.stop()
