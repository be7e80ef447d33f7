"""A site salvages what lies at it by itself, and an operator settles what could not be."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cluster.domain.actor import Actor
from cluster.domain.mailbox import events as m
from cluster.domain.refusal import Refusal
from cluster.position import SEQUENCE_MAX
from node.config import Config
from storage.news import Hub
from storage.postgres.pool import Database
from storage.postgres.salvage_view import SalvageView
from storage.projector import Fold
from storage.salvaging import NO_SUCH_REPORT, Reports, Salvaging
from tests.contracts.test_salvage import INBOX, LETTER, OTHER, Partition
from tests.laws.tables_of_law import Site, folded, site_tables
from tests.live import eventually
from tests.memory_site import MemoryWorld


@pytest.fixture
async def site(engines: Config) -> AsyncIterator[Site]:
    async with site_tables(engines.database_url, "salvaging") as made:
        yield made


@pytest.fixture
async def database(engines: Config, site: Site) -> AsyncIterator[Database]:
    made = Database(engines.database_url, schema=site.schema)
    await made.start()
    yield made
    await made.stop()


async def fold_all(site: Site, place: Partition) -> None:
    fold = Fold(site.db, "p")
    await fold.start()
    await folded(fold, [record for record in place.log.records() if record.noun], ())


async def test_a_tail_is_salvaged_by_one_process_and_its_report_settled_once(site: Site, database: Database) -> None:
    place = Partition(m.MailboxesCreated((m.Made(INBOX, "INBOX"),)))
    place.letter(LETTER)
    kept = place.end
    place.letter(OTHER)
    lost = place.tell(m.FlagsChanged(INBOX, ((1, 1),), m.FlagMode.ADD, m.FLAGGED))
    place.lose_after(kept)
    place.tell(m.MessagesExpunged(INBOX, ((1, 1),), only_deleted=False))
    await fold_all(site, place)
    world = MemoryWorld()
    both = [Salvaging("p", place.log, database, place.blobs, world) for _ in range(2)]
    await asyncio.gather(*(one.look() for one in both))
    assert len(place.reports()) == 1 and sum(isinstance(event, m.MessageAppended) for event in place.new()) == 1
    await fold_all(site, place)
    assert await both[0].look() and await both[1].look()

    view, hub = SalvageView(database), Hub(database)
    listening = asyncio.create_task(hub.run())
    assert await hub.reached("p", place.log.records()[-1].position, 10)
    (report,) = await view.reports()
    assert (report.partition, report.state, report.entity) == ("p", "open", "7") and lost
    reports = Reports(place.log, hub, database, world)
    operator = Actor("carla", 9, administrator=True)
    assert await reports.settle(operator, "p", report.position + 1, applied=True) is NO_SUCH_REPORT
    settled = asyncio.create_task(reports.settle(operator, "p", report.position, applied=True))

    async def is_told() -> bool:
        return isinstance(place.new()[-1], m.SalvageSettled)

    await eventually(is_told)
    await fold_all(site, place)
    async with asyncio.timeout(10):
        position = await settled
    assert position == place.log.records()[-1].position
    assert await view.reports() == []
    (after,) = await view.reports(only_open=False)
    assert after.state == "applied" and after._replace(state="open") == report
    assert await view.report("p", report.position) == after
    assert isinstance(await reports.settle(operator, "p", report.position, applied=False), Refusal)

    given_up = asyncio.create_task(reports.give_up(operator, "p", 1))

    async def is_given_up() -> bool:
        return isinstance(place.new()[-1], m.TailDestroyed)

    await eventually(is_given_up)
    await fold_all(site, place)
    async with asyncio.timeout(10):
        assert await given_up == place.log.records()[-1].position
    assert await view.salvaged("p") == {1: SEQUENCE_MAX}
    assert isinstance(await reports.give_up(operator, "p", 1), Refusal)
    listening.cancel()
