"""The lease that is part of a partition's record: what may be in force while a change is under way or in doubt."""

from typing import Any

import pytest
from msgspec.structs import replace

from cluster.control.bucket import Conflict, Entry
from cluster.control.hold import Hold
from cluster.control.holder import Holder
from cluster.control.lease import LEASE_S, Lease, LeaseLost
from cluster.control.partitions import Member, Partition, Partitions, switchover
from cluster.log.connection import Unreachable
from cluster.log.members import Members
from cluster.log.wire import Mark, stream_of
from cluster.position import SEQUENCE_MAX, position
from tests.laws.test_lease import Clock, Keys, never, one_renewal

BOTH = (Member("dr", "x"), Member("mumbai", "y"))


async def held(keys: Keys, clock: Clock) -> tuple[Hold, Partitions]:
    partitions = Partitions(keys)
    await partitions.create(Partition("p", "pune", copies=("dr", "mumbai"), members=BOTH, remote=True))
    hold = Hold(keys, "p", Holder("a", "pune-0"), clock=clock, gone=never)
    found = await partitions.get("p")
    assert found is not None
    await hold.take(found, found.partition)
    return hold, partitions


async def test_until_a_change_came_through_words_wait_for_old_and_new_members() -> None:
    keys = Keys()
    hold, _ = await held(keys, Clock())
    members = Members(hold)
    seen: list[int] = []
    keys.on_put = lambda: seen.append(members.promised())
    await hold.change(lambda record: replace(record, members=()))
    assert seen == [0], "while the answer is out, who was on the record is waited for"
    assert members.promised() == SEQUENCE_MAX


async def test_a_change_whose_answer_was_lost_counts_on_both_sides_until_a_renewal_settles_it() -> None:
    keys = Keys()
    hold, partitions = await held(keys, Clock())
    members = Members(hold)
    keys.lose_answers = True
    with pytest.raises(Unreachable):
        await hold.change(lambda record: replace(record, members=()))
    assert set(hold.record.members) == set(BOTH)
    assert members.promised() == 0
    keys.lose_answers = False
    with pytest.raises(Unreachable, match="changed meanwhile"):
        await hold.change(lambda record: record)
    found = await partitions.get("p")
    assert found is not None
    assert not found.partition.members and not hold.record.members
    assert members.promised() == SEQUENCE_MAX and hold.held()


async def test_after_its_end_was_sent_a_home_says_nothing_until_it_surely_did_not_come_through() -> None:
    keys, clock = Keys(), Clock()
    hold, partitions = await held(keys, clock)
    said: list[bool] = []
    keys.on_put = lambda: said.append(hold.held())
    await hold.hand_over(lambda record: switchover(record, "dr", 5))
    assert said == [False] and not hold.held()
    found = await partitions.get("p")
    assert found is not None and (found.partition.home, found.partition.begun) == ("dr", False)


async def test_an_end_that_was_refused_leaves_the_home_as_it_was() -> None:
    keys, clock = Keys(), Clock()
    hold, partitions = await held(keys, clock)
    found = await partitions.get("p")
    assert found is not None
    await partitions.change(replace(found.partition, strict=True), found.revision)  # an operator was faster
    with pytest.raises(Conflict):
        await hold.hand_over(lambda record: switchover(record, "dr", 5))
    assert hold.held() and hold.record.strict and hold.record.home == "pune"
    clock.now += LEASE_S
    assert not hold.held()


async def test_an_answer_older_than_the_refusal_settles_nothing() -> None:
    keys, clock = Keys(), Clock()
    hold, partitions = await held(keys, clock)
    await hold.change(lambda record: replace(record, members=()))
    old = await keys.get("partition.p")
    keys.lose_answers = True
    with pytest.raises(Unreachable):
        await hold.change(lambda record: replace(record, members=BOTH))
    keys.lose_answers = False

    async def stale(key: str) -> Entry:
        return old  # by a server that does not know yet that it leads no more

    keys.get = stale  # type: ignore[method-assign]
    with pytest.raises(LeaseLost):
        await hold.change(lambda record: record)
    assert not hold.held(), "else words would be given without members that are on the record"


