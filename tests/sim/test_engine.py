"""The simulation's engine answers as nats-server does: one script, played against both."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from cluster.control.bucket import Bucket, Conflict
from cluster.log.connection import Connection, NobodyThere, Unreachable
from cluster.log.engine import LAST_SEQUENCE, Engine, EngineRefused, Kept, Message
from tests.contracts.engines import PASSWORD, USER, NatsServer
from tests.sim import clock
from tests.sim.world.network import Network, SimConnection, as_process

EVENTS: dict[str, object] = {
    "name": "EV-p-1",
    "subjects": ["ev.p.1.>", "ct.p.1.>"],
    "storage": "file",
    "num_replicas": 1,
    "discard": "new",
    "allow_direct": True,
    "allow_atomic": True,
    "duplicate_window": 100_000_000,
}
OF_THE_HOUR = ("Nats-Time-Stamp", "time", "created", "first_ts", "last_ts", "ts")
UNREAD = (
    "type",
    "bytes",
    "domain",
    "metadata",
    "total",
    "offset",
    "limit",
    "num_subjects",
    "num_deleted",
    "consumer_count",
    "cluster",
)

Step = tuple[str, Callable[[], Awaitable[object]]]


def message(body: str, subject: str = "ev.p.1.mailbox.7", **headers: str) -> Message:
    return Message(subject, headers, body.encode())


def plain(value: object) -> object:
    """Without what differs between any two engines, and what nobody of ours reads."""
    match value:
        case Kept():
            return ("kept", value.sequence, value.subject, plain(value.headers), value.data)
        case bytes() if value.startswith(b"{"):
            return plain(json.loads(value))
        case Mapping():
            return {str(getattr(k, "value", k)): plain(v) for k, v in value.items() if k not in OF_THE_HOUR + UNREAD}
        case tuple() | list():
            return [plain(each) for each in value]
    return value


async def answers(steps: Sequence[Step]) -> list[tuple[str, object]]:
    told: list[tuple[str, object]] = []
    for name, step in steps:
        try:
            told.append((name, plain(await step())))
        except EngineRefused as refused:
            told.append((name, f"refused: {refused}"))
        except Conflict:
            told.append((name, "conflict"))
        except NobodyThere:
            told.append((name, "nobody is there"))
        except Unreachable as error:
            told.append((name, f"unreachable: {error}"))
    return told


def script(connection: Connection) -> list[Step]:
    engine, afar = Engine(connection), Engine(connection, "site-test")
    name = "EV-p-1"
    ten = [message(f"batch {n}", "ct.p.1.7" if n % 2 else "ev.p.1.mailbox.7") for n in range(10)]
    return [
        ("no stream", lambda: engine.info(name)),
        ("no stream to read", lambda: engine.read(name, 1, 1)),
        ("no stream to ask", lambda: engine.last_on(name, ">")),
        ("no stream to purge", lambda: engine.purge(name, "ct.p.1.>", 1)),
        ("no stream takes it", lambda: connection.request("ev.p.1.mailbox.7", b"x")),
        ("create", lambda: engine.create_stream(EVENTS)),
        ("create again", lambda: engine.create_stream(EVENTS)),
        ("create otherwise", lambda: engine.create_stream({**EVENTS, "discard": "old"})),
        ("create over its subjects", lambda: engine.create_stream({**EVENTS, "name": "X", "subjects": ["ev.p.1.a"]})),
        ("nothing in it", lambda: engine.read(name, 1, 1)),
        ("no last one", lambda: engine.last_on(name, ">")),
        ("first", lambda: engine.write(message("one", a="b"), {LAST_SEQUENCE: "0"})),
        ("first again", lambda: engine.write(message("one"), {LAST_SEQUENCE: "0"})),
        ("a chain", lambda: engine.write_chain([message("two"), message("three"), message("four")], 1, "c")),
        ("the chain again", lambda: engine.write_chain([message("two"), message("three"), message("four")], 1, "c")),
        ("a chain beside", lambda: engine.write_chain([message("x"), message("y")], 9, "d")),
        ("behind another's", lambda: engine.write(message("z"), {"Nats-Expected-Last-Msg-Id": "c.7"})),
        ("a batch", lambda: engine.write_batch(ten, 4, "b")),
        ("the batch again", lambda: engine.write_batch(ten, 4, "b")),
        ("the batch elsewhere", lambda: engine.write_batch(ten, 12, "e")),
        ("a batch of one", lambda: engine.write_batch(ten[:1], 14, "f")),
        ("a batch of one again", lambda: engine.write_batch(ten[:1], 14, "f")),
        ("a batch without its middle", lambda: broken_batch(connection)),
        ("a batch of which the first was lost", lambda: committed(connection, "2")),
        ("a batch that is too large", lambda: engine.write_batch([message("m")] * 1001, 15, "g")),
        ("all", lambda: engine.read(name, 1, 500)),
        ("some", lambda: engine.read(name, 3, 4, "ct.p.1.>")),
        ("some of some", lambda: engine.read(name, 5, 2, "ev.p.1.>")),
        ("beyond the end", lambda: engine.read(name, 99, 4)),
        ("of nobody", lambda: engine.read(name, 1, 4, "zz.>")),
        ("by bytes", lambda: engine.read(name, 1, 9, ">", 1)),
        ("from afar", lambda: afar.read(name, 14, 9)),
        ("last on all", lambda: engine.last_on(name, ">")),
        ("last on contents", lambda: afar.last_on(name, "ct.p.1.>")),
        ("last on nothing", lambda: engine.last_on(name, "zz.>")),
        ("next", lambda: engine.next_on(name, "ct.p.1.>", 4)),
        ("next of none", lambda: engine.next_on(name, "ct.p.1.>", 15)),
        ("since ever", lambda: engine.first_since(name, "ct.p.1.>", "2000-01-01T00:00:00Z")),
        ("since tomorrow", lambda: engine.first_since(name, "ct.p.1.>", "2100-01-01T00:00:00Z")),
        ("purge", lambda: engine.purge(name, "ct.p.1.>", 9)),
        ("what is left", lambda: engine.read(name, 1, 500)),
        ("as told", lambda: state(engine, name)),
        ("retire", lambda: engine.update_stream(name, subjects=["retired.p.1"])),
        ("retired takes nothing", lambda: connection.request("ev.p.1.mailbox.7", b"x")),
        ("retired is read", lambda: engine.last_on(name, ">")),
        ("a domain of nobody", lambda: Engine(connection, "site-nobody").info(name)),
    ]


def keys(connection: Connection) -> list[Step]:
    bucket, afar = Bucket(connection), Bucket(connection, domain="site-test")
    return [
        ("make it", bucket.ensure),
        ("make it again", bucket.ensure),
        ("nothing there", lambda: bucket.get("a")),
        ("put", lambda: bucket.put("a", b"1", 0)),
        ("put on another", lambda: bucket.put("a", b"2", 0)),
        ("put on it", lambda: afar.put("a", b"2", 1)),
        ("another", lambda: bucket.put("b.c", b"3", 0)),
        ("one more", lambda: bucket.put("b.d", b"4", 0)),
        ("read", lambda: afar.get("a")),
        ("delete another", lambda: bucket.delete("b.c", 9)),
        ("delete", lambda: bucket.delete("b.c", 3)),
        ("it is gone", lambda: bucket.get("b.c")),
        ("anew", lambda: bucket.put("b.c", b"5", 5)),
        ("as told", lambda: state(Engine(connection), "KV_control")),
        ("all that begin so", lambda: each(connection, "$KV.control.b.>")),
        ("none that begin so", lambda: each(connection, "$KV.control.z.>")),
    ]


async def each(connection: Connection, subjects: str) -> object:
    """The last on each subject (NATS ADR-31)."""
    asked = json.dumps({"multi_last": [subjects]}).encode()
    found = await connection.collect("$JS.API.DIRECT.GET.KV_control", asked)
    return [(one.status, dict(one.headers), one.data) for one in found]


async def state(engine: Engine, name: str) -> object:
    info = await engine.info(name)
    wanted = ("name", "subjects", "max_msgs_per_subject", "allow_direct", "discard", "duplicate_window")
    return {key: info["config"][key] for key in wanted}, info["state"]


async def broken_batch(connection: Connection) -> object:
    begun = {"Nats-Batch-Id": "h", "Nats-Batch-Sequence": "1", LAST_SEQUENCE: "15"}
    await connection.publish("ev.p.1.mailbox.7", b"x", begun)
    return await committed(connection, "3")


async def committed(connection: Connection, number: str) -> object:
    headers = {"Nats-Batch-Id": "h", "Nats-Batch-Sequence": number, "Nats-Batch-Commit": "1"}
    return (await connection.request("ev.p.1.mailbox.7", b"x", headers)).data


def of_the_server(folder: Path) -> list[tuple[str, object]]:
    async def play() -> list[tuple[str, object]]:
        connection = Connection(server.url, USER, PASSWORD)
        await connection.start()
        try:
            return await answers([*script(connection), *keys(connection)])
        finally:
            await connection.stop()

    server = NatsServer(folder)
    server.start()
    try:
        return asyncio.run(play())
    finally:
        server.stop()


def of_the_simulation() -> list[tuple[str, object]]:
    told: list[tuple[str, object]] = []

    async def play(loop: clock.VirtualLoop) -> None:
        owner = clock.Owner("script")
        connection = SimConnection(Network(loop, random.Random(0), ("test",)), "test", owner)

        async def one() -> None:
            await connection.start()
            told.extend(await answers([*script(connection), *keys(connection)]))
            await connection.stop()

        await as_process(owner).run(loop.create_task, one())

    clock.run(play)
    return told


def test_both_engines_answer_alike(tmp_path: Path) -> None:
    real, simulated = of_the_server(tmp_path), of_the_simulation()
    for theirs, ours in zip(real, simulated, strict=True):
        assert ours == theirs
