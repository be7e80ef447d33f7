"""A site that has nobody to ask shows what it has shown before, and no more."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.log import wire
from cluster.log.connection import Connection
from cluster.log.engine import Engine
from cluster.log.jetstream import Backbone, JetStreamLog
from cluster.log.model import Append, LogUnavailable, NewEvent, Record, Stored
from cluster.log.writer import Writer
from cluster.position import BEGINNING, split
from tests.contracts.engines import PASSWORD, USER, NatsServer

P = "m1"
CUT_OFF = Backbone("a-domain-that-is-not-there", 1)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    made = NatsServer(tmp_path)
    made.start()
    yield made
    made.kill()


async def opened(server: NatsServer, node: str, backbone: Backbone | None = None) -> JetStreamLog:
    log = JetStreamLog(server.url, USER, PASSWORD, node_id=node, site="north", backbone=backbone)
    await log.start()
    return log


async def led(server: NatsServer, node: str) -> JetStreamLog:
    log = await opened(server, node)
    log.lead(P)
    await log.leading(P)
    return log


async def appended(log: JetStreamLog, payload: bytes) -> int:
    outcome = await log.append(Append(P, os.urandom(16), (NewEvent("mailbox", "7", payload),)))
    assert isinstance(outcome, Stored)
    return outcome.last


async def _next(records: AsyncIterator[tuple[Record, ...]]) -> tuple[Record, ...]:
    return await anext(records)


async def held() -> None:
    """The test is the one that writes."""


async def test_cut_off_a_site_shows_what_was_promised_and_not_what_was_only_written(server: NatsServer) -> None:
    home = await led(server, "n1")
    promised = [await appended(home, b"%d" % number) for number in range(3)]
    await home.stop()
    connection = Connection(server.url, USER, PASSWORD)
    await connection.start()
    stream = wire.stream_of(P, 1)
    writer = Writer(Engine(connection), stream, os.urandom, held, chains=True)
    words = wire.Request(os.urandom(16), "7", (NewEvent("mailbox", "7", b"written, and no word was given for it"),))
    await writer.write(wire.messages(stream, words), split(promised[-1]).sequence, whole=True)
    await connection.stop()

    alone = await opened(server, "n2", CUT_OFF)
    alone.keep(P)
    assert await alone.shown(P) == promised[-1]
    shown = []
    records = alone.follow(P, BEGINNING)
    async with asyncio.timeout(20):
        async for batch in records:
            shown += [record.payload for record in batch]
            if len(shown) >= 3:
                break
    assert shown == [b"0", b"1", b"2"]
    ahead = asyncio.create_task(_next(records))
    with pytest.raises(LogUnavailable):
        await alone.mark(P, 0.5)
    assert not ahead.done()
    # Whoever leads again gives the word.
    again = await led(server, "n3")
    async with asyncio.timeout(20):
        assert [record.payload for record in await ahead] == [b"written, and no word was given for it"]
    await alone.stop()
    await again.stop()


async def test_a_partition_of_which_nothing_lies_here_is_not_shown(server: NatsServer) -> None:
    alone = await opened(server, "n1", CUT_OFF)
    with pytest.raises(LogUnavailable):
        await alone.shown(P)
    await alone.stop()
