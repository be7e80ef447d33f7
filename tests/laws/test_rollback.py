"""Tables that were taken back are those that never saw the tail; and go on from there as if nothing had been."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from cluster import codec
from cluster.domain.mailbox import events as m
from cluster.domain.mailbox.content import Content
from cluster.domain.outbox import events as o
from cluster.log.model import Record
from cluster.position import position
from node.config import Config
from storage.projector import Fold
from storage.rollback import roll_back
from tests.laws.tables_of_law import Tables, folded, tables
from tests.laws.tables_story import PARTITION, Step, stories, told

OF_PARTITION = (m.EpochStarted, m.TailSalvaged, m.TailDestroyed, m.SalvageReported, m.SalvageSettled)
cuts = st.lists(st.integers(0, 60), max_size=6)
LAW = settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

Dump = dict[str, list[tuple[Any, ...]]]


class Kept:
    """A log of records that are there."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records

    async def read(
        self, partition: str, after: int, upto: int, *, contents: bool = False
    ) -> AsyncIterator[tuple[Record, ...]]:
        for record in self.records:
            if after < record.position <= upto:
                yield (record,)

    async def read_of(
        self, partition: str, upto: int, noun: str, entity: str | None = None
    ) -> AsyncIterator[tuple[Record, ...]]:
        for record in self.records:
            if record.position <= upto and record.noun == noun and entity in (None, record.entity):
                yield (record,)


@pytest.fixture(scope="module")
def law(engines: Config) -> Iterator[Tables]:
    with tables(engines.database_url, "law_rollback") as made:
        yield made


def spread(story: Sequence[Step], apart: int) -> list[Record]:
    """The story's records, `apart` positions from each other: so far that digests are kept between them, or that earlier
    events of their commands are known by the tables alone. What is of the partition stands under its own entity."""
    records = []
    for n, record in enumerate(told(story).records):
        try:
            of_partition = isinstance(codec.decode(record.payload)[1], OF_PARTITION)
        except codec.Undecodable:
            of_partition = False
        entity = m.PARTITION_ENTITY if of_partition else record.entity
        records.append(msgspec.structs.replace(record, position=position(1, n * apart + 1), entity=entity))
    return records


@given(stories(), st.integers(0, 70), st.sampled_from((1, 40, 400, 2_000)), cuts, cuts, st.booleans())
@LAW
def test_tables_taken_back_are_those_that_never_saw_the_tail(
    law: Tables, story: list[Step], kept: int, apart: int, first: list[int], second: list[int], far: bool
) -> None:
    records = spread(story, apart)
    law.runner.run(_equal(law, records, min(kept, len(records)), first, second, far * (apart * 3 // 4)))


CONTENT = Content(b"c" * 32, 5, (), b"d")
OPENED = [Step(account, m.MailboxesCreated((m.Made(0, "INBOX"),))) for account in (7, 8)]
TWO_DAYS_S = 49 * 3600


@pytest.mark.parametrize("apart", [1, 400, 2_000])
@pytest.mark.parametrize(
    ("story", "kept"),
    [
        # A command that was told on both sides of the end, and forgotten since.
        (
            [
                Step(7, m.Subscribed("a", True)),
                Step(7, m.Subscribed("b", True), same_command=True),
                Step(7, m.Subscribed("c", True), later_s=TWO_DAYS_S),
            ],
            1,
        ),
        # The same, and not forgotten.
        ([Step(7, m.Subscribed("a", True)), Step(7, m.Subscribed("b", True), same_command=True)], 1),
        # An epoch's beginning beyond the end raised everybody's UIDs.
        ([*OPENED, Step(7, m.MessageAppended(0, CONTENT, 0)), Step(7, m.EpochStarted(((1, 2, 3),)))], 3),
        # One that is in history stays.
        ([*OPENED, Step(7, m.EpochStarted(((1, 2, 3),))), Step(7, m.MessageAppended(0, CONTENT, 0))], 3),
        # A message that still waits had been tried once more beyond.
        (
            [
                Step(7, o.MessageQueued(1, "anna@a.org", ("x@else.org", "y@else.org"), CONTENT, 1, False)),
                Step(7, o.DeliveryAttempted(1, (o.Attempt("x@else.org", "sent", 250, ""),), 9)),
            ],
            1,
        ),
        # What is repeated beyond changed nothing, nor does it afterwards.
        ([*OPENED, Step(7, m.MessageAppended(0, CONTENT, 0)), Step(7, None), Step(7, None, repeats=2)], 3),
    ],
)
def test_what_lies_on_both_sides_of_the_end(law: Tables, story: list[Step], kept: int, apart: int) -> None:
    for beyond in {0, apart * 3 // 4}:
        law.runner.run(_equal(law, spread(story, apart), kept, [1, 2], [], beyond))


async def _equal(
    law: Tables, records: list[Record], kept: int, first: list[int], second: list[int], beyond: int
) -> None:
    """`beyond`: so far after the last event the end of history lies, at a piece of content."""
    await law.empty()
    await folded(await _fold(law), records[:kept], first)
    before = await law.dump()
    await law.empty()
    await folded(await _fold(law), records, second)
    whole = await law.dump()
    fold = await _fold(law)
    with capture_logs():
        await roll_back(fold, Kept(records), records[kept - 1].position + beyond if kept else 0)
    _same(await law.dump(), before)
    await folded(fold, records, first)
    _same(await law.dump(), whole)


def _same(tables: Dump, expected: Dump) -> None:
    """What describes a content stays: it says the same to everybody."""
    assert set(tables.pop("content")) >= set(expected["content"])
    for name, rows in tables.items():
        assert rows == expected[name], name


async def _fold(law: Tables) -> Fold:
    fold = Fold(law.db, PARTITION)
    await fold.start()
    return fold
