"""An SMTP client, for the smarthost only: connect, greet, secure, sign in, hand messages over (RFC 5321 §3, §4.5.3.2)."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from enum import Enum
from typing import NamedTuple, NoReturn, Self

import msgspec

from protocols.stuffing import Stuffing

CONNECT_S_MAX = 30.0
COMMAND_S_MAX = 300.0  # RFC 5321 §4.5.3.2.1–3
DATA_S_MAX = 120.0  # §4.5.3.2.4
BLOCK_S_MAX = 180.0  # §4.5.3.2.5
END_S_MAX = 600.0  # §4.5.3.2.6
QUIT_S_MAX = 5.0
REPLY_BYTES_MAX = 64 << 10
READ_BYTES = 8 << 10
RECIPIENTS_MAX = 100  # RFC 5321 §4.5.3.1.8: in one transaction every host takes that many


class Tls(Enum):
    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"
    IMPLICIT = "implicit"


class Smarthost(msgspec.Struct, frozen=True):
    """`context`: whom to trust; None = the system's authorities (and nobody is checked by `opportunistic`, RFC 7435).
    `user` empty = no sign-in."""

    host: str
    port: int = 587
    tls: Tls = Tls.REQUIRED
    user: str = ""
    password: str = ""
    context: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"Smarthost({self.host}:{self.port}, {self.tls.value})"


class Result(NamedTuple):
    """What became of one recipient: the reply's code (0 = no reply) and its text."""

    code: int
    text: str


class Letter(msgspec.Struct, frozen=True):
    """`size` in bytes. `smtputf8`: its header or its addresses may be UTF-8 (RFC 6531)."""

    sender: str
    recipients: tuple[str, ...]
    size: int
    body_8bit: bool = False
    smtputf8: bool = False


