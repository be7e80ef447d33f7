"""A connection without a socket, for playing conversations."""

import asyncio
from typing import Any

ANSWER_S_MAX = 10.0


class MemoryTransport(asyncio.Transport):
    """What the session writes is kept; what the client sends is given to the protocol."""

    def __init__(self, protocol: asyncio.Protocol, *, tls: bool = False) -> None:
        super().__init__({"peername": ("127.0.0.1", 9), "ssl_object": object() if tls else None})
        self._protocol = protocol
        self._closing = False
        self.written = bytearray()
        self.changed = asyncio.Event()

    def write(self, data: Any) -> None:
        assert not self._closing
        self.written += data
        self.changed.set()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.changed.set()
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return

    async def line(self) -> str | None:
        """The next line that was written; None where the connection is closed instead."""
        async with asyncio.timeout(ANSWER_S_MAX):
            while b"\r\n" not in self.written:
                if self._closing:
                    return None
                self.changed.clear()
                await self.changed.wait()
        line, _, rest = bytes(self.written).partition(b"\r\n")
        self.written[:] = rest
        return line.decode("utf-8", "surrogateescape")
