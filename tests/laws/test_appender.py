"""The appender over a writer that does as the test says."""

import asyncio
import os
from collections.abc import Sequence

import pytest

from cluster.log.admission import Admission
from cluster.log.appender import Appender
from cluster.log.engine import Message
from cluster.log.model import LogUnavailable, NewEvent, Stored
from cluster.log.recent import Recent
from cluster.log.wire import Chunk, Mark, Request, stream_of
from cluster.log.writer import Writer, WriteRefused
from cluster.position import SEQUENCE_MAX, position


class FullDisk(Writer):
    """Takes the first `room` messages of the first batch and refuses the rest of it; then there is room again."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.full = True

    async def write(self, messages: Sequence[Message], last: int, *, whole: bool) -> None:
        if self.full:
            self.full = False
            raise WriteRefused("no space left", self.room)


def upload() -> Request:
    return Request(os.urandom(16), "7", chunks=(Chunk(bytes(32), 0, 1, "", b"x"),))


def event(read_at: int = 0) -> Request:
    return Request(os.urandom(16), "7", (NewEvent("mailbox", "7", b"e", ("k",)),), ("k",), read_at)


class Alone:
    """The lease is held, and nobody else is waited for."""

    def held(self) -> bool:
        return True

    async def confirm(self) -> None:
        return

    def promised(self) -> int:
        return SEQUENCE_MAX

    def room(self, given: int) -> bool:
        return True


async def test_the_mark_is_that_of_an_event_also_where_the_disk_filled_up_behind_content() -> None:
    end = position(1, 5)
    appender = Appender(stream_of("p", 1), FullDisk(room=1), Admission(end), Mark(end, end, end), Recent(), Alone())
    told: list[Mark] = []

    async def tell(mark: Mark) -> None:
        told.append(mark)

    sent, refused = appender.submit(upload()), appender.submit(event(end))
    running = asyncio.create_task(appender.run(tell))
    assert await sent == Stored(position(1, 6), position(1, 6))
    with pytest.raises(LogUnavailable):
        await refused
    # Tables never stand at content: who waited for such a position would wait for the next event, whenever that comes.
    assert appender.mark == Mark(position(1, 6), end, position(1, 6))
    assert await appender.submit(event(end)) == Stored(position(1, 7), position(1, 7))
    assert told[-1] == Mark(position(1, 7), position(1, 7), position(1, 7))
    running.cancel()
    await asyncio.wait([running])
