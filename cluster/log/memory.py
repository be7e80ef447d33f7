"""The log in memory, with the same contract: for laws and simulation. Each append is durable when it returns."""

import asyncio
from collections.abc import AsyncIterator

from cluster import codec
from cluster.control.partitions import Spans, clip, in_history
from cluster.domain.actor import SYSTEM
from cluster.domain.mailbox.events import PARTITION_ENTITY, EpochStarted
from cluster.log import wire
from cluster.log.admission import Admission
from cluster.log.model import APPEND_S_MAX, CHUNK_BYTES_MAX, Append, Blob, Record, RolledBack, Stale, Stored, measured
from cluster.position import BEGINNING, SEQUENCE_MAX, Position, position, split

READ_RECORDS_MAX = 500


class _Partition:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.epoch = 1
        self.ended: list[tuple[int, int]] = []  # (epoch, its last sequence in history)
        self.next = 1  # sequence of the next record
        self.admission = Admission(0)
        self.last_event = BEGINNING
        self.moved = asyncio.Event()  # set and replaced with every append

    def put(self, noun: str, entity: str, payload: bytes, chunk: tuple[bytes, int, int] = (b"", 0, 1)) -> Position:
        at = position(self.epoch, self.next)
        self.next += 1
        self.records.append(Record(at, noun, entity, payload, *chunk))
        if noun:
            self.last_event = at
        return at

    def news(self) -> None:
        self.moved.set()
        self.moved = asyncio.Event()

    def history(self) -> Spans:
        return (*self.ended, (self.epoch, SEQUENCE_MAX))


class MemoryLog:
    """A partition is there when it is first named, in epoch 1."""

    def __init__(self) -> None:
        self._partitions: dict[str, _Partition] = {}

    async def append(self, append: Append, timeout_s: float = APPEND_S_MAX) -> Stored | Stale:
        """Raises ValueError for what no log takes."""
        measured(append)
        partition = self._of(append.partition)
        verdict = partition.admission.verdict(append.command, append.depends, append.read_at)
        if verdict is not None:
            return verdict
        for blob in append.contents:
            _put_blob(partition, append.events[0].entity, blob)
        first = position(partition.epoch, partition.next)
        for event in append.events:
            partition.put(event.noun, event.entity, event.payload)
        outcome = partition.admission.admit(append.command, append.events, first)
        partition.news()
        return outcome

    async def upload(
        self, partition: str, entity: str, blobs: AsyncIterator[Blob], timeout_s: float = APPEND_S_MAX
    ) -> tuple[bytes, ...]:
        hashes: list[bytes] = []
        async for blob in blobs:
            _put_blob(self._of(partition), entity, blob)
            self._of(partition).news()
            hashes.append(blob.hash)
        return tuple(hashes)

    async def follow(
        self, partition: str, after: Position, *, contents: bool = True, standing: int = 0
    ) -> AsyncIterator[tuple[Record, ...]]:
        at: int = after
        kept = self._of(partition)
        while True:
            moved = kept.moved
            if not in_history(kept.history(), max(at, standing)):
                raise RolledBack(partition, clip(kept.history(), max(at, standing)))
            upto = position(kept.epoch, kept.next - 1)
            async for batch in self.read(partition, at, upto, contents=contents):
                yield batch
            at = max(at, upto)
            await moved.wait()

    async def read(self, partition: str, after: int, upto: int, *, contents: bool = False) -> AsyncIterator[tuple[Record, ...]]:
        """Everything above `after` and not above `upto`, then ends."""
        wanted = [
            record for record in self._of(partition).records if after < record.position <= upto and (contents or record.noun)
        ]  # fmt: skip
        for first in range(0, len(wanted), READ_RECORDS_MAX):
            yield tuple(wanted[first : first + READ_RECORDS_MAX])

    async def read_of(
        self, partition: str, upto: int, noun: str, entity: str | None = None
    ) -> AsyncIterator[tuple[Record, ...]]:
        """Events of one entity (None = of all) of a noun, not above `upto`."""
        async for batch in self.read(partition, 0, upto):
            if found := tuple(r for r in batch if r.noun == noun and entity in (None, r.entity)):
                yield found

    async def take_over(self, partition: str, last: int, gap: int, at_us: int, command: bytes) -> None:
        """A new home that has history up to position `last`: what lies beyond is no part of it, and the next epoch begins."""
        kept, end = self._of(partition), split(last)
        past = [each for each in kept.history() if each[0] >= end.epoch]
        ended = [(epoch, min(end.sequence, was) if epoch == end.epoch else 0) for epoch, was in past]
        kept.ended = [*kept.ended[: -(len(past) - 1) or None], *ended]
        kept.records = [record for record in kept.records if record.position <= last]
        kept.epoch, kept.next = kept.epoch + 1, 1
        event = EpochStarted(tuple((epoch, sequence, gap) for epoch, sequence in ended))
        payload = codec.encode(event, at_us=at_us, by=SYSTEM, command=command)
        kept.put("mailbox", PARTITION_ENTITY, payload)
        kept.news()

    async def mark(self, partition: str, timeout_s: float = APPEND_S_MAX) -> Position:
        return self._of(partition).last_event

    async def drop_contents(self, partition: str, upto: Position) -> Position:
        kept = self._of(partition)
        kept.records = [record for record in kept.records if record.noun or record.position > upto]
        return upto

    def _of(self, partition: str) -> _Partition:
        return self._partitions.setdefault(wire.named(partition), _Partition())


def _put_blob(partition: _Partition, entity: str, blob: Blob) -> None:
    count = wire.count_of(blob)
    with memoryview(blob.data) as view:
        for index in range(count):
            clear = bytes(view[index * CHUNK_BYTES_MAX : (index + 1) * CHUNK_BYTES_MAX])
            partition.put("", entity, clear, (blob.hash, index, count))
