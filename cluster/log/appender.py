"""The appender: gathers what workers want to append into batches, and lets each into the stream once, in order.

Group commit: while one batch is on its way to the disk the next gathers. Since nobody else writes the stream, the
position of every message is known when it is let in; the answer goes out when its batch is durable and the lease holds.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from cluster.control.lease import LeaseLost
from cluster.log.admission import Admission
from cluster.log.engine import Message
from cluster.log.model import LogUnavailable, Stale, Stored
from cluster.log.recent import Recent
from cluster.log.wire import Mark, Request, Stream, messages
from cluster.log.writer import Confirm, ForeignWrite, Writer, WriteRefused
from cluster.position import SEQUENCE_MAX, position

BATCH_GATHERED_MAX = 400  # messages; a single larger command still goes as one batch
BATCH_BYTES_MAX = 4 << 20
WAITING_MESSAGES_MAX = 16_000
WAITING_BYTES_MAX = 64 << 20

log = structlog.get_logger("cluster.log.appender")

Outcome = Stored | Stale
Publish = Callable[[Mark], Awaitable[None]]


class _Batch:
    """`whole`: holds a command with several events, so it must be in the log wholly or not at all."""

    def __init__(self, first: int) -> None:
        self.first = first  # sequence of the first message
        self.messages: list[Message] = []
        self.bytes = 0
        self.whole = False
        self.events: list[int] = []  # positions of the commands' last events
        self.answers: list[tuple[asyncio.Future[Outcome], Outcome, int]] = []  # the last: to be durable first, a sequence

    @property
    def end(self) -> int:
        return self.first + len(self.messages) - 1


class Appender:
    """`mark`: where the stream and its events end now. `confirm`: returns while the lease is held, raises LeaseLost."""

    def __init__(self, stream: Stream, writer: Writer, admission: Admission, mark: Mark, last: int, recent: Recent) -> None:
        self.stream = stream
        self._writer = writer
        self._admission = admission
        self.mark = mark
        self._recent = recent
        self._last = last  # sequence: durable up to here
        self._next = last + 1  # sequence of the next message let in
        self._queue: deque[_Batch] = deque()
        self._writing: _Batch | None = None
        self._work = asyncio.Event()
        self._messages = 0
        self._bytes = 0
        self._closed = ""
        self._refusing = ""

    @property
    def closed(self) -> bool:
        return bool(self._closed or self._refusing)

    def submit(self, request: Request) -> asyncio.Future[Outcome]:
        """The answer to come. Its exception is LogUnavailable. Cancelling it does not take the command back."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self._closed or self._refusing:
            future.set_exception(LogUnavailable(self._closed or self._refusing))
            return future
        if request.command:
            verdict = self._admission.verdict(request.command, request.depends, request.read_at)
            if verdict is not None:
                self._answer_after(future, verdict, verdict.last if isinstance(verdict, Stored) else verdict.changed_at)
                return future
        size = sum(len(chunk.data) for chunk in request.chunks) + sum(len(event.payload) for event in request.events)
        count = len(request.chunks) + len(request.events)
        if self._messages + count > WAITING_MESSAGES_MAX or self._bytes + size > WAITING_BYTES_MAX:
            future.set_exception(LogUnavailable("too much waits to be appended"))
            return future
        self._let_in(request, future, count, size)
        return future

    async def run(self, confirm: Confirm, publish: Publish) -> None:
        """Writes batches until cancelled. Raises LeaseLost, ForeignWrite: then nothing more may be written by us, and
        what waits has been told that its fate is unknown."""
        try:
            while True:
                while not self._queue:
                    self._work.clear()
                    await self._work.wait()
                batch = self._writing = self._queue.popleft()
                await self._write(batch, confirm, publish)
                self._writing = None
        except (LeaseLost, ForeignWrite) as error:
            log.warning("appender steps down", stream=self.stream.name, why=str(error))
            raise
        finally:
            self.close("this appender stepped down")

    async def drained(self) -> None:
        """Returns when nothing waits."""
        while (waiting := self._waiting()) and not self._closed:
            await asyncio.wait([waiting[-1]])

    def refuse(self, why: str) -> None:
        """Takes nothing more; what waits goes on."""
        self._refusing = why

    def close(self, why: str) -> None:
        self._closed = self._closed or why
        for future in self._waiting():
            future.set_exception(LogUnavailable(why))
        self._queue.clear()

    def _let_in(self, request: Request, future: asyncio.Future[Outcome], count: int, size: int) -> None:
        batch = self._queue[-1] if self._queue else None
        if batch is None or len(batch.messages) + count > BATCH_GATHERED_MAX or batch.bytes + size > BATCH_BYTES_MAX:
            batch = _Batch(self._next)
            self._queue.append(batch)
            self._work.set()
        first_event = self._next + len(request.chunks)
        self._next += count
        assert self._next <= SEQUENCE_MAX, "this epoch is full"
        batch.messages.extend(messages(self.stream, request))
        batch.bytes += size
        batch.whole = batch.whole or len(request.events) > 1
        self._messages += count
        self._bytes += size
        if request.events:
            outcome = self._admission.admit(request.command, request.events, position(self.stream.epoch, first_event))
            batch.events.append(outcome.last)
        else:
            outcome = Stored(position(self.stream.epoch, batch.end - count + 1), position(self.stream.epoch, batch.end))
            self._admission.remember(request.command, outcome.first, outcome.last)
        batch.answers.append((future, outcome, batch.end))

    def _answer_after(self, future: asyncio.Future[Outcome], outcome: Outcome, at: int) -> None:
        """Nothing is said of an event that is not durable yet."""
        for batch in (self._writing, *self._queue):
            if batch is not None and at <= position(self.stream.epoch, batch.end) and at > self.mark.durable:
                batch.answers.append((future, outcome, at - position(self.stream.epoch, 0)))
                return
        future.set_result(outcome)

    async def _write(self, batch: _Batch, confirm: Confirm, publish: Publish) -> None:
        stored = len(batch.messages)
        refused = ""
        try:
            await self._writer.write(batch.messages, batch.first - 1, whole=batch.whole)
        except WriteRefused as error:
            stored, refused = error.stored, str(error)
            log.error("the engine stores nothing", stream=self.stream.name, why=refused)
        await confirm()  # Not a word without the lease: whoever has it now decides what became of these.
        self._last = batch.first + stored - 1
        self._messages -= len(batch.messages)
        self._bytes -= batch.bytes
        self._recent.add(self.stream.name, batch.first, batch.messages[:stored])
        self._move_mark(batch)
        for future, outcome, after in batch.answers:
            if after <= self._last and not future.done():
                future.set_result(outcome)
        if refused:
            self._start_over(batch, refused)
        await publish(self.mark)

    def _move_mark(self, batch: _Batch) -> None:
        durable = position(self.stream.epoch, self._last)
        event = max((last for last in batch.events if last <= durable), default=0)
        self.mark = Mark(durable, max(self.mark.event, event))

    def _start_over(self, batch: _Batch, why: str) -> None:
        """All that was let in behind what the engine refused is off: its positions were reckoned on it."""
        for each in (batch, *self._queue):
            for future, _, _ in each.answers:
                if not future.done():
                    future.set_exception(LogUnavailable(why))
        self._queue.clear()
        self._messages = self._bytes = 0
        self._next = self._last + 1
        self._admission.forget_above(self.mark.event)

    def _waiting(self) -> list[asyncio.Future[Outcome]]:
        batches = ([self._writing] if self._writing is not None else []) + list(self._queue)
        return [future for batch in batches for future, _, _ in batch.answers if not future.done()]
