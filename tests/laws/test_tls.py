"""protocols/tls.py against OpenSSL's own client: any split of the bytes, both ways, and no more memory than a record."""

import asyncio
import ssl
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.tls import RECORD_BYTES, Tls

HANDSHAKE_S_MAX = 0.05


class Plain:
    """The connection below: keeps what is written. One side of it is `Tls`, the other a test."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.largest = 0
        self.half_closed = self.aborted = self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data
        self.largest = max(self.largest, len(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 4)}.get(name, default)


class Speaker(asyncio.Protocol):
    def __init__(self) -> None:
        self.came = bytearray()
        self.transport: Any = None
        self.ended = self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.came += data

    def eof_received(self) -> bool:
        self.ended = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class Client:
    """OpenSSL, with the bytes that it sends cut where the test says."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        self.came = bytearray()
        self.ended = False

    def says(self) -> bytes:
        """Goes on with the handshake, reads what has come; what is to be sent."""
        try:
            self.tls.do_handshake()
            while data := self.tls.read(65536):
                self.came += data
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return self._out.read()

    def takes(self, plain: Plain) -> None:
        self._in.write(plain.sent)
        plain.sent.clear()


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def fed(tls: Tls, data: bytes, cuts: list[int]) -> None:
    """To the server's side, in pieces."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, stop in pairwise(places):
        tls.data_received(data[start:stop])


def met(contexts: Contexts, cuts: list[int]) -> tuple[Tls, Plain, Speaker, Client]:
    """After the handshake."""
    plain, speaker, client = Plain(), Speaker(), Client(contexts[1])
    tls = Tls(speaker, contexts[0], HANDSHAKE_S_MAX)
    tls.connection_made(cast(asyncio.Transport, plain))
    while speaker.transport is None:
        fed(tls, client.says(), cuts)
        client.takes(plain)
    client.says()
    return tls, plain, speaker, client


CUTS = st.lists(st.integers(0, 60_000), max_size=12)
TEXTS = st.lists(st.integers(1, 50_000).map(lambda size: bytes(range(256)) * (size // 256 + 1)), max_size=3)


@given(cuts=CUTS, up=TEXTS, down=TEXTS)
@settings(max_examples=60, deadline=None)
def test_any_split_says_the_same(contexts: Contexts, cuts: list[int], up: list[bytes], down: list[bytes]) -> None:
    async def story() -> None:
        tls, plain, speaker, client = met(contexts, cuts)
        for text in up:
            client.tls.write(text)
        fed(tls, client.says(), cuts)
        assert speaker.came == b"".join(up)
        plain.largest = 0
        for text in down:
            tls.write(text)
        client.takes(plain)
        client.says()
        assert client.came == b"".join(down)
        # Each piece was all that OpenSSL's buffer held: it never grows beyond a record and its frame (RFC 8446 §5.2).
        assert plain.largest <= RECORD_BYTES + 5 + 256
        assert tls.get_extra_info("peername") == ("192.0.2.1", 4)
        tls.close()
        client.takes(plain)
        client.says()
        assert client.ended and plain.half_closed and not plain.closed  # RFC 8446 §6.1
        tls.eof_received()
        tls.connection_lost(None)
        assert speaker.lost

    asyncio.run(story())


def test_the_peers_last_word_ends_it(contexts: Contexts) -> None:
    async def story() -> None:
        tls, plain, speaker, client = met(contexts, [])
        client.tls.write(b"last words")
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()
        tls.data_received(client._out.read())
        assert speaker.came == b"last words" and speaker.ended and plain.closed
        client.takes(plain)
        client.says()
        assert client.ended

    asyncio.run(story())


@given(st.binary(min_size=1, max_size=400))
@settings(max_examples=40, deadline=None)
def test_what_is_no_tls_reaches_nobody(contexts: Contexts, data: bytes) -> None:
    async def story() -> None:
        plain, speaker = Plain(), Speaker()
        tls = Tls(speaker, contexts[0], HANDSHAKE_S_MAX)
        tls.connection_made(cast(asyncio.Transport, plain))
        tls.data_received(b"GET / " + data)
        tls.data_received(data)
        tls.eof_received()
        assert plain.is_closing() and speaker.transport is None and not speaker.came

    asyncio.run(story())


def test_garbage_behind_the_handshake_ends_it(contexts: Contexts) -> None:
    async def story() -> None:
        tls, plain, speaker, client = met(contexts, [])
        client.tls.write(b"forged")
        data = bytearray(client.says())
        data[-1] ^= 1
        tls.data_received(bytes(data))
        assert plain.closed and not speaker.came
        tls.write(b"never sent in the clear")
        assert b"never" not in plain.sent

    asyncio.run(story())


def test_who_says_nothing_is_cut_off(contexts: Contexts) -> None:
    async def story() -> None:
        plain = Plain()
        cut = asyncio.Event()
        plain.abort = cut.set  # type: ignore[method-assign]
        Tls(Speaker(), contexts[0], HANDSHAKE_S_MAX).connection_made(cast(asyncio.Transport, plain))
        async with asyncio.timeout(10):
            await cut.wait()

    asyncio.run(story())
