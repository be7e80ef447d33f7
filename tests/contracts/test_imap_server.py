"""Sessions over real sockets: TLS, SASL, back-pressure, what fails behind them, stopping."""

import asyncio
import base64
import datetime
import hashlib
import ipaddress
import ssl
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from scramp import ScramClient, ScramException

from cluster.domain.mailbox.content import Content
from cluster.domain.refusal import Reason, Refusal
from node import certs
from node.tls import Certificates
from protocols.imap import server as imap
from protocols.imap.server import ImapServer
from protocols.imap.settings import Settings
from protocols.port import SiteUnavailable, Status
from tests.live import eventually
from tests.memory_site import MemorySite

MIB = 1024 * 1024
TRUSTED = Settings(hostname="localhost", plaintext_networks=(ipaddress.ip_network("127.0.0.0/8"),))
ANNA = "anna@example.org"


class Peer:
    """A client that knows lines and literals."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def line(self) -> str:
        """"" at the end."""
        async with asyncio.timeout(20):
            return (await self.reader.readline()).decode()

    async def ask(self, request: str | bytes) -> list[str]:
        """All lines up to the tagged one, literals put in."""
        data = request.encode() if isinstance(request, str) else request
        self.writer.write(data + b"\r\n")
        tag, out = data.split(b" ")[0].decode(), []
        while True:
            line = await self.line()
            assert line, f"closed instead of an answer to {request!r}"
            out.append(line.rstrip("\r\n"))
            if line.startswith(f"{tag} "):
                return out

    async def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def served(
    site: MemorySite, settings: Settings = TRUSTED, *, implicit_tls: bool = False
) -> AsyncIterator[tuple[ImapServer, int]]:
    server = await imap.listen(site, settings, "127.0.0.1", 0, implicit_tls=implicit_tls)
    try:
        yield server, server.port
    finally:
        await server.close()


async def connected(port: int, context: ssl.SSLContext | None = None, *, signed_in: bool = False) -> Peer:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost" if context else None, limit=MIB
    )
    peer = Peer(reader, writer)
    assert (await peer.line()).startswith("* OK [CAPABILITY ")
    if signed_in:
        assert (await peer.ask(f"l LOGIN {ANNA} secret"))[-1].startswith("l OK")
    return peer


async def with_anna(site: MemorySite) -> MemorySite:
    await site.account(ANNA, "secret")
    return site


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_starttls_opens_what_it_hides(run: Any, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """RFC 9051 §6.2.1: capabilities differ before and after; passwords are taken after."""

    async def scenario() -> None:
        settings = Settings(hostname="localhost", tls=lambda: contexts[0])
        async with served(await with_anna(MemorySite()), settings) as (_, port):
            peer = await connected(port)
            before = (await peer.ask("a CAPABILITY"))[0].split()
            assert "STARTTLS" in before and "LOGINDISABLED" in before and not any("AUTH=" in word for word in before)
            assert (await peer.ask("b STARTTLS"))[-1].startswith("b OK")
            await peer.writer.start_tls(contexts[1], server_hostname="localhost")
            after = (await peer.ask("c CAPABILITY"))[0].split()
            assert "AUTH=PLAIN" in after and "STARTTLS" not in after and "LOGINDISABLED" not in after
            assert (await peer.ask("d STARTTLS"))[-1].startswith("d BAD")
            assert (await peer.ask(f"e LOGIN {ANNA} secret"))[-1].startswith("e OK")
            assert (await peer.ask("f SELECT INBOX"))[-1].startswith("f OK")
            message = b"Subject: x\r\n\r\n" + b"0123456789abcdef" * 200_000
            head = f"g APPEND INBOX {{{len(message)}+}}\r\n".encode()
            assert (await peer.ask(head + message))[-1].startswith("g OK")
            peer.writer.write(b"h FETCH 1 BODY.PEEK[]\r\n")
            assert (await peer.line()).endswith(f"{{{len(message)}}}\r\n")
            assert await peer.reader.readexactly(len(message)) == message
            await peer.close()

    run(scenario())


async def test_what_was_sent_ahead_of_tls_ends_the_connection(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """RFC 9051 §11.1: otherwise another could slip in commands."""
    settings = Settings(tls=lambda: contexts[0])
    async with served(await with_anna(MemorySite()), settings) as (_, port):
        peer = await connected(port)
        peer.writer.write(b"a STARTTLS\r\nb NOOP\r\n")
        with pytest.raises((ConnectionError, AssertionError)):
            while line := await peer.line():
                assert not line.startswith("a OK")
            raise ConnectionError
        await peer.close()


async def test_compression_within_tls(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """RFC 4978 §3: compressed first, then sealed; over a real socket, and much smaller."""
    settings = Settings(hostname="localhost", tls=lambda: contexts[0])
    async with served(await with_anna(MemorySite()), settings) as (_, port):
        peer = await connected(port)
        await peer.ask("a STARTTLS")
        await peer.writer.start_tls(contexts[1], server_hostname="localhost")
        await peer.ask(f"b LOGIN {ANNA} secret")
        message = b"Subject: x\r\n\r\n" + b"the same line again and again\r\n" * 30_000
        assert (await peer.ask(f"c APPEND INBOX {{{len(message)}+}}\r\n".encode() + message))[-1].startswith("c OK")
        await peer.ask("d SELECT INBOX")
        assert (await peer.ask("e COMPRESS DEFLATE"))[-1].startswith("e OK")
        ours, theirs = zlib.compressobj(wbits=-15), zlib.decompressobj(wbits=-15)
        peer.writer.write(ours.compress(b"f FETCH 1 BODY.PEEK[]\r\ng LOGOUT\r\n") + ours.flush(zlib.Z_SYNC_FLUSH))
        heard = b""
        while data := await peer.reader.read(MIB):
            heard += data
        told = theirs.decompress(heard)
        assert message in told and b"\r\ng OK " in told
        assert len(heard) < len(message) // 20
        await peer.close()


async def test_imaps_needs_no_starttls(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    settings = Settings(tls=lambda: contexts[0])
    async with served(await with_anna(MemorySite()), settings, implicit_tls=True) as (_, port):
        peer = await connected(port, contexts[1], signed_in=True)
        assert (await peer.ask("a LOGOUT"))[-1].startswith("a OK")
        await peer.close()


async def scram(peer: Peer, password: str) -> list[str]:
    """A foreign client's exchange (RFC 7677)."""
    client = ScramClient(["SCRAM-SHA-256"], ANNA, password)
    first = base64.b64encode(client.get_client_first().encode()).decode()
    peer.writer.write(f"s AUTHENTICATE SCRAM-SHA-256 {first}\r\n".encode())
    client.set_server_first(base64.b64decode((await peer.line())[2:]).decode())
    peer.writer.write(base64.b64encode(client.get_client_final().encode()) + b"\r\n")
    answer = await peer.line()
    if not answer.startswith("+ "):
        return [answer]
    client.set_server_final(base64.b64decode(answer[2:]).decode())
    peer.writer.write(b"\r\n")
    return [await peer.line()]