class SmarthostFailed(Exception):
    """The connection cannot be used (any more). `code` 0 = no reply."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}" if code else text)
        self.result = Result(code, text)


class Connection:
    """One connection to the smarthost, made by `connect`; takes letters one after another."""

    def __init__(self, smarthost: Smarthost, hostname: str) -> None:
        self._smarthost = smarthost
        self._hostname = hostname
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._buffer = bytearray()
        self._offers: dict[str, str] = {}

    @classmethod
    async def connect(cls, smarthost: Smarthost, hostname: str) -> Self:
        """Ready for letters. Raises SmarthostFailed."""
        connection = cls(smarthost, hostname)
        try:
            await connection._open()
            await connection._greet()
            await connection._secure()
            await connection._sign_in()
        except BaseException:
            connection.abort()
            raise
        return connection

    async def send(self, letter: Letter, pieces: AsyncIterator[bytes]) -> dict[str, Result]:
        """One result for each recipient (at most RECIPIENTS_MAX of them). Raises SmarthostFailed, and whatever
        `pieces` raises; the connection is then of no more use."""
        refusal = self._cannot_take(letter)
        if refusal is not None:
            return dict.fromkeys(letter.recipients, refusal)
        results = await self._envelope(letter)
        accepted = [recipient for recipient in letter.recipients if recipient not in results]
        if accepted:
            go_on = await self._command("DATA", DATA_S_MAX)
            end = await self._content(pieces) if go_on.code == 354 else go_on
            results |= dict.fromkeys(accepted, end)
            if go_on.code == 354:
                return results
        await self._command("RSET", COMMAND_S_MAX)
        return results

    async def quit(self) -> None:
        with suppress(SmarthostFailed):
            await self._command("QUIT", QUIT_S_MAX)
        self.abort()

    def abort(self) -> None:
        """A message whose end was not sent is not taken by the other side (RFC 5321 §4.1.1.4)."""
        if self._writer is not None:
            self._writer.transport.abort()

    # -- getting ready ------------------------------------------------------------------------------------------------
    async def _open(self) -> None:
        host = self._smarthost
        implicit = host.tls is Tls.IMPLICIT
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                self._reader, self._writer = await asyncio.open_connection(
                    host.host, host.port, ssl=self._context() if implicit else None
                )
        except (OSError, TimeoutError) as failure:
            raise SmarthostFailed(0, f"no connection to {host.host}: {failure or 'it takes too long'}") from failure

    def _context(self) -> ssl.SSLContext:
        if self._smarthost.context is not None:
            return self._smarthost.context
        context = ssl.create_default_context()
        if self._smarthost.tls is Tls.OPPORTUNISTIC:  # RFC 7435 §4.1: better unchecked than in plain
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    async def _greet(self) -> None:
        greeting = await self._reply(COMMAND_S_MAX)
        if greeting.code != 220:
            raise SmarthostFailed(*greeting)
        await self._hello()

    async def _hello(self) -> None:
        reply = await self._command(f"EHLO {self._hostname}", COMMAND_S_MAX)
        if reply.code == 250:
            lines = reply.text.split("\n")[1:]
            self._offers = {word.upper(): rest for word, _, rest in (line.partition(" ") for line in lines)}
            return
        # RFC 5321 §3.2: an old host knows HELO only.
        self._offers = {}
        reply = await self._command(f"HELO {self._hostname}", COMMAND_S_MAX)
        if reply.code != 250:
            raise SmarthostFailed(*reply)

    async def _secure(self) -> None:
        host = self._smarthost
        if host.tls not in (Tls.OPPORTUNISTIC, Tls.REQUIRED):
            return
        if "STARTTLS" not in self._offers:
            if host.tls is Tls.OPPORTUNISTIC:
                return
            raise SmarthostFailed(0, f"{host.host} does not offer STARTTLS, which the configuration asks for")
        reply = await self._command("STARTTLS", COMMAND_S_MAX)
        if reply.code != 220:
            raise SmarthostFailed(*reply)
        if self._buffer:  # RFC 3207 §6: what came before the handshake may be another's
            raise SmarthostFailed(0, f"{host.host} sent bytes before the handshake")
        assert self._writer is not None
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                await self._writer.start_tls(self._context(), server_hostname=host.host)
        except (OSError, TimeoutError) as failure:
            raise SmarthostFailed(0, f"no TLS with {host.host}: {failure or 'it takes too long'}") from failure
        await self._hello()  # RFC 3207 §4.2

    async def _sign_in(self) -> None:
        """RFC 4954. A refusal is the configuration's fault and not the letter's: it is tried again later."""
        host = self._smarthost
        if not host.user:
            return
        mechanisms = self._offers.get("AUTH", "").upper().split()
        if "PLAIN" in mechanisms:
            secret = _base64(f"\0{host.user}\0{host.password}")
            reply = await self._command(f"AUTH PLAIN {secret}", COMMAND_S_MAX)
        elif "LOGIN" in mechanisms:
            reply = await self._command("AUTH LOGIN", COMMAND_S_MAX)
            for answer in (host.user, host.password):
                if reply.code == 334:
                    reply = await self._command(_base64(answer), COMMAND_S_MAX)
        else:
            raise SmarthostFailed(0, f"{host.host} offers neither AUTH PLAIN nor LOGIN")
        if reply.code != 235:
            raise SmarthostFailed(reply.code, f"{host.host} refuses our sign-in: {reply.text}")

    # -- one letter ---------------------------------------------------------------------------------------------------
    def _cannot_take(self, letter: Letter) -> Result | None:
        limit = self._offers.get("SIZE", "")
        if limit.isdecimal() and 0 < int(limit) < letter.size:
            return Result(552, f"5.3.4 The message is too big for {self._smarthost.host}")  # RFC 1870 §6
        if letter.body_8bit and "8BITMIME" not in self._offers:
            return Result(554, f"5.6.3 {self._smarthost.host} takes no 8-bit message")  # RFC 6152 §3
        if self._needs_smtputf8(letter) and "SMTPUTF8" not in self._offers:
            return Result(553, f"5.6.7 {self._smarthost.host} takes no UTF-8 address or header")  # RFC 6531 §3.2
        return None

    def _needs_smtputf8(self, letter: Letter) -> bool:
        addresses = letter.sender + "".join(letter.recipients)
        return not addresses.isascii() or (letter.smtputf8 and letter.body_8bit)

    async def _envelope(self, letter: Letter) -> dict[str, Result]:
        """The recipients that were refused. With PIPELINING the whole envelope goes at once (RFC 2920 §3.1)."""
        mail = f"MAIL FROM:<{letter.sender}>"
        if "SIZE" in self._offers:
            mail += f" SIZE={letter.size}"
        if letter.body_8bit:
            mail += " BODY=8BITMIME"
        if self._needs_smtputf8(letter):
            mail += " SMTPUTF8"
        commands = [mail, *(f"RCPT TO:<{recipient}>" for recipient in letter.recipients)]
        if "PIPELINING" in self._offers:
            await self._write(commands)
            replies = [await self._reply(COMMAND_S_MAX) for _ in commands]
        else:
            replies = [await self._command(mail, COMMAND_S_MAX)]
            for command in commands[1:] if replies[0].code == 250 else ():
                replies.append(await self._command(command, COMMAND_S_MAX))
        if replies[0].code == 530:  # RFC 4954 §6, RFC 3207 §4: our configuration's fault and not the letter's
            raise SmarthostFailed(*replies[0])
        if replies[0].code != 250:
            return dict.fromkeys(letter.recipients, replies[0])
        return {
            recipient: reply
            for recipient, reply in zip(letter.recipients, replies[1:], strict=True)
            if reply.code not in (250, 251)
        }

    async def _content(self, pieces: AsyncIterator[bytes]) -> Result:
        assert self._writer is not None
        stuffing = Stuffing()
        try:
            async for piece in pieces:
                self._writer.write(stuffing.stuffed(piece))
                async with asyncio.timeout(BLOCK_S_MAX):
                    await self._writer.drain()
            self._writer.write(stuffing.end())
        except (OSError, TimeoutError) as failure:
            self._lost(failure)
        except BaseException:
            self.abort()
            raise
        return await self._reply(END_S_MAX)

    # -- lines --------------------------------------------------------------------------------------------------------
    async def _command(self, command: str, timeout_s: float) -> Result:
        await self._write([command])
        return await self._reply(timeout_s)

    async def _write(self, commands: Sequence[str]) -> None:
        assert self._writer is not None
        assert not any("\r" in command or "\n" in command for command in commands)
        self._writer.write("".join(f"{command}\r\n" for command in commands).encode())
        try:
            async with asyncio.timeout(BLOCK_S_MAX):
                await self._writer.drain()
        except (OSError, TimeoutError) as failure:
            self._lost(failure)

    async def _reply(self, timeout_s: float) -> Result:
        """RFC 5321 §4.2.1; the text's lines are joined by a line feed. Raises SmarthostFailed."""
        code, lines, size = "", [], 0
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    line = await self._line()
                    size += len(line)
                    text = line.decode("utf-8", "replace")
                    code = code or text[:3]
                    if text[:3] != code or not code.isdecimal() or len(code) != 3 or size > REPLY_BYTES_MAX:
                        raise SmarthostFailed(0, f"{self._smarthost.host} does not speak SMTP")
                    lines.append(text[4:])
                    if text[3:4] != "-":
                        break
        except (OSError, TimeoutError) as failure:
            self._lost(failure)
        reply = Result(int(code), "\n".join(lines))
        if reply.code == 421:  # RFC 5321 §3.8: it closes the channel
            raise SmarthostFailed(*reply)
        return reply

    async def _line(self) -> bytes:
        assert self._reader is not None
        while (end := self._buffer.find(b"\n")) < 0:
            more = await self._reader.read(READ_BYTES)
            if not more:
                raise ConnectionResetError("it hung up")
            self._buffer += more
            if len(self._buffer) > REPLY_BYTES_MAX:
                raise SmarthostFailed(0, f"{self._smarthost.host} does not speak SMTP")
        line = bytes(self._buffer[:end]).rstrip(b"\r")
        del self._buffer[: end + 1]
        return line

    def _lost(self, failure: BaseException) -> NoReturn:
        self.abort()
        raise SmarthostFailed(0, f"the connection to {self._smarthost.host} broke: {failure or 'it takes too long'}") from failure


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
