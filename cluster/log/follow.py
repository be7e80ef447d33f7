"""Reading the log: bounded ranges, and following it for ever.

There is no consumer in the engine to lose: when the mark has moved, what lies up to it is read directly, in batches. A
restart of the engine is one failed read, tried again from the same place.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import NamedTuple

import structlog

from cluster.control.partitions import Known, KnownPartitions, Spans, clip, in_history, spans
from cluster.log.connection import Unreachable
from cluster.log.engine import Engine, EngineRefused, Kept
from cluster.log.epochs import segments
from cluster.log.marks import Marks
from cluster.log.model import Record, RolledBack
from cluster.log.recent import Recent
from cluster.log.wire import Stream, position_of, record
from cluster.position import SEQUENCE_MAX, position, split

READ_RECORDS_MAX = 500
READ_BYTES_MAX = 8 << 20
CLEAR_BYTES_MAX = 4 << 20  # of records given at once, unpacked
RETRY_WAIT_S = 0.05
HOLE_S_MAX = 30.0

log = structlog.get_logger("cluster.log.follow")


class _Elsewhere(Exception):
    """The epoch lies in `stream` now."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream.name)
        self.stream = stream


class Segment(NamedTuple):
    """One epoch's stretch of history. `end`: position of its last message in history."""

    stream: Stream
    end: int


def unpacked(stream: Stream, kept: Sequence[Kept]) -> Iterator[tuple[Record, ...]]:
    """Records by portions of about CLEAR_BYTES_MAX: 8 MiB of content as it lies may be hundreds when unpacked."""
    portion: list[Record] = []
    size = 0
    for each in kept:
        portion.append(record(stream, each))
        size += len(portion[-1].payload)
        if size >= CLEAR_BYTES_MAX:
            yield tuple(portion)
            portion, size = [], 0
    if portion:
        yield tuple(portion)


