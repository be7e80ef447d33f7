"""Sites compare their tables and logs: what differs is named by its first event, and mended."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from cluster import codec
from cluster.domain.actor import Actor
from cluster.domain.mailbox import events as m
from cluster.domain.mailbox.content import Content
from cluster.log.connection import Connection
from cluster.log.digests import Digests, NoAnswer
from cluster.log.model import LogUnavailable, Record
from cluster.position import position
from node.config import Config
from storage.agreement import Tables, Watchman
from storage.inspection import Finding, Inspection, Place
from storage.overview import Progress
from storage.postgres.compared import Agreement, read_agreements
from storage.postgres.pool import Database
from storage.projector import Fold
from tests.contracts.engines import PASSWORD, USER, NatsServer
from tests.contracts.test_projector import Stumbling
from tests.laws.tables_of_law import Site, folded, site_tables
from tests.laws.test_rollback import Kept
from tests.live import eventually

PARTITION, NORTH, SOUTH = "agreed", "north", "south"
ANNA, INBOX = 7, 70
EVENTS = 600


def story() -> list[Record]:
    content = Content(b"c" * 32, 5, (), b"d")
    events: list[Any] = [m.MailboxesCreated((m.Made(INBOX, "INBOX"),))]
    events += [m.MessageAppended(INBOX, content, n) for n in range(EVENTS - 2)]
    events.insert(400, m.Subscribed("a", True))
    return [record(n, event) for n, event in enumerate(events, 1)]


def record(n: int, event: Any) -> Record:
    payload = codec.encode(event, at_us=1_700_000_000_000_000, by=Actor("test"), command=n.to_bytes(16, "big"))
    return Record(position(1, n), "mailbox", str(ANNA), payload)


class Side:
    """A site: its tables, its log, and how the log is copied once more from the home."""

    def __init__(self, name: str, site: Site, database: Database, records: list[Record]) -> None:
        self.name = name
        self.site = site
        self.log = Kept(list(records))
        self.home: Side | None = None
        self.tables = Tables(database, self.log, self)

    async def fold(self, *cuts: int, upto: int = EVENTS, release: type[Stumbling] | None = None) -> None:
        fold = Fold(self.site.db, PARTITION)
        if release is not None:
            fold.mail = release(PARTITION)
        await fold.start()
        await folded(fold, self.log.records[:upto], cuts)

    def flip(self, n: int) -> None:
        """One bit of what lies in the log."""
        records = list(self.log.records)
        payload = bytearray(records[n].payload)
        payload[-1] ^= 1
        records[n] = msgspec.structs.replace(records[n], payload=bytes(payload))
        self.log.records = records

    async def recopy(self, partition: str, epoch: int) -> None:
        if self.home is None:
            raise LogUnavailable("it is at home here")
        self.log.records = list(self.home.log.records)

    async def whole(self, partition: str) -> int:
        return self.log.records[-1].position


class Links(Digests):
    """Questions go over the engine, events are read where they lie."""

    def __init__(self, connection: Connection, site: str, sides: dict[str, Side]) -> None:
        super().__init__(connection, site)
        self._sides = sides

    async def events(self, site: str, partition: str, after: int, upto: int) -> AsyncIterator[Record]:
        async for records in self._sides[site].log.read(partition, after, upto):
            for one in records:
                yield one


class Sites:
    def __init__(self, sides: dict[str, Side], links: dict[str, Links], database: Database) -> None:
        self.sides = sides
        self.north, self.south = sides[NORTH], sides[SOUTH]
        self.links = links
        self.database = database

    async def verify(self, site: str = NORTH, *, deep: bool = False, heal: bool = False) -> list[Finding]:
        place = Place(NORTH, (NORTH, SOUTH))
        inspection = Inspection(self.sides[site].tables, self.links[site], {PARTITION: place})
        with capture_logs():
            steps = [step async for step in inspection.verify(deep=deep, heal=heal)]
        last = steps.pop()
        assert isinstance(last, Progress) and last.done == last.total
        return [step for step in steps if isinstance(step, Finding)]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def sites(engine: NatsServer, engines: Config) -> AsyncIterator[Sites]:
    records = story()
    sides: dict[str, Side] = {}
    links: dict[str, Links] = {}
    async with AsyncExitStack() as stack:
        for name in (NORTH, SOUTH):
            site = await stack.enter_async_context(site_tables(engines.database_url, f"agree_{name}"))
            database = Database(engines.database_url, schema=f"agree_{name}")
            await database.start()
            stack.push_async_callback(database.stop)
            sides[name] = Side(name, site, database, records)
            connection = Connection(engine.url, USER, PASSWORD, name=name)
            await connection.start()
            stack.push_async_callback(connection.stop)
            links[name] = Links(connection, name, sides)
            task = asyncio.create_task(links[name].serve(sides[name].tables))
            stack.callback(task.cancel)

            async def answers(name: str = name) -> bool:
                try:
                    await links[name].standing(name, PARTITION, 0)
                except NoAnswer:
                    return False
                return True

            await eventually(answers)
        sides[SOUTH].home = sides[NORTH]
        yield Sites(sides, links, sides[NORTH].tables.database)
        await sides[NORTH].site.db.execute("DELETE FROM digest_compared WHERE partition = $1", PARTITION)


async def test_sites_that_folded_the_same_agree_however_it_was_cut(sites: Sites) -> None:
    await sites.north.fold()
    await sites.south.fold(1, 255, 256, 257, 400)
    last = position(1, EVENTS)
    assert await sites.verify() == [Finding(PARTITION, SOUTH, "equal", last)]
    assert await sites.verify(deep=True) == [
        Finding(PARTITION, NORTH, "equal", last), Finding(PARTITION, SOUTH, "equal", last)
    ]  # fmt: skip


async def test_who_has_not_come_so_far_is_behind_and_agrees_up_to_there(sites: Sites) -> None:
    await sites.north.fold()
    await sites.south.fold(upto=300)
    assert await sites.verify() == [Finding(PARTITION, SOUTH, "behind", position(1, 300))]
    # From the other side: as far as it has come itself.
    assert await sites.verify(SOUTH) == [Finding(PARTITION, NORTH, "equal", position(1, 256))]


async def test_tables_that_another_release_made_otherwise_are_named_and_folded_again(sites: Sites) -> None:
    await sites.north.fold()
    await sites.south.fold(release=Stumbling)
    (found,) = await sites.verify()
    assert (found.verdict, found.what, found.first) == ("differs", "tables", position(1, 401))
    assert found.upto == position(1, 256) and not found.healed
    (found,) = await sites.verify(heal=True)
    assert found.healed and found.why == ""
    assert await sites.verify() == [Finding(PARTITION, SOUTH, "equal", position(1, 256))]
    # Both were taken back to there, and go on from the log.
    for side in sites.sides.values():
        await side.fold()
    assert await sites.verify() == [Finding(PARTITION, SOUTH, "equal", position(1, EVENTS))]
    assert await sites.north.site.dump() == await sites.south.site.dump()


async def test_a_copy_whose_log_differs_is_copied_once_more(sites: Sites) -> None:
    await sites.north.fold()
    sites.south.flip(300)
    await sites.south.fold()
    (found,) = await sites.verify()
    assert (found.verdict, found.what, found.first) == ("differs", "log", position(1, 301))
    (found,) = await sites.verify(SOUTH, heal=True)
    assert found.healed, found
    await sites.south.fold()
    assert await sites.verify() == [Finding(PARTITION, SOUTH, "equal", position(1, EVENTS))]


@pytest.mark.parametrize("seen_from", [NORTH, SOUTH])
async def test_a_bit_that_flipped_after_it_was_folded_is_found_and_mended(sites: Sites, seen_from: str) -> None:
    for side in sites.sides.values():
        await side.fold()
    sites.south.flip(450)
    assert [found.verdict for found in await sites.verify(seen_from)] == ["equal"]
    damaged = [found for found in await sites.verify(seen_from, deep=True) if found.verdict == "differs"]
    assert [(found.site, found.what, found.first) for found in damaged] == [(SOUTH, "disk", position(1, 451))]
    mended = [found for found in await sites.verify(seen_from, deep=True, heal=True) if found.healed]
    assert len(mended) == 1
    assert {found.verdict for found in await sites.verify(seen_from, deep=True)} == {"equal"}
    # The tables were right all the time.
    assert await sites.south.site.rows("SELECT position FROM folded") == [(position(1, EVENTS),)]


async def test_the_homes_own_log_is_not_thrown_away(sites: Sites) -> None:
    for side in sites.sides.values():
        await side.fold()
    sites.north.flip(10)
    found = {found.site: found for found in await sites.verify(deep=True, heal=True)}
    assert found[SOUTH].verdict == "equal"
    assert found[NORTH].what == "disk" and found[NORTH].first == position(1, 11) and not found[NORTH].healed
    assert "at home" in found[NORTH].why


async def test_an_event_that_one_log_lacks_is_named(sites: Sites) -> None:
    await sites.north.fold()
    sites.south.log.records = [*sites.south.log.records[:256], *sites.south.log.records[257:]]
    await sites.south.fold()
    (found,) = await sites.verify()
    assert (found.what, found.first) == ("log", position(1, 257))


async def test_who_does_not_answer_is_unknown(sites: Sites) -> None:
    await sites.north.fold()
    inspection = Inspection(sites.north.tables, sites.links[NORTH], {PARTITION: Place(NORTH, (NORTH, "nowhere"))})
    (found,) = [step async for step in inspection.verify() if isinstance(step, Finding)]
    assert found.verdict == "unknown" and "nowhere" in found.why


async def test_the_watchman_notes_what_he_sees(sites: Sites) -> None:
    await sites.north.fold()
    await sites.south.fold(upto=300)
    watchman = Watchman(sites.north.tables, sites.links[NORTH], lambda: {PARTITION: (SOUTH,)}, every_s=0.05)
    task = asyncio.create_task(watchman.run())

    async def agreed() -> bool:
        return await read_agreements(sites.database) == [Agreement(PARTITION, SOUTH, position(1, 300), None)]

    async def differs() -> bool:
        return [(one.agreed, one.differs) for one in await read_agreements(sites.database)] == [
            (position(1, 256), position(1, 512))
        ]

    try:
        await eventually(agreed)
        with capture_logs():
            await sites.south.fold(release=Stumbling)
        await eventually(differs)
    finally:
        task.cancel()