async def pinned(keys: Keys, clock: Clock) -> tuple[Hold, Partitions]:
    """Held, with the site's own lease."""
    partitions, me = Partitions(keys), Holder("a", "pune-0")
    await partitions.create(Partition("p", "pune", copies=("dr",), pinned=True))
    near = Lease(Keys(), "pinned.p", me, clock, never)
    assert await near.try_acquire()
    hold = Hold(keys, "p", me, near, clock, never)
    found = await partitions.get("p")
    assert found is not None
    await hold.take(found, found.partition)
    return hold, partitions


def alone(keys: Keys) -> None:
    """From now on it answers with what it has now, and refuses all writes: a member of the control plane that led it and is
    cut off has counted in what it could not share."""

    async def refused(key: str, value: bytes, after: int, timeout_s: float = 1.0) -> int:
        raise Conflict(key)

    keys.put = refused  # type: ignore[method-assign]


async def test_a_member_that_is_cut_off_with_it_takes_a_pinned_home_from_nobody() -> None:
    keys, clock = Keys(), Clock()
    hold, _ = await pinned(keys, clock)
    alone(keys)
    for _ in range(3):
        await one_renewal(hold)
    assert hold.held()
    with pytest.raises(Unreachable):
        await hold.change(lambda record: replace(record, strict=True))
    assert hold.held() and not hold.record.strict


async def test_how_a_pinned_partition_is_placed_is_noted_before_its_home_goes_by_it() -> None:
    """Whoever is started again at that home while it is cut off goes by what is noted."""
    keys, clock = Keys(), Clock()
    hold, partitions = await pinned(keys, clock)
    noted: list[tuple[bool, bool]] = []  # what is to be noted, and what the home goes by meanwhile

    async def note(record: Partition) -> None:
        noted.append((record.strict, hold.record.strict))
        if len(noted) == 1:
            raise Unreachable("the site's own engine is away")

    hold.note = note
    found = await partitions.get("p")
    assert found is not None
    await partitions.change(replace(found.partition, remote=True, strict=True), found.revision)
    for _ in range(3):
        await one_renewal(hold)
    assert noted == [(True, False), (True, False)], "what cannot be noted is not gone by; what is, once"
    assert hold.held() and hold.record.strict


async def test_who_begins_alone_with_such_a_member_goes_on_and_takes_it_anew_when_writes_go_through() -> None:
    keys, clock = Keys(), Clock()
    before, partitions = await pinned(keys, clock)
    me = Holder("b", "pune-0")
    near = Lease(Keys(), "pinned.p", me, clock, never)
    assert await near.try_acquire()
    hold = Hold(keys, "p", me, near, clock, lambda holder: holder.id == "a")
    put = keys.put
    alone(keys)
    hold.adopt(before.record)
    for _ in range(3):
        await one_renewal(hold)
    assert hold.held() and hold.detached
    keys.put = put  # type: ignore[method-assign]
    with pytest.raises(LeaseLost):
        await one_renewal(hold)
    found = await partitions.get("p")
    assert found is not None and hold.may_take(found)
    await hold.take(found, found.partition)
    await one_renewal(hold)
    assert hold.held() and not hold.detached


@pytest.mark.parametrize("change", [{"home": "dr", "epoch": 2}, {"epoch": 3}, {"pinned": False}])
async def test_a_pinned_home_that_was_taken_away_is_lost(change: dict[str, Any]) -> None:
    keys, clock = Keys(), Clock()
    hold, partitions = await pinned(keys, clock)
    found = await partitions.get("p")
    assert found is not None
    await partitions.change(replace(found.partition, **change), found.revision)
    with pytest.raises(LeaseLost):
        await one_renewal(hold)
    assert not hold.held()


class Log:
    """What is asked of an appender here."""

    def __init__(self, last: int, given: int) -> None:
        self.stream, self.mark = stream_of("p", 1), Mark(position(1, last), 0, position(1, last))
        self.last = self.let_in = last
        self.given = given


async def test_uids_given_are_on_the_record_also_while_there_are_no_copies() -> None:
    partitions = Partitions(Keys())
    await partitions.create(Partition("p", "pune"))
    hold = Hold(partitions.keys, "p", Holder("a", "pune-0"), clock=Clock(), gone=never)
    found = await partitions.get("p")
    assert found is not None
    await hold.take(found, found.partition)
    members = Members(hold)
    members.serve(Log(5, 60_000))  # type: ignore[arg-type]
    assert not members.room(100_000), "a copy that is added later, and forced, would give them again"
    await hold.change(members._adjusted)
    members._reckon()
    assert members.room(100_000) and hold.record.gap_forced >= 100_000
