"""A stream as bytes, and made from them with the sequences that it had: how the control plane moves from the one engine
that keeps it alone to three that keep it together. A stream of an engine that stood alone is not taken over by the same
engine when it becomes one of several (measured, nats-server 2.15), and whoever compares revisions must not notice a move.

The engine's own snapshots (its API's STREAM.SNAPSHOT and STREAM.RESTORE): it sends and takes them in pieces, each of
which is answered.
"""

import asyncio
from typing import Any

from cluster.log.connection import Arrived, Connection
from cluster.log.engine import Engine, EngineRefused, checked

PIECE_BYTES = 64 * 1024
SNAPSHOT_BYTES_MAX = 256 * 1024 * 1024  # it is held in memory; a control plane has some hundred kilobytes
ASK_S_MAX = 10.0
ALL_S_MAX = 60.0


class MoveFailed(Exception):
    """The text says what the engine said."""


async def snapshot(connection: Connection, stream: str, inbox: str) -> tuple[dict[str, Any], bytes]:
    """({"config", "state"}, bytes) of a stream that nobody writes to meanwhile. `inbox`: a subject of our own. Raises
    MoveFailed, Unreachable."""
    pieces: list[bytes] = []
    ended = asyncio.Event()

    async def arrived(message: Arrived) -> None:
        if not message.data:
            ended.set()
            return
        pieces.append(message.data)
        if message.reply and sum(map(len, pieces)) <= SNAPSHOT_BYTES_MAX:
            await connection.publish(message.reply)

    subscribed = await connection.subscribe(inbox, arrived)
    try:
        ask = {"deliver_subject": inbox, "no_consumers": True, "chunk_size": PIECE_BYTES}
        about = await Engine(connection).api(f"STREAM.SNAPSHOT.{stream}", ask, ASK_S_MAX)
        async with asyncio.timeout(ALL_S_MAX):
            await ended.wait()
    except TimeoutError:
        raise MoveFailed(f"the snapshot of {stream} did not come to its end") from None
    except EngineRefused as error:
        raise MoveFailed(str(error)) from error
    finally:
        await subscribed.close()
    return {"config": about["config"], "state": about["state"]}, b"".join(pieces)


async def restore(connection: Connection, about: dict[str, Any], content: bytes, replicas: int) -> None:
    """Makes the stream with everything that it had. Raises MoveFailed, also if there is one, and Unreachable."""
    name = about["config"]["name"]
    ask = {"config": {**about["config"], "num_replicas": replicas}, "state": about["state"]}
    try:
        door = (await Engine(connection).api(f"STREAM.RESTORE.{name}", ask, ASK_S_MAX))["deliver_subject"]
        for start in range(0, len(content), PIECE_BYTES):
            answer = await connection.request(door, content[start : start + PIECE_BYTES], timeout_s=ASK_S_MAX)
            if answer.data:
                checked(answer.data)
        checked((await connection.request(door, b"", timeout_s=ALL_S_MAX)).data)
    except EngineRefused as error:
        raise MoveFailed(str(error)) from error
