"""The port `Log`, over every log that keeps it."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from cluster.log.jetstream import JetStreamLog
from cluster.log.memory import MemoryLog
from cluster.log.model import (
    CHUNK_BYTES_MAX,
    EVENT_BYTES_MAX,
    INLINE_BYTES_MAX,
    Append,
    Blob,
    Log,
    NewEvent,
    Record,
    Stale,
    Stored,
)
from cluster.position import BEGINNING, Position
from tests.contracts.engines import PASSWORD, USER, NatsServer

P = "m1"


@pytest.fixture(params=["memory", "jetstream", "jetstream from afar"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    """From afar: the appender lives behind another connection, as in another process."""
    if request.param == "memory":
        yield MemoryLog()
        return
    server = NatsServer(tmp_path)
    server.start()
    try:
        home = JetStreamLog(server.url, USER, PASSWORD, node_id="n1", site="north")
        await home.start()
        home.lead(P)
        await home.leading(P)
        if request.param == "jetstream":
            yield home
        else:
            worker = JetStreamLog(server.url, USER, PASSWORD, node_id="n2", site="north")
            await worker.start()
            yield worker
            await worker.stop()
        await home.stop()
    finally:
        server.stop()


def blob(size: int, noise: bool = True) -> Blob:
    data = os.urandom(size) if noise else b"mail " * (size // 5)
    return Blob(hashlib.sha256(data).digest(), data)


def event(payload: bytes, *changes: str, entity: str = "7", noun: str = "mailbox") -> NewEvent:
    return NewEvent(noun, entity, payload, changes)


def append(*events: NewEvent, depends: Iterable[str] = (), read_at: int = 0, contents: Iterable[Blob] = ()) -> Append:
    return Append(P, os.urandom(16), events, tuple(depends), read_at, tuple(contents))


async def stored(log: Log, what: Append) -> Stored:
    outcome = await log.append(what)
    assert isinstance(outcome, Stored), outcome
    return outcome


async def followed(log: Log, count: int, after: Position = BEGINNING, *, contents: bool = True) -> list[Record]:
    """The first `count` records above `after`."""
    got: list[Record] = []
    records = log.follow(P, after, contents=contents)
    async with asyncio.timeout(20):
        async for batch in records:
            assert batch
            got.extend(batch)
            if len(got) >= count:
                break
    await records.aclose()  # type: ignore[attr-defined]
    assert len(got) == count, got
    return got


async def test_what_was_appended_is_followed_in_order_with_its_content_before_it(log: Log) -> None:
    body = blob(10_000)
    one = await stored(log, append(event(b"one"), contents=[body]))
    two = await stored(log, append(event(b"two", entity="example.org", noun="directory"), event(b"three", entity="")))
    assert one.first == one.last < two.first < two.last
    records = await followed(log, 4)
    assert records[0] == Record(records[0].position, "", "7", body.data, body.hash, 0, 1)
    assert records[1:] == [
        Record(one.first, "mailbox", "7", b"one"),
        Record(two.first, "directory", "example.org", b"two"),
        Record(two.last, "mailbox", "", b"three"),
    ]
    assert records[0].position < one.first


async def test_the_mark_is_the_last_event_and_zero_before_the_first(log: Log) -> None:
    assert await log.mark(P) == 0
    one = await stored(log, append(event(b"one")))
    assert await log.mark(P) == one.last
    await log.upload(P, "7", _each(blob(100)))
    assert await log.mark(P) == one.last


async def test_a_state_that_changed_meanwhile_is_stale(log: Log) -> None:
    one = await stored(log, append(event(b"one", "tree/7")))
    assert await log.append(append(event(b"late", "tree/7"), depends=["tree/7"], read_at=0)) == Stale(one.last)
    assert isinstance(await log.append(append(event(b"other"), depends=["tree/8"], read_at=0)), Stored)
    two = await stored(log, append(event(b"in time", "tree/7"), depends=["tree/8", "tree/7"], read_at=one.last))
    assert await log.append(append(event(b"late again"), depends=["tree/7"], read_at=one.last)) == Stale(two.last)


async def test_of_many_at_once_on_one_state_one_wins(log: Log) -> None:
    outcomes = await asyncio.gather(
        *(log.append(append(event(b"%d" % n, "tree/7"), depends=["tree/7"], read_at=0)) for n in range(20))
    )
    won = [outcome for outcome in outcomes if isinstance(outcome, Stored)]
    assert len(won) == 1
    assert {outcome for outcome in outcomes if isinstance(outcome, Stale)} == {Stale(won[0].last)}
    assert await log.mark(P) == won[0].last


async def test_a_repeated_command_is_answered_with_its_first_outcome(log: Log) -> None:
    what = append(event(b"one", "tree/7"), event(b"two"), depends=["tree/7"])
    first = await stored(log, what)
    again = await stored(log, what)
    assert again == Stored(first.first, first.last, repeated=True)
    both = append(event(b"three"))
    one, two = await asyncio.gather(stored(log, both), stored(log, both))
    assert (one.first, one.last) == (two.first, two.last)
    assert sorted((one.repeated, two.repeated)) == [False, True]
    assert len(await followed(log, 3)) == 3


async def test_hundreds_at_once_are_all_there_once_and_whole(log: Log) -> None:
    bodies = [blob(500 + n) for n in range(300)]
    outcomes = await asyncio.gather(
        *(stored(log, append(event(b"a%d" % n), event(b"b%d" % n), contents=[bodies[n]])) for n in range(300))
    )
    records = await followed(log, 900)
    assert [record.position for record in records] == sorted({record.position for record in records})
    at = {record.position: record for record in records}
    for n, outcome in enumerate(outcomes):
        assert at[outcome.first].payload == b"a%d" % n and at[outcome.last].payload == b"b%d" % n
        assert outcome.last == outcome.first + 1
        assert at[outcome.first - 1].payload == bodies[n].data


async def test_following_from_a_position_gives_what_lies_above_it(log: Log) -> None:
    outcomes = [await stored(log, append(event(b"%d" % n), contents=[blob(50)])) for n in range(5)]
    after = Position(outcomes[2].last)
    records = await followed(log, 4, after)
    assert [record.position for record in records if record.noun] == [outcomes[3].last, outcomes[4].last]
    events = await followed(log, 2, after, contents=False)
    assert [record.position for record in events] == [outcomes[3].last, outcomes[4].last]


async def test_a_follower_waits_for_what_is_not_there_yet_and_is_never_above_the_mark(log: Log) -> None:
    got: asyncio.Queue[Record] = asyncio.Queue()

    async def follow() -> None:
        async for batch in log.follow(P, BEGINNING):
            for record in batch:
                assert record.position <= await log.mark(P)
                got.put_nowait(record)

    task = asyncio.create_task(follow())
    for n in range(20):
        outcome = await stored(log, append(event(b"%d" % n)))
        async with asyncio.timeout(10):
            assert await got.get() == Record(outcome.last, "mailbox", "7", b"%d" % n)
    task.cancel()


async def test_large_content_is_uploaded_in_chunks_before_the_event_that_names_it(log: Log) -> None:
    large, small = blob(5 * CHUNK_BYTES_MAX + 17), blob(200_000, noise=False)
    assert await log.upload(P, "7", _each(large, small)) == (large.hash, small.hash)
    what = Append(P, os.urandom(16), (event(b"one"),), uploaded=(large.hash, small.hash))
    outcome = await stored(log, what)
    records = await followed(log, 8)
    assert records[-1].position == outcome.last and records[-1].payload == b"one"
    assert [(record.hash, record.chunk, record.chunks) for record in records[:-1]] == [
        *((large.hash, index, 6) for index in range(6)),
        (small.hash, 0, 1),
    ]
    assert b"".join(record.payload for record in records[:6]) == large.data
    assert records[6].payload == small.data


async def test_dropped_content_is_gone_and_every_event_stays(log: Log) -> None:
    bodies = [blob(1000) for _ in range(4)]
    outcomes = [await stored(log, append(event(b"%d" % n), contents=[bodies[n]])) for n in range(4)]
    await log.drop_contents(P, Position(outcomes[1].last))
    records = await followed(log, 6)
    assert [record.hash for record in records if not record.noun] == [bodies[2].hash, bodies[3].hash]
    assert [record.position for record in records if record.noun] == [outcome.last for outcome in outcomes]


async def test_what_no_log_takes_is_refused_as_a_mistake(log: Log) -> None:
    for wrong in (
        append(),
        Append(P, b"short", (event(b"x"),)),
        append(event(bytes(EVENT_BYTES_MAX + 1))),
        append(event(b"x"), contents=[blob(INLINE_BYTES_MAX + 1)]),
        append(*(event(b"x") for _ in range(1001))),
        Append("not a name", os.urandom(16), (event(b"x"),)),
    ):
        with pytest.raises(ValueError):
            await log.append(wrong)
    assert await log.mark(P) == 0


async def test_a_command_may_hold_as_many_events_as_the_engine_takes_at_once(log: Log) -> None:
    outcome = await stored(log, append(*(event(b"%d" % n) for n in range(1000))))
    assert outcome.last - outcome.first == 999
    assert [record.payload for record in await followed(log, 1000)] == [b"%d" % n for n in range(1000)]


async def _each(*blobs: Blob) -> AsyncIterator[Blob]:
    for one in blobs:
        yield one
