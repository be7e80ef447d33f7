"""What the log on JetStream promises while engines and processes die, freeze and come back."""

import asyncio
import hashlib
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import structlog

from cluster import codec
from cluster.control.lease import LEASE_S
from cluster.control.partitions import Ended
from cluster.domain.actor import SYSTEM
from cluster.domain.mailbox.events import UID_GAP, EpochStarted, Subscribed
from cluster.log.connection import Arrived, Connection, Unreachable
from cluster.log.engine import Engine, EngineRefused, Message
from cluster.log.jetstream import JetStreamLog
from cluster.log.model import Append, Blob, LogRefuses, LogUnavailable, NewEvent, Record, Stale, Stored
from cluster.position import BEGINNING, position, split
from tests.contracts.engines import PASSWORD, PAYLOAD_BYTES_MAX, USER, NatsServer

P = "m1"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    made = NatsServer(tmp_path)
    made.start()
    yield made
    made.thaw()
    made.kill()


async def opened(server: NatsServer, node: str = "n1", *, lead: bool = True) -> JetStreamLog:
    log = JetStreamLog(server.url, USER, PASSWORD, node_id=node, site="north")
    await log.start()
    if lead:
        log.lead(P)
        await log.leading(P)
    return log


def append(payload: bytes, *, depends: tuple[str, ...] = (), read_at: int = 0, contents: tuple[Blob, ...] = ()) -> Append:
    return Append(P, os.urandom(16), (NewEvent("mailbox", "7", payload, ("k",)),), depends, read_at, contents)


async def everything(log: JetStreamLog, *, contents: bool = False) -> list[Record]:
    upto = await log.mark(P)
    return [record async for batch in log.read(P, BEGINNING, upto, contents=contents) for record in batch]


async def worker(server: NatsServer, node: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.contracts.log_worker", server.url, node, P, stdout=asyncio.subprocess.PIPE
    )


async def told(process: asyncio.subprocess.Process, count: int, into: dict[bytes, int]) -> None:
    """Reads `count` more outcomes of the worker."""
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while count:
            words = (await process.stdout.readline()).split()
            assert words, "the worker is dead"
            if words[0] == b"stored":
                into[words[1]] = int(words[2])
                count -= 1


def assert_once_each(records: list[Record], promised: dict[bytes, int]) -> None:
    counted = Counter(record.payload for record in records)
    assert max(counted.values()) == 1, counted.most_common(3)
    at = {record.payload: record.position for record in records}
    assert {payload: at.get(payload) for payload in promised} == promised


async def test_kill_9_of_the_engine_under_load_loses_and_doubles_nothing(server: NatsServer) -> None:
    home, away = await opened(server), await opened(server, "n2", lead=False)
    promised: dict[bytes, int] = {}
    seen: list[Record] = []
    progress: asyncio.Queue[None] = asyncio.Queue()
    done = False

    async def write(log: JetStreamLog, name: str) -> None:
        n = 0
        while not done:
            n += 1
            what = append(f"{name}/{n}".encode(), contents=(Blob(os.urandom(32), os.urandom(2000)),) if n % 2 else ())
            try:
                outcome = await log.append(what, timeout_s=30)
            except LogUnavailable:
                continue
            assert isinstance(outcome, Stored)
            promised[what.events[0].payload] = outcome.last
            progress.put_nowait(None)

    async def follow() -> None:
        async for batch in away.follow(P, BEGINNING):
            seen.extend(batch)

    async def grown(by: int) -> None:
        async with asyncio.timeout(30):
            for _ in range(by):
                await progress.get()

    async with asyncio.TaskGroup() as group:
        following = group.create_task(follow())
        for n in range(12):
            group.create_task(write(home if n % 2 else away, str(n)))
        for _ in range(3):
            await grown(150)
            server.kill()
            server.start()
        await grown(150)
        done = True
        following.cancel()
    records = await everything(away, contents=True)
    assert_once_each([record for record in records if record.noun], promised)
    assert seen == records[: len(seen)] and len(seen) > 450
    await away.stop()
    await home.stop()


async def test_a_frozen_appender_acknowledges_nothing_after_losing_its_lease(server: NatsServer) -> None:
    promised: dict[bytes, int] = {}
    old = await worker(server, "old")
    try:
        await told(old, 300, promised)
        os.kill(old.pid, signal.SIGSTOP)
        successor = await opened(server, "new")
        outcome = await successor.append(append(b"from the successor"))
        assert isinstance(outcome, Stored)
        promised[b"from the successor"] = outcome.last
        os.kill(old.pid, signal.SIGCONT)
        await told(old, 300, promised)
        assert successor.leads(P)
    finally:
        old.kill()
        await old.wait()
    assert_once_each(await everything(successor), promised)
    await successor.stop()


