"""A follower whose tables stand beyond history takes them back, and everybody who was shown the rest is told."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cluster.domain.mailbox import events as m
from cluster.log.digests import AskMend
from cluster.partitions import mail
from cluster.position import position, split
from node.config import Config
from storage.follower import lock_key
from storage.news import Hub
from storage.projector import Fold
from tests.contracts.test_follower import ANNA, INBOX, Place
from tests.contracts.test_follower import place as _place
from tests.contracts.test_rebuild import dump, lived_in, tables_oid
from tests.contracts.test_site import MESSAGE, append
from tests.laws.tables_of_law import site_tables
from tests.live import Live, eventually

place = _place
AT_US = 1_700_000_000_000_000


@asynccontextmanager
async def listening(hub: Hub) -> AsyncIterator[None]:
    task = asyncio.create_task(hub.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def take_over(place: Place, last: int) -> None:
    await place.log.take_over(place.partition, last, m.UID_GAP, AT_US, os.urandom(16))
    place.last = position(split(place.last).epoch + 1, 1)


async def equals_history(place: Place, url: str) -> None:
    """The tables are those of somebody who never saw anything else."""
    async with site_tables(url, "rollback_fresh") as fresh:
        fold = Fold(fresh.db, place.partition)
        await fold.start()
        async for records in place.log.read(place.partition, 0, place.last):
            await fold.batch(records)
        expected, dump = await fresh.dump(), await place.site.dump()
        assert set(dump.pop("content")) >= set(expected.pop("content"))
        assert dump == expected


async def test_what_was_shown_beyond_history_is_taken_back_while_all_goes_on(engines: Config, place: Place) -> None:
    hub = Hub(place.database)
    async with listening(hub), place.follower():
        kept = [await place.append(b"one"), await place.append(b"two")]
        end = place.last
        await place.append(b"lost")
        lost = place.last
        assert await hub.reached(place.partition, lost, 10.0)
        with hub.watch(ANNA, INBOX) as hers, hub.watch(ANNA + 1, None) as others:
            waits = asyncio.create_task(hub.reached(place.partition, lost + 1, 60.0))
            await asyncio.sleep(0)
            await take_over(place, end)
            # Nobody waits for what will never be, nor takes it for shown when the tables are further.
            assert not await asyncio.wait_for(waits, 20.0)
            assert await hub.reached(place.partition, place.last, 10.0)
            assert not await hub.reached(place.partition, lost, 10.0)
            assert await hub.is_lost(place.partition, lost) and await hub.is_lost(place.partition, lost + 1)
            assert await hub.reached(place.partition, end, 10.0)
            assert not await hub.is_lost(place.partition, end)
            assert not await hub.is_lost(place.partition, place.last + 1)
            assert hers.rolled_back and not others.rolled_back
        await equals_history(place, engines.database_url)
        await place.append(b"three")
        await eventually(place.folded)
        rows = await place.site.rows("SELECT uid, content FROM message ORDER BY uid")
        assert [uid for uid, _ in rows] == [1, 2, 3 + m.UID_GAP] and [hash for _, hash in rows][:2] == kept
        await equals_history(place, engines.database_url)


async def test_who_did_not_listen_meanwhile_learns_of_it(place: Place) -> None:
    hub = Hub(place.database)
    async with place.follower():
        await place.append(b"one")
        end = place.last
        await place.append(b"lost")
        async with listening(hub):
            assert await hub.reached(place.partition, place.last, 10.0)
        with hub.watch(ANNA, INBOX) as hers, hub.watch(ANNA + 1, INBOX) as others:
            await take_over(place, end)
            await eventually(place.folded)
            async with listening(hub):
                assert await hers.wait(10.0) and hers.rolled_back and not others.rolled_back
                assert await hub.reached(place.partition, place.last, 10.0)
        assert not await hub.reached(place.partition, end + 2, 10.0)


async def test_an_epoch_that_was_lost_whole_is_taken_back_from_everybody(engines: Config, place: Place) -> None:
    """Its first words had raised every mailbox's UIDs."""
    async with place.follower():
        await place.append(b"one")
        end = place.last
        await take_over(place, end)
        await place.append(b"in an epoch of which nothing stays")
        await eventually(place.folded)
        await take_over(place, end)
        await eventually(place.folded)
        await equals_history(place, engines.database_url)


