"""The least of a client for SMTP and for IMAP, over plain sockets: what a test must see is every byte of an answer."""

import asyncio
import base64
from typing import NamedTuple

from node.demo.clients import GONE, LINE_BYTES_MAX, ImapLine, SmtpLine

__all__ = ["GONE", "Answer", "Imap", "Smtp"]

ANSWER_S_MAX = 120.0


class Smtp(SmtpLine):
    """One connection, by SMTP or LMTP. `send` and `share` raise one of GONE where the other side went away."""

    @classmethod
    async def connect(cls, port: int, *, lmtp: bool = False) -> "Smtp":
        async with asyncio.timeout(ANSWER_S_MAX):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LINE_BYTES_MAX)
            made = cls(reader, writer)
            await made._reply()
            await made._ask(b"%b client.example\r\n" % (b"LHLO" if lmtp else b"EHLO"))
            return made

    async def share(self, recipients: list[str], data: bytes) -> list[str]:
        """By LMTP: those who have it, by a reply of their own (RFC 2033 §4.2)."""
        code = await self.send(recipients, data)
        if code == 0:
            return []
        async with asyncio.timeout(ANSWER_S_MAX):
            codes = [code, *[await self._reply() for _ in recipients[1:]]]
        return [recipient for recipient, each in zip(recipients, codes, strict=True) if each == 250]

    async def send(self, recipients: list[str], data: bytes) -> int:
        """`data` without lines that begin with a dot. The code at the end of data, 0 where it did not come to that."""
        async with asyncio.timeout(ANSWER_S_MAX):
            words = ["MAIL FROM:<sender@elsewhere.example>", *(f"RCPT TO:<{r}>" for r in recipients), "DATA"]
            self._writer.write("".join(f"{word}\r\n" for word in words).encode())
            codes = [await self._reply() for _ in words]
            if codes[-1] != 354:
                await self._ask(b"RSET\r\n")
                return 0
            if any(code >= 400 for code in codes):
                # Some recipients were refused: the message goes to nobody, which is simpler to judge.
                self._writer.close()
                raise EOFError("not all recipients were taken")
            return await self._ask(data + b".\r\n")


class Answer(NamedTuple):
    """`state`: OK, NO or BAD; `text`: the rest of the tagged line; `untagged`: with their literals, without `* `."""

    state: str
    text: str
    untagged: list[bytes]


class Submission(Smtp):
    """By somebody who signed in (RFC 6409), on a port that takes passwords in plain."""

    @classmethod
    async def signed(cls, port: int, address: str, password: str) -> "Submission":
        made = await cls.connect(port)
        assert isinstance(made, Submission)
        words = base64.b64encode(f"\0{address}\0{password}".encode())
        assert await made._ask(b"AUTH PLAIN " + words + b"\r\n") == 235
        return made

    async def begin(self, sender: str, recipients: list[str]) -> int:
        """The reply to DATA, or the first one that refuses."""
        for words in (f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{each}>" for each in recipients)):
            if (code := await self._ask(f"{words}\r\n".encode())) >= 400:
                return code
        return await self._ask(b"DATA\r\n")

    async def give(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def end(self, patience_s: float = 60.0) -> int:
        async with asyncio.timeout(patience_s):
            return await self._ask(b".\r\n")


class Imap(ImapLine):
    """One session. Raises one of GONE where the other side went away."""

    @classmethod
    async def connect(cls, port: int, user: str, password: str) -> "Imap":
        async with asyncio.timeout(ANSWER_S_MAX):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LINE_BYTES_MAX)
            made = cls(reader, writer)
            await made._line()
        answer = await made.ask(f"LOGIN {user} {password}")
        if answer.state != "OK":
            writer.close()
            raise EOFError(answer.text)
        return made

    async def ask(self, words: str, literal: bytes = b"") -> Answer:
        """One command; `literal` follows it as its last argument, by the client's leave (LITERAL+, RFC 7888)."""
        self._tag += 1
        tag = b"a%d " % self._tag
        self._writer.write(
            tag + words.encode() + (b" {%d+}\r\n%b" % (len(literal), literal) if literal else b"") + b"\r\n"
        )
        async with asyncio.timeout(ANSWER_S_MAX):
            await self._writer.drain()
            untagged: list[bytes] = []
            while not (line := await self._line()).startswith(tag):
                if line.startswith(b"* BYE"):
                    raise EOFError(line.decode())
                untagged.append(line[2:])
        state, _, text = line[len(tag) :].decode().strip().partition(" ")
        return Answer(state, text, untagged)

    async def begin_idle(self) -> None:
        self._tag += 1
        self._writer.write(b"a%d IDLE\r\n" % self._tag)
        while not (await self._line()).startswith(b"+"):
            pass

    async def news(self) -> bytes:
        """The next untagged line while idle."""
        return await self._line()