async def test_a_killed_appender_is_followed_at_once_on_the_same_machine(server: NatsServer) -> None:
    promised: dict[bytes, int] = {}
    old = await worker(server, "old")
    await told(old, 200, promised)
    old.kill()
    await old.wait()
    async with asyncio.timeout(LEASE_S):  # without what is known of dead or stopped processes it takes LEASE_S + MARGIN_S
        log = await opened(server, "new")
    assert_once_each(await everything(log), promised)
    await log.stop()


async def test_a_stopped_appender_writes_what_waits_and_the_next_one_knows_its_commands(server: NatsServer) -> None:
    log = await opened(server)
    what = append(b"one")
    first = await log.append(what)
    assert isinstance(first, Stored)
    waiting = asyncio.create_task(log.append(append(b"two")))
    await asyncio.sleep(0)
    await log.stop()
    assert isinstance(await waiting, Stored)
    async with asyncio.timeout(LEASE_S):  # without what is known of dead or stopped processes it takes LEASE_S + MARGIN_S
        log = await opened(server, "n2")
    assert await log.append(what) == Stored(first.first, first.last, repeated=True)
    two = (await everything(log))[-1]
    assert two.payload == b"two"
    # What it does not remember of keys counts as changed at the last event.
    assert await log.append(append(b"three", depends=("k",), read_at=first.last)) == Stale(two.position)
    assert isinstance(await log.append(append(b"three", depends=("k",), read_at=two.position)), Stored)
    await log.stop()


async def test_a_full_store_refuses_quickly_and_recovers(server: NatsServer) -> None:
    log = await opened(server)
    first = await log.append(append(b"one"))
    assert isinstance(first, Stored)
    connection = Connection(server.url, USER, PASSWORD)
    await connection.start()
    engine = Engine(connection)
    await engine.update_stream("EV-m1-1", max_bytes=5000)
    outcomes = [outcome for _ in range(5) for outcome in await asyncio.gather(
        *(log.append(append(bytes(600)), timeout_s=5) for _ in range(3)), return_exceptions=True
    )]  # fmt: skip
    took = [outcome.last for outcome in outcomes if isinstance(outcome, Stored)]
    # Those that waited with the one on which it was found out do not know their fate; who comes after is refused.
    assert {type(outcome) for outcome in outcomes} <= {Stored, LogUnavailable, LogRefuses}, outcomes
    assert len(took) < len(outcomes) and any(isinstance(outcome, LogUnavailable) for outcome in outcomes), outcomes
    assert [record.position for record in await everything(log)] == [first.last, *sorted(took)]
    await engine.update_stream("EV-m1-1", max_bytes=-1)
    later = await log.append(append(b"two", depends=("k",), read_at=await log.mark(P)))
    assert isinstance(later, Stored) and await log.mark(P) == later.last
    await connection.stop()
    await log.stop()


async def test_without_an_appender_an_append_is_refused_in_time_and_found_by_one_that_comes(server: NatsServer) -> None:
    worker, home = await opened(server, "n2", lead=False), await opened(server, lead=False)
    with pytest.raises(LogUnavailable):
        await worker.append(append(b"nobody"), timeout_s=0.2)
    waiting = asyncio.create_task(worker.append(append(b"somebody")))
    home.lead(P)
    assert isinstance(await waiting, Stored)
    await worker.stop()
    await home.stop()


async def test_a_chain_does_not_land_on_what_another_writer_put_in_the_place_of_its_first(server: NatsServer) -> None:
    log = await opened(server)
    assert isinstance(await log.append(append(b"another's")), Stored)
    connection = Connection(server.url, USER, PASSWORD)
    await connection.start()
    engine = Engine(connection)
    late = [Message("ev.m1.1.mailbox.7", {}, b"%d" % n) for n in range(6)]
    for write in (engine.write_chain, engine.write_batch):
        with pytest.raises(EngineRefused):
            await write(late, 0, "late")
        assert await engine.last_sequence("EV-m1-1") == 1
    await engine.write_chain(late, 1, "in time")
    await engine.write_batch(late, 7, "in time")
    assert [kept.data for kept in (await engine.read("EV-m1-1", 2, 100)).messages] == [m.data for m in late] * 2
    await connection.stop()
    await log.stop()


