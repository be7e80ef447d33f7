"""COMPRESS=DEFLATE (RFC 4978): the same conversation as without it, in bounded memory."""

import ipaddress
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.imap.deflate import INFLATED_BYTES_MAX, Deflate, DeflateBroken
from protocols.imap.server import ImapServer
from protocols.imap.settings import Settings
from tests.memory_site import MemorySite
from tests.transcripts.play import Client, cut

TRUSTED = Settings(plaintext_networks=(ipaddress.ip_network("127.0.0.0/8"),))


class Squeezed:
    """A client that has said COMPRESS."""

    def __init__(self, client: Client, level: int = 6) -> None:
        self.client = client
        self._out = zlib.compressobj(level, zlib.DEFLATED, -15)
        self._in = zlib.decompressobj(-15)
        self._heard = bytearray()

    def squeeze(self, data: bytes, end: bool = False) -> bytes:
        return self._out.compress(data) + self._out.flush(zlib.Z_FINISH if end else zlib.Z_SYNC_FLUSH)

    async def send(self, data: bytes, how: str = "whole", end: bool = False) -> None:
        await self.client.send(self.squeeze(data, end), how)

    async def line(self) -> str | None:
        transport = self.client.transport
        while b"\r\n" not in self._heard:
            while not transport.written:
                if transport.is_closing():
                    return None
                transport.changed.clear()
                await transport.changed.wait()
            self._heard += self._in.decompress(bytes(transport.written))
            transport.written.clear()
        line, _, rest = bytes(self._heard).partition(b"\r\n")
        self._heard[:] = rest
        return line.decode()

    def behind(self) -> bytes:
        """What came when the server's stream had ended."""
        assert self._in.eof
        return self._in.unused_data

    async def until(self, tag: str) -> list[str]:
        """The lines up to the tagged one, with it."""
        lines: list[str] = []
        while (line := await self.line()) is not None:
            lines.append(line)
            if line.startswith(f"{tag} "):
                return lines
        raise AssertionError(f"closed before {tag}: {lines}")


@asynccontextmanager
async def squeezed() -> AsyncIterator[tuple[Squeezed, Callable[[], Client]]]:
    """A client in INBOX, and how to get others."""
    site = MemorySite()
    await site.account("anna@example.org", "secret")
    server = ImapServer(site, TRUSTED)
    made: list[Client] = []

    def client() -> Client:
        made.append(Client(server))
        return made[-1]

    first = client()
    assert "COMPRESS" not in str(await first.line())
    await first.ask("a", b"a LOGIN anna@example.org secret\r\n")
    await first.ask("b", b"b COMPRESS DEFLATE\r\n")
    assert not first.transport.written
    one = Squeezed(first)
    await one.send(b"c SELECT INBOX\r\n")
    assert (await one.until("c"))[-1].startswith("c OK")
    try:
        yield one, client
    finally:
        for each in made:
            each.transport.close()
        await server.close()


async def test_many_commands_at_once_in_any_pieces() -> None:
    async with squeezed() as (one, _):
        for how in ("whole", "bytes", "ragged"):
            await one.send(b"d1 NOOP\r\nd2 CAPABILITY\r\nd3 COMPRESS DEFLATE\r\nd4 COMPRESS LZ4\r\n", how)
            assert await one.until("d1") and "COMPRESS=DEFLATE" in (await one.until("d2"))[0]
            # RFC 4978 §3
            assert (await one.until("d3"))[-1].startswith("d3 NO [COMPRESSIONACTIVE]")
            assert (await one.until("d4"))[-1].startswith("d4 BAD")


async def test_literals_with_and_without_a_pause() -> None:
    message = b"Subject: x\r\n\r\n" + b"".join(b"%d lines of text\r\n" % n for n in range(20_000))
    async with squeezed() as (one, _):
        await one.send(b"d1 APPEND INBOX {%d}\r\n" % len(message))
        assert str(await one.line()).startswith("+ ")
        await one.send(message + b"\r\n", "ragged")
        assert (await one.until("d1"))[-1].startswith("d1 OK")
        await one.send(b"d2 APPEND INBOX {%d+}\r\n%b\r\nd3 UID FETCH 1:2 BODY.PEEK[]\r\n" % (len(message), message))
        assert (await one.until("d2"))[-1].startswith("d2 OK")
        lines = await one.until("d3")
        assert "\r\n".join(lines).count(message.decode()) == 2


