"""The appender: gathers what workers want to append into batches, and lets each into the stream once, in order.

Group commit: while one batch is on its way to the disk the next gathers. Since nobody else writes the stream, the
position of every message is known when it is let in. The answer goes out when the batch is as durable as promised (here,
and with durability `remote` at every member of the sync set) and the lease holds; the mark moves with it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from cluster.control.lease import LeaseLost
from cluster.log.admission import Admission
from cluster.log.engine import Message
from cluster.log.model import LogUnavailable, NoRoom, Stale, Stored
from cluster.log.recent import Recent
from cluster.log.wire import Mark, Request, Stream, messages
from cluster.log.writer import ForeignWrite, Writer, WriteRefused
from cluster.position import SEQUENCE_MAX, position, split

BATCH_GATHERED_MAX = 400  # messages; a single larger command still goes as one batch
BATCH_BYTES_MAX = 4 << 20
WAITING_MESSAGES_MAX = 16_000
WAITING_BYTES_MAX = 64 << 20

log = structlog.get_logger("cluster.log.appender")

Outcome = Stored | Stale
Publish = Callable[[Mark], Awaitable[None]]
Answer = tuple["asyncio.Future[Outcome]", Outcome, int]  # the last: what must be durable first, a sequence


class Word(Protocol):
    """What the appender must ask before it gives its word."""

    def held(self) -> bool:
        """Whether the lease holds now."""
        ...

    async def confirm(self) -> None:
        """Returns while the lease is held; raises LeaseLost."""
        ...

    def promised(self) -> int:
        """Up to which sequence all whom the promise is made on have it too."""
        ...

    def room(self, given: int) -> bool:
        """Whether as many UIDs may be given in this epoch; if not now, it is being seen to."""
        ...


class _Batch:
    """`whole`: holds a command with several events, so it must be in the log wholly or not at all."""

    def __init__(self, first: int) -> None:
        self.first = first  # sequence of the first message
        self.messages: list[Message] = []
        self.bytes = 0
        self.whole = False
        self.events: list[int] = []  # positions of the commands' last events
        self.answers: list[Answer] = []

    @property
    def end(self) -> int:
        return self.first + len(self.messages) - 1


class Appender:
    """`mark`: what was promised so far, and where the stream ends. `given`: UIDs that this epoch gave before at most.
    `last_event`: position of the last event written, in this epoch or before."""

    def __init__(
        self,
        stream: Stream,
        writer: Writer,
        admission: Admission,
        mark: Mark,
        recent: Recent,
        word: Word,
        given: int = 0,
        last_event: int = 0,
    ) -> None:
        self.stream = stream
        self._writer = writer
        self._admission = admission
        self.mark = mark
        self._recent = recent
        self._word = word
        self.given = given
        self._last = split(mark.written).sequence if split(mark.written).epoch == stream.epoch else 0  # on disk here
        self._next = self._last + 1  # sequence of the next message let in
        self._queue: deque[_Batch] = deque()
        self._writing: _Batch | None = None
        self._written: deque[Answer] = deque()  # on disk here, and not yet as promised
        # Positions of commands' last events there.
        self._events: deque[int] = deque([last_event] if last_event > mark.event else [])
        self._work = asyncio.Event()
        self._messages = 0
        self._bytes = 0
        self._closed = ""
        self._refusing = ""

    @property
    def closed(self) -> bool:
        return bool(self._closed or self._refusing)

    @property
    def last(self) -> int:
        """The last sequence on disk here."""
        return self._last

    @property
    def let_in(self) -> int:
        """The last sequence that was given away."""
        return self._next - 1

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
        uids = sum(event.uids for event in request.events)
        if uids and not self._word.room(self.given + uids):
            future.set_exception(NoRoom("the copies are too far behind"))
            return future
        self.given += uids
        self._let_in(request, future, count, size)
        return future

    async def run(self, publish: Publish) -> None:
        """Writes batches until cancelled. Raises LeaseLost, ForeignWrite: then nothing more may be written by us, and
        what waits has been told that its fate is unknown."""
        try:
            while True:
                while not self._queue:
                    self._work.clear()
                    await self._work.wait()
                batch = self._writing = self._queue.popleft()
                await self._write(batch, publish)
                self._writing = None
        except (LeaseLost, ForeignWrite) as error:
            log.warning("appender steps down", stream=self.stream.name, why=str(error))
            raise
        finally:
            self.close("this appender stepped down")

    async def advance(self, publish: Publish) -> None:
        """Gives its word for all that is as durable as promised by now, if the lease holds."""
        upto = min(self._last, self._word.promised())
        if self._closed or not self._word.held():
            return  # Not a word without the lease: whoever has it now decides what became of these.
        durable, event = self.mark.durable, self.mark.event
        if upto:
            durable = max(durable, position(self.stream.epoch, upto))
        elif self.mark.written < position(self.stream.epoch, 0):
            durable = self.mark.written  # A restored partition, and nothing written since.
        while self._events and self._events[0] <= durable:
            event = self._events.popleft()
        moved = Mark(durable, event, position(self.stream.epoch, self._last))
        while self._written and self._written[0][2] <= upto:
            future, outcome, _ = self._written.popleft()
            if not future.done():
                future.set_result(outcome)
        if moved != self.mark:
            self.mark = moved
            await publish(moved)

    async def drained(self) -> None:
        """Returns when nothing waits."""
        while (waiting := self._waiting()) and not self._closed:
            await asyncio.wait([waiting[-1]])

    def refuse(self, why: str) -> None:
        """Takes nothing more; what waits goes on. Empty: takes all again."""
        self._refusing = why

    def close(self, why: str) -> None:
        self._closed = self._closed or why
        for future in self._waiting():
            _fail(future, why)
        self._queue.clear()
        self._written.clear()

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
        if at <= self.mark.durable:
            future.set_result(outcome)
            return
        # What an earlier epoch holds is promised as soon as the first word of this one is.
        answer = future, outcome, split(at).sequence if split(at).epoch == self.stream.epoch else 1
        for batch in (self._writing, *self._queue):
            if batch is not None and batch.first <= answer[2] <= batch.end:
                batch.answers.append(answer)
                return
        self._written.append(answer)
        self._written = deque(sorted(self._written, key=lambda each: each[2]))

    async def _write(self, batch: _Batch, publish: Publish) -> None:
        stored = len(batch.messages)
        refused = ""
        try:
            await self._writer.write(batch.messages, batch.first - 1, whole=batch.whole)
        except WriteRefused as error:
            stored, refused = error.stored, str(error)
            log.error("the engine stores nothing", stream=self.stream.name, why=refused)
        await self._word.confirm()
        self._last = batch.first + stored - 1
        self._messages -= len(batch.messages)
        self._bytes -= batch.bytes
        self._recent.add(self.stream.name, batch.first, batch.messages[:stored])
        last = position(self.stream.epoch, self._last)
        self._events.extend(event for event in batch.events if event <= last)
        self._written.extend(sorted((each for each in batch.answers if each[2] <= self._last), key=lambda each: each[2]))
        if refused:
            self._start_over(batch, refused)
        await self.advance(publish)

    def _start_over(self, batch: _Batch, why: str) -> None:
        """All that was let in behind what the engine refused is off: its positions were reckoned on it."""
        for each in (batch, *self._queue):
            for future, _, after in each.answers:
                if after > self._last and not future.done():
                    _fail(future, why)
        self._queue.clear()
        self._messages = self._bytes = 0
        self._next = self._last + 1
        self._admission.forget_above(self._events[-1] if self._events else self.mark.event)

    def _waiting(self) -> list[asyncio.Future[Outcome]]:
        batches = ([self._writing] if self._writing is not None else []) + list(self._queue)
        waiting = [*self._written, *(answer for batch in batches for answer in batch.answers)]
        return [future for future, _, _ in waiting if not future.done()]


def _fail(future: "asyncio.Future[Outcome]", why: str) -> None:
    future.set_exception(LogUnavailable(why))
    future.exception()  # Whoever asked may have given up waiting: that is no error of ours.
