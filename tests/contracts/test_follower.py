"""The follower: it comes back when the database does, one works at a time, and contents outlive what a disk forgets."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster import codec
from cluster.domain.actor import Actor
from cluster.domain.mailbox import events as m
from cluster.domain.mailbox.content import Content, Segment
from cluster.log.memory import MemoryLog
from cluster.log.model import CHUNK_BYTES_MAX, Append, Blob, NewEvent, Record, Stored
from cluster.position import Position
from node.config import Config
from storage.blobs.disk import DiskBlobs
from storage.follower import Follower
from storage.postgres.pool import Database
from tests.laws.tables_of_law import Site, site_tables
from tests.live import eventually

ANNA, INBOX = 7, 70
SOON_S, NEVER_S = 0.02, 3600.0
CREATED = m.MailboxesCreated((m.Made(INBOX, "INBOX"),))


class HeldLog(MemoryLog):
    """A log whose followers wait while `flowing` is cleared; it notes how far contents were let go."""

    def __init__(self) -> None:
        super().__init__()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.let_go: list[int] = []
        self.others_have = 1 << 62

    async def follow(
        self, partition: str, after: Position, *, contents: bool = True, standing: int = 0
    ) -> AsyncIterator[tuple[Record, ...]]:
        async for records in super().follow(partition, after, contents=contents, standing=standing):
            await self.flowing.wait()
            yield records

    async def drop_contents(self, partition: str, upto: Position) -> Position:
        self.let_go.append(upto)
        gone = Position(min(upto, self.others_have))
        return await super().drop_contents(partition, gone)


class Place:
    """A log, a site's tables and a folder of blobs; followers are started and ended at will."""

    def __init__(self, site: Site, database: Database, folder: Path) -> None:
        self.site = site
        self.database = database
        self.folder = folder
        self.log = HeldLog()
        self.partition = f"p{os.urandom(6).hex()}"
        self.last = 0
        self.appended = 0

    @asynccontextmanager
    async def follower(self, keep_every_s: float = NEVER_S) -> AsyncIterator[DiskBlobs]:
        """As a process of its own would: it knows of the blobs what is on disk."""
        blobs = DiskBlobs(self.folder)
        follower = Follower(self.partition, self.log, self.database, blobs, keep_every_s=keep_every_s)
        task = asyncio.create_task(follower.run())
        try:
            yield blobs
        finally:
            task.cancel()
            await asyncio.wait([task])
            await blobs.close()

    async def put(self, event: Any, *contents: Blob) -> None:
        command = os.urandom(16)
        payload = codec.encode(event, at_us=1_700_000_000_000_000, by=Actor("test"), command=command)
        new = NewEvent("mailbox", str(ANNA), payload)
        uploaded: tuple[bytes, ...] = ()
        if any(len(blob.data) > CHUNK_BYTES_MAX for blob in contents):
            uploaded, contents = await self.log.upload(self.partition, str(ANNA), _each(contents)), ()
        stored = await self.log.append(Append(self.partition, command, (new,), (), 0, tuple(contents), uploaded))
        assert isinstance(stored, Stored)
        self.last = stored.last

    async def append(self, data: bytes) -> bytes:
        """A message of these bytes; its hash."""
        hash = hashlib.sha256(data).digest()
        content = Content(hash, len(data), (Segment(hash, len(data)),), b"d")
        await self.put(m.MessageAppended(INBOX, content, 0), Blob(hash, data))
        self.appended += 1
        return hash

    async def folded(self) -> bool:
        return await self.site.rows("SELECT position FROM folded") == [(self.last,)]

    async def messages(self) -> int:
        """How many there are; counters, rows and events agree."""
        rows = await self.site.rows(
            "SELECT b.messages, b.uidnext - 1, (SELECT count(*) FROM message), (SELECT count(*) FROM flag), "
            "(SELECT events FROM folded) - 1 FROM mailbox b"
        )
        assert len(set(rows[0])) == 1, rows
        return int(rows[0][0])

    async def contents(self) -> int:
        """Content messages in the log."""
        end = Position(1 << 62)
        batches = [batch async for batch in self.log.read(self.partition, 0, end, contents=True)]
        return sum(not record.noun for batch in batches for record in batch)

    async def kept(self) -> int:
        rows = await self.site.rows("SELECT position FROM blobs_kept WHERE partition = $1", self.partition)
        return int(rows[0][0]) if rows else 0

    async def holders(self) -> list[int]:
        """Processes of the database that hold this partition's lock."""
        key = hashlib.sha256(b"projector/" + self.partition.encode()).digest()
        halves = int.from_bytes(key[:4], "big"), int.from_bytes(key[4:8], "big")
        query = (
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted "
            "AND classid::bigint = $1 AND objid::bigint = $2"
        )
        return [pid for (pid,) in await self.site.rows(query, *halves)]

    async def stuck(self) -> bool:
        """Whether the one who works waits for a table."""
        query = "SELECT 1 FROM pg_locks WHERE pid = ANY ($1::int[]) AND NOT granted AND locktype = 'relation'"
        return bool(await self.site.rows(query, await self.holders()))

    async def cut(self) -> None:
        """Ends the connection of the one who works."""
        holders = await self.holders()
        assert len(holders) == 1
        await self.site.db.fetchval("SELECT pg_terminate_backend($1, 5000)", holders[0])


