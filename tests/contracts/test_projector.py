"""The projector: a bad event stops nobody else, what this release cannot fold waits, digests tell sites apart."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from cluster import codec
from cluster.domain.actor import Actor
from cluster.domain.mailbox import events as m
from cluster.domain.mailbox.content import Content
from cluster.log.model import Record
from cluster.position import position
from node.config import Config
from storage.postgres.mail_fold import MailFold
from storage.postgres.pool import Connection
from storage.projector import Fold
from tests.laws.tables_of_law import Site, folded, site_tables

ANNA, BO = "7", "8"
INBOX_OF = {ANNA: 70, BO: 80}


class Log:
    """Facts in order, each a command of its own."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def put(self, entity: str, event: Any, *, noun: str = "mailbox") -> None:
        command = len(self.records).to_bytes(16, "big")
        payload = codec.encode(event, at_us=1_700_000_000_000_000, by=Actor("test"), command=command)
        self.put_bytes(entity, payload, noun=noun)

    def put_bytes(self, entity: str, payload: bytes, *, noun: str = "mailbox") -> None:
        self.records.append(Record(position(1, len(self.records) + 1), noun, entity, payload))

    def open(self, *people: str) -> "Log":
        for person in people:
            self.put(person, m.MailboxesCreated((m.Made(INBOX_OF[person], "INBOX"),)))
        return self

    def append(self, person: str, *keywords: str) -> None:
        content = Content(b"c" * 32, 5, (), b"d")
        self.put(person, m.MessageAppended(INBOX_OF[person], content, 0, 0, 0, keywords))


@pytest.fixture
async def north(engines: Config) -> AsyncIterator[Site]:
    async with site_tables(engines.database_url, "projector_north") as made:
        yield made


@pytest.fixture
async def south(engines: Config) -> AsyncIterator[Site]:
    async with site_tables(engines.database_url, "projector_south") as made:
        yield made


async def project(site: Site, records: Sequence[Record], *, fold: Fold | None = None) -> Fold:
    fold = fold or Fold(site.db, "p")
    await fold.start()
    await folded(fold, records, ())
    return fold


async def messages(site: Site) -> dict[int, int]:
    return dict(await site.rows("SELECT account, messages FROM mailbox"))


async def quarantine(site: Site) -> list[tuple[Any, ...]]:
    return await site.rows("SELECT position & 1023, entity, held FROM quarantine")


async def test_bytes_that_are_no_event_are_put_aside_and_stop_nobody(north: Site) -> None:
    log = Log().open(ANNA)
    log.put_bytes(ANNA, b"\xc1 no event")
    log.append(ANNA)
    fold = await project(north, log.records)
    assert await quarantine(north) == [(2, ANNA, False)]
    assert await messages(north) == {7: 1}
    assert fold.folded is not None and fold.folded.events == 3


async def test_data_that_the_tables_cannot_hold_is_put_aside_and_the_rest_of_its_batch_is_folded(north: Site) -> None:
    log = Log().open(ANNA, BO)
    log.append(ANNA)
    log.append(ANNA, "a\0b")
    log.put(BO, m.MailboxesCreated((m.Made(81, "x\0y"),)))
    log.put(BO, m.MailboxesCreated((m.Made(82, "n" * 9_000 + "".join(map(chr, range(0x4E00, 0x7000)))),)))
    log.put(BO, m.MessageAppended(80, Content(b"c" * 32, 5, (), b"d"), 1 << 63, 0))
    log.put(BO, m.MessageAppended(80, Content(b"c" * 32, 5, (), b"d"), 0, 1 << 20))
    log.put("nobody", m.Subscribed("a", True))
    log.append(BO)
    log.append(ANNA)
    await project(north, log.records)
    assert await quarantine(north) == [
        (4, ANNA, False), (5, BO, False), (6, BO, False), (7, BO, False), (8, BO, False), (9, "nobody", False),
    ]  # fmt: skip
    assert await messages(north) == {7: 2, 8: 1}


async def test_what_was_put_aside_stays_so_when_it_is_sent_again(north: Site) -> None:
    log = Log().open(ANNA)
    log.append(ANNA, "a\0b")
    log.put_bytes(ANNA, log.records[-1].payload)
    await project(north, log.records)
    assert await quarantine(north) == [(2, ANNA, False)]


class Stumbling(MailFold):
    """A release that cannot fold one kind of fact."""

    async def apply(self, db: Connection, entity: str, event: m.AnyEvent, position: int, at: int) -> None:
        if isinstance(event, m.Subscribed):
            raise KeyError(event.name)
        await super().apply(db, entity, event, position, at)


def stumbling(site: Site) -> Fold:
    fold = Fold(site.db, "p")
    fold.mail = Stumbling("p")
    return fold


async def test_a_fault_of_our_own_holds_its_entity_and_nobody_else(north: Site) -> None:
    log = Log().open(ANNA, BO)
    log.append(ANNA)
    log.put(ANNA, m.Subscribed("x", True))
    log.append(ANNA)
    log.append(BO)
    await project(north, log.records, fold=stumbling(north))
    assert await messages(north) == {7: 1, 8: 1}
    assert await quarantine(north) == [(4, ANNA, True), (5, ANNA, True)]
    # It goes on waiting when the process starts anew, also under a release that could: only a rebuild mends it.
    log.append(ANNA)
    log.append(BO)
    await project(north, log.records)
    assert await messages(north) == {7: 1, 8: 2}
    assert await quarantine(north) == [(4, ANNA, True), (5, ANNA, True), (7, ANNA, True)]


async def test_equal_events_and_outcomes_give_equal_digests_and_a_skipped_event_another(
    north: Site, south: Site
) -> None:
    log = Log().open(ANNA, BO)
    log.append(ANNA, "a\0b")
    log.put_bytes(BO, b"\xc1")
    log.append(BO)
    here, there = await project(north, log.records), Fold(south.db, "p")
    await there.start()
    await folded(there, log.records, (1, 2, 4))
    assert here.folded == there.folded and await north.dump() == await south.dump()
    await south.empty()
    skipped = await project(south, [*log.records[:2], *log.records[3:]])
    assert here.folded is not None and skipped.folded is not None
    assert skipped.folded.position == here.folded.position and skipped.folded.digest != here.folded.digest


async def test_one_event_with_another_outcome_gives_another_digest(north: Site, south: Site) -> None:
    log = Log().open(ANNA)
    log.put(ANNA, m.Subscribed("x", True))
    here, there = await project(north, log.records), await project(south, log.records, fold=stumbling(south))
    assert here.folded is not None and there.folded is not None
    assert (here.folded.position, here.folded.events) == (there.folded.position, there.folded.events)
    assert here.folded.digest != there.folded.digest


async def test_partitions_remember_their_own_commands(north: Site) -> None:
    """A command id that two partitions know is folded in both, and one's clock makes the other forget nothing."""
    log = Log().open(ANNA, BO)
    log.append(ANNA)
    one, other = Fold(north.db, "p"), Fold(north.db, "q")
    await one.start()
    await other.start()
    await folded(one, [record for record in log.records if record.entity == ANNA], ())
    later = Log()
    payload = codec.encode(
        m.MailboxesCreated((m.Made(80, "INBOX"),)), at_us=1_800_000_000_000_000, by=Actor("test"), command=bytes(16)
    )
    later.put_bytes(BO, payload)
    await folded(other, later.records, ())
    assert await messages(north) == {7: 1, 8: 0}
    again = Record(position(1, 9), "mailbox", ANNA, log.records[2].payload)
    await folded(one, [again], ())
    assert await messages(north) == {7: 1, 8: 0}