async def test_a_new_epoch_says_what_ended_and_goes_on_without_loss(server: NatsServer) -> None:
    log = await opened(server)
    promised: dict[bytes, int] = {}

    async def write(n: int) -> None:
        outcome = await log.append(append(b"%d" % n))
        assert isinstance(outcome, Stored)
        promised[b"%d" % n] = outcome.last

    await asyncio.gather(*(write(n) for n in range(50)), log.start_epoch(P, ended_clean=True))
    await write(50)
    records = await everything(log)
    words = [record for record in records if split(record.position) == (2, 1)]
    last_of_first = max(split(record.position).sequence for record in records if split(record.position).epoch == 1)
    assert codec.decode(words[0].payload)[1] == EpochStarted(((1, last_of_first, 0),))
    assert_once_each(records, promised)
    assert split(promised[b"50"]).epoch == 2
    connection = Connection(server.url, USER, PASSWORD)
    await connection.start()
    with pytest.raises(Unreachable, match=r"no stream takes ev\.m1\.1"):
        await Engine(connection).write(Message("ev.m1.1.mailbox.7", {}, b"from a writer that woke up late"), {})
    await connection.stop()
    await log.stop()


async def test_a_restored_partition_keeps_positions_and_begins_a_new_epoch(server: NatsServer, tmp_path: Path) -> None:
    log = await opened(server)
    ids = [os.urandom(16) for _ in range(30)]
    for n, id in enumerate(ids):
        payload = codec.encode(Subscribed(str(n), True), at_us=1, by=SYSTEM, command=id)
        await log.append(Append(P, id, (NewEvent("mailbox", "7", payload),), contents=(Blob(bytes(32), b"x" * 100),)))
        if n == 10:
            await log.start_epoch(P, ended_clean=False)
    before, history = await everything(log), await log.history(P)
    await log.stop()

    (tmp_path / "other").mkdir()
    other = NatsServer(tmp_path / "other")
    other.start()
    try:
        fresh = await opened(other, lead=False)

        async def backup() -> AsyncIterator[tuple[Record, ...]]:
            for first in range(0, len(before), 7):
                yield tuple(before[first : first + 7])

        await fresh.restore(P, msgspec.json.decode(msgspec.json.encode(history), type=tuple[Ended, ...]), backup())
        fresh.lead(P)
        await fresh.leading(P)
        after = await everything(fresh)
        assert after[:-1] == before
        assert after[-1].position == position(3, 1)
        last = split(before[-1].position).sequence
        assert codec.decode(after[-1].payload)[1] == EpochStarted(((2, last, UID_GAP),))
        for start in (before[3].position, before[12].position, before[-1].position):
            got = [r async for batch in fresh.read(P, start, after[-1].position) for r in batch]
            assert got == [record for record in after if record.position > start]
        known = await fresh.append(Append(P, ids[20], (NewEvent("mailbox", "7", b"again"),)))
        assert isinstance(known, Stored) and known.repeated and known.last in {record.position for record in before}
        assert isinstance(await fresh.append(append(b"new")), Stored)
        await fresh.stop()
    finally:
        other.kill()


async def test_a_client_that_was_closed_for_good_is_built_anew(server: NatsServer) -> None:
    home = await opened(server)
    connection = Connection(server.url, USER, PASSWORD)
    await connection.start()
    answered: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(message: Arrived) -> None:
        answered.put_nowait(message.data)

    await connection.subscribe("words", take)
    with structlog.testing.capture_logs() as logged, pytest.raises(Unreachable):
        # The server drops who sends more than it takes, headers counted, and the client library gives up for good.
        await connection.request("words", bytes(PAYLOAD_BYTES_MAX - 10), {"X": "x" * 100}, timeout_s=5)
    assert "closed" in str(logged)
    async with asyncio.timeout(20):
        await connection.ready()
        await connection.publish("words", b"here again")
        assert await answered.get() == b"here again"
    await connection.stop()
    await home.stop()


async def test_the_engine_may_freeze(server: NatsServer) -> None:
    log = await opened(server)
    assert isinstance(await log.append(append(b"one")), Stored)
    server.freeze()
    with pytest.raises(LogUnavailable):
        await log.append(append(b"two"), timeout_s=0.3)
    server.thaw()
    assert isinstance(await log.append(append(b"three"), timeout_s=20), Stored)
    assert [record.payload for record in await everything(log)] == [b"one", b"two", b"three"]
    await log.stop()


async def test_what_waits_is_bounded_and_the_rest_is_told_at_once(server: NatsServer) -> None:
    log = await opened(server)
    server.freeze()
    data = os.urandom(1 << 20)
    blob = Blob(hashlib.sha256(data).digest(), data)
    tasks = [asyncio.create_task(log.append(append(b"%d" % n, contents=(blob,)), timeout_s=30)) for n in range(80)]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    assert waiting and all(isinstance(task.exception(), LogUnavailable) for task in done)
    server.thaw()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    took = [outcome.last for outcome in outcomes if isinstance(outcome, Stored)]
    assert 50 < len(took) < 70
    assert [record.position for record in await everything(log)] == sorted(took)
    await log.stop()
