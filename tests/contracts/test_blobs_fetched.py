"""Blobs that come from another site by their hash, over a real engine: sites are processes with stores of their own."""

import asyncio
import hashlib
import os
import shutil
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cluster import codec
from cluster.domain.actor import Actor
from cluster.domain.mailbox import events as m
from cluster.domain.mailbox.content import Content, Segment
from cluster.log import blobs as wire
from cluster.log.blobs import SMALL_BYTES_MAX, SMALL_MAX, NoAnswer, NotThere, Peers, Piece, SmallSource, Source
from cluster.log.connection import Connection
from cluster.log.memory import MemoryLog
from cluster.log.model import Append, Blob, NewEvent, Stored
from node.config import Config
from storage.blobs import BlobMissing
from storage.blobs.disk import DiskBlobs
from storage.blobs.peers import Fetcher, OnDemand, Outcome, small_source, source
from storage.follower import Follower
from storage.postgres.pool import Database
from storage.postgres.wanted import Counts, counts
from storage.wanted import WantedContent
from storage.window import Windows
from tests.contracts.engines import PASSWORD, USER, NatsServer
from tests.laws.tables_of_law import Site, site_tables
from tests.live import eventually

SOON_S = 0.02
ANNA = 7
LARGE_BYTES = 20 << 20


