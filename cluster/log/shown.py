"""How far a site has shown a partition, noted in the site's own bucket: what was promised once may be shown again.

Whoever starts while the home, or the control plane, is out of reach has nobody to ask how far it may show. What was noted
lay below a mark that the home gave, so it may; what lies above it here may never have been promised, and waits
(ops/decisions/reads-are-always-served.md).
"""

import asyncio
from collections.abc import Callable

import structlog

from cluster.control.bucket import Conflict, Keys
from cluster.control.partitions import KnownPartitions, clip, spans
from cluster.log import epochs
from cluster.log.connection import Unreachable
from cluster.log.engine import Engine, EngineRefused
from cluster.log.marks import Marks
from cluster.log.model import LogUnavailable
from cluster.log.wire import Mark, decode_mark, encode
from cluster.position import Position

NOTE_EVERY_S = 1.0
RETRY_WAIT_S = 0.1

log = structlog.get_logger("cluster.log.shown")


class Shown:
    """Of one partition, at this site. `near`: the site's own bucket, `known`: what is noted there of partitions, `marks`:
    what this process may show. `speaks`: whether it is the site's one process that tells the others how far they may."""

    def __init__(
        self, engine: Engine, near: Keys, known: KnownPartitions, partition: str, marks: Marks, speaks: Callable[[], bool]
    ) -> None:
        self._engine = engine
        self._near = near
        self._known = known
        self._partition = partition
        self._marks = marks
        self._speaks = speaks
        self._key = f"shown.{partition}"
        self._noted = 0

    async def recall(self) -> Position | None:
        """The position of the last event that surely may be shown; whoever follows in this process shows up to there. None =
        nothing of the partition lies here. Raises LogUnavailable."""
        try:
            known = await self._known.get(self._partition)
            if known is None:
                return None
            entry = await self._near.get(self._key)
            noted = decode_mark(entry.value) if entry.revision else Mark(0, 0)
            # This engine's disk may have been put back to an earlier state, and the end of an epoch come down.
            here, last = await epochs.whole(self._engine, known)
        except (Unreachable, EngineRefused) as error:
            raise LogUnavailable(str(error)) from error
        durable = min(clip(spans(known.partition), noted.durable), here)
        self._marks.raise_to(Mark(durable, min(noted.event, last, durable)))
        return Position(self._marks.known.event)

    async def keep(self) -> None:
        """For ever: recalls, then notes what is shown from now on."""
        while True:
            try:
                await self.recall()
                break
            except LogUnavailable as error:
                log.debug("not recalled yet", partition=self._partition, why=str(error))
                await asyncio.sleep(RETRY_WAIT_S)
        while True:
            await asyncio.sleep(NOTE_EVERY_S)
            await self.note()

    async def note(self) -> None:
        """What is shown now, if it is for this process to note."""
        mark = self._marks.known
        if mark.durable <= self._noted or not self._speaks():
            return
        try:
            entry = await self._near.get(self._key)
            if not entry.revision or decode_mark(entry.value).durable < mark.durable:
                await self._near.put(self._key, encode(Mark(mark.durable, mark.event)), entry.written)
            self._noted = mark.durable
        except (Unreachable, EngineRefused, Conflict) as error:
            log.debug("not noted", partition=self._partition, why=str(error))
