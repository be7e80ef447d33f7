"""What a site has of one partition: its tables, who folds it, and what lies in the engine's streams."""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cluster.control.partitions import Partition, spans
from cluster.log.model import Record
from cluster.log.wire import POSITION_HEADER
from cluster.position import position, shown, split
from tests.sim.engine import Stream
from tests.sim.world.tables import Tables

if TYPE_CHECKING:
    from tests.sim.world.site import Process, Site


class Holding:
    def __init__(self, site: "Site", partition: str) -> None:
        self.site = site
        self.partition = partition
        self.tables = Tables()
        self.waiting: tuple[int, ...] = ()  # epochs whose tail rests on one that is not here
        self.folding: Process | None = None
        self.moved = asyncio.Event()

    @property
    def name(self) -> str:
        return self.site.name

    # -- tables --------------------------------------------------------------------------------------------------------
    def take(self, batch: tuple[Record, ...]) -> None:
        checks = self.site.world.checks[self.partition]
        for record in batch:
            if not record.noun:
                self.site.blobs.take(record)
            elif record.position > self.tables.position:
                checks.before_fold(self, record)
                event = self.tables.fold(record)
                checks.folded(self, record, event)
        self._news()

    def _news(self) -> None:
        self.moved.set()
        self.moved = asyncio.Event()

    async def reached(self, position: int, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                while self.tables.position < position:
                    await self.moved.wait()
        except TimeoutError:
            return False
        return True

    def back(self, events: int) -> None:
        """The database crashed: its last commits were not on the disk yet."""
        self.tables = Tables.of(self.tables.events[: max(0, len(self.tables.events) - events)])
        self.site.world.checks[self.partition].went_back(self)
        if self.folding is not None and (following := self.folding.following.get(self.partition)) is not None:
            following.cancel()  # it noticed that the database ended the connection

    async def roll_back(self, process: "Process", end: int) -> None:
        """History goes on from `end`: the tables are made again up to there, and put in the place of the old ones."""
        self.site.world.trace(f"{self.name} rolls {self.partition} back to {shown(end)}")
        made = Tables()
        if end:
            async for batch in process.log.read(self.partition, 0, end):
                for record in batch:
                    if record.noun:
                        made.fold(record)
        if process.dead:
            return
        self.tables = made
        self.site.world.checks[self.partition].rolled_back(self)
        self._news()

    # -- streams -------------------------------------------------------------------------------------------------------
    def streams(self) -> Iterator[tuple[int, Stream]]:
        """(epoch, one that lies here); our own and a copy of the same epoch may lie side by side."""
        for stream in self.site.server.streams.streams.values():
            _, _, epoch = str(stream.config["name"]).partition(f"-{self.partition}-")
            if epoch:
                yield int(epoch), stream

    def lies(self, at: int) -> bool:
        """Whether it is on this site's disk."""
        epoch = split(at).epoch
        return any(_end(stream) >= at for e, stream in self.streams() if e == epoch)

    def has_unsalvaged(self, record: Partition) -> bool:
        """Whether a tail lies here that its salvage is not through with, nor waits for another one."""
        ends = dict(spans(record))
        for epoch, stream in self.streams():
            done = max(ends.get(epoch, 0), self.tables.state.salvaged.get(epoch, 0))
            if epoch < record.epoch and split(_end(stream)).sequence > done and epoch not in self.waiting:
                return True
        return False


def _end(stream: Stream) -> int:
    """Position of the last message in there, 0 = there is none."""
    if not stream.messages:
        return 0
    newest, name = stream.messages[-1], str(stream.config["name"])
    if name.startswith("CP-"):
        return int(newest.headers[POSITION_HEADER])
    return position(int(name.rpartition("-")[2]), newest.sequence)