class Engine:
    """One engine for all sites: between them leaf links carry the same subjects."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder

    def store(self, site: str) -> DiskBlobs:
        return DiskBlobs(self.folder / site)

    @asynccontextmanager
    async def peers(self, site: str) -> AsyncIterator[Peers]:
        connection = Connection(self.url, USER, PASSWORD, name=site)
        await connection.start()
        try:
            yield Peers(connection, site)
        finally:
            await connection.stop()

    @asynccontextmanager
    async def serving(self, site: str, answers: Source, small: SmallSource | None = None) -> AsyncIterator[None]:
        async with self.peers(site) as peers:
            task = asyncio.create_task(peers.serve(answers, small or nothing_small))
            try:
                await eventually(lambda: _listens(peers, site))
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])

    @asynccontextmanager
    async def fetcher(self, *others: str, site: str = "here") -> AsyncIterator[Fetcher]:
        async with self.peers(site) as peers:
            made = Fetcher(self.store(site), peers, others)
            yield made
            await made.close()
            await made.blobs.close()


async def _listens(peers: Peers, site: str) -> bool:
    try:
        async for _ in peers.pieces(site, b"nobody has it"):
            pass
    except NotThere:
        return True
    except NoAnswer as error:
        return "no process" not in str(error)
    return True


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    server = NatsServer(tmp_path)
    server.start()
    yield Engine(server.url, tmp_path / "stores")
    server.stop()


def blob(size: int) -> Blob:
    data = os.urandom(size)
    return Blob(hashlib.sha256(data).digest(), data)


async def nothing_small(hashes: Sequence[bytes]) -> list[bytes | None]:
    return [None] * len(hashes)


async def absent(_hash: bytes, _start: int) -> Piece | None:
    return None


async def never(_hash: bytes, _start: int) -> Piece | None:
    await asyncio.Event().wait()
    return None


def lying(data: bytes) -> Source:
    async def answers(_hash: bytes, start: int) -> Piece:
        return Piece(len(data), data[start : start + wire.PIECE_BYTES_MAX])

    return answers


@pytest.mark.parametrize("size", [0, 1, 3_000, wire.PIECE_BYTES_MAX, 3 * wire.PIECE_BYTES_MAX + 1])
async def test_a_missing_blob_comes_from_another_site(engine: Engine, size: int) -> None:
    theirs, wanted = engine.store("there"), blob(size)
    await theirs.put([wanted])
    async with engine.serving("there", source(theirs)), engine.fetcher("there") as fetcher:
        assert await fetcher.fetch(wanted.hash, size) is Outcome.HERE
        assert await fetcher.blobs.get(wanted.hash) == wanted.data
        assert await fetcher.fetch(blob(7).hash) is Outcome.NOWHERE
        assert (fetcher.fetched, fetcher.fetched_bytes) == (1, size)
    await theirs.close()


async def test_one_process_of_a_site_answers(engine: Engine) -> None:
    theirs, wanted, asked = engine.store("there"), blob(100), []
    await theirs.put([wanted])
    give = source(theirs)

    async def noted(hash: bytes, start: int) -> Piece | None:
        asked.append(hash)
        return await give(hash, start)

    async with (
        engine.serving("there", noted),
        engine.serving("there", noted),
        engine.fetcher("there") as fetcher,
    ):
        asked.clear()
        assert await fetcher.fetch(wanted.hash) is Outcome.HERE
        assert asked == [wanted.hash]
    await theirs.close()


@pytest.mark.parametrize("size_known", [True, False])
async def test_what_belies_its_name_is_refused_and_the_next_site_is_asked(engine: Engine, size_known: bool) -> None:
    theirs, wanted = engine.store("true"), blob(700_000)
    await theirs.put([wanted])
    false = bytearray(wanted.data)
    false[600_000] ^= 1
    size = len(wanted.data) if size_known else None
    async with engine.serving("false", lying(bytes(false))), engine.serving("true", source(theirs)):
        async with engine.fetcher("false") as fetcher:
            assert await fetcher.fetch(wanted.hash, size) is Outcome.NOWHERE
            assert await fetcher.blobs.missing([wanted.hash]) == [wanted.hash]
        async with engine.fetcher("false", "true") as fetcher:
            assert await fetcher.fetch(wanted.hash, size) is Outcome.HERE
            assert await fetcher.blobs.get(wanted.hash) == wanted.data
    assert not list((engine.folder / "here" / "tmp").iterdir()), "of what was refused nothing is left"
    await theirs.close()


async def test_a_blob_of_another_size_than_the_event_names_is_not_taken(engine: Engine) -> None:
    async with engine.serving("there", lying(bytes(5_000))), engine.fetcher("there") as fetcher:
        assert await fetcher.fetch(hashlib.sha256(bytes(5_000)).digest(), 4_999) is Outcome.UNANSWERED
        assert fetcher.fetched_bytes == 0


async def test_who_is_slow_is_not_waited_for_and_is_asked_last(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "ASK_S_MAX", 0.2)
    theirs, wanted, other = engine.store("quick"), blob(100), blob(200)
    await theirs.put([wanted, other])
    async with engine.serving("slow", never), engine.serving("quick", source(theirs)):
        async with engine.fetcher("slow", "quick") as fetcher:
            assert await fetcher.fetch(wanted.hash) is Outcome.HERE
            monkeypatch.setattr(wire, "ASK_S_MAX", 600.0)
            async with asyncio.timeout(30):
                assert await fetcher.fetch(other.hash) is Outcome.HERE
    await theirs.close()


async def test_nobody_waits_for_ever(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = blob(100)
    segment = Segment(wanted.hash, 100)
    async with engine.serving("slow", never), engine.fetcher("slow") as fetcher:
        reader = OnDemand(fetcher, wait_s=0.2)
        async with asyncio.timeout(30):
            assert await reader.get_many([wanted.hash]) == [None]
            with pytest.raises(BlobMissing):
                await _read(reader, [segment])
    monkeypatch.setattr(wire, "PIECE_S_MAX", 0.2)
    async with engine.serving("full", _refusing), engine.fetcher("full", "gone") as fetcher:
        assert await fetcher.fetch(wanted.hash) is Outcome.UNANSWERED


async def _refusing(_hash: bytes, _start: int) -> Piece | None:
    raise OSError("the disk does not answer")


async def test_more_questions_than_a_process_answers_at_once(engine: Engine) -> None:
    theirs, wanted = engine.store("there"), [blob(2_000 + number) for number in range(3 * wire.ANSWERS_MAX)]
    await theirs.put(wanted)
    under_way = most = 0
    give = source(theirs)

    async def counted(hash: bytes, start: int) -> Piece | None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await give(hash, start)
        finally:
            under_way -= 1

    async with engine.serving("there", counted), engine.fetcher("there") as fetcher:
        reader = OnDemand(fetcher)
        assert await reader.get_many([each.hash for each in wanted]) == [each.data for each in wanted]
    assert 1 < most <= wire.ANSWERS_MAX
    await theirs.close()


async def test_a_large_blob_passes_in_bounded_memory(engine: Engine) -> None:
    """Both sides, the client's buffers of both and the store's are in this process."""
    theirs, wanted = engine.store("there"), blob(LARGE_BYTES)
    await theirs.put([wanted])
    async with engine.serving("there", source(theirs)), engine.fetcher("there") as fetcher:
        tracemalloc.start()
        try:
            assert await fetcher.fetch(wanted.hash, LARGE_BYTES) is Outcome.HERE
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        await fetcher.blobs.verify(wanted.hash)
    print(f"\n{LARGE_BYTES >> 20} MiB from site to site took {peak / (1 << 20):.1f} MiB of memory at most")
    assert peak < LARGE_BYTES / 2
    await theirs.close()


async def test_a_read_fetches_what_is_missing_or_torn_and_keeps_it(engine: Engine) -> None:
    theirs = engine.store("there")
    parts = [blob(size) for size in (1_000, 300_000, 5, 2_000_000)]
    await theirs.put(parts)
    segments = [Segment(part.hash, len(part.data)) for part in parts]
    whole = b"".join(part.data for part in parts)
    async with engine.serving("there", source(theirs)), engine.fetcher("there") as fetcher:
        reader = OnDemand(fetcher)
        await fetcher.blobs.put(parts[:1])
        assert await _read(reader, segments[1:2], 7, 100_000) == parts[1].data[7:100_000]
        assert fetcher.fetched == 1, "only what was asked for"
        assert await _read(reader, segments) == whole
        assert fetcher.fetched == 3
        # A file whose bytes changed under us.
        name = parts[1].hash.hex()
        file = engine.folder / "here" / name[:2] / name[2:4] / name
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        assert await _read(reader, segments, 500) == whole[500:]
        assert await reader.get_many([part.hash for part in parts]) == [part.data for part in parts]
        with pytest.raises(BlobMissing):
            await _read(reader, [*segments, Segment(blob(9).hash, 9)])
    await theirs.close()


async def test_small_blobs_come_many_in_one_answer_and_none_that_belies_its_name(engine: Engine) -> None:
    theirs, others = engine.store("there"), engine.store("elsewhere")
    blobs = [blob(size) for size in (0, 1, *[20_000] * 90, SMALL_BYTES_MAX)]
    large = blob(SMALL_BYTES_MAX + 1)
    await theirs.put([*blobs[1:50], large])
    await others.put(blobs[40:])
    asked: list[int] = []
    gives = small_source(theirs)

    async def counted(hashes: Sequence[bytes]) -> list[bytes | None]:
        asked.append(len(hashes))
        given = list(await gives(hashes))
        return [b"belies its name" if data == blobs[3].data else data for data in given]

    async with (
        engine.serving("there", source(theirs), counted),
        engine.serving("elsewhere", source(others), small_source(others)),
        engine.fetcher("there", "elsewhere") as fetcher,
    ):
        wanted = [Segment(each.hash, len(each.data)) for each in (*blobs, large)]
        came = await fetcher.fetch_small(wanted)
        assert came == {each.hash for each in blobs} - {blobs[0].hash, blobs[3].hash}
        assert await fetcher.blobs.get_many([each.hash for each in blobs[4:]]) == [each.data for each in blobs[4:]]
        assert await fetcher.blobs.missing([large.hash]) == [large.hash], "that one comes alone, in pieces"
        assert max(asked) <= SMALL_MAX and len(asked) < 8, "many in one answer"
        assert fetcher.fetched == len(came)
    await theirs.close()
    await others.close()


async def _read(reader: OnDemand, segments: list[Segment], start: int = 0, end: int | None = None) -> bytes:
    return b"".join([piece async for piece in reader.read(segments, start, end)])


class Place:
    """A site whose log no longer has what its events name."""

    def __init__(self, engine: Engine, site: Site, database: Database, *, account: int = ANNA) -> None:
        self.engine = engine
        self.site = site
        self.database = database
        self.account = account
        self.mailbox = account * 10
        self.log = MemoryLog()
        self.partition = f"p{os.urandom(6).hex()}"

    async def append(self, event: object, *contents: Blob, at_s: int = 1_700_000_000) -> int:
        command = os.urandom(16)
        payload = codec.encode(event, at_us=at_s * 1_000_000, by=Actor("test"), command=command)  # type: ignore[arg-type]
        new = NewEvent("mailbox", str(self.account), payload)
        stored = await self.log.append(Append(self.partition, command, (new,), (), 0, contents))
        assert isinstance(stored, Stored)
        return stored.last

    async def opened(self) -> None:
        await self.append(m.MailboxesCreated((m.Made(self.mailbox, "INBOX"),)))

    async def message(self, *parts: Blob, there: bool = False, at_s: int = 1_700_000_000) -> int:
        """`there`: the log has its content."""
        segments = tuple(Segment(part.hash, len(part.data)) for part in parts)
        data = b"".join(part.data for part in parts)
        content = Content(hashlib.sha256(data).digest(), len(data), segments, b"d")
        return await self.append(m.MessageAppended(self.mailbox, content, 0), *(parts if there else ()), at_s=at_s)

    @asynccontextmanager
    async def follower(
        self, fetcher: Fetcher, *, lost_after_s: float = 3600.0, windows: Windows | None = None
    ) -> AsyncIterator[None]:
        wanted = WantedContent(
            self.partition,
            self.database,
            fetcher.blobs,
            fetcher,
            windows=windows,
            retry_first_s=SOON_S,
            lost_after_s=lost_after_s,
        )
        follower = Follower(self.partition, self.log, self.database, fetcher.blobs, wanted=wanted, keep_every_s=SOON_S)
        task = asyncio.create_task(follower.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def wanted(self) -> list[tuple[bytes, int, bool]]:
        rows = await self.site.rows(
            "SELECT hash, tries, lost FROM wanted_blob WHERE partition = $1 ORDER BY position", self.partition
        )
        return [(row[0], row[1], row[2]) for row in rows]

    async def kept(self) -> int:
        rows = await self.site.rows("SELECT position FROM blobs_kept WHERE partition = $1", self.partition)
        return int(rows[0][0]) if rows else 0

    async def folded(self) -> int:
        rows = await self.site.rows("SELECT position FROM folded WHERE partition = $1", self.partition)
        return int(rows[0][0]) if rows else 0


@pytest.fixture
async def place(engine: Engine, engines: Config) -> AsyncIterator[Place]:
    async with site_tables(engines.database_url, "fetched") as site:
        database = Database(engines.database_url, schema="fetched")
        await database.start()
        made = Place(engine, site, database)
        await made.opened()
        yield made
        await site.db.execute("DELETE FROM wanted_blob WHERE partition = $1", made.partition)
        await database.stop()


async def test_what_events_name_is_fetched_and_then_confirmed(place: Place) -> None:
    theirs, parts = place.engine.store("there"), [blob(50_000 + number) for number in range(100)]
    await theirs.put(parts)
    for part in parts:
        last = await place.message(part)
    async with place.engine.fetcher("there") as fetcher, place.follower(fetcher):

        async def asked() -> bool:
            wanted = await place.wanted()
            return len(wanted) == len(parts) and max(tries for _, tries, _ in wanted) > 1

        await eventually(asked)
        assert await place.folded() == last, "mail is shown before its content is here"
        assert (await counts(place.database)).wanted == len(parts)

        async def all_kept() -> bool:
            return await place.kept() == last

        async with place.engine.serving("there", source(theirs)):
            await eventually(all_kept)
            assert await fetcher.blobs.get_many([part.hash for part in parts]) == [part.data for part in parts]
            assert await place.wanted() == []
    await theirs.close()


async def test_nothing_is_confirmed_beyond_what_nobody_has(place: Place) -> None:
    """Over a restart, too; what comes after it is shown and kept on disk."""
    before = await place.message(blob(100), there=True)
    lacking = blob(200)
    await place.message(lacking)
    async with place.engine.serving("there", absent):
        for _ in range(2):
            after = blob(300)
            last = await place.message(after, there=True)
            async with place.engine.fetcher("there") as fetcher, place.follower(fetcher):

                async def denied(last: int = last) -> bool:
                    return await place.folded() == last and any(tries > 4 for _, tries, _ in await place.wanted())

                async def kept_before() -> bool:
                    return await place.kept() >= before

                await eventually(denied)
                await eventually(kept_before)
                assert await place.kept() == before
                assert [(hash, lost) for hash, _, lost in await place.wanted()] == [(lacking.hash, False)]
                assert await fetcher.blobs.get(after.hash) == after.data
                left = [batch async for batch in place.log.read(place.partition, 0, 1 << 62, contents=True)]
                assert after.hash in {record.hash for batch in left for record in batch if not record.noun}


async def test_what_every_site_denies_for_long_is_lost_and_holds_up_nobody(place: Place) -> None:
    lacking = blob(200)
    last = await place.message(lacking)
    async with place.engine.fetcher("there") as fetcher, place.follower(fetcher, lost_after_s=SOON_S):

        async def tried() -> bool:
            return any(tries > 3 for _, tries, _ in await place.wanted())

        await eventually(tried)
        assert [lost for *_, lost in await place.wanted()] == [False], "who does not answer denies nothing"

        async def kept() -> bool:
            return await place.kept() == last

        theirs = place.engine.store("there")
        async with place.engine.serving("there", source(theirs)):
            await eventually(kept)
            assert [(hash, lost) for hash, _, lost in await place.wanted()] == [(lacking.hash, True)]
            assert await counts(place.database) == Counts(1, 1)
            # It is asked for on and on: a disk may come back from its repair.
            await theirs.put([lacking])

            async def found() -> bool:
                return await place.wanted() == []

            await eventually(found)
            assert await fetcher.blobs.get(lacking.hash) == lacking.data
        await theirs.close()


async def test_a_store_that_was_emptied_is_filled_again(place: Place) -> None:
    """The tables are whole, and the log dropped the content of old messages: only other sites have it."""
    theirs, parts = place.engine.store("there"), [blob(1_000 + number) for number in range(20)]
    await theirs.put(parts)

    async def all_kept() -> bool:
        return await place.kept() == last

    async with place.engine.fetcher("there") as fetcher, place.follower(fetcher):
        for part in parts:
            last = await place.message(part, there=True)
        await eventually(all_kept)
    shutil.rmtree(place.engine.folder / "here")
    async with place.engine.serving("there", source(theirs)):
        async with place.engine.fetcher("there") as fetcher, place.follower(fetcher):

            async def filled() -> bool:
                return await fetcher.blobs.missing([part.hash for part in parts]) == []

            await eventually(filled)
            await eventually(all_kept)
            assert fetcher.fetched == len(parts) and await place.wanted() == []
        async with place.engine.fetcher("there") as fetcher, place.follower(fetcher):
            last = await place.message(blob(3), there=True)
            await eventually(all_kept)
            assert fetcher.fetched == 0
    rows = await place.site.rows("SELECT messages FROM mailbox")
    assert rows[0][0] == len(parts) + 1
    await theirs.close()


async def test_processes_that_share_a_folder_find_one_name(tmp_path: Path) -> None:
    made = await asyncio.gather(*(asyncio.to_thread(DiskBlobs, tmp_path / "blobs") for _ in range(8)))
    assert len({blobs.name for blobs in made}) == 1 and made[0].name
    assert DiskBlobs(tmp_path / "others").name != made[0].name
    kept = {file.name for file in (tmp_path / "blobs").rglob("*") if file.is_file()}
    assert kept - {"small.sqlite-wal", "small.sqlite-shm"} == {"store", "small.sqlite", "small.made"}