async def _each(blobs: tuple[Blob, ...]) -> AsyncIterator[Blob]:
    for blob in blobs:
        yield blob


@pytest.fixture
async def place(engines: Config, tmp_path: Path) -> AsyncIterator[Place]:
    async with site_tables(engines.database_url, "follower") as site:
        database = Database(engines.database_url, schema="follower")
        await database.start()
        made = Place(site, database, tmp_path / "blobs")
        await made.put(CREATED)
        yield made
        await database.stop()


async def test_a_cut_connection_in_the_middle_of_a_batch_doubles_nothing(place: Place) -> None:
    async with place.follower():
        await place.append(b"one")
        await eventually(place.folded)
        async with place.site.db.transaction():
            await place.site.db.execute("LOCK TABLE mailbox IN ACCESS EXCLUSIVE MODE")
            await place.append(b"two")
            await place.append(b"three")
            await eventually(place.stuck)
            await place.cut()
        await eventually(place.folded)
        assert await place.messages() == 3
        # While nothing is to be done, too.
        await place.cut()
        await place.append(b"four")
        await eventually(place.folded)
        assert await place.messages() == 4


async def test_who_has_nothing_to_do_notices_that_the_database_is_gone(place: Place) -> None:
    """What a crash of the database took is folded again at once, and not when the next event comes."""

    async def works() -> bool:
        return bool(await place.holders())

    async with place.follower():
        await place.append(b"one")
        await eventually(place.folded)
        await place.cut()
        await eventually(works)
        assert await place.messages() == 1


async def test_one_works_and_another_takes_over(place: Place) -> None:
    async with place.follower():
        await eventually(place.folded)
        first = await place.holders()
        async with place.follower():
            await place.append(b"one")
            await eventually(place.folded)
            assert await place.holders() == first and await place.messages() == 1
            await place.cut()
            await place.append(b"two")
            await eventually(place.folded)
            second = await place.holders()
            assert len(second) == 1 and second != first
    async with place.follower():
        await place.append(b"three")
        await eventually(place.folded)
        assert await place.messages() == 3 and len(await place.holders()) == 1


async def test_the_next_in_line_works_when_the_first_ends(place: Place) -> None:
    async with place.follower():
        await eventually(place.folded)
        waiting = place.follower()
        await waiting.__aenter__()
    await place.append(b"one")
    await eventually(place.folded)
    assert await place.messages() == 1
    await waiting.__aexit__(None, None, None)


@pytest.mark.parametrize("size", [100, 3 * CHUNK_BYTES_MAX + 5])
async def test_a_blob_is_there_before_the_event_that_names_it_shows(place: Place, size: int) -> None:
    data = b"x" * size
    async with place.follower() as blobs:
        await eventually(place.folded)
        async with place.site.db.transaction():
            await place.site.db.execute("LOCK TABLE mailbox IN ACCESS EXCLUSIVE MODE")
            hash = await place.append(data)
            await eventually(place.stuck)
            assert await blobs.get(hash) == data and not await place.folded()
        await eventually(place.folded)


async def test_contents_leave_the_log_when_they_are_kept(place: Place) -> None:
    async with place.follower(SOON_S) as blobs:
        small, large = b"one", b"y" * (2 * CHUNK_BYTES_MAX)
        hashes = [await place.append(small), await place.append(large)]

        async def gone() -> bool:
            return await place.contents() == 0

        await eventually(gone)
        assert await place.kept() >= place.last - 1
        assert await blobs.get_many(hashes) == [small, large]
    # What is kept does not come again, and the events are all there.
    assert await place.messages() == 2


async def test_contents_leave_the_log_when_a_copy_has_them_at_last_though_nothing_new_comes(place: Place) -> None:
    place.log.others_have = 0
    async with place.follower(SOON_S):
        await place.append(b"one")

        async def asked_twice() -> bool:
            return place.log.let_go[-2:] == [place.last, place.last]

        async def gone() -> bool:
            return await place.contents() == 0

        await eventually(asked_twice)
        assert not await gone()
        place.log.others_have = place.last
        await eventually(gone)


async def test_blobs_that_were_lost_before_they_were_kept_come_again(place: Place) -> None:
    async with place.follower(SOON_S):
        await place.append(b"kept")

        async def is_kept() -> bool:
            return await place.kept() == place.last

        await eventually(is_kept)
    async with place.follower(NEVER_S) as blobs:
        lost = await place.append(b"not yet on disk when the power went")
        await eventually(place.folded)
        # The tables have the event, the disk did not have the blob.
        assert await blobs.delete(lost)
    place.log.flowing.clear()
    place.log.let_go.clear()
    async with place.follower(SOON_S) as blobs:

        async def asked() -> bool:
            return bool(place.log.let_go)

        # A restart confirms no more than it met again: the contents have still to come.
        await eventually(asked)
        assert await place.contents() == 1 and await blobs.missing([lost]) == [lost]
        place.log.flowing.set()

        async def is_mended() -> bool:
            return await blobs.missing([lost]) == []

        await eventually(is_mended)
        await eventually(is_kept)
    assert await place.messages() == 2 and await place.contents() == 0
