"""A partition's log in memory that can lose its tail: the same calls as cluster.log.jetstream has, over several epochs."""

from collections.abc import AsyncIterator
from typing import NamedTuple

from cluster import codec
from cluster.domain.actor import SYSTEM
from cluster.domain.mailbox.events import PARTITION_ENTITY, UID_GAP, EpochStarted
from cluster.log.admission import Admission
from cluster.log.model import APPEND_S_MAX, Append, Blob, LogUnavailable, Record, Stale, Stored, measured
from cluster.position import SEQUENCE_MAX, Position, position, split


class Tail(NamedTuple):
    epoch: int
    after: int
    last: int


class LosingLog:
    """`streams`: of each epoch, all that ever lay in it. `ends`: of those that are over, its last sequence in history.
    `fail_after`: so many appends go well, then every one fails."""

    def __init__(self) -> None:
        self.epoch = 1
        self.streams: dict[int, list[Record]] = {1: []}
        self.ends: dict[int, int] = {}
        self.fail_after = SEQUENCE_MAX
        self.admission = Admission(0)
        self.hidden: set[int] = set()  # epochs whose tail lies at another site

    # -- what happens to it -------------------------------------------------------------------------------------------

    def lose(self, count: int, gap: int = UID_GAP) -> None:
        """The last `count` records of the present epoch are no history; a new home begins."""
        self.fork(position(self.epoch, len(self.streams[self.epoch]) - count), gap)

    def fork(self, at: int, gap: int = UID_GAP) -> None:
        """History goes on from there."""
        epoch, sequence = split(at)
        for each in range(epoch, self.epoch + 1):
            self.ends[each] = sequence if each == epoch else 0
        ended = [(each, self.ends[each], gap) for each in range(epoch, self.epoch + 1)]
        self.epoch += 1
        self.streams[self.epoch] = []
        self.admission = Admission(at, history=self.history())
        told = EpochStarted(tuple(ended) if sequence else ())
        self.put(PARTITION_ENTITY, told, self.epoch.to_bytes(16, "big"))

    def put(self, entity: str, event: object, command: bytes, n: int = 0) -> Record:
        payload = codec.encode(event, at_us=1_700_000_000_000_000, by=SYSTEM, command=command, n=n)  # type: ignore[arg-type]
        return self._keep(codec.noun_of(event), entity, payload)  # type: ignore[arg-type]

    def _keep(self, noun: str, entity: str, payload: bytes, hash: bytes = b"") -> Record:
        stream = self.streams[self.epoch]
        stream.append(Record(position(self.epoch, len(stream) + 1), noun, entity, payload, hash))
        return stream[-1]

    # -- what it is asked ---------------------------------------------------------------------------------------------

    def history(self) -> tuple[tuple[int, int], ...]:
        return (*sorted(self.ends.items()), (self.epoch, SEQUENCE_MAX))

    def records(self) -> list[Record]:
        """History."""
        return [record for epoch, last in self.history() for record in self.streams[epoch][:last]]

    async def known_history(self, partition: str) -> tuple[tuple[int, int], ...]:
        return self.history()

    async def tails(self, partition: str) -> tuple[Tail, ...]:
        return tuple(
            Tail(epoch, position(epoch, last), self.streams[epoch][-1].position)
            for epoch, last in self.ends.items()
            if len(self.streams[epoch]) > last and epoch not in self.hidden
        )

    async def read_tail(self, partition: str, tail: Tail) -> AsyncIterator[tuple[Record, ...]]:
        records = [record for record in self.streams[tail.epoch] if record.position > tail.after]
        for first in range(0, len(records), 3):
            yield tuple(records[first : first + 3])

    async def read(
        self, partition: str, after: int, upto: int, *, contents: bool = False
    ) -> AsyncIterator[tuple[Record, ...]]:
        for record in self.records():
            if after < record.position <= upto and (contents or record.noun):
                yield (record,)

    async def mark(self, partition: str, timeout_s: float = APPEND_S_MAX) -> Position:
        return Position(max((record.position for record in self.records() if record.noun), default=0))

    async def home_end(self, partition: str) -> Position:
        return await self.mark(partition)

    async def append(self, append: Append, timeout_s: float = APPEND_S_MAX) -> Stored | Stale:
        measured(append)
        if self.fail_after <= 0:
            raise LogUnavailable("killed")
        verdict = self.admission.verdict(append.command, append.depends, append.read_at)
        if verdict is not None:
            return verdict
        self.fail_after -= 1
        for blob in append.contents:
            self._keep("", append.events[0].entity, blob.data, blob.hash)
        first = position(self.epoch, len(self.streams[self.epoch]) + 1)
        for event in append.events:
            self._keep(event.noun, event.entity, event.payload)
        return self.admission.admit(append.command, append.events, first)

    async def upload(
        self, partition: str, entity: str, blobs: AsyncIterator[Blob], timeout_s: float = APPEND_S_MAX
    ) -> tuple[bytes, ...]:
        return tuple([self._keep("", entity, blob.data, blob.hash).hash async for blob in blobs])