async def bound(peer: Peer, mechanism: str, shown: bytes) -> str:
    """A foreign client that binds to the certificate it was shown (RFC 5929 §4)."""
    client = ScramClient([mechanism], ANNA, "secret", channel_binding=("tls-server-end-point", hashlib.sha256(shown).digest()))
    first = base64.b64encode(client.get_client_first().encode()).decode()
    peer.writer.write(f"s AUTHENTICATE {mechanism} {first}\r\n".encode())
    challenge = await peer.line()
    if not challenge.startswith("+ "):
        return challenge
    client.set_server_first(base64.b64decode(challenge[2:]).decode())
    peer.writer.write(base64.b64encode(client.get_client_final().encode()) + b"\r\n")
    answer = await peer.line()
    if not answer.startswith("+ "):
        return answer
    client.set_server_final(base64.b64decode(answer[2:]).decode())
    peer.writer.write(b"\r\n")
    return await peer.line()


async def test_scram_is_bound_to_the_certificate_of_the_handshake(tmp_path: Path) -> None:
    """RFC 5802 §6, RFC 5929 §4: over STARTTLS and IMAPS; a certificate that is read anew is that of the connections to come."""
    now = datetime.datetime.now(datetime.UTC)
    authority, authority_key = certs.make_authority("test", now)
    paths = tmp_path / "chain.pem", tmp_path / "key.pem"

    def issued() -> None:
        for path, data in zip(paths, certs.issue(authority, authority_key, ("localhost",), now), strict=True):
            path.write_bytes(data)

    issued()
    certificates = Certificates(*paths)
    trusting = ssl.create_default_context(cadata=authority.decode())
    settings = Settings(tls=certificates.context, end_point=certificates.end_point)
    async with served(await with_anna(MemorySite()), settings) as (server, plain):
        imaps = int((await server.listen("127.0.0.1", 0, implicit_tls=True)).sockets[0].getsockname()[1])
        early = await connected(plain)
        assert "SCRAM" not in (await early.ask("a CAPABILITY"))[0]
        await early.ask("b STARTTLS")
        await early.writer.start_tls(trusting, server_hostname="localhost")
        assert "AUTH=SCRAM-SHA-256-PLUS" in (await early.ask("c CAPABILITY"))[0].split()
        issued()
        certificates.reload()
        late = await connected(imaps, trusting)
        seen = [peer.writer.get_extra_info("ssl_object").getpeercert(binary_form=True) for peer in (early, late)]
        assert seen[0] != seen[1]
        for peer, own, other in ((early, *seen), (late, *reversed(seen))):
            assert (await bound(peer, "SCRAM-SHA-256-PLUS", other)).startswith("s BAD")
            assert (await bound(peer, "SCRAM-SHA-256-PLUS", own)).startswith("s OK")
            await peer.close()


