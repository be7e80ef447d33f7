"""The least of a mail program: sends by SMTP as a foreign server does, reads by IMAP over TLS as people do."""

import asyncio
import re
import ssl
from typing import NamedTuple

ANSWER_S_MAX = 60.0
LINE_BYTES_MAX = 64 << 20

# What says that the other side is gone, whatever it did with what it was asked.
GONE = (OSError, EOFError, asyncio.IncompleteReadError, TimeoutError)

_LITERAL = re.compile(rb"\{(\d+)\}\r\n$")
_SUBJECT = re.compile(rb"Subject: Demo message (\d+)\r\n")
_STATUS = re.compile(rb"(MESSAGES|UIDNEXT|UIDVALIDITY) (\d+)")
_ROW = re.compile(rb"\d+ FETCH \(.*?\bUID (\d+)")


class Refused(Exception):
    """The server said no: it has not taken the message, or not let us in."""


def message(number: int, sender: str, recipient: str) -> bytes:
    """RFC 5322; no line begins with a dot."""
    lines = "\r\n".join(f"Line {line} of message {number}, and so on to the end of it." for line in range(20))
    head = f"From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: Demo message {number}\r\nMessage-ID: <{number}@{sender}>\r\n"
    return f"{head}\r\n{lines}\r\n".encode()


class SmtpLine:
    """What is said over one connection (RFC 5321 §4.2), whatever it is for. Raises one of GONE where the other side went
    away."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def close(self) -> None:
        self._writer.close()

    async def _ask(self, data: bytes) -> int:
        self._writer.write(data)
        await self._writer.drain()
        return await self._reply()

    async def _reply(self) -> int:
        while True:
            line = await self._reader.readuntil(b"\r\n")
            if line[3:4] != b"-":
                return int(line[:3])


class ImapLine:
    """The same for IMAP (RFC 9051 §2.2)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._tag = 0

    def close(self) -> None:
        self._writer.close()

    async def _line(self) -> bytes:
        """One line with its literals."""
        line = await self._reader.readuntil(b"\r\n")
        while match := _LITERAL.search(line):
            line += await self._reader.readexactly(int(match[1]))
            line += await self._reader.readuntil(b"\r\n")
        return line


class Smtp(SmtpLine):
    """One connection (RFC 5321). Raises one of GONE where the other side went away."""

    @classmethod
    async def connect(cls, host: str, port: int) -> "Smtp":
        async with asyncio.timeout(ANSWER_S_MAX):
            made = cls(*await asyncio.open_connection(host, port))
            await made._reply()
            await made._ask(b"EHLO client.example\r\n")
            return made

    async def send(self, sender: str, recipient: str, data: bytes) -> None:
        """Returns when the server has acknowledged the message. Raises Refused; any of GONE after the data leaves open
        whether it was taken (RFC 5321 §4.5.4.1)."""
        async with asyncio.timeout(ANSWER_S_MAX):
            for words in (f"MAIL FROM:<{sender}>\r\n", f"RCPT TO:<{recipient}>\r\n", "DATA\r\n"):
                if (code := await self._ask(words.encode())) >= 400:
                    await self._ask(b"RSET\r\n")
                    raise Refused(f"{words.split(':')[0].strip()}: {code}")
            if (code := await self._ask(data + b".\r\n")) != 250:
                raise Refused(f"data: {code}")


class Status(NamedTuple):
    messages: int
    uidnext: int
    uidvalidity: int


class Imap(ImapLine):
    """One session (RFC 9051). Raises one of GONE where the other side went away, Refused where it says no."""

    @classmethod
    async def connect(cls, host: str, port: int, tls: ssl.SSLContext, user: str, password: str) -> "Imap":
        async with asyncio.timeout(ANSWER_S_MAX):
            made = cls(*await asyncio.open_connection(host, port, ssl=tls, limit=LINE_BYTES_MAX))
            try:
                await made._line()
                await made._ask(f'LOGIN "{user}" "{password}"')
            except (*GONE, Refused):
                made.close()
                raise
            return made

    async def status(self) -> Status:
        """RFC 9051 §6.3.11."""
        for line in await self._ask("STATUS INBOX (MESSAGES UIDNEXT UIDVALIDITY)"):
            if len(found := {word: int(number) for word, number in _STATUS.findall(line)}) == 3:
                return Status(found[b"MESSAGES"], found[b"UIDNEXT"], found[b"UIDVALIDITY"])
        raise Refused("STATUS told nothing")

    async def numbers(self) -> tuple[tuple[int, int], ...]:
        """(UID, the demo's number) of every message in INBOX, by UID."""
        await self._ask("EXAMINE INBOX")
        found = []
        for line in await self._ask("UID FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])"):
            row, subject = _ROW.match(line), _SUBJECT.search(line)
            if row is not None and subject is not None:
                found.append((int(row[1]), int(subject[1])))
        await self._ask("UNSELECT")
        return tuple(sorted(found))

    async def _ask(self, words: str) -> list[bytes]:
        """The untagged lines of the answer, without `* `, with their literals."""
        self._tag += 1
        tag = b"a%d " % self._tag
        async with asyncio.timeout(ANSWER_S_MAX):
            self._writer.write(tag + words.encode() + b"\r\n")
            await self._writer.drain()
            untagged: list[bytes] = []
            while not (line := await self._line()).startswith(tag):
                if line.startswith(b"* BYE"):
                    raise EOFError(line.decode())
                untagged.append(line[2:])
        if not line.startswith(tag + b"OK"):
            raise Refused(line.decode().strip())
        return untagged
