"""What other systems were hurt by, each at three real sites: what lies at one of them is put back, wiped, passed over, unreadable
or of another hour, and the mail is as it was everywhere."""

import asyncio
import shutil
import time
from pathlib import Path

import asyncpg
import pytest

from cluster.log.connection import Connection
from cluster.log.engine import Engine
from cluster.log.jetstream import JetStreamLog
from cluster.log.wire import stream_of
from tests.faults.clients import Smtp
from tests.faults.odd import odd
from tests.faults.odd_event import POISON
from tests.faults.odd_fold import SKIPPED
from tests.faults.site import Site
from tests.faults.tables import differences, rows
from tests.faults.test_failover import Writer, log_of, subjects, until_all_there
from tests.faults.test_losses import agreed, ready, struck
from tests.faults.test_operating import until_level
from tests.faults.test_sites import Seen, message, person, signed_in
from tests.faults.test_verify import verified

pytestmark = [pytest.mark.long, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

PARTITION = "mail-pune-1"
ENGINES = ("nats", "postgres", "blobs")
TAKEN_S_MAX = 30.0


async def delivered(site: Site, address: str, number: int, subject: bytes = b"") -> None:
    """As soon as the site takes it."""
    data = (
        message(number).replace(b"Subject: ", b"Subject: %d %b\r\nX-Was: " % (number, subject))
        if subject
        else message(number)
    )
    sender = await Smtp.connect(site.config.ports.smtp)
    async with asyncio.timeout(TAKEN_S_MAX):
        while await sender.send([address], data) != 250:
            pass
    sender.close()


async def home(log: JetStreamLog, site: Site) -> None:
    await ready(log, remote=True, home=site.config.site)


async def ready_again(log: JetStreamLog) -> None:
    async with asyncio.timeout(60):
        while (now := log.record(PARTITION)) is None or len(now.members) < 2:
            await log.watch.looked()


async def alike(sites: list[Site], address: str, numbers: list[int]) -> Seen:
    """All sites show the same, and each of these messages once and no other."""
    now = await agreed(sites, address, numbers)
    assert len(now.rows) == len(numbers)
    return now


async def test_an_event_that_one_site_passed_over_is_found_where_the_cursors_are_equal(sites: list[Site]) -> None:
    pune, _, dr = sites
    anna = await person(pune, "anna")
    await signed_in(dr, anna)
    async with odd(dr, "odd_fold"):
        for number in range(10):
            await delivered(pune, anna, number, SKIPPED if number == 5 else b"")
        await until_all_there(await signed_in(dr, anna), [number for number in range(10) if number != 5])
        assert 5 not in await subjects(await signed_in(dr, anna)), "the bug is there"
        found = {each["site"]: each for each in await verified(pune, PARTITION) if each["site"] == "dr"}
        assert found["dr"]["verdict"] == "differs", found
    healed = [found for found in await verified(pune, "--heal", "--yes", PARTITION) if found["healed"]]
    assert [found["site"] for found in healed] == ["dr"]
    await alike(sites, anna, list(range(10)))
    assert {found["verdict"] for found in await verified(pune, PARTITION)} <= {"equal", "behind"}


async def test_an_event_that_nobody_can_read_stops_nobody(sites: list[Site]) -> None:
    pune, mumbai, dr = sites
    ben, cleo = await person(pune, "ben"), await person(pune, "cleo")
    await signed_in(dr, ben), await signed_in(dr, cleo)
    log = await log_of(mumbai)
    await home(log, pune)
    async with odd(pune, "odd_event"):
        await delivered(pune, ben, 1)
        await delivered(pune, ben, 2, POISON)
        for number in range(3, 8):
            await delivered(pune, ben, number)
            await delivered(dr, cleo, number)
        await alike(sites, ben, [1, 3, 4, 5, 6, 7])
        await alike(sites, cleo, [3, 4, 5, 6, 7])
    positions = []
    for site in sites:
        database = await asyncpg.connect(site.config.database_url, server_settings={"search_path": "live"})
        positions.append(
            [tuple(row) for row in await database.fetch("SELECT partition, position, held FROM quarantine")]
        )
        await database.close()
    assert len(positions[0]) == 1 and positions[0] == positions[1] == positions[2], (
        "put aside, and the same at every site"
    )
    await delivered(mumbai, ben, 8)
    await alike(sites, ben, [1, 3, 4, 5, 6, 7, 8])
    assert {found["verdict"] for found in await verified(pune, "--deep", PARTITION)} == {"equal"}
    await log.stop()


async def test_content_that_left_every_log_while_a_copy_was_away_comes_from_another_site(sites: list[Site]) -> None:
    """Garbage collection that did not wait for it: the events are there, what they name is in the other sites' blobs only."""
    pune, mumbai, dr = sites
    dora = await person(pune, "dora")
    await signed_in(dr, dora)
    log = await log_of(mumbai)
    await home(log, pune)
    await dr.stop()
    numbers = list(range(1, 21))
    for number in numbers:
        await delivered(pune, dora, number)
    assert (record := log.record(PARTITION)) is not None
    await alike([pune, mumbai], dora, numbers)
    for site, copy in ((pune, False), (mumbai, True)):
        connection = Connection(site.config.nats.url, site.config.nats.user, site.config.nats.password)
        await connection.start()
        stream = stream_of(PARTITION, record.epoch, copy=copy)
        assert await Engine(connection).purge(stream.name, stream.contents, 1 << 40) >= len(numbers)
        await connection.stop()
    await dr.start()
    await alike(sites, dora, numbers)
    await log.stop()


async def test_a_clock_that_is_two_hours_ahead_changes_nothing_but_times(sites: list[Site]) -> None:
    """The worker's clock: leases are counted by another one, identity comes from the log."""
    pune, mumbai, dr = sites
    eva = await person(pune, "eva")
    await signed_in(dr, eva)
    log = await log_of(mumbai)
    await home(log, pune)
    epoch = log.record(PARTITION).epoch  # type: ignore[union-attr]
    numbers = list(range(1, 11))
    async with odd(dr, "odd_clock"):
        for number in numbers:
            await delivered((pune, mumbai, dr)[number % 3], eva, number)
        before = await alike(sites, eva, numbers)
        assert log.record(PARTITION).epoch == epoch, "nobody took anything over"  # type: ignore[union-attr]
        # As home it gives the times; and then one whose clock is right goes on after it.
        for target in (dr, pune):
            await home(log, target)
            for number in range(len(numbers) + 1, len(numbers) + 6):
                await delivered(mumbai, eva, number)
                numbers.append(number)
            after = await alike(sites, eva, numbers)
            assert set(before.rows) <= set(after.rows) and after.uidvalidity == before.uidvalidity
            assert [uid for uid, *_ in after.rows] == numbers, "no gap, no UID twice"
            assert [row[2] for row in after.rows] == sorted(row[2] for row in after.rows), "MODSEQs rise"
            before = after
    await alike(sites, eva, numbers)
    assert {found["verdict"] for found in await verified(pune, PARTITION)} <= {"equal", "behind"}
    await log.stop()


def wiped(site: Site, *more: str) -> None:
    for name in (*ENGINES, *more):
        shutil.rmtree(site.config.dir / name)


async def test_a_site_whose_disks_were_wiped_is_whole_again(sites: list[Site]) -> None:
    """A copy, while mail goes on; then the home with its member of the backbone too, lost at one moment."""
    pune, mumbai, dr = sites
    gus = await person(pune, "gus")
    log = await log_of(mumbai)
    await home(log, pune)
    await signed_in(mumbai, gus)
    writer = Writer(mumbai, gus, 0)
    await writer.more(50)
    await dr.stop()
    wiped(dr)
    began = time.monotonic()
    await dr.start()
    await writer.more(20)
    client = await signed_in(dr, gus)
    await until_all_there(client, writer.acknowledged[:70])
    print(f"\na wiped copy had its mail {time.monotonic() - began:.1f} s after its start")
    await ready_again(log)
    await struck(pune)
    wiped(pune, "backbone")
    await writer.more(20)
    began = time.monotonic()
    await pune.start()
    await writer.more(20)
    await until_all_there(await signed_in(pune, gus), writer.acknowledged[:110])
    print(f"the wiped home was a copy with its mail {time.monotonic() - began:.1f} s after its start")
    acknowledged = await writer.stop()
    await ready_again(log)
    await agreed(sites, gus, acknowledged)
    await log.stop()


async def test_a_home_whose_disks_are_yesterdays_and_that_is_written_to_at_once(
    sites: list[Site], tmp_path: Path
) -> None:
    """A machine put back to what it was: it comes up with a log that ends before what it acknowledged since."""
    pune, mumbai, dr = sites
    hal = await person(pune, "hal")
    await signed_in(mumbai, hal)
    log = await log_of(mumbai)
    await home(log, pune)
    for number in (1, 2, 3):
        await delivered(pune, hal, number)
    first = await alike(sites, hal, [1, 2, 3])
    await pune.stop()
    for name in (*ENGINES, "backbone"):
        shutil.copytree(pune.config.dir / name, tmp_path / name)
    own(pune.config.dir, tmp_path)
    await pune.start()
    await home(log, pune)
    for number in range(4, 14):
        await delivered(pune, hal, number)
    client = await signed_in(pune, hal)
    assert (await client.ask("SELECT INBOX")).state == "OK"
    assert (await client.ask("UID STORE 1 +FLAGS (\\Flagged)")).state == "OK"
    before = await alike(sites, hal, list(range(1, 14)))
    await struck(pune)
    wiped(pune, "backbone")
    for name in (*ENGINES, "backbone"):
        shutil.copytree(tmp_path / name, pune.config.dir / name)
    own(tmp_path, pune.config.dir)
    starting = asyncio.create_task(pune.start())
    numbers = list(range(1, 14))
    for number in (14, 15):
        await delivered(mumbai, hal, number)
        numbers.append(number)
    await starting
    for number in (16, 17):
        await delivered(pune, hal, number)
        numbers.append(number)
    after = await alike(sites, hal, numbers)
    assert after.uidvalidity == first.uidvalidity and set(before.rows) <= set(after.rows), (
        "nothing of what was shown is otherwise"
    )
    assert {found["verdict"] for found in await verified(dr, "--deep", PARTITION)} <= {"equal", "behind"}
    await log.stop()


def own(source: Path, target: Path) -> None:
    """Copied files belong to who they belonged to: PostgreSQL runs as nobody else."""
    for path in [*(source / name for name in (*ENGINES, "backbone"))]:
        for each in [path, *path.rglob("*")]:
            there = target / each.relative_to(source)
            stat = each.lstat()
            shutil.chown(there, stat.st_uid, stat.st_gid)
            there.chmod(stat.st_mode & 0o7777)


async def test_everything_made_anew_from_the_log_twice_while_it_is_used_is_as_it_was(sites: list[Site]) -> None:
    """After all that the tests before this one did to them (invariants I4 and I7)."""
    pune, mumbai, dr = sites
    ida = await person(pune, "ida")
    log = await log_of(mumbai)
    await ready_again(log)
    writer = Writer(mumbai, ida, 0)
    await signed_in(dr, ida)
    await writer.more(20)
    for site in (dr, pune):
        await asyncio.to_thread(site.cli, "rebuild")
        await writer.more(5)
    acknowledged = await writer.stop()
    await agreed(sites, ida, acknowledged)
    await until_level(pune, PARTITION)
    before = [await rows(site) for site in sites]
    for _ in range(2):
        await asyncio.to_thread(dr.cli, "rebuild")
        assert differences(before[2], await rows(dr)) == []
    assert differences(before[0], before[1]) == [] and differences(before[0], before[2]) == []
    await until_level(pune, PARTITION)
    await log.stop()