async def test_a_foreign_client_signs_in_by_scram() -> None:
    async with served(await with_anna(MemorySite())) as (_, port):
        peer = await connected(port)
        assert (await scram(peer, "wrong"))[-1].startswith("s NO [AUTHENTICATIONFAILED]")
        assert (await scram(peer, "secret"))[-1].startswith("s OK [CAPABILITY")
        assert (await peer.ask("t SELECT INBOX"))[-1].startswith("t OK")
        await peer.close()


async def test_a_changed_scram_message_is_refused() -> None:
    async with served(await with_anna(MemorySite())) as (_, port):
        peer = await connected(port)
        client = ScramClient(["SCRAM-SHA-256"], ANNA, "secret")
        first = base64.b64encode(client.get_client_first().encode()).decode()
        peer.writer.write(f"s AUTHENTICATE SCRAM-SHA-256 {first}\r\n".encode())
        challenge = base64.b64decode((await peer.line())[2:]).decode()
        client.set_server_first(challenge)
        final = client.get_client_final().replace("c=biws", "c=eSws")  # another gs2-header than was agreed on
        peer.writer.write(base64.b64encode(final.encode()) + b"\r\n")
        assert (await peer.line()).startswith("s BAD")
        with pytest.raises(ScramException):
            client.set_server_final("v=" + base64.b64encode(b"x" * 32).decode())
        await peer.close()


async def test_a_client_that_takes_nothing_is_let_go() -> None:
    """Writers honour back-pressure, and a wait for the outside has an end."""
    settings = msgspec.structs.replace(TRUSTED, write_s_max=1)
    async with served(await with_anna(MemorySite()), settings) as (server, port):
        peer = await connected(port, signed_in=True)
        message = b"Subject: x\r\n\r\n" + b"x" * (4 * MIB)
        assert (await peer.ask(f"a APPEND INBOX {{{len(message)}+}}\r\n".encode() + message))[-1].startswith("a OK")
        await peer.ask("b SELECT INBOX")
        peer.writer.write(b"c FETCH 1 BODY.PEEK[]\r\n" * 20)

        async def gone() -> bool:
            return server.sessions == 0

        await eventually(gone)
        await peer.close()


async def test_silence_ends_a_session() -> None:
    """RFC 9051 §5.4."""
    settings = msgspec.structs.replace(TRUSTED, sign_in_s_max=1)
    async with served(await with_anna(MemorySite()), settings) as (_, port):
        peer = await connected(port)
        assert (await peer.line()).startswith("* BYE")
        assert await peer.line() == ""
        await peer.close()


