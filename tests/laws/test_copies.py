"""What a site says that it has of a partition's history, over the engine in memory: never more than that, and never less."""

import json
from collections.abc import Mapping
from itertools import count

import pytest

from cluster.control.bucket import MemoryKeys
from cluster.control.partitions import Ended, KnownPartitions, Partition
from cluster.log import epochs
from cluster.log.connection import Arrived, Connection, NobodyThere
from cluster.log.engine import Engine, Message
from cluster.log.follow import Reader
from cluster.log.marks import Marks
from cluster.log.recent import Recent
from cluster.log.wire import POSITION_HEADER, Stream, stream_of
from cluster.position import position
from tests.sim.engine import Answer, Streams


class Near(Connection):
    """One engine, at once."""

    def __init__(self) -> None:
        ticks = count(1_800_000_000_000_000_000)
        self.streams = Streams("site-a", lambda: next(ticks), lambda: 0.0)
        self.started = "a-1"

    @property
    def life(self) -> str:
        return self.started

    async def request(
        self, subject: str, data: bytes = b"", headers: Mapping[str, str] | None = None, timeout_s: float = 1.0
    ) -> Arrived:
        if not subject.startswith("$JS.API."):
            stream = self.streams.taker(subject)
            if stream is None:
                raise NobodyThere(subject)
            return self._arrived([self.streams.store(stream, subject, headers or {}, data)])[0]
        return (await self.collect(subject, data))[0]

    async def collect(self, subject: str, data: bytes = b"", timeout_s: float = 1.0) -> list[Arrived]:
        answers = self.streams.api(subject.removeprefix("$JS.API."), data)
        if answers is None:
            raise NobodyThere(subject)
        return self._arrived(answers)

    def _arrived(self, answers: list[Answer]) -> list[Arrived]:
        return [Arrived("", "", each.headers, each.data, each.status) for each in answers]


class Site:
    def __init__(self) -> None:
        self.connection = Near()
        self.engine = Engine(self.connection)
        self.known = KnownPartitions(MemoryKeys())
        self.marks = Marks(self.connection, "p", "a")
        self.reader = Reader(self.engine, self.known, "p", self.marks, Recent())

    async def has(self, stream: Stream, what: str, first: int = 1) -> None:
        """`e` an event, `c` content, from sequence `first` at their home on."""
        await self.engine.create_stream(epochs.config(stream, 1))
        for at, kind in enumerate(what, first):
            head, middle = ("cp", {"e": "ev", "c": "ct"}[kind] + ".") if stream.copy else ({"e": "ev", "c": "ct"}[kind], "")
            subject = f"{head}.p.{stream.epoch}.{middle}" + ("mailbox.1" if kind == "e" else "1")
            headers = {POSITION_HEADER: str(position(stream.epoch, at))} if stream.copy else {}
            await self.engine.write(Message(subject, headers, json.dumps(at).encode()), {})


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("tail", ["", "ec"])
async def test_an_epoch_that_ends_with_content_is_still_whole_when_that_was_dropped(copy: bool, tail: str) -> None:
    site = Site()
    old, new = stream_of("p", 1, copy=copy), stream_of("p", 2, copy=True)
    await site.has(old, "eccec" + tail)
    await site.has(new, "ec")
    record = Partition("p", "b", 2, ended=(Ended(1, 5, 1, "a"),), copies=("a",))
    known = await site.known.note(record, {1: old.name, 2: new.name})
    assert await epochs.whole(site.engine, known) == (position(2, 2), position(2, 1))
    for stream, end in epochs.segments(known):
        await site.reader.drop_contents(stream, end, position(2, 2))
    assert await epochs.whole(site.engine, known) == (position(2, 2), position(2, 1))
    left = await site.engine.read(old.name, 1, 10, old.contents)
    assert [json.loads(each.data) for each in left.messages] == [5, 7][: 1 + bool(tail)]


