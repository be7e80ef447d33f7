"""What a site says that it has of a partition's history, over the engine in memory: never more than that, and never less."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import count

import msgspec
import pytest

from cluster.control.bucket import MemoryKeys
from cluster.control.hold import Hold
from cluster.control.holder import Holder
from cluster.control.lease import LEASE_S, MARGIN_S, Lease
from cluster.control.partitions import Ended, Found, Known, KnownPartitions, Member, Partition, Partitions, is_member
from cluster.control.watch import Node, Pulse, Watch
from cluster.log import epochs
from cluster.log.connection import Arrived, Connection, NobodyThere, Unreachable
from cluster.log.copier import Copier
from cluster.log.engine import Engine, Kept, Message
from cluster.log.follow import Reader
from cluster.log.keeper import Keeper
from cluster.log.leader import Site as LogSite
from cluster.log.marks import Marks
from cluster.log.model import Record
from cluster.log.recent import Recent
from cluster.log.wire import POSITION_HEADER, Stream, stream_of
from cluster.position import position
from tests.laws.test_lease import Clock, Keys, never
from tests.sim.engine import Answer, Streams


class Near(Connection):
    """One engine, at once, and while `home` is there that of site b."""

    def __init__(self) -> None:
        ticks = count(1_800_000_000_000_000_000)
        self.streams = Streams("site-a", lambda: next(ticks), lambda: 0.0)
        self.home: Streams | None = None
        self.started = "a-1"

    @property
    def life(self) -> str:
        return self.started

    async def request(
        self, subject: str, data: bytes = b"", headers: Mapping[str, str] | None = None, timeout_s: float = 1.0
    ) -> Arrived:
        if not subject.startswith("$JS."):
            stream = self.streams.taker(subject)
            if stream is None:
                raise NobodyThere(subject)
            return self._arrived([self.streams.store(stream, subject, headers or {}, data)])[0]
        return (await self.collect(subject, data))[0]

    async def collect(self, subject: str, data: bytes = b"", timeout_s: float = 1.0) -> list[Arrived]:
        if subject.startswith("$JS.API.STREAM.DELETE."):
            del self.streams.streams[subject.rpartition(".")[2]]
            return self._arrived([Answer({}, b"{}")])
        there = self.home if subject.startswith("$JS.site-b.") else self.streams
        answers = there.api(subject.partition(".API.")[2], data) if there is not None else None
        if answers is None:
            raise NobodyThere(subject)
        return self._arrived(answers)

    def _arrived(self, answers: list[Answer]) -> list[Arrived]:
        return [Arrived("", "", each.headers, each.data, each.status) for each in answers]


async def _next(records: AsyncIterator[tuple[Record, ...]]) -> tuple[Record, ...]:
    return await anext(records)


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
            head, middle = (
                ("cp", {"e": "ev", "c": "ct"}[kind] + ".") if stream.copy else ({"e": "ev", "c": "ct"}[kind], "")
            )
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


async def test_a_follower_misses_nothing_while_a_copy_is_made_anew() -> None:
    site = Site()
    copy = stream_of("p", 1, copy=True)
    await site.has(copy, "ccce")
    await site.known.note(Partition("p", "b", copies=("a",)), {1: copy.name})
    seen = [each.position async for batch in site.reader.read(0, position(1, 4), contents=False) for each in batch]
    assert seen == [position(1, 4)]
    # What the home has dropped meanwhile does not come again, so sequences are others.
    del site.connection.streams.streams[copy.name]
    await site.has(copy, "", 0)
    more = site.reader.read(position(1, 4), position(1, 6), contents=False)
    first = asyncio.create_task(_next(more))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not first.done()
    await site.has(copy, "e", 4)
    await site.has(copy, "ee", 5)
    assert [each.position for each in await first] == [position(1, 5), position(1, 6)]


def copier(site: Site, keys: MemoryKeys, clock: Callable[[], float] = float) -> Copier:
    me = Holder("a", "a-0")
    partitions, near = Partitions(keys), MemoryKeys()
    watch = Watch(
        site.connection, partitions, Pulse(keys, lambda beat: Node("a", "a-0", "", "", 0.0, beat), clock), clock
    )
    shared = LogSite(
        site.connection, site.engine, partitions, near, site.known, watch, "a", 1, now_us=lambda: 0, entropy=os.urandom
    )
    home = Marks(site.connection, "p")
    return Copier(shared, "p", Lease(near, "copier.p", me), Hold(keys, "p", me), site.marks, home, Recent())


def home_with(record: Partition, events: int) -> Streams:
    """The engine of a home that has so many events of epoch 1."""
    ticks = count(1_800_000_000_000_000_000)
    made, stream = Streams("site-b", lambda: next(ticks), lambda: 0.0), stream_of("p", 1)
    for config in (epochs.config(stream, 1), {"name": "KV_control", "subjects": ["$KV.control.>"], "storage": "file"}):
        made.api(f"STREAM.CREATE.{config['name']}", json.dumps(config).encode())
    for _ in range(events):
        made.store(made.streams[stream.name], "ev.p.1.mailbox.1", {}, b"1")
    known = msgspec.json.encode(Known(record, {1: stream.name}))
    made.store(made.streams["KV_control"], "$KV.control.known.p", {}, known)
    return made


async def test_a_copy_that_is_made_anew_keeps_no_hole_and_is_no_candidate_until_it_was_recognised_anew() -> None:
    site = Site()
    copy, origin = stream_of("p", 1, copy=True), stream_of("p", 1)
    await site.has(copy, "eee")
    record = Partition("p", "b", copies=("a",), members=(Member("a", "a-1"),), remote=True)
    await site.known.note(record, {1: copy.name})
    one = copier(site, MemoryKeys())
    one._site.watch.found["p"] = Found(record, 1)
    await one._look()
    said = one._said()
    assert said.position == position(1, 3) and is_member(record, "a", said.life)
    # Readers would take for dropped what a home that is away, or has less, does not bring.
    with pytest.raises(Unreachable):
        await one._recopy(1)
    site.connection.home = home_with(record, events=2)
    with pytest.raises(ValueError, match="less than is here"):
        await one._recopy(1)
    assert await site.engine.last_sequence(copy.name) == 3
    site.connection.home = home_with(record, events=3)
    await one._recopy(1)
    assert not is_member(record, "a", one._said().life)
    # Read before, and behind what is gone now.
    late = [Kept(4, "ev.p.1.mailbox.1", {}, b"4")]
    with pytest.raises(Unreachable):
        await one._store(origin, late)
    with pytest.raises(Unreachable):
        await one._stand(Found(record, 1), patient=False)
    assert await site.engine.last_sequence(copy.name) == 0
    for _ in range(2):
        await one._look()
        assert one._said().position == 0 and not is_member(record, "a", one._said().life)
    first = one._said().life
    await one._recopy(1)
    await one._look()
    assert one._said().life not in ("a-1", first)


class Serves:
    """In place of a leader: whether it is asked to lead, and under what."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self.led: list[tuple[bool, bool]] = []

    async def serve(self) -> None:
        self.led.append((self._hold.held(), self._hold.detached))
        raise Unreachable("enough")


