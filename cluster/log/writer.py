"""Puts messages into a stream, once each, however the answer is lost. The only writer's hand.

Message i of a batch is always at sequence `last + i`, behind our own message i - 1: every way of sending it says so to the
engine, so a copy of it that comes late, or a second try, either lands exactly there or is refused. After any doubt the
stream itself is asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from cluster.log.connection import Unreachable
from cluster.log.engine import WRONG_LAST_SEQUENCE, Engine, EngineRefused, Kept, Message
from cluster.log.wire import CHUNK_HEADER, COMMAND_HEADER, HASH_HEADER, POSITION_HEADER, Stream

# Up to here one by one is faster than an atomic batch. Measured: 0.3 ms a message (one fsync each) against 3.5 to 4 ms for
# a batch (seven, whatever its size); while others sync to the same disk too, 1.1 ms against 8 to 12.
CHAIN_MESSAGES_MAX = 8
RETRY_WAIT_S = 0.05
FRUITLESS_TRIES_MAX = 5

Confirm = Callable[[], Awaitable[None]]

log = structlog.get_logger("cluster.log.writer")

_TELLING = (COMMAND_HEADER, HASH_HEADER, CHUNK_HEADER, POSITION_HEADER)


class ForeignWrite(Exception):
    """Something that is not ours stands where ours should: someone else writes this stream."""


class WriteRefused(Exception):
    """The engine will not store it (full disk, limits). `stored`: so many of the messages, from the first, are in."""

    def __init__(self, why: str, stored: int) -> None:
        super().__init__(why)
        self.stored = stored


class Writer:
    """`entropy`: random bytes, for the names of batches. `confirm`: raises when we may write no more. `chains`: the
    stream has one replica, so that a few messages may go one by one."""

    def __init__(
        self, engine: Engine, stream: Stream, entropy: Callable[[int], bytes], confirm: Confirm, *, chains: bool
    ) -> None:
        self._engine = engine
        self._stream = stream
        self._entropy = entropy
        self._confirm = confirm
        self._chains = chains

    async def write(self, messages: Sequence[Message], last: int, *, whole: bool) -> None:
        """Returns when all are on disk, directly after sequence `last`. `whole`: all or none, else a beginning of them
        may be stored when this raises WriteRefused. Raises ForeignWrite, and what `confirm` raises."""
        stored = 0
        fruitless = 0
        while True:
            try:
                await self._send(messages[stored:], last + stored, whole)
                return
            except Unreachable as error:
                doubt, lasting = str(error), False
            except EngineRefused as error:
                doubt, lasting = str(error), error.code not in WRONG_LAST_SEQUENCE
            log.warning("write in doubt", stream=self._stream.name, after=last, why=doubt)
            found = await self._found(messages, last)
            if found == len(messages):
                return
            if found == stored:
                fruitless += 1
            stored = found
            if lasting or fruitless > FRUITLESS_TRIES_MAX:
                raise WriteRefused(doubt, stored)

    async def _send(self, messages: Sequence[Message], last: int, whole: bool) -> None:
        name = self._entropy(8).hex()
        if len(messages) == 1 or (self._chains and not whole and len(messages) <= CHAIN_MESSAGES_MAX):
            await self._engine.write_chain(messages, last, name)
        else:
            await self._engine.write_batch(messages, last, name)

    async def _found(self, messages: Sequence[Message], last: int) -> int:
        """How many of the messages are in the stream. Waits for the engine as long as we may write."""
        while True:
            await self._confirm()
            try:
                now = await self._engine.last_sequence(self._stream.name)
                if now < last:
                    raise ForeignWrite(f"{self._stream.name} ends at {now}, it once ended at {last}")
                found = 0
                while found < min(now - last, len(messages)):
                    part = await self._engine.read(self._stream.name, last + found + 1, min(now - last, len(messages)) - found)
                    found = self._compared(part.messages, messages, last, found)
            except Unreachable:
                await asyncio.sleep(RETRY_WAIT_S)
                continue
            if now > last + len(messages):
                raise ForeignWrite(f"{self._stream.name} ends at {now}, ours ended at {last + len(messages)}")
            return found

    def _compared(self, kept: Sequence[Kept], messages: Sequence[Message], last: int, found: int) -> int:
        for there in kept:
            ours = messages[found]
            same = there.sequence == last + found + 1 and there.subject == ours.subject and there.data == ours.data
            if not same or any(there.headers.get(name) != ours.headers.get(name) for name in _TELLING):
                raise ForeignWrite(f"{self._stream.name}: {there.sequence} is not ours")
            found += 1
        if not kept:
            raise ForeignWrite(f"{self._stream.name}: nothing at {last + found + 1}")
        return found