async def test_what_others_do_is_told_in_idle_and_after_it() -> None:
    async with squeezed() as (one, client):
        other = client()
        await other.line()
        await other.ask("x", b"x LOGIN anna@example.org secret\r\n")
        await one.send(b"d1 IDLE\r\n")
        assert str(await one.line()).startswith("+ ")
        for count in (1, 2):
            await other.ask("y", b"y APPEND INBOX {4+}\r\na: b\r\n")
            assert await one.line() == f"* {count} EXISTS"
            assert await one.line() == f"* {count} RECENT"
        await one.send(b"DONE\r\nd2 FETCH 1:2 UID\r\n", "bytes")
        assert (await one.until("d1"))[-1].startswith("d1 OK")
        assert (await one.until("d2"))[0] == "* 1 FETCH (UID 1)"


async def test_what_grows_a_thousandfold_takes_no_memory_and_is_refused() -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(64)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    assert len(data) < 100_000
    async with squeezed() as (one, client):
        two = Squeezed(client())
        await two.client.line()
        await two.client.ask("a", b"a LOGIN anna@example.org secret\r\n")
        await two.client.ask("b", b"b COMPRESS DEFLATE\r\n")
        tracemalloc.start()
        try:
            await two.client.send(data, "whole")
            await one.send(b"d1 NOOP\r\n")
            assert (await one.until("d1"))[-1].startswith("d1 OK")  # while that is read and thrown away
            assert "TOOBIG" in str(await two.line())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 << 20


async def test_a_broken_stream_ends_the_session() -> None:
    async with squeezed() as (one, _):
        await one.client.send(b"\x07\xff\xff not deflated", "whole")
        assert "broken" in str(await one.line())
        assert "BYE" in str(await one.line())
        assert await one.line() is None


async def test_a_stream_that_was_ended_is_the_end() -> None:
    async with squeezed() as (one, _):
        await one.send(b"d1 NOOP\r\n", end=True)
        assert (await one.until("d1"))[-1].startswith("d1 OK")
        assert await one.line() is None


async def test_nothing_may_be_sent_ahead_behind_it() -> None:
    async with squeezed() as (_, client):
        one = client()
        await one.line()
        await one.ask("a", b"a LOGIN anna@example.org secret\r\n")
        await one.send(b"b COMPRESS DEFLATE\r\nc NOOP\r\n", "whole")
        assert str(await one.line()).startswith("b BAD")
        assert str(await one.line()).startswith("c OK")


async def test_signing_out_makes_it_plain_again() -> None:
    """RFC 8437 §4.1; with the next command sent ahead, in the clear, behind the stream's end."""
    async with squeezed() as (one, _):
        login = b"d2 LOGIN anna@example.org secret\r\n"
        await one.client.send(one.squeeze(b"d1 UNAUTHENTICATE\r\n", end=True) + login, "whole")
        assert (await one.until("d1"))[-1].startswith("d1 OK")
        transport = one.client.transport
        while b"d2 " not in (plain := one.behind() + transport.written):
            transport.changed.clear()
            await transport.changed.wait()
        assert plain.startswith(b"d2 OK")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=300), max_size=6), st.sampled_from(("whole", "bytes", "ragged")))
def test_both_ways(said: list[bytes], how: str) -> None:
    """What goes in comes out, however it is cut, and although each piece has a compressor of its own."""
    ours, theirs = Deflate(), zlib.decompressobj(-15)
    client, heard = zlib.compressobj(6, zlib.DEFLATED, -15), bytearray()
    for one in said:
        assert theirs.decompress(ours.deflate(one)) == one
        for piece in cut(client.compress(one) + client.flush(zlib.Z_SYNC_FLUSH), how):
            heard += ours.inflate(piece)
            while ours.waiting:
                heard += ours.inflate()
    assert bytes(heard) == b"".join(said)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    deflate = Deflate()
    try:
        assert len(deflate.inflate(data)) <= INFLATED_BYTES_MAX
    except DeflateBroken:
        return
