"""The lease that is part of a partition's record: whoever holds it is the partition's appender, and alone changes it."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from cluster.control.bucket import Conflict, Keys
from cluster.control.holder import Holder, is_gone
from cluster.control.lease import LEASE_S, LOOK_EVERY_S, RENEW_S_MAX, Clock, Lease, LeaseLost, boot_clock
from cluster.control.partitions import PREFIX, Found, Partition, decode, encode, lasting
from cluster.log.connection import Unreachable

log = structlog.get_logger("cluster.control.hold")


class Hold(Lease):
    """`record`: as we know it while it is held. `asked`: changes of which we do not know whether they came through.
    `near`: the site's own lease, which is what counts for a pinned partition: only force moves that, so its home goes on
    while the control plane is out of reach."""

    def __init__(
        self,
        keys: Keys,
        name: str,
        me: Holder,
        near: Lease | None = None,
        clock: Clock = boot_clock,
        gone: Callable[[Holder], bool] = is_gone,
    ) -> None:
        super().__init__(keys, PREFIX + name, me, clock, gone)
        self.near = near
        self.record = Partition(name, "")
        self.asked: list[Partition] = []
        self.detached = False  # The control plane was out of reach when we began.
        self.note: Callable[[Partition], Awaitable[None]] = _nowhere  # where the site finds it when it is cut off
        self.silent = False  # An end was asked for: not a word until we know what became of it.

    def held(self) -> bool:
        if self.silent:
            return False
        if self.record.pinned and self.near is not None:
            return not self._lost and self.near.held()
        return super().held()

    def adopt(self, record: Partition) -> None:
        """Goes on with a pinned partition as this site knows it. When the control plane is there again, it is taken anew."""
        self._lost, self.silent, self.detached = False, False, True
        self.asked.clear()
        self.record, self._revision = record, 0

    def may_take(self, found: Found) -> bool:
        """At the partition's home: whether its last holder surely does not hold it any more, as far as is known here."""
        holder = found.partition.holder
        return holder is None or holder.id == self._me.id or self._gone(holder)

    async def take(self, found: Found, following: Partition) -> None:
        """Makes the record `following`, with us as its holder, if it still is as it was found. Raises Conflict,
        Unreachable."""
        self._lost, self.silent, self.detached = True, False, False
        self.asked.clear()
        self.record = following
        before = self._clock()
        await self._write(found.revision)  # Unreachable, and it came through: then it is found as our own, and taken again.
        self._lost = False
        self._deadline = before + LEASE_S

    async def change(self, make: Callable[[Partition], Partition]) -> None:
        """Changes the record under the lease. Raises LeaseLost; Unreachable: it may have come through, or still may
        until the next renewal did (`asked` holds it)."""
        async with self._one:
            wanted = make(self.record)
            # Until it came through, both what is known and what was asked for may be in force.
            self.asked.append(wanted)
            before = self._clock()
            try:
                await self._put(wanted, self._revision)
                self._deadline = before + LEASE_S
            except Conflict:
                if not await self._mine_after_all():
                    self._lost = True
                    raise LeaseLost(self._key) from None
                raise Unreachable("the record changed meanwhile") from None

    async def hand_over(self, make: Callable[[Partition], Partition]) -> None:
        """Writes the end of our time: from here on not a word. Returns when it surely came through (or raises LeaseLost
        then); raises Conflict when it surely did not, and then we hold on."""
        self.silent = True
        async with self._one:
            wanted = msgspec.structs.replace(make(self.record), holder=None)
            try:
                await self._keys.put(self._key, encode(wanted), self._revision, RENEW_S_MAX)
                self._lost = True
                return
            except (Conflict, Unreachable) as error:
                log.warning("the end is in doubt", partition=self.record.name, why=str(error))
        # The next renewal settles it: it is refused if the end came through (LeaseLost), else the end comes no more.
        asked_at = self._revision
        while self._revision == asked_at:
            async with self._one:
                await self._renewed()
            if self._revision == asked_at:
                await asyncio.sleep(LOOK_EVERY_S)
        self.silent = False
        raise Conflict(self.record.name)

    async def close(self, last: int) -> None:
        """Lets the next one in at once; `last`: the stream's last sequence, of an orderly end. From here on not held."""
        wanted = msgspec.structs.replace(self.record, holder=None, closed=last)
        was_held = self.held()
        self._lost = True
        self._turn.set()
        if was_held:
            async with self._one:
                try:
                    await self._keys.put(self._key, encode(wanted), self._revision, RENEW_S_MAX)
                except (Conflict, Unreachable) as error:
                    log.warning("lease not released", key=self._key, why=str(error))

    async def _write(self, after: int) -> None:
        await self._put(self.record, after)

    async def _put(self, record: Partition, after: int) -> None:
        self._beat += 1
        record = msgspec.structs.replace(record, holder=self._me, beat=self._beat)
        self._revision = await self._keys.put(self._key, encode(record), after, RENEW_S_MAX)
        self.record = record
        self.asked.clear()

    async def _mine_after_all(self) -> bool:
        try:
            entry = await self._keys.get(self._key)
        except Unreachable:
            return True  # Not known: the deadline is not moved, and the next renewal asks again.
        record = decode(entry.value) if entry.revision else None
        if record is not None and self.record.pinned and self.near is not None and self.near.held():
            return await self._still_pinned(record, entry.revision)
        if record is None or record.holder is None or record.holder.id != self._me.id:
            return False
        if entry.revision <= self._revision:
            return False  # It is not at ours any more, so this answer is older than the refusal: what holds now is not known.
        if record.pinned != self.record.pinned:
            return False  # Another lease counts from now on: it is taken anew.
        self.record, self._revision = record, entry.revision
        self.asked.clear()  # What we asked for expected an earlier revision: it is here, or comes no more.
        return True

    async def _still_pinned(self, record: Partition, revision: int) -> bool:
        """A member of the control plane that is cut off with us refuses what we write, and answers with what it knew last.
        That takes a pinned partition from nobody: only a record does that says another home, another epoch, or that it is
        pinned no more."""
        if (record.home, record.epoch, record.pinned) != (self.record.home, self.record.epoch, True):
            return False
        ours = record.holder is not None and record.holder.id == self._me.id
        if ours and not self.detached:
            if revision > self._revision and await self._noted(record):
                self.record, self._revision = record, revision
                self.asked.clear()
            return True  # Or the answer is older than the refusal: the next renewal asks again.
        wanted = msgspec.structs.replace(record, holder=self._me, beat=self._beat)
        try:
            await self._keys.put(self._key, encode(wanted), revision, RENEW_S_MAX)
        except (Conflict, Unreachable):
            return True
        return False  # It takes what we write: so it is taken anew, in good order.

    async def _noted(self, record: Partition) -> bool:
        """Before we go by it: who is started again here while the site is cut off goes by what is noted."""
        try:
            if lasting(record) != lasting(self.record):
                await self.note(record)
        except (Conflict, Unreachable):
            return False
        return True


async def _nowhere(record: Partition) -> None:
    """Nobody asked for it."""
