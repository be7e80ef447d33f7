"""One process's part in one partition, for as long as it lives: at its home a candidate for the appender, elsewhere one
for keeping the copy. Which of both changes with the record in the control plane.
"""

import asyncio
import contextlib

import msgspec
import structlog

from cluster.control.bucket import Conflict
from cluster.control.hold import Hold
from cluster.control.lease import LEASE_S, LOOK_EVERY_S, MARGIN_S, LeaseLost
from cluster.control.partitions import Found, Partition
from cluster.log import epochs
from cluster.log.appender import Appender
from cluster.log.connection import Unreachable
from cluster.log.copier import Copier
from cluster.log.engine import EngineRefused
from cluster.log.leader import HomeLost, Leader, Site
from cluster.log.writer import ForeignWrite, WriteRefused

RETRY_WAIT_S = 0.1
GIVE_WAY_S = 8.0  # longer than another site waits before it takes over

PASSING = (LeaseLost, ForeignWrite, WriteRefused, Unreachable, EngineRefused, Conflict, HomeLost)

log = structlog.get_logger("cluster.log.keeper")


class Keeper:
    """`made`: the record of the partition if there is none yet and this site makes it; None = it makes none."""

    def __init__(self, site: Site, partition: str, hold: Hold, leader: Leader, copier: Copier) -> None:
        self._site = site
        self._partition = partition
        self._hold = hold
        hold.note = self._note
        self._task: asyncio.Task[None] | None = None
        self._made: Partition | None = None
        self._lost_at = float("-inf")  # when a lease was last lost to somebody, on the watch's clock
        self.wanted = False  # a copy here, if there never was one
        self.leader = leader
        self.copier = copier
        leader.came = copier.came

    @property
    def appender(self) -> Appender | None:
        return self.leader.appender

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._keep_for_ever(), name=f"keeper of {self._partition}")

    def make(self, copies: tuple[str, ...], *, pinned: bool) -> None:
        """If there is no such partition yet, it is made, at home here."""
        self._made = Partition(self._partition, self._site.name, copies=copies, pinned=pinned)

    async def stop(self) -> None:
        """What waits is written first; then the lease is released, so that the next one can start at once."""
        last = await self.leader.drain()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if last is not None:
            await self._hold.close(last)
        if self._hold.near is not None:
            await self._hold.near.release()
        await self.copier.release()

    async def _keep_for_ever(self) -> None:
        while True:
            pause = 0.0
            try:
                await self._keep()
            except* HomeLost as errors:
                # Whoever has more may take over now: nobody renews the lease.
                log.error("this site cannot lead", partition=self._partition, why=[str(e) for e in errors.exceptions])
                pause = GIVE_WAY_S
            except* PASSING as errors:
                if errors.subgroup(LeaseLost) is not None:
                    self._lost_at = self._site.watch.clock()
                log.warning("begins again", partition=self._partition, why=[_why(error) for error in errors.exceptions])
                pause = RETRY_WAIT_S
            except* Exception:
                log.exception("begins again", partition=self._partition)  # Our bug; a partition left alone is worse.
                pause = RETRY_WAIT_S
            await asyncio.sleep(pause)

    async def _keep(self) -> None:
        watch = self._site.watch
        found = watch.found.get(self._partition)
        if found is None:
            # The control plane is out of reach, or has no such partition: what is here may still be read.
            known = await self._site.known.get(self._partition)
            if self._made is not None and (known is None or watch.answered_at > watch.clock() - LEASE_S):
                await epochs.ensure_partition(self._site.partitions, self._made)
                await watch.say_changed()
            elif known is not None and known.partition.home != self._site.name:
                await self._copy()
            elif known is not None and known.partition.pinned and watch.unwritten_s() > LEASE_S + MARGIN_S:
                await self._lead_pinned(known.partition)
            else:
                await watch.looked()
        elif found.partition.home == self._site.name:
            await self._lead(found)
        elif self._site.name in found.partition.copies:
            await self._copy()
        else:
            await self._take_a_copy(found)
            await self._site.watch.looked()

    async def _take_a_copy(self, found: Found) -> None:
        """A site that joined; not one whose copy was taken away."""
        if self.wanted and await self._site.known.get(self._partition) is None:
            record, here = found.partition, self._site.name
            await self._site.partitions.change(
                msgspec.structs.replace(record, copies=(*record.copies, here)), found.revision
            )
            await self._site.watch.say_changed()

    async def _lead(self, found: Found) -> None:
        """Waits until the lease is to be had, and leads."""
        watch, name = self._site.watch, self._partition
        if found.partition.pinned and not self._hold.held() and self._cut_off():
            # What was heard of it before is no reason to wait, if nobody told since that it was taken away.
            known = await self._site.known.get(name)
            here = (self._site.name, found.partition.epoch, True)
            if known is not None and (known.partition.home, known.partition.epoch, known.partition.pinned) == here:
                await self._lead_pinned(known.partition)
                return
        if found.partition.pinned and not await self._near():
            return
        if not self._hold.held() or self._hold.detached:
            if not (self._hold.may_take(found) or watch.is_over(name)):
                await asyncio.sleep(LOOK_EVERY_S)
                return
            await self._hold.take(found, found.partition)
        await self._serve(found.partition.pinned)

    async def _note(self, record: Partition) -> None:
        """How the partition is placed now. Raises Conflict, Unreachable."""
        known = await self._site.known.get(self._partition)
        if known is not None:
            await self._site.known.note(record, known.streams)

    def _cut_off(self) -> bool:
        watch = self._site.watch
        return self._lost_at < watch.answered_at and watch.unwritten_s() > LEASE_S + MARGIN_S

    async def _lead_pinned(self, known: Partition) -> None:
        """While the control plane is out of reach."""
        if await self._near():
            self._hold.adopt(known)
            await self._serve(pinned=True)

    async def _near(self) -> bool:
        """Whether this process has the site's own lease."""
        near = self._hold.near
        if near is not None and not near.held() and not await near.try_acquire():
            await asyncio.sleep(LOOK_EVERY_S)
            return False
        return True

    async def _serve(self, pinned: bool) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hold.renew())
            if pinned and self._hold.near is not None:
                tasks.create_task(self._hold.near.renew())
            tasks.create_task(self.leader.serve())

    async def _copy(self) -> None:
        """Keeps the copy until the record says that this site is home, or has no copy any more."""
        copying = asyncio.create_task(self.copier.copy())
        try:
            while not copying.done():
                looked = asyncio.create_task(self._site.watch.looked())
                await asyncio.wait((copying, looked), return_when=asyncio.FIRST_COMPLETED)
                looked.cancel()
                found = self._site.watch.found.get(self._partition)
                if found is None:
                    continue
                if found.partition.home == self._site.name or self._site.name not in found.partition.copies:
                    break
        finally:
            copying.cancel()
            await asyncio.wait((copying,))
        if not copying.cancelled():
            await copying


def _why(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_why(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"