async def test_nothing_of_history_stays(engines: Config, place: Place) -> None:
    async with place.follower():
        await place.append(b"lost")
        await eventually(place.folded)
        await take_over(place, 0)
        await eventually(place.folded)
        await equals_history(place, engines.database_url)


async def test_contents_beyond_are_neither_wanted_nor_kept(place: Place, tmp_path: Path) -> None:
    async with place.follower(0.02):
        await place.append(b"one")
        end = place.last
        await place.append(b"lost")

        async def is_kept() -> bool:
            return await place.kept() == place.last

        await eventually(is_kept)
        await place.site.db.execute(
            "INSERT INTO wanted_blob VALUES ($1, 'x', 1, $2), ($1, 'y', 1, $3)", place.partition, end, place.last
        )
        await take_over(place, end)
        await eventually(place.folded)
        wanted = await place.site.rows("SELECT position FROM wanted_blob WHERE partition = $1", place.partition)
        assert wanted == [(end,)] and await place.kept() <= end


@pytest.mark.parametrize("table", ["mailbox", "folded"])
async def test_others_read_the_tables_as_they_were_until_it_is_done(place: Place, table: str) -> None:
    async with place.follower():
        await place.append(b"one")
        end = place.last
        await place.append(b"lost")
        await eventually(place.folded)
        async with place.site.db.transaction():
            # Held up in the middle of it.
            await place.site.db.execute(f"SELECT 1 FROM {table} FOR UPDATE")  # noqa: S608
            await take_over(place, end)

            async def stuck() -> bool:
                query = "SELECT 1 FROM pg_locks WHERE pid = ANY ($1::int[]) AND NOT granted"
                return bool(await place.site.rows(query, await place.holders()))

            await eventually(stuck)
            assert await place.database.fetch("SELECT 1 FROM message HAVING count(*) = 2")
        await eventually(place.folded)
        assert await place.site.rows("SELECT count(*) FROM message") == [(1,)]


async def _send_projector_away(live: Live, partition: str, then: str, *args: object) -> None:
    """In one moment, so that whoever comes next meets the tables as `then` leaves them."""
    async with live.parts.database.connection() as db, db.transaction():
        await db.execute("LOCK TABLE folded IN ACCESS EXCLUSIVE MODE")
        await db.execute(then, *args)
        await db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted "
            "AND classid::bigint << 32 | objid::bigint = $1",
            lock_key(partition),
        )


async def test_over_the_real_log_what_is_folded_again_is_the_same(live_site: Live) -> None:
    person = await lived_in(live_site)
    before = await dump(live_site)
    partition = mail(live_site.parts.config.site)
    after = [row[1] for row in before["digest_at"] if row[0] == partition][0]
    assert (await live_site.parts.tables.mend(AskMend(partition, after))).why == ""

    async def is_there() -> bool:
        return (await dump(live_site))["folded"] == before["folded"]

    await eventually(is_there, 30.0)
    found = await dump(live_site)
    assert set(found.pop("content")) >= set(before["content"])
    assert found == {name: rows for name, rows in before.items() if name != "content"}
    assert (await append(live_site, person, MESSAGE)).uids


async def test_what_is_too_far_back_is_made_anew(live_site: Live) -> None:
    person = await lived_in(live_site)
    partition = mail(live_site.parts.config.site)
    oid, hub = await tables_oid(live_site), live_site.parts.hub
    last = await live_site.parts.log.mark(partition)
    await live_site.parts.log.start_epoch(partition, ended_clean=True)
    assert await hub.reached(partition, await live_site.parts.log.mark(partition), 10.0)
    with hub.watch(person.id, None) as watch:
        await _send_projector_away(
            live_site,
            partition,
            "WITH gone AS (DELETE FROM digest_at WHERE partition = $1) "
            "UPDATE folded SET position = $2 WHERE partition = $1",
            partition,
            last + 100,
        )

        async def anew() -> bool:
            return await tables_oid(live_site) != oid

        await eventually(anew, 60.0)
        assert await watch.wait(10.0) and watch.rolled_back
    assert (await append(live_site, person, MESSAGE)).uids