async def test_a_stopping_server_says_bye_to_everybody() -> None:
    """RFC 9051 §7.1.5: to who waits, to who idles, and to who has just asked for something, which is still answered."""
    async with served(await with_anna(MemorySite())) as (server, port):
        waiting = await connected(port)
        idling = await connected(port, signed_in=True)
        await idling.ask("a SELECT INBOX")
        idling.writer.write(b"b IDLE\r\n")
        assert (await idling.line()).startswith("+")
        asking = await connected(port, signed_in=True)
        await server.close()
        for peer in (waiting, idling, asking):
            assert (await peer.line()).startswith("* BYE [UNAVAILABLE]")
            assert await peer.line() == ""
            await peer.close()
        assert server.sessions == 0


class FailingSite(MemorySite):
    """A site whose engines fail on demand."""

    bug = unreadable = away = False

    async def status(self, account: int, mailboxes: Sequence[int], *, reader: int = 0) -> list[Status] | Refusal:
        if self.bug:
            raise ZeroDivisionError("a bug")
        return Refusal(Reason.UNAVAILABLE) if self.away else await super().status(account, mailboxes)

    async def read_many(self, contents: Sequence[Content]) -> list[bytes | None]:
        found = await super().read_many(contents)
        return [None if self.unreadable and n == 0 else data for n, data in enumerate(found)]

    async def read(self, content: Content, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        if self.unreadable:
            raise SiteUnavailable("no blob")
        async for piece in super().read(content, start, end):
            yield piece


async def test_our_failures_are_said_and_survived() -> None:
    site = FailingSite()
    async with served(await with_anna(site)) as (_, port):
        peer = await connected(port, signed_in=True)
        for size in (10, 2 * MIB):
            message = b"Subject: x\r\n\r\n" + b"x" * size
            await peer.ask(f"a APPEND INBOX {{{len(message)}+}}\r\n".encode() + message)
        assert (await peer.ask("b SELECT INBOX"))[-1].startswith("b OK")
        site.bug = True
        assert (await peer.ask("c STATUS INBOX (MESSAGES)"))[-1].startswith("c NO [SERVERBUG]")
        site.bug, site.away = False, True
        assert (await peer.ask("d STATUS INBOX (MESSAGES)"))[-1].startswith("d NO [UNAVAILABLE]")
        site.away, site.unreadable = False, True
        for number in (1, 2):
            assert (await peer.ask(f"e FETCH {number} BODY.PEEK[]")) == [
                "e NO [UNAVAILABLE] Some messages cannot be had now: try again."
            ]
        assert (await peer.ask("f SEARCH TEXT x"))[-1].startswith("f NO [UNAVAILABLE]")
        site.unreadable = False
        assert (await peer.ask("g SEARCH TEXT x"))[0] == "* SEARCH 1 2"
        await peer.close()


async def test_hundreds_of_commands_at_once() -> None:
    """RFC 9051 §5.5."""
    async with served(await with_anna(MemorySite())) as (_, port):
        peer = await connected(port, signed_in=True)
        count = 500
        peer.writer.write(b"".join(b"n%d NOOP\r\n" % n for n in range(count)))
        for n in range(count):
            assert (await peer.line()).startswith(f"n{n} OK")
        await peer.close()


async def test_what_was_asked_before_the_end_is_answered() -> None:
    """`printf … | nc`: a client that closes its side after its last command."""
    async with served(await with_anna(MemorySite())) as (_, port):
        peer = await connected(port)
        peer.writer.write(f"a LOGIN {ANNA} secret\r\nb SELECT INBOX\r\n".encode())
        peer.writer.write_eof()
        lines = []
        while line := await peer.line():
            lines.append(line)
        assert lines[-1].startswith("b OK")
        await peer.close()


async def test_more_connections_than_allowed_are_sent_away() -> None:
    settings = msgspec.structs.replace(TRUSTED, connections_max=1)
    async with served(await with_anna(MemorySite()), settings) as (_, port):
        first = await connected(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await reader.readline()).startswith(b"* BYE [UNAVAILABLE]")
        writer.close()
        assert (await first.ask("a NOOP"))[-1].startswith("a OK")
        await first.close()
