"""One connection: a bounded inbox that the parser empties, and what is to be written. Knows no command."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from protocols.smtp.model import Reply, Request
from protocols.smtp.parser import Parser
from protocols.smtp.writer import written

INBOX_BYTES_MAX = 256 << 10  # above it the peer is not read from
TURN_REQUESTS_MAX = 64  # answered before other sessions get their turn


class ConnectionGone(Exception):
    """The peer went away, or was cut off."""


class Stopping(Exception):
    """The server is stopping, and this session waits for nothing that was begun."""


class Wire(asyncio.Protocol):
    """`opened` is called once, when the connection is there."""

    def __init__(self, opened: "Callable[[Wire], None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._opened = opened
        self._parser = Parser()
        self._transport: asyncio.Transport | None = None
        self._gone = False
        self._ended = False  # the peer said it sends no more
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._write_paused = False
        self._read_paused = False
        self._out: list[bytes] = []
        self._turn = 0
        self.stopping = False

    # -- what the event loop tells ------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports inherit nothing
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        if self._parser.buffered > INBOX_BYTES_MAX and not self._read_paused and self._transport is not None:
            self._read_paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return not self.secured  # keep the way out open for what is still to be answered (TLS has no half close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._wake()
        self._set_writable()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._set_writable()

    # -- what the session asks ----------------------------------------------------------------------------------------
    @property
    def parser(self) -> Parser:
        return self._parser

    @property
    def peer(self) -> str:
        """The peer's address without its port; empty on a unix socket."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        address = str(name[0]) if isinstance(name, tuple) else ""
        # A socket for both versions shows IPv4 peers as IPv6 ones (RFC 4291 §2.5.5.2); link-local ones have a zone.
        return address.removeprefix("::ffff:").partition("%")[0]

    @property
    def secured(self) -> bool:
        return self._transport is not None and self._transport.get_extra_info("ssl_object") is not None

    @property
    def cipher(self) -> str:
        """`TLSv1.3 TLS_AES_256_GCM_SHA384`; empty without TLS."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        if tls is None:
            return ""
        chosen = tls.cipher()
        return f"{tls.version()} {chosen[0]}" if chosen else str(tls.version())

    async def next(self, timeout_s: float, write_s: float, stoppable: bool = False) -> Request:
        """The next request. What was sent goes out before it waits (RFC 2920 §3.2). Raises SyntaxRefused,
        ConnectionGone, TimeoutError, and Stopping where `stoppable`."""
        self._turn += 1
        if self._turn % TURN_REQUESTS_MAX == 0:
            await asyncio.sleep(0)
        while True:
            if stoppable and self.stopping:
                raise Stopping
            request = self._parser.next()
            if request is not None:
                return request
            if self._gone or self._ended:
                raise ConnectionGone
            if self._read_paused and self._transport is not None:
                self._read_paused = False
                self._transport.resume_reading()
            if self._out:
                await self.flush(write_s)  # more may have come meanwhile
            else:
                await self._more(timeout_s)

    def send(self, reply: Reply) -> None:
        self._out.append(written(reply))

    async def flush(self, write_s: float) -> None:
        """Raises ConnectionGone, TimeoutError (a peer that does not read)."""
        if self._out and self._transport is not None and not self._gone:
            self._transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
        self._out.clear()
        if self._write_paused and not self._gone:
            self._writable = self._loop.create_future()
            async with asyncio.timeout(write_s):
                await self._writable
        if self._gone:
            raise ConnectionGone

    async def start_tls(self, context: ssl.SSLContext, handshake_s: float) -> None:
        """Raises ConnectionGone where the handshake fails. The buffer must be empty (RFC 3207 §4.2)."""
        assert self._transport is not None and not self._parser.buffered
        self._parser = Parser()
        try:
            secured = await self._loop.start_tls(
                self._transport, self, context, server_side=True, ssl_handshake_timeout=handshake_s
            )
        except OSError as failure:  # ssl.SSLError and a handshake that takes too long are OSErrors too
            self.abort()
            raise ConnectionGone from failure
        if secured is None:
            raise ConnectionGone
        self._transport = secured
        self._read_paused = False

    def stop(self) -> None:
        """The session learns it at its next wait for a command, also if it is waiting now."""
        self.stopping = True
        self._wake()

    def close(self) -> None:
        """After what was sent has gone out."""
        if self._transport is not None and not self._gone:
            if self._out:
                self._transport.write(b"".join(self._out))
                self._out.clear()
            with suppress(RuntimeError):
                self._transport.close()

    def abort(self) -> None:
        self._out.clear()
        if self._transport is not None:
            self._transport.abort()

    # -- inside ---------------------------------------------------------------------------------------------------------
    async def _more(self, timeout_s: float) -> None:
        self._waiter = waiter = self._loop.create_future()
        clock = self._loop.call_later(timeout_s, _expire, waiter)
        try:
            await waiter
        finally:
            clock.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _set_writable(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)


def _expire(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())
