"""Leases on clocks that the test sets: never two holders, and how soon the next one."""

import asyncio
from collections.abc import Callable

import pytest

from cluster.control.bucket import Conflict, Entry, MemoryKeys
from cluster.control.holder import Holder, is_gone, this_process
from cluster.control.lease import LEASE_S, MARGIN_S, Lease, LeaseLost
from cluster.control.partitions import Ended, Partition, Partitions, unannounced
from cluster.log.connection import Unreachable


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Keys(MemoryKeys):
    """May be cut off, or do what it is told and lose the answer, or let time pass on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = False
        self.lose_answers = False
        self.on_put: Callable[[], None] = lambda: None

    async def get(self, key: str) -> Entry:
        if self.cut:
            raise Unreachable("cut off")
        return await super().get(key)

    async def put(self, key: str, value: bytes, after: int, timeout_s: float = 1.0) -> int:
        if self.cut:
            raise Unreachable("cut off")
        self.on_put()
        revision = await super().put(key, value, after)
        if self.lose_answers:
            raise Unreachable("answer lost")
        return revision


def never(holder: Holder) -> bool:
    return False


def lease(keys: Keys, name: str, clock: Clock, gone: Callable[[Holder], bool] = never) -> Lease:
    return Lease(keys, "lease.m1", Holder(name, name), clock, gone)


async def one_renewal(of: Lease) -> None:
    """Until the first renewal came out."""
    turn = of.turned()
    task = asyncio.create_task(of.renew())
    waiting = asyncio.create_task(turn.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    for each in (task, waiting):
        each.cancel()
    await asyncio.wait((task, waiting))
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error


async def test_a_candidate_waits_lease_and_margin_on_its_own_clock_for_an_unchanged_revision() -> None:
    keys, clock = Keys(), Clock()
    a, b = lease(keys, "a", clock), lease(keys, "b", clock)
    assert await a.try_acquire()
    assert a.held() and not await b.try_acquire()
    clock.now += LEASE_S + MARGIN_S - 0.01
    assert not a.held() and not await b.try_acquire()
    clock.now += 0.01
    assert await b.try_acquire() and b.held() and not a.held()


async def test_a_renewal_starts_the_candidates_wait_anew() -> None:
    keys, clock = Keys(), Clock()
    a, b = lease(keys, "a", clock), lease(keys, "b", clock)
    assert await a.try_acquire() and not await b.try_acquire()
    for _ in range(4):
        clock.now += LEASE_S - 0.5
        assert a.held()
        await one_renewal(a)
        assert not await b.try_acquire()
    assert a.held() and not b.held()


async def test_the_holders_deadline_starts_before_it_sends() -> None:
    keys, clock = Keys(), Clock()
    a = lease(keys, "a", clock)

    def slow() -> None:
        clock.now += LEASE_S

    keys.on_put = slow
    assert await a.try_acquire()
    assert not a.held()


async def test_a_read_that_failed_starts_the_wait_anew() -> None:
    keys, clock = Keys(), Clock()
    a, b = lease(keys, "a", clock), lease(keys, "b", clock)
    assert await a.try_acquire() and not await b.try_acquire()
    keys.cut = True
    clock.now += LEASE_S + MARGIN_S
    assert not await b.try_acquire()
    keys.cut = False
    assert not await b.try_acquire()
    await one_renewal(a)
    assert a.held() and not await b.try_acquire()


async def test_a_holder_that_was_cut_off_says_nothing_until_it_knows() -> None:
    keys, clock = Keys(), Clock()
    a, b = lease(keys, "a", clock), lease(keys, "b", clock)
    assert await a.try_acquire() and not await b.try_acquire()
    keys.cut = True
    clock.now += LEASE_S
    await one_renewal(a)
    confirmed = asyncio.create_task(a.confirm())
    await asyncio.sleep(0)
    assert not a.held() and not confirmed.done()
    keys.cut = False
    await one_renewal(a)
    await confirmed
    assert a.held()


async def test_two_candidates_at_once_one_wins() -> None:
    keys, clock = Keys(), Clock()
    candidates = [lease(keys, name, clock) for name in "abcdef"]
    won = await asyncio.gather(*(each.try_acquire() for each in candidates))
    assert won.count(True) == 1


async def test_a_renewal_whose_answer_was_lost_is_found_again() -> None:
    keys, clock = Keys(), Clock()
    a = lease(keys, "a", clock)
    assert await a.try_acquire()
    keys.lose_answers = True
    await one_renewal(a)
    keys.lose_answers = False
    await one_renewal(a)  # a conflict with its own word
    clock.now += LEASE_S - 0.5
    await one_renewal(a)
    clock.now += LEASE_S - 0.5
    assert a.held()


async def test_who_lost_it_is_told_and_cannot_release_the_others() -> None:
    keys, clock = Keys(), Clock()
    a, b = lease(keys, "a", clock), lease(keys, "b", clock)
    assert await a.try_acquire() and not await b.try_acquire()
    clock.now += LEASE_S + MARGIN_S
    assert await b.try_acquire()
    with pytest.raises(LeaseLost):
        await one_renewal(a)
    with pytest.raises(LeaseLost):
        await a.confirm()
    await a.release()
    assert b.held() and not await a.try_acquire()


async def test_a_released_or_orphaned_lease_is_taken_at_once() -> None:
    keys, clock = Keys(), Clock()
    a, b = lease(keys, "a", clock), lease(keys, "b", clock)
    assert await a.try_acquire() and not await b.try_acquire()
    await a.release()
    assert not a.held() and await b.try_acquire()
    c = lease(keys, "c", clock, gone=lambda holder: holder.id == "b")
    assert await c.try_acquire()


async def test_a_process_is_gone_only_if_that_is_sure() -> None:
    me = this_process("x", "n")
    assert me.boot and not is_gone(me)
    child = await asyncio.create_subprocess_exec("true")
    dead = Holder("y", "n", me.boot, me.pids, child.pid, me.started + 1)
    await child.wait()
    assert is_gone(dead)
    assert is_gone(Holder("y", "n", me.boot, me.pids, me.pid, me.started + 1))  # the number went to another process
    assert not is_gone(Holder("y", "n", "another boot", me.pids, dead.pid, dead.started))
    assert not is_gone(Holder("y", "n", me.boot, "another namespace", dead.pid, dead.started))
    assert not is_gone(Holder("y", "n"))


async def test_partition_records_change_by_compare_and_set() -> None:
    partitions = Partitions(MemoryKeys())
    one = Partition("m1", "north")
    assert await partitions.get("m1") is None
    await partitions.create(one)
    with pytest.raises(Conflict):
        await partitions.create(one)
    found = await partitions.get("m1")
    assert found is not None and found[0] == one
    two = Partition("m1", "north", 2, ended=(Ended(1, 9, 0, "north"),))
    await partitions.change(two, found[1])
    with pytest.raises(Conflict):
        await partitions.change(one, found[1])


def test_epoch_started_lists_all_that_ended_since_the_last_in_history() -> None:
    ended = (Ended(1, 5, 0, "a"), Ended(2, 7, 9, "b"), Ended(3, 0, 9, "c"), Ended(4, 0, 0, "d"))
    assert unannounced(Partition("m1", "north", 5, ended=ended)) == ((2, 7, 9), (3, 0, 9), (4, 0, 0))
    assert unannounced(Partition("m1", "north")) == ()
