"""Plays a conversation from a text file against IMAP sessions without a socket, the clients' bytes cut as asked.

    # a comment; cites the RFC
    -- person anna                a new account; <anna> is its address, its password is "secret"; root is an administrator
    -- shared office anna         an account with which nobody signs in; anna may do everything with its INBOX
    -- group team anna bob        an address that leads to them; <team>
    -- setting NAME=NUMBER        of protocols.imap.settings, before the first client
    -- tls                        clients that come from now on speak TLS
    -- token TOKEN anna           is anna's; !REASON instead of a name: it is refused for that (at a site in memory only)
    -- untrusted                  clients come from a network in which passwords need TLS
    -- login A anna [MAILBOX]     client A connects, signs in and, if told, selects; what it hears is dropped
    -- append A MAILBOX COUNT     A appends so many small messages (Subject: message 1…), dropped too
    -- closed A                   the server has ended A's connection
    A> what client A sends        a CRLF follows unless the line ends in <+>
    A< what must come back        line by line, nothing left out

`...` stands for anything within a line. `<name>` stands for one word: the same each time, and sent as it was heard. `<0x0d>` is
that byte. Clients connect when they are first named.
"""

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from protocols.imap.server import ImapServer
from protocols.imap.settings import Settings
from protocols.port import Site, TokensTaken
from tests.memory_site import MemorySite
from tests.transcripts.wire import MemoryTransport

ADMINISTRATOR = "root"
WAYS = ("whole", "bytes", "ragged")

_NAME = re.compile(r"<([a-z][a-z0-9_]*)>")
_BYTE = re.compile(r"<0x([0-9a-f]{2})>")


class Stage(NamedTuple):
    """A site, and how to make a person of it: name → (address, password); a shared account and the rights of an address
    to its INBOX: (name, address) → address; a group: (name, members' addresses) → address."""

    site: Site
    person: Callable[[str], Awaitable[tuple[str, str]]]
    shared: Callable[[str, str], Awaitable[str]]
    group: Callable[[str, tuple[str, ...]], Awaitable[str]]


class Client:
    def __init__(self, server: ImapServer, *, tls: bool = False) -> None:
        self.wire = server.door(tls=tls)
        self.transport = MemoryTransport(self.wire)
        self.wire.connection_made(self.transport)

    async def send(self, data: bytes, how: str) -> None:
        for piece in cut(data, how):
            self.wire.data_received(piece)
            if how != "whole":
                await asyncio.sleep(0)

    async def line(self) -> str | None:
        return await self.transport.line()

    async def ask(self, tag: str, request: bytes) -> None:
        """Sends and drops what comes back, which must end well."""
        await self.send(request, "whole")
        while (line := await self.line()) is not None:
            if line.startswith(f"{tag} "):
                assert line.startswith(f"{tag} OK"), line
                return
        raise AssertionError(f"closed instead of an answer to {request!r}")


def cut(data: bytes, how: str) -> Iterator[bytes]:
    """`whole`, `bytes` (one by one), `ragged` (of uneven length)."""
    at, size = 0, 1
    while at < len(data):
        size = len(data) if how == "whole" else 1 if how == "bytes" else size * 5 % 17 + 1
        yield data[at : at + size]
        at += size


