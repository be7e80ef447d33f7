"""The lines that faults are made of do what the scenarios take for granted."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.lines import PIECES_MAX, READ_BYTES, RECEIVE_BYTES, Line

EARLY_S = 0.002


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest_asyncio.fixture
async def line() -> AsyncIterator[Line]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    made = Line(free(), int(server.sockets[0].getsockname()[1]))
    await made.start()
    yield made
    made.close()
    server.close()


async def test_a_delay_holds_each_way_and_keeps_the_order(line: Line) -> None:
    line.delay_s = 0.02
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    sent = b"".join(b"%06d" % number for number in range(100_000))
    began = time.monotonic()
    writer.write(sent)
    assert await reader.readexactly(6) == sent[:6]
    assert time.monotonic() - began >= 0.04 - EARLY_S
    assert await reader.readexactly(len(sent) - 6) == sent[6:]
    writer.close()
    assert await reader.read() == b"", "its end comes through"


async def test_a_rate_holds_for_all_connections_together(line: Line) -> None:
    line.rate = 400_000
    began = time.monotonic()
    pairs = [await asyncio.open_connection("127.0.0.1", line.port) for _ in range(2)]
    for reader, writer in pairs:
        writer.write(bytes(100_000))
        reader_done = reader.readexactly(100_000)
        assert await reader_done == bytes(100_000)
        writer.close()
    assert time.monotonic() - began >= 2 * 100_000 / 400_000


async def test_a_cut_tells_nobody_and_healed_it_goes_on_where_it_stood(line: Line) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    writer.write(b"before")
    assert await reader.readexactly(6) == b"before"
    line.cut()
    writer.write(b"meanwhile")
    late_reader, late_writer = await asyncio.open_connection("127.0.0.1", line.port)
    late_writer.write(b"late")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await reader.read(1)
    line.heal()
    assert await reader.readexactly(9) == b"meanwhile" and await late_reader.readexactly(4) == b"late"
    writer.close()
    late_writer.close()


async def test_what_is_on_its_way_is_bounded(line: Line) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    line.cut()
    # Two of the stream reader's buffers, the queue, and the kernel's at both ends; far less than what is offered.
    bound = (PIECES_MAX + 4) * READ_BYTES + 8 * RECEIVE_BYTES
    writer.write(bytes(8 * bound))
    before = -1
    while (left := writer.transport.get_write_buffer_size()) != before:
        before = left
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.read(1)
    assert 8 * bound - left <= bound
    line.heal()
    assert len(await reader.readexactly(8 * bound)) == 8 * bound
    writer.close()
