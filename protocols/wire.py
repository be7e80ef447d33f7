"""A connection: bytes in with back-pressure, bytes out with back-pressure, TLS in mid-stream.

Written on asyncio.Protocol and not on streams, as after STARTTLS it must be known that nothing was sent ahead in the clear.
"""

import asyncio
import contextlib
import socket
import ssl
from typing import cast

from protocols.tls import Line, Tls

READ_BYTES_MAX = 256 * 1024  # held unread before the socket is paused
WRITE_BYTES_HIGH = 1024 * 1024

# A site whose power went says nothing more: found out within a minute.
KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_PROBES_MAX = 20, 10, 3
UNACKNOWLEDGED_MS_MAX = 60_000


class WireClosed(Exception):
    """The peer is gone, or takes nothing any more."""


class WireStopping(WireClosed):
    """The server stops: nothing more is read."""


class Wire(asyncio.Protocol):
    """One reader and one writer at a time."""

    def __init__(self) -> None:
        self._transport: Line | None = None
        self._incoming = bytearray()
        self._ended = self._stopping = False
        self._paused_reading = False
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.closed = asyncio.Event()

    # -- what the transport calls ----------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(Line, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BYTES_HIGH)

    def data_received(self, data: bytes) -> None:
        self._incoming += data
        self._news.set()
        if len(self._incoming) > READ_BYTES_MAX and not self._paused_reading and self._transport is not None:
            self._paused_reading = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        self._news.set()
        # What was asked before the end is still answered (TLS knows no half-closed connection).
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._news.set()
        self._writable.set()
        self.closed.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- what the session calls ------------------------------------------------------------------------------------------
    @property
    def peer(self) -> str:
        name = self._transport.get_extra_info("peername") if self._transport else None
        return str(name[0]) if isinstance(name, tuple) else "unix"

    @property
    def certificate(self) -> bytes:
        """What the peer has shown (DER), empty = none."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport else None
        return (tls.getpeercert(binary_form=True) or b"") if tls is not None else b""

    @property
    def language(self) -> str:
        """What the peer came to speak, if it said so in the handshake (RFC 7301); empty = it did not."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport else None
        return (tls.selected_alpn_protocol() or "") if tls is not None else ""

    def keep_alive(self) -> None:
        """The connection ends when the machine at its other end does (RFC 9293 §3.8.4), and not hours later."""
        line = self._transport.get_extra_info("socket") if self._transport else None
        if line is None:
            return
        with contextlib.suppress(OSError):  # what is no TCP has none of these
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES_MAX)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS_MAX)

    @property
    def idle(self) -> bool:
        """No byte waits to be read."""
        return not self._incoming

    @property
    def listens(self) -> bool:
        """Whether a peer that has said its last word may still be told something (TLS knows no half-closed connection)."""
        line = self._transport
        return line is not None and not self.closed.is_set() and line.get_extra_info("sslcontext") is None

    async def read(self, timeout_s: float | None) -> bytes:
        """What came, at least one byte; b"" at the end. `timeout_s` None: however long it takes. Raises TimeoutError,
        WireStopping. A cancelled read loses nothing."""
        if not self._incoming and not self._ended and not self._stopping:
            self._news.clear()
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        if self._stopping:
            raise WireStopping("the server stops")
        data = bytes(self._incoming)
        self._incoming.clear()
        if self._paused_reading and self._transport is not None:
            self._paused_reading = False
            self._transport.resume_reading()
        return data

    def stop(self) -> None:
        """The session finishes what it does; its next read raises WireStopping."""
        self._stopping = True
        self._news.set()

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self, timeout_s: float) -> None:
        """Returns when there is room to write. Raises WireClosed."""
        if not self._writable.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._writable.wait()
            except TimeoutError as error:
                self.abort()
                raise WireClosed("the peer takes nothing") from error
        if self.closed.is_set():
            raise WireClosed("the peer is gone")

    async def start_tls(self, context: ssl.SSLContext, timeout_s: float) -> None:
        """Raises WireClosed when the handshake fails."""
        assert self._transport is not None and not isinstance(self._transport, Tls), "TLS is on already"
        if self._incoming:
            self.abort()
            raise WireClosed("something came in the clear")
        secured = Tls(self, context, timeout_s, begun=True)
        try:
            await secured.over(cast(asyncio.Transport, self._transport))
        except OSError as error:
            self.abort()
            raise WireClosed("the TLS handshake failed") from error
        self._transport = secured

    def close(self) -> None:
        """What was written is still sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
