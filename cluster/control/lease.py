"""Leases: at most one process believes that it may write a partition.

A lease is a key that its holder rewrites every second. No time to live of the engine is trusted, since its clock can
step. A candidate takes over by compare-and-set on the very revision that it saw unchanged for LEASE_S + MARGIN_S on its
own clock. The holder's deadline starts before it sends the renewal, so the holder always stops believing first, as long
as both clocks run at nearly the same rate (MARGIN_S is what they may differ by, in one lease time).

`Lease` is a key of its own, for what processes of one site share out; `Hold` is part of a partition's record.
"""

import asyncio
import time
from collections.abc import Callable

import msgspec
import structlog

from cluster.control.bucket import Conflict, Entry, Keys
from cluster.control.holder import Holder, is_gone
from cluster.log.connection import Unreachable

LEASE_S = 2.5
MARGIN_S = 0.5
RENEW_EVERY_S = 0.8
RENEW_S_MAX = 1.2  # for an answer; then it is tried again, which must not take longer than a candidate waits
LOOK_EVERY_S = 0.25

log = structlog.get_logger("cluster.control.lease")

Clock = Callable[[], float]


def boot_clock() -> float:
    """Seconds that nobody sets and that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class LeaseLost(Exception):
    """Someone else holds it now, or may."""


class Beat(msgspec.Struct, frozen=True):
    """The key's value."""

    holder: Holder
    beat: int


_decode = msgspec.json.Decoder(Beat).decode


class Lease:
    """One process's side of one lease: `acquire`, then `renew` in a task of its own, `held` before every word, `release`."""

    def __init__(
        self, keys: Keys, key: str, me: Holder, clock: Clock = boot_clock, gone: Callable[[Holder], bool] = is_gone
    ) -> None:
        self._keys = keys
        self._key = key
        self._me = me
        self._clock = clock
        self._gone = gone
        self._beat = 0
        self._revision = 0
        self._deadline = float("-inf")
        self._lost = False
        self._turn = asyncio.Event()  # set and replaced whenever a renewal came out, well or badly
        self._seen: tuple[int, float] = (-1, 0.0)  # revision, and when it was first seen
        self._one = asyncio.Lock()  # of one write at a time

    def held(self) -> bool:
        return not self._lost and self._clock() < self._deadline

    def turned(self) -> asyncio.Event:
        """Set when the next renewal has come out, well or badly."""
        return self._turn

    async def confirm(self) -> None:
        """Returns when it is surely held; waits for the engine if the deadline passed. Raises LeaseLost."""
        while not self.held():
            if self._lost:
                raise LeaseLost(self._key)
            await self._turn.wait()

    async def acquire(self) -> None:
        """Waits until it is ours."""
        self._lost = False
        while True:
            if await self.try_acquire():
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def try_acquire(self) -> bool:
        """One look, and a try if the time has come. Never raises."""
        try:
            entry = await self._keys.get(self._key)
            if not self._may_take(entry):
                return False
            before = self._clock()
            await self._write(entry.written)
        except (Conflict, Unreachable) as error:
            log.debug("lease not taken", key=self._key, why=str(error))
            self._seen = (-1, 0.0)
            return False
        self._deadline = before + LEASE_S
        self._lost = False
        return True

    async def renew(self) -> None:
        """Rewrites it every second, for ever. Raises LeaseLost."""
        while True:
            async with self._one:
                await self._renewed()
            await asyncio.sleep(RENEW_EVERY_S if self.held() else LOOK_EVERY_S)

    async def _renewed(self) -> None:
        before = self._clock()
        try:
            await self._write(self._revision)
            self._deadline = before + LEASE_S
        except Conflict:
            # A lost answer never moves the deadline: which of several requests it was is not known.
            if not await self._mine_after_all():
                self._lost = True
                raise LeaseLost(self._key) from None
        except Unreachable as error:
            log.warning("lease not renewed", key=self._key, why=str(error))
        finally:
            self._turn.set()
            self._turn = asyncio.Event()

    async def release(self) -> None:
        """Lets the next one in at once. From here on it is not held."""
        self._lost = True
        self._deadline = float("-inf")
        self._turn.set()
        try:
            # A renewal that was cut short may have been done: the revision to delete is what the key says.
            if self._revision and await self._mine_after_all():
                await self._keys.delete(self._key, self._revision)
        except (Conflict, Unreachable) as error:
            log.warning("lease not released", key=self._key, why=str(error))
        self._revision = 0

    def _may_take(self, entry: Entry) -> bool:
        if entry.revision == 0:
            return True
        now = self._clock()
        if self._seen[0] != entry.revision:
            self._seen = (entry.revision, now)
        holder = _decode(entry.value).holder
        return holder.id == self._me.id or self._gone(holder) or now - self._seen[1] >= LEASE_S + MARGIN_S

    async def _write(self, after: int) -> None:
        self._beat += 1
        value = msgspec.json.encode(Beat(self._me, self._beat))
        self._revision = await self._keys.put(self._key, value, after, RENEW_S_MAX)

    async def _mine_after_all(self) -> bool:
        """A renewal whose answer was lost may have been done: then the key holds our own latest word."""
        try:
            entry = await self._keys.get(self._key)
        except Unreachable:
            return True  # Not known: the deadline is not moved, and the next renewal asks again.
        if entry.revision == 0 or _decode(entry.value).holder.id != self._me.id:
            return False
        self._revision = entry.revision
        return True