@pytest.mark.parametrize("answers", [False, True])
async def test_a_pinned_home_that_is_cut_off_goes_on_in_another_process_that_had_heard_of_it(answers: bool) -> None:
    """`answers`: a member of the control plane is cut off with it, which takes no writes and says what it knew."""
    site, keys, clock = Site(), Keys(), Clock()
    record = Partition("p", "a", copies=("b",), pinned=True, holder=Holder("dead", "a-1"))
    await site.known.note(record, {})
    one = copier(site, keys, clock)
    await one._site.partitions.create(record)
    watch = one._site.watch
    watch.found, watch.answered_at = await one._site.partitions.all(), clock.now
    near = Lease(one._site.near, "pinned.p", Holder("a", "a-0"), clock)
    hold = Hold(keys, "p", Holder("a", "a-0"), near, clock, gone=lambda holder: holder.id == "dead")
    leader = Serves(hold)
    keeper = Keeper(one._site, "p", hold, leader, one)  # type: ignore[arg-type]
    keys.cut = True
    clock.now += LEASE_S + MARGIN_S + 0.1
    if answers:
        watch.answered_at = clock.now
    with pytest.raises(ExceptionGroup):
        await keeper._keep()
    assert leader.led == [(True, True)]
    watch.found["p"] = Found(msgspec.structs.replace(record, epoch=3), 9)
    with pytest.raises(Unreachable):
        await keeper._keep()
    assert len(leader.led) == 1, "an epoch of which it knows nothing is not gone on with"


async def test_a_pinned_home_that_starts_where_the_control_plane_is_out_of_reach_goes_on() -> None:
    site, keys, clock = Site(), Keys(), Clock()
    await site.known.note(Partition("p", "a", copies=("b",), pinned=True), {})
    one = copier(site, keys, clock)
    near = Lease(one._site.near, "pinned.p", Holder("a", "a-0"), clock)
    hold = Hold(keys, "p", Holder("a", "a-0"), near, clock, gone=never)
    leader = Serves(hold)
    keeper = Keeper(one._site, "p", hold, leader, one)  # type: ignore[arg-type]
    keeper.make(("b",), pinned=True)
    keys.cut = True
    first = asyncio.create_task(keeper._keep())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not leader.led and not first.done(), "it may answer yet"
    first.cancel()
    clock.now += LEASE_S + MARGIN_S + 0.1
    with pytest.raises(ExceptionGroup):
        await keeper._keep()
    assert leader.led == [(True, True)]


async def test_what_was_frozen_stays_so_when_an_earlier_record_is_seen_once_more() -> None:
    site = Site()
    one = copier(site, MemoryKeys())
    await one._freeze(7)
    await one._freeze(5)
    assert one._frozen == 7
    await one._look()
    assert one._frozen == 7


async def test_an_epoch_of_which_nothing_is_in_history_is_not_waited_for() -> None:
    site = Site()
    empty, new = stream_of("p", 1, copy=True), stream_of("p", 2, copy=True)
    await site.has(empty, "")
    await site.has(new, "e")
    record = Partition("p", "b", 2, ended=(Ended(1, 0, 1, "a"),), copies=("a",))
    await site.known.note(record, {1: empty.name, 2: new.name})
    seen = [each.position async for batch in site.reader.read(0, position(2, 1), contents=False) for each in batch]
    assert seen == [position(2, 1)] and not site.reader._filling
