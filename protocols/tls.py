"""TLS between a connection and who speaks over it, in little memory.

The event loops' own TLS keeps, for as long as a connection lasts, the largest pieces that it ever took in and gave out: a
session that had read and filed a message of 1 MB held 830 KB while it idled (ops/decisions/idle-sessions.md). Here bytes go
through OpenSSL's two buffers a record at a time, so that these stay as small as a record.
"""

import asyncio
import ssl
from typing import Any, Protocol, cast

RECORD_BYTES = 16 * 1024  # RFC 8446 §5.1: a record holds no more
TAKEN_BYTES = 8 * 1024  # into OpenSSL's buffer at once, which holds the beginning of a record beside
CLOSE_S_MAX = 30.0  # for the peer to take what was written, and to close as well


class Line(Protocol):
    """What is asked of a connection: asyncio.Transport has it, and Tls."""

    def write(self, data: bytes) -> None: ...
    def is_closing(self) -> bool: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


class Speaker(Protocol):
    """Who speaks over it: asyncio.Protocol's methods."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Tls(asyncio.Protocol):
    """The server's side of one connection; to its speaker it is the transport, once the handshake is over. `begun`: the
    speaker has the connection already, and `over` is awaited (STARTTLS)."""

    def __init__(
        self, speaker: Speaker, context: ssl.SSLContext, handshake_s_max: float, *, begun: bool = False
    ) -> None:
        self._speaker = speaker
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._handshake_s_max = handshake_s_max
        self._line: Line | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._secure = self._closing = self._ended = False
        self._begun = begun
        self._over: asyncio.Future[None] | None = None

    async def over(self, line: asyncio.Transport) -> None:
        """Takes an open connection over; returns when the handshake is done. Raises ConnectionError."""
        self._over = asyncio.get_running_loop().create_future()
        line.set_protocol(self)
        self.connection_made(line)
        await self._over

    # -- what the connection calls ---------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._line = cast(Line, transport)
        self._timer = asyncio.get_running_loop().call_later(self._handshake_s_max, self.abort)

    def data_received(self, data: bytes) -> None:
        pieces = memoryview(data)
        for start in range(0, len(data), TAKEN_BYTES):
            if self._closing:
                return  # only its end is waited for
            self._incoming.write(pieces[start : start + TAKEN_BYTES])
            self._take()

    def eof_received(self) -> bool:
        self._end()
        return False

    def pause_writing(self) -> None:
        if self._begun:
            self._speaker.pause_writing()

    def resume_writing(self) -> None:
        if self._begun:
            self._speaker.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._forget_timer()
        if self._over is not None and not self._over.done():
            self._over.set_exception(ConnectionError("the TLS handshake failed"))
        if self._begun:
            self._speaker.connection_lost(exc)

    # -- what its speaker calls ------------------------------------------------------------------------------------------
    def write(self, data: bytes) -> None:
        if self._closing or not self._secure:
            return
        pieces = memoryview(data)
        try:
            for start in range(0, len(data), RECORD_BYTES):
                self._tls.write(pieces[start : start + RECORD_BYTES])
                self._flush()
        except ssl.SSLError:
            self.abort()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """What was written is still sent, and RFC 8446 §6.1's last word. Were the socket closed with bytes of the peer unread,
        these would be lost on their way; so it is only half closed until the peer closes too."""
        if self._closing or self._line is None:
            return
        if not self._secure:
            self.abort()
            return
        self._closing = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # the peer's own last word has not come yet
        self._flush()
        transport = cast(asyncio.Transport, self._line)
        if self._ended or not transport.can_write_eof() or transport.is_closing():
            transport.close()
            return
        transport.write_eof()
        transport.resume_reading()
        self._timer = asyncio.get_running_loop().call_later(CLOSE_S_MAX, transport.abort)

    def abort(self) -> None:
        self._closing = True
        if self._line is not None:
            self._line.abort()

    def pause_reading(self) -> None:
        if self._line is not None:
            self._line.pause_reading()

    def resume_reading(self) -> None:
        if self._line is not None and not self._closing:
            self._line.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._line is not None:
            self._line.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._line.get_write_buffer_size() if self._line is not None else 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the loops' own: `ssl_object` and `sslcontext`, beside what the connection knows."""
        if name == "ssl_object":
            return self._tls
        if name == "sslcontext":
            return self._tls.context
        return self._line.get_extra_info(name, default) if self._line is not None else default

    # -----------------------------------------------------------------------------------------------------------------
    def _take(self) -> None:
        """What has come whole of the handshake, or of what the peer says."""
        try:
            if not self._secure:
                self._tls.do_handshake()
                self._made()
            while not self._closing:
                data = self._tls.read(RECORD_BYTES)
                if not data:
                    self._flush()
                    self._end()
                    return
                self._speaker.data_received(data)
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError:
            self._flush()  # RFC 8446 §6.2: the alert that says why
            self._give_up()

    def _made(self) -> None:
        self._secure = True
        self._forget_timer()
        self._flush()
        if self._over is not None:
            if not self._over.done():
                self._over.set_result(None)
        else:
            self._begun = True
            self._speaker.connection_made(cast(asyncio.BaseTransport, self))

    def _end(self) -> None:
        """The peer has said its last word."""
        if self._ended:
            return
        self._ended = True
        if self._begun and self._secure and not self._closing:
            self._speaker.eof_received()
        self.close()

    def _give_up(self) -> None:
        """It is no TLS that comes, or not any more: the alert is sent, and no more."""
        self._closing = True
        if self._line is not None:
            self._line.close()

    def _flush(self) -> None:
        if self._outgoing.pending and self._line is not None:
            self._line.write(self._outgoing.read())

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
