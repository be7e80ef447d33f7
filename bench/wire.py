"""The quickest client that still knows when an answer is whole, so that what is measured is the server. Plain sockets."""

import asyncio

ANSWER_S_MAX = 120.0


class Imap(asyncio.Protocol):
    """One session. `ask` gives the untouched bytes of an answer, its tagged line last."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._came = bytearray()
        self._wanted: tuple[bytes, asyncio.Future[None]] | None = None
        self._tag = 0

    @classmethod
    async def connect(cls, port: int, user: str, password: str) -> "Imap":
        transport, made = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        made._transport = transport
        await made._until(b"\r\n")
        await made.ask(b"LOGIN %b %b" % (user.encode(), password.encode()))
        return made

    def data_received(self, data: bytes) -> None:
        self._came += data
        self._look()

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

    async def idle(self) -> None:
        self.begin(b"IDLE")
        await self._until(b"+ ")

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