class Reader:
    """Reads one partition where `known` says what lies there. `marks` bound what it shows."""

    def __init__(self, engine: Engine, known: KnownPartitions, partition: str, marks: Marks, recent: Recent) -> None:
        self._engine = engine
        self._partitions = known
        self._partition = partition
        self._marks = marks
        self._recent = recent
        self._known: tuple[Segment, ...] = ()
        # Of copies: stream and life of the engine → position read up to, and the sequence after it.
        self._following: dict[tuple[str, str], tuple[int, int]] = {}
        self._filling: dict[str, tuple[int, float]] = {}  # copy → where it ended, and since when; monotonic seconds
        self.history: Spans = ()

    async def follow(self, after: int, *, contents: bool, standing: int = 0) -> AsyncIterator[tuple[Record, ...]]:
        """Raises RolledBack when `after`, or what was given since, or `standing` is not in history any more."""
        at = after
        while True:
            goal = await self._marks.beyond(at, contents=contents)
            await self._segments(goal)
            shown = max(at, standing)
            if not in_history(self.history, shown):
                raise RolledBack(self._partition, clip(self.history, shown))
            async for batch in self.read(at, goal, contents=contents):
                yield batch
            at = goal

    async def read(self, after: int, upto: int, *, contents: bool) -> AsyncIterator[tuple[Record, ...]]:
        """Everything above `after` and not above `upto`, which must not lie above the mark. Waits for the engine."""
        async for stream, kept in self.stored(after, upto, contents=contents):
            for batch in unpacked(stream, kept):
                yield batch

    async def read_of(self, upto: int, noun: str, entity: str | None) -> AsyncIterator[tuple[Record, ...]]:
        """Events of one entity (None = of all) of a noun, not above `upto`, which must not lie above the mark."""
        for segment in await self._segments(upto):
            end = min(segment.end, upto)
            if end > 0 and segment.stream.epoch <= split(upto).epoch:
                stretch = self._stretch(segment.stream, 0, end, lambda stream: stream.events_of(noun, entity))
                async for stream, kept in stretch:
                    for batch in unpacked(stream, kept):
                        yield batch

    async def stored(self, after: int, upto: int, *, contents: bool) -> AsyncGenerator[tuple[Stream, list[Kept]], None]:
        """The same as it lies in the streams, each batch of one stream."""
        at = after
        for segment in await self._segments(upto):
            if segment.end <= at:
                continue
            end = min(segment.end, upto)
            stretch = self._stretch(segment.stream, at, end, lambda stream: ">" if contents else stream.events)
            async for stream, kept in stretch:
                yield stream, kept
            at = max(at, end)
            if at >= upto:
                return

    async def _stretch(
        self, stream: Stream, after: int, end: int, subject_of: Callable[[Stream], str]
    ) -> AsyncIterator[tuple[Stream, list[Kept]]]:
        at, elsewhere = after, stream
        while True:
            try:
                async for kept in self._of_one(elsewhere, at, end, subject_of(elsewhere)):
                    yield elsewhere, kept
                    at = position_of(elsewhere, kept[-1])
                return
            except _Elsewhere as moved:
                elsewhere = moved.stream

    async def _of_one(self, stream: Stream, after: int, end: int, subject: str) -> AsyncIterator[list[Kept]]:
        sequence = await self.sequence_after(stream, after)
        ahead: asyncio.Task[list[Kept]] | None = None
        try:
            while True:
                kept = await (ahead or self._patiently(stream, sequence, end, subject))
                ahead = None
                there = [each for each in kept if position_of(stream, each) <= end]
                if there and len(there) == len(kept) and position_of(stream, kept[-1]) < end:
                    sequence = kept[-1].sequence + 1
                    # The next batch is on its way while this one is used: at most two are in memory.
                    ahead = asyncio.create_task(self._patiently(stream, sequence, end, subject))
                # A copy that was made anew has other sequences than it had when it was asked for `after`.
                if wanted := [each for each in there if position_of(stream, each) > after]:
                    yield wanted
                    if stream.copy:
                        life = self._engine.connection.life
                        self._following[stream.name, life] = position_of(stream, wanted[-1]), wanted[-1].sequence + 1
                if ahead is None:
                    return
        finally:
            if ahead is not None:
                ahead.cancel()

    async def _patiently(self, stream: Stream, sequence: int, end: int, subject: str) -> list[Kept]:
        """Some messages on `subject` from `sequence` on, perhaps beyond `end`; none only if there are none up to it.
        Raises _Elsewhere."""
        whole = subject in (">", stream.events)
        while whole and (recent := self._recent.after(stream.name, sequence)) and sequence <= split(end).sequence:
            events = stream.events.removesuffix(">")
            wanted = recent if subject == ">" else [each for each in recent if each.subject.startswith(events)]
            if wanted:
                return wanted
            sequence = recent[-1].sequence + 1
        count = READ_RECORDS_MAX if stream.copy else max(1, min(READ_RECORDS_MAX, split(end).sequence - sequence + 1))
        while True:
            try:
                found = (await self._engine.read(stream.name, sequence, count, subject, READ_BYTES_MAX)).messages
                if found or (not stream.copy and sequence > split(end).sequence):
                    return found
                there = await self._engine.next_on(stream.name, subject, sequence)
                if there is not None and position_of(stream, there) > end:
                    return []
                # Dropped, all of it; or this engine's disk was put back, and it never was here.
                if there is None and await self._reaches(stream, end):
                    return []
                log.debug("a replica lags", stream=stream.name, sequence=sequence)
                await self._look_elsewhere(stream)
                await asyncio.sleep(RETRY_WAIT_S)
            except (Unreachable, EngineRefused) as error:
                log.debug("read again", stream=stream.name, why=str(error))
                await asyncio.sleep(RETRY_WAIT_S)

    async def _reaches(self, stream: Stream, end: int) -> bool:
        """Whether what is not there up to `end` was dropped. A copy that is made anew comes up to there by and by; one that
        comes no nearer has a hole where its home had dropped the end already."""
        if not stream.copy:
            return await self._engine.last_sequence(stream.name) >= split(end).sequence
        newest = await self._engine.last_on(stream.name, ">")
        at = position_of(stream, newest) if newest is not None else position(stream.epoch, 0)
        if at >= end:
            self._filling.pop(stream.name, None)
            return True
        if self._filling.get(stream.name, (-1, 0.0))[0] != at:
            self._filling[stream.name] = at, time.monotonic()
        return time.monotonic() - self._filling[stream.name][1] >= HOLE_S_MAX

    async def _look_elsewhere(self, stream: Stream) -> None:
        """Where a disk was put back, what is missing of an epoch is written again, into another stream."""
        await self.known()
        for segment in self._known:
            if segment.stream.epoch == stream.epoch and segment.stream != stream:
                raise _Elsewhere(segment.stream)

    async def sequence_after(self, stream: Stream, after: int) -> int:
        """The stream's sequence from which on positions lie above `after`."""
        epoch, sequence = split(after)
        if epoch < stream.epoch:
            return 1
        if not stream.copy:
            return sequence + 1
        upto, following = self._following.get((stream.name, self._engine.connection.life), (0, 1))
        if upto == after and following > 1:
            before = await self._patiently_one(stream, following - 1)
            if before is not None and position_of(stream, before) == upto:  # Else the copy was made anew meanwhile.
                return following
        # A copy has its own sequences, in the same order: search by halves for the first beyond.
        low, high = 1, SEQUENCE_MAX
        while low < high:
            middle = (low + high) // 2
            kept = await self._patiently_one(stream, middle)
            if kept is None or position_of(stream, kept) > after:
                high = middle
            else:
                low = kept.sequence + 1
        return low

    async def _patiently_one(self, stream: Stream, sequence: int) -> Kept | None:
        while True:
            try:
                found = (await self._engine.read(stream.name, sequence, 1)).messages
                return found[0] if found else None
            except (Unreachable, EngineRefused):
                await asyncio.sleep(RETRY_WAIT_S)

    async def drop_contents(self, stream: Stream, end: int, upto: int) -> None:
        """Content not above `upto`, of one stream whose last sequence in history is `end`. What tells how far it goes stays:
        its last message, and the one where history ends, with the tail above that. Raises Unreachable, EngineRefused."""
        epoch, sequence = split(upto)
        last = await self._engine.last_sequence(stream.name)
        if stream.copy:
            below = min(await self.sequence_after(stream, upto), last)
            newest = await self._engine.last_on(stream.name, ">")
            if newest is not None and position_of(stream, newest) > position(stream.epoch, end):
                below = min(below, await self.sequence_after(stream, position(stream.epoch, end) - 1))
        else:
            below = min(sequence + 1 if stream.epoch == epoch else last, last, end)
        if below > 1:
            await self._engine.purge(stream.name, stream.contents, below)

    async def known(self) -> Known | None:
        """What lies there now."""
        try:
            found = await self._partitions.get(self._partition)
        except Unreachable:
            return None
        if found is not None:
            self.history = spans(found.partition)
            self._known = tuple(Segment(stream, position(stream.epoch, last)) for stream, last in segments(found))
        return found

    async def _segments(self, upto: int) -> tuple[Segment, ...]:
        """History up to `upto` at least; what lies there is looked up only when that is in an epoch not yet known."""
        while not self._known or self._known[-1].stream.epoch < split(upto).epoch:
            await self.known()
            if not self._known or self._known[-1].stream.epoch < split(upto).epoch:
                await asyncio.sleep(RETRY_WAIT_S)
        return self._known