class Player:
    def __init__(self, stage: Stage, how: str) -> None:
        self.stage, self.how = stage, how
        self.settings = Settings(hostname="mail.example.org", plaintext_networks=(ipaddress.ip_network("127.0.0.0/8"),))
        self.server: ImapServer | None = None
        self.tls = False
        self.clients: dict[str, Client] = {}
        self.names: dict[str, str] = {}
        self.passwords: dict[str, str] = {}

    async def play(self, path: Path) -> None:
        pending: dict[str, bytes] = {}
        try:
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
                where = f"{path.name}:{number} ({self.how})"
                if not line or line.startswith("#"):
                    continue
                who, sign, rest = line[:1], line[1:2], line[3:]
                if sign == ">":
                    pending[who] = pending.get(who, b"") + self.bytes_of(rest, where)
                    continue
                for one, data in pending.items():
                    await (await self.client(one)).send(data, self.how)
                pending.clear()
                if sign == "<":
                    got = await (await self.client(who)).line()
                    assert got is not None and self.matches(got, rest), f"{where}: wanted {rest!r}, got {got!r}"
                else:
                    assert line.startswith("-- "), f"{where}: what is this?"
                    await self.direct(line[3:].split(), where)
            for name, client in self.clients.items():
                assert not client.transport.written, f"{path.name}: {name} was told more: {client.transport.written!r}"
        finally:
            await self.close()

    async def close(self) -> None:
        for client in self.clients.values():
            client.transport.close()
        if self.server is not None:
            await self.server.close()

    async def client(self, name: str) -> Client:
        if name not in self.clients:
            self.server = self.server or ImapServer(self.stage.site, self.settings)
            self.clients[name] = Client(self.server, tls=self.tls)
        return self.clients[name]

    def bytes_of(self, text: str, where: str) -> bytes:
        def named(found: "re.Match[str]") -> str:
            assert found[1] in self.names, f"{where}: <{found[1]}> was not heard yet"
            return self.names[found[1]]

        more = text.endswith("<+>")
        data = _NAME.sub(named, text.removesuffix("<+>")).encode("utf-8")
        data = re.sub(rb"<0x([0-9a-f]{2})>", lambda found: bytes((int(found[1], 16),)), data)
        return data if more else data + b"\r\n"

    def matches(self, got: str, wanted: str) -> bool:
        """Binds the names that are new."""
        pattern, at, new = "", 0, set()
        for found in re.finditer(rf"{_NAME.pattern}|{_BYTE.pattern}|\.\.\.", wanted):
            pattern += re.escape(wanted[at : found.start()])
            at = found.end()
            if found[0] == "...":
                pattern += ".*"
            elif found[2]:
                pattern += re.escape(chr(int(found[2], 16)))
            elif found[1] in self.names:
                pattern += re.escape(self.names[found[1]])
            elif found[1] in new:
                pattern += f"(?P={found[1]})"
            else:
                new.add(found[1])
                pattern += rf"(?P<{found[1]}>[^\s\])]+)"
        match = re.fullmatch(pattern + re.escape(wanted[at:]), got, re.DOTALL)
        if match is None:
            return False
        self.names.update(match.groupdict())
        return True

    async def direct(self, words: list[str], where: str) -> None:
        match words:
            case ["person", name]:
                self.names[name], self.passwords[name] = await self.stage.person(name)
            case ["shared", name, person]:
                self.names[name] = await self.stage.shared(name, self.names[person])
            case ["group", name, *people]:
                members = tuple(self.names[person] for person in people)
                self.names[name] = await self.stage.group(name, members)
            case ["setting", pair]:
                name, _, value = pair.partition("=")
                assert self.server is None and name in Settings.__struct_fields__, where
                self.settings = msgspec.structs.replace(self.settings, **{name: int(value)})
            case ["limit", pair]:
                name, _, value = pair.partition("=")
                limits = msgspec.structs.replace(self.settings.limits, **{name: int(value)})
                self.settings = msgspec.structs.replace(self.settings, limits=limits)
            case ["tls"]:
                self.tls = True
            case ["token", token, whose]:
                assert isinstance(self.stage.site, MemorySite), f"{where}: no site of which tokens can be told"
                self.stage.site.tokens = TokensTaken("mail", "https://id.example/.well-known/openid-configuration")
                self.stage.site.issued[token] = self.names.get(whose, whose)
            case ["untrusted"]:
                self.settings = msgspec.structs.replace(self.settings, plaintext_networks=())
            case ["login", who, person, *mailbox]:
                client = await self.client(who)
                assert await client.line() is not None
                login = f'-l LOGIN "{self.names[person]}" "{self.passwords[person]}"\r\n'
                await client.ask("-l", login.encode())
                if mailbox:
                    await client.ask("-s", f"-s SELECT {mailbox[0]}\r\n".encode())
            case ["append", who, mailbox, count]:
                for number in range(1, int(count) + 1):
                    text = f"From: Bob <bob@example.org>\r\nSubject: message {number}\r\n\r\nThis is {number}.\r\n"
                    head = f'-a APPEND {mailbox} "17-Jul-1996 02:44:2{number % 10} -0700" {{{len(text)}+}}\r\n'
                    await (await self.client(who)).ask("-a", (head + text + "\r\n").encode())
            case ["closed", who]:
                assert await (await self.client(who)).line() is None, f"{where}: it is open"
            case _:
                raise AssertionError(f"{where}: what is this?")
