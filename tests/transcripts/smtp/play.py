"""Plays a conversation from a text file against a server without a socket, the client's bytes cut as asked.

# a comment; cites the RFC
-- role lmtp | setting NAME=VALUE | tls | trusted | filing | token TOKEN ADDRESS | elsewhere ALIAS ADDRESS | unavailable | available
-- full ACCOUNT | fills ACCOUNT (before it is full, when the message comes) | holds ACCOUNT BYTES (so many at most)
A> what the client sends; \\r \\n \\0 \\xNN as in Python, a CRLF follows unless the line ends in \\c
A< what must come back; * stands for anything
-- delivered ADDRESS COUNT | queued COUNT | closed
== TEXT     the last message delivered has TEXT in it
"""

import asyncio
import fnmatch
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.domain.refusal import Reason, Refusal
from protocols.port import Recipient, TokensTaken
from protocols.smtp.model import Role
from protocols.smtp.server import Server, Settings
from tests.contracts.smtp_site import SmallSite
from tests.transcripts.wire import MemoryTransport


def cut(data: bytes, how: str) -> Iterator[bytes]:
    """`whole`, `bytes` (one by one), `ragged` (1, 2, 3… bytes)."""
    at, size = 0, 1
    while at < len(data):
        size = len(data) if how == "whole" else 1 if how == "bytes" else size % 7 + 1
        yield data[at : at + size]
        at += size


class Player:
    def __init__(self, how: str) -> None:
        self.how = how
        self.site = SmallSite()
        self.role = Role.MX
        self.settings: dict[str, Any] = {"hostname": "mail.example.org"}
        self.server: Server | None = None
        self.transport: MemoryTransport | None = None
        self.wire: asyncio.Protocol | None = None
        self.pending = b""
        self.tls = False

    async def play(self, path: Path) -> None:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            where = f"{path.name}:{number} ({self.how})"
            if line.startswith("A> ") or line == "A>":
                text = line[3:].removesuffix("\\c").encode().decode("unicode_escape").encode("latin-1")
                self.pending += text if line.endswith("\\c") else text + b"\r\n"
            elif line.startswith("A< "):
                await self.send()
                got = await self.connected().line()
                assert got is not None and matches(got, line[3:]), f"{where}: wanted {line[3:]!r}, got {got!r}"
            elif line.startswith("-- "):
                await self.send()
                await self.direct(line[3:].split(), where)
            elif line.startswith("== "):
                text = line[3:].encode().decode("unicode_escape").encode("latin-1")
                data = (self.site.delivered[-1][1]) if self.site.delivered else self.site.queued[-1][1]
                assert text in data, f"{where}: {text!r} is not in {data!r}"
            else:
                assert not line or line.startswith("#"), f"{where}: what is this?"
        if self.server is not None:
            self.connected().close()
            await self.server.close()

    def connected(self) -> MemoryTransport:
        if self.transport is None:
            self.server = Server(self.site.port, Settings(**self.settings), self.role, None)
            self.wire = self.server.protocol()
            self.transport = MemoryTransport(self.wire, tls=self.tls)
            self.wire.connection_made(self.transport)
        return self.transport

    async def send(self) -> None:
        data, self.pending = self.pending, b""
        if not data:
            return
        self.connected()
        assert self.wire is not None
        for piece in cut(data, self.how):
            self.wire.data_received(piece)
            if self.how != "whole":
                await asyncio.sleep(0)

    async def direct(self, words: list[str], where: str) -> None:
        match words:
            case ["role", name]:
                self.role = Role(name)
            case ["setting", pair]:
                name, _, value = pair.partition("=")
                self.settings[name] = int(value) if value.isdigit() else value
            case ["tls"]:
                self.tls = True
            case ["token", token, address]:
                self.site.tokens = TokensTaken("mail", "https://id.example/.well-known/openid-configuration")
                self.site.issued[token] = address
            case ["filing"]:
                self.site.file_sent = True
            case ["trusted"]:
                self.settings["plaintext_networks"] = (ipaddress.ip_network("127.0.0.0/8"),)
            case ["elsewhere", alias, address]:
                self.site.aliases[alias] = Recipient(alias, (), (address,))
            case ["both", alias, account, address]:
                self.site.aliases[alias] = Recipient(alias, (int(account),), (address,))
            case ["unavailable"]:
                self.site.refuse_all = Refusal(Reason.UNAVAILABLE)
            case ["suspended", account]:
                self.site.refuse[int(account)] = Refusal(Reason.ACCOUNT_SUSPENDED)
            case ["full", account]:
                self.site.full[int(account)] = Refusal(Reason.OVER_QUOTA)
            case ["fills", account]:
                self.site.refuse[int(account)] = Refusal(Reason.OVER_QUOTA)
            case ["holds", account, size]:
                self.site.holds[int(account)] = int(size)
            case ["available"]:
                self.site.refuse_all = None
            case ["delivered", address, count]:
                owner = self.site.people[address]
                got = sum(1 for one, _ in self.site.delivered if one == owner)
                assert got == int(count), f"{where}: {got} delivered"
            case ["queued", count, *recipients]:
                assert len(self.site.queued) == int(count), f"{where}: {len(self.site.queued)} queued"
                if recipients:
                    assert self.site.queued[-1][0].recipients == tuple(recipients), where
            case ["closed"]:
                assert await self.connected().line() is None, f"{where}: it is open"
            case _:
                raise AssertionError(f"{where}: what is this?")


def matches(got: str, wanted: str) -> bool:
    return fnmatch.fnmatchcase(got, wanted.replace("[", "[[]"))
