"""Whole conversations of any bytes, with a server in memory: nothing fails in it, and what it answers is well formed."""

import asyncio
import ipaddress
import re
from collections.abc import Callable, Coroutine
from typing import Any

import structlog.testing

from cluster.domain.actor import Actor
from cluster.domain.mailbox import rights
from cluster.domain.mailbox.commands import SetRights
from cluster.domain.mailbox.events import FlagMode
from protocols.imap.server import ImapServer
from protocols.imap.settings import Settings as ImapSettings
from protocols.pop3.server import Pop3Server
from protocols.pop3.settings import Settings as Pop3Settings
from protocols.smtp.model import Role
from protocols.smtp.server import Server as SmtpServer
from protocols.smtp.settings import Settings as SmtpSettings
from storage.shapes import Done
from tests.contracts.smtp_site import SmallSite
from tests.memory_site import MemorySite
from tests.transcripts.pop3.play import append
from tests.transcripts.wire import MemoryTransport

ADDRESS, PASSWORD, OTHER = "anna@example.org", "secret", "bert@example.org"
SESSION_S_MAX = 20.0
NEAR = (ipaddress.ip_network("127.0.0.0/8"),)
MESSAGES = (
    b"From: Bob <bob@example.org>\r\nSubject: =?utf-8?q?caf=C3=A9?=\r\nMessage-ID: <1@x>\r\nDate: Tue, 1 Jan 2036 00:00:00 +0000\r\n"
    b"\r\nOne.\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\nSubject: Re: two\r\nReferences: <1@x>\r\n\r\n--b\r\n\r\ntext\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nx\r\n--b\r\nContent-Type: image/png\r\n"
    b"Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=\"a\\\"b\"\r\n\r\nAAAA\r\n--b--\r\n",
    b"Subject: \xff\0 8-bit\r\nFrom: \"\r\nContent-Type: text/html; charset=nonsense\r\n\r\n<b>\0x",
)

_LITERAL = re.compile(rb"(~?)\{(\d+)\}\r\n$")
_SECTION = re.compile(rb"(?:BODY|RFC822)[^ ]*(?: \([^)]*\)\][^ ]*)? \{\d+\}\r\n$")
_QUOTED = re.compile(rb'"(?:[^"\\]|\\["\\])*"')
_ANSWER = re.compile(rb"(?:\*|\+|[^\x00-\x20(){%*\"\\+\x7f-\xff]{1,256})[ \r]")
_STRUCTURED = re.compile(rb"\* (?:\d+ FETCH|LIST|LSUB|STATUS|ESEARCH|NAMESPACE|ID|THREAD|SORT|SEARCH|\(|NIL)")


def whole(data: bytes, utf8: bool = False) -> int:
    """How many answers of IMAP these are. Each is a line with literals in it (RFC 9051 §9): no NUL but in a literal8, 8-bit
    only where it may be, quotes and parentheses in pairs."""
    at, answers = 0, 0
    while at < len(data):
        line = bytearray()
        while True:
            end = data.index(b"\n", at) + 1
            piece, at = data[at:end], end
            assert piece.endswith(b"\r\n") and piece.count(b"\r") == 1, piece
            assert b"\0" not in piece, piece
            found = _LITERAL.search(piece)
            if found is None:
                line += piece
                break
            size = int(found[2])
            value, at = data[at : at + size], at + size
            assert len(value) == size, "a literal without all its bytes"
            # a section of a message comes as it is, byte for byte
            assert found[1] or b"\0" not in value or _SECTION.search(piece), (piece, value)
            line += piece[: found.start()] + b"LITERAL"
        assert utf8 or line.isascii(), bytes(line)
        assert _ANSWER.match(line), bytes(line)
        if _STRUCTURED.match(line):
            bare = _QUOTED.sub(b"QUOTED", line)
            assert b'"' not in bare and bare.count(b"(") == bare.count(b")"), bytes(line)
        answers += 1
    return answers


async def _said(wire: asyncio.Protocol, data: bytes) -> bytes:
    """All that a server answers to a client that says this and no more."""
    transport = MemoryTransport(wire)
    wire.connection_made(transport)
    wire.data_received(data)
    wire.eof_received()
    async with asyncio.timeout(SESSION_S_MAX):
        while not transport.is_closing():
            transport.changed.clear()
            await transport.changed.wait()
    await asyncio.sleep(0)
    return bytes(transport.written)


def _talked(talk: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
    with structlog.testing.capture_logs() as logs:
        said = asyncio.run(talk())
    assert not [entry for entry in logs if entry["log_level"] in ("error", "critical")], logs
    return said


async def _site() -> MemorySite:
    """With a mailbox of somebody else's too, for the ways of ACL (RFC 4314), NAMESPACE and NOTIFY through what is shared."""
    site = MemorySite()
    account = await site.account(ADDRESS, PASSWORD)
    other = await site.account(OTHER, PASSWORD)
    actor = Actor("fuzz")
    given = SetRights(other.id, "INBOX", str(account.id), FlagMode.REPLACE, rights.ALL)
    assert isinstance(await site.execute(actor, given), Done)
    await append(site, other.id, MESSAGES[0])
    for message in MESSAGES:
        await append(site, account.id, message)
    return site


def imap_session(data: bytes) -> None:
    """Somebody who has signed in and selected INBOX."""

    async def talk() -> bytes:
        settings = ImapSettings(plaintext_networks=NEAR, compress=False, bad_commands_max=1_000)
        server = ImapServer(await _site(), settings)
        said = await _said(server.door(), f"a LOGIN {ADDRESS} {PASSWORD}\r\nb SELECT INBOX\r\n".encode() + data)
        await server.close()
        return said

    said = _talked(talk)
    # after this in an answer mailbox names and header words may come in UTF-8
    utf8 = re.search(rb"^\* ENABLED .*(?:IMAP4REV2|UTF8=ACCEPT)", said, re.MULTILINE | re.IGNORECASE) is not None
    whole(said, utf8)


def pop3_session(data: bytes) -> None:
    async def talk() -> bytes:
        server = Pop3Server(await _site(), Pop3Settings(plaintext_networks=NEAR))
        said = await _said(server.door(), f"USER {ADDRESS}\r\nPASS {PASSWORD}\r\n".encode() + data)
        await server.close()
        return said

    said = _talked(talk)
    assert said.startswith(b"+OK") and said.endswith(b"\r\n")


def smtp_session(data: bytes) -> None:
    async def talk() -> bytes:
        server = SmtpServer(SmallSite().port, SmtpSettings(hostname="mail.example.org"), Role.MX, None)
        said = await _said(server.protocol(), b"EHLO x\r\n" + data)
        await server.close()
        return said

    # RFC 5321 §4.2: three digits and a blank or a hyphen, and lines of at most 512 octets (§4.5.3.1.5)
    for line in _talked(talk).removesuffix(b"\r\n").split(b"\r\n"):
        assert re.fullmatch(rb"[2345]\d\d(?:[ -][^\r\n\0]*)?", line) and len(line) <= 510, line
