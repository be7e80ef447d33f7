"""The quickest clients that still know when an answer is whole, so that what is measured is the server. Plain sockets."""

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import cast

ANSWER_S_MAX = 120.0
ENVELOPE = b"MAIL FROM:<sender@elsewhere.example>\r\nRCPT TO:<%b>\r\nDATA\r\n"


class Smtp(asyncio.Protocol):
    """One connection that says a message's envelope at once (RFC 2920). All raise EOFError where it has ended."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._came = b""
        self._wanted = 1
        self._told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(cls, port: int) -> "Smtp":
        _, made = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        await made._told
        await made._ask(b"EHLO client.example\r\n")
        return made

    async def send(self, to: str, message: bytes) -> bool:
        """Whether it was taken; the connection is no more after a refusal. `message`: without lines that begin with a
        dot."""
        if (await self._ask(ENVELOPE % to.encode(), 3)).startswith(b"354"):
            if (await self._ask(message + b".\r\n")).startswith(b"250"):
                return True
        self.close()
        return False

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._came += data
        if self._told.done() or not self._came.endswith(b"\n"):
            return
        ends = [line for line in self._came.splitlines() if line[3:4] != b"-"]  # RFC 5321 §4.2.1
        if len(ends) >= self._wanted:
            self._came = b""
            self._told.set_result(ends[-1])

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._told.done():
            self._told.set_exception(EOFError(str(exc)))

    async def _ask(self, data: bytes, replies: int = 1) -> bytes:
        """The last reply of so many."""
        if self._transport is None:
            raise EOFError("the connection has ended")
        self._wanted, self._told = replies, asyncio.get_running_loop().create_future()
        self._transport.write(data)
        async with asyncio.timeout(ANSWER_S_MAX):
            return await self._told


class Imap(asyncio.Protocol):
    """One session. `ask` gives the untouched bytes of an answer, its tagged line last."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._came = bytearray()
        self._wanted: tuple[bytes, asyncio.Future[None]] | None = None
        self._tag = 0
        self._heard: Callable[[float, bytes], None] | None = None

    @classmethod
    async def opened(cls, port: int, tls: ssl.SSLContext | None = None) -> "Imap":
        """Greeted, not signed in."""
        transport, made = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port, ssl=tls)
        made._transport = transport
        await made._until(b"\r\n")
        return made

    @classmethod
    async def connect(cls, port: int, user: str, password: str, tls: ssl.SSLContext | None = None) -> "Imap":
        made = await cls.opened(port, tls)
        await made.login(user, password)
        return made

    async def login(self, user: str, password: str) -> None:
        await self.ask(b"LOGIN %b %b" % (user.encode(), password.encode()))

    def data_received(self, data: bytes) -> None:
        self._came += data
        if self._heard is None:
            self._look()
            return
        now = time.perf_counter()
        *lines, rest = self._came.split(b"\r\n")
        self._came = bytearray(rest)
        for line in lines:
            self._heard(now, bytes(line))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._wanted is not None and not self._wanted[1].done():
            self._wanted[1].set_exception(EOFError(bytes(self._came[-200:]).decode(errors="replace")))

    async def ask(self, command: bytes) -> bytes:
        """Raises AssertionError for anything but OK."""
        tag = self.begin(command)
        answer = await self._until(tag)
        assert b"\n" + tag + b"OK" in b"\n" + answer[-2000:], answer[-300:]
        return answer

    def begin(self, command: bytes) -> bytes:
        """Sends a command and does not wait; its tag."""
        self._tag += 1
        tag = b"t%d " % self._tag
        self._came.clear()
        assert self._transport is not None
        self._transport.write(tag + command + b"\r\n")
        return tag

    async def idle(self, heard: Callable[[float, bytes], None] | None = None) -> None:
        """`heard` is given each line that comes while idle, with when it came by the performance counter."""
        self.begin(b"IDLE")
        await self._until(b"+ ")
        self._heard = heard

    async def done(self) -> None:
        """Ends what `idle` began."""
        self._heard = None
        assert self._transport is not None
        self._transport.write(b"DONE\r\n")
        await self._until(b"t%d " % self._tag)

    async def exists(self) -> None:
        """The next EXISTS while idle."""
        await self._until(b" EXISTS\r\n")
        self._came.clear()

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    async def _until(self, word: bytes) -> bytes:
        """Until `word` begins the last line; one that ends a line may be anywhere."""
        self._wanted = word, asyncio.get_running_loop().create_future()
        self._look()
        async with asyncio.timeout(ANSWER_S_MAX):
            await self._wanted[1]
        self._wanted = None
        return bytes(self._came)

    def _look(self) -> None:
        if self._wanted is None or self._wanted[1].done() or not self._came.endswith(b"\r\n"):
            return
        word, future = self._wanted
        last = self._came.rfind(b"\n", 0, len(self._came) - 1) + 1
        if self._came.startswith(word, last) or (word.endswith(b"\r\n") and word in self._came):
            future.set_result(None)
