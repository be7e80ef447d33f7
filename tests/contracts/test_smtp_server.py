"""The server over real sockets: TLS, sign-in, foreign clients, limits, stopping. On both event loops."""

import asyncio
import base64
import contextlib
import datetime
import ipaddress
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import scramp
import uvloop

from cluster.domain.refusal import Reason, Refusal
from node import certs
from protocols.port import Account, Recipient, ScramKeys
from protocols.smtp.model import Role
from protocols.smtp.server import Server, Settings, listen
from tests import certificates
from tests.contracts.smtp_site import Memo, MemoryIngest, SmallSite

S_MAX = 10.0
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
MESSAGE = "Subject: hi\r\n\r\nhello\r\n"


pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


class Tls(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A server's certificate for the loopback, and a client that trusts its authority only."""
    return Tls(*certificates.contexts(tmp_path_factory.mktemp("tls"), "127.0.0.1"))


class Line:
    """A client that sends what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hear(self) -> str:
        """The last line of the next reply; empty where the connection ended."""
        async with asyncio.timeout(S_MAX):
            while True:
                line = (await self.reader.readline()).decode()
                if line[3:4] != "-":
                    return line.rstrip("\r\n")


@contextlib.asynccontextmanager
async def serving(
    site: SmallSite, role: Role = Role.MX, context: ssl.SSLContext | None = None, **settings: Any
) -> AsyncIterator[Server]:
    getter: Callable[[], ssl.SSLContext] | None = (lambda: context) if context else None
    server = await listen(
        site.port, Settings(hostname="mail.example.org", **settings), ("127.0.0.1", 0), role=role, tls_context=getter
    )
    try:
        yield server
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


async def begun(line: Line, *commands: str) -> None:
    """Greets and says these; each must be accepted."""
    assert (await line.hear()).startswith("220")
    for command in ("EHLO there", *commands):
        await line.say(command.encode() + b"\r\n")
        assert (await line.hear())[0] in "23"


def trusting(client: type[smtplib.SMTP], port: int) -> smtplib.SMTP:
    return client("127.0.0.1", port, timeout=S_MAX)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_smtplib_submits_after_starttls(tls: Tls, mechanism: str) -> None:
    """RFC 3207, RFC 4954, RFC 6409."""
    site = SmallSite()

    def submit(port: int) -> None:
        with trusting(smtplib.SMTP, port) as client:
            client.ehlo("laptop")
            assert not client.has_extn("auth")
            client.starttls(context=tls.client)
            client.ehlo("laptop")
            assert client.has_extn("auth") and not client.has_extn("starttls")
            client.user, client.password = "alice@example.org", "secret"
            client.auth(mechanism, getattr(client, "auth_" + mechanism.lower()))
            client.sendmail("alice@example.org", ["bob@example.org"], MESSAGE)

    async with serving(site, Role.SUBMISSION, tls.server) as server:
        await asyncio.to_thread(submit, server.port)
    (account, data), actor = site.delivered[0], site.actors[0]
    assert account == 2 and b"with ESMTPSA id" in data and b"(using TLSv1" in data and b"\r\nMessage-ID: <" in data
    assert (actor.account, actor.name, actor.protocol, actor.address) == (1, "alice@example.org", "smtp", "127.0.0.1")
    assert site.throttled == [True]


async def test_submissions_is_tls_from_the_first_byte(tls: Tls) -> None:
    """RFC 8314 §3.3."""
    site = SmallSite()

    def submit(port: int) -> None:
        with smtplib.SMTP_SSL("127.0.0.1", port, timeout=S_MAX, context=tls.client) as client:
            client.login("alice@example.org", "secret")
            client.sendmail("alice@example.org", ["bob@example.org"], MESSAGE)

    async with serving(site, Role.SUBMISSIONS, tls.server) as server:
        await asyncio.to_thread(submit, server.port)
    assert [account for account, _ in site.delivered] == [2]


async def test_a_new_certificate_counts_from_the_next_connection_on(tls: Tls, tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    chain, key = certs.issue(*certs.make_authority("south", now), ("127.0.0.1",), now)
    (tmp_path / "chain.pem").write_bytes(chain)
    (tmp_path / "key.pem").write_bytes(key)
    renewed = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    renewed.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    current = tls.server
    settings = Settings(hostname="mail.example.org")
    server = await listen(
        SmallSite().port, settings, ("127.0.0.1", 0), role=Role.SUBMISSIONS, tls_context=lambda: current
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls.client)
    line = Line(reader, writer)
    await begun(line)
    current = renewed
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("127.0.0.1", server.port, ssl=tls.client)
    await line.say(b"NOOP\r\n")
    assert (await line.hear()).startswith("250")  # who was here stays
    writer.close()
    await server.close()


async def test_who_does_not_speak_tls_on_submissions_is_dropped(tls: Tls) -> None:
    async with serving(SmallSite(), Role.SUBMISSIONS, tls.server) as server, connected(server) as line:
        await line.say(b"EHLO there\r\n")
        async with asyncio.timeout(S_MAX):
            assert b"220" not in await line.reader.read()


async def test_what_is_sent_before_the_handshake_drops_the_line(tls: Tls) -> None:
    """RFC 3207 §6: an attacker's plaintext must not be taken for what came under TLS."""
    site = SmallSite()
    async with serving(site, Role.MX, tls.server) as server, connected(server) as line:
        await begun(line)
        with contextlib.suppress(ConnectionError):
            await line.say(b"STARTTLS\r\nMAIL FROM:<evil@example.com>\r\n")
            assert await line.hear() in ("", "220 2.0.0 Start the handshake")
            assert await line.hear() == ""


async def test_the_greeting_is_forgotten_by_the_handshake(tls: Tls) -> None:
    """RFC 3207 §4.2."""

    def ask(port: int) -> tuple[int, bytes]:
        with trusting(smtplib.SMTP, port) as client:
            client.ehlo("before")
            client.starttls(context=tls.client)
            return client.docmd("MAIL", "FROM:<a@b.example>")

    async with serving(SmallSite(), Role.MX, tls.server) as server:
        assert (await asyncio.to_thread(ask, server.port))[0] == 503


@pytest.mark.parametrize("password", ["pencil", "wrong"])
async def test_scram_with_a_foreign_client(password: str) -> None:
    """RFC 5802, RFC 7677; the client's part by scramp."""
    site = SmallSite()
    salt, stored, server_key, iterations = scramp.ScramMechanism("SCRAM-SHA-256").make_auth_info("pencil")
    account = Account(1, "alice@example.org", "Alice")
    site.scram["alice@example.org"] = ScramKeys(salt, iterations, stored, server_key, account)
    client = scramp.ScramClient(["SCRAM-SHA-256"], "alice@example.org", password)
    async with serving(site, Role.SUBMISSION, plaintext_networks=LOOPBACK) as server, connected(server) as line:
        await begun(line)
        await line.say(b"AUTH SCRAM-SHA-256 " + base64.b64encode(client.get_client_first().encode()) + b"\r\n")
        client.set_server_first(base64.b64decode((await line.hear())[4:]).decode())
        await line.say(base64.b64encode(client.get_client_final().encode()) + b"\r\n")
        answer = await line.hear()
        if password == "wrong":
            assert answer.startswith("535 5.7.8")
            return
        client.set_server_final(base64.b64decode(answer[4:]).decode())
        await line.say(b"\r\n")
        assert (await line.hear()).startswith("235 2.7.0")
        await line.say(b"MAIL FROM:<alice@example.org>\r\n")
        assert (await line.hear()).startswith("250")


async def test_lmtp_over_a_unix_socket(tmp_path: Path) -> None:
    """RFC 2033, by the standard library's client."""
    site = SmallSite()
    path = tmp_path / "lmtp.sock"
    server = await listen(site.port, Settings(hostname="mail.example.org"), path, role=Role.LMTP)

    def deliver() -> None:
        with smtplib.LMTP(str(path)) as client:
            client.sendmail("x@other.example", ["alice@example.org"], MESSAGE)

    await asyncio.to_thread(deliver)
    await server.close()
    assert len(site.delivered) == 1 and site.actors[0].protocol == "lmtp"
    assert b"Received: from" in site.delivered[0][1] and not path.exists()


async def test_connections_are_counted() -> None:
    async with serving(SmallSite(), connections_per_peer_max=1) as server, connected(server) as first:
        assert (await first.hear()).startswith("220")
        async with connected(server) as second:
            assert (await second.hear()).startswith("421 4.7.0")
        await first.say(b"QUIT\r\n")
        assert (await first.hear()).startswith("221") and await first.hear() == ""
        async with connected(server) as third:
            assert (await third.hear()).startswith("220")
    async with serving(SmallSite(), connections_max=1) as server, connected(server) as first:
        assert (await first.hear()).startswith("220")
        async with connected(server) as second:
            assert (await second.hear()).startswith("421 4.3.2")


async def test_who_says_nothing_is_shown_out() -> None:
    """RFC 5321 §4.5.3.2.7, §3.8."""
    async with serving(SmallSite(), command_s_max=0.05) as server, connected(server) as line:
        assert (await line.hear()).startswith("220")
        assert (await line.hear()).startswith("421 4.4.2") and await line.hear() == ""


async def test_who_does_not_sign_in_is_shown_out() -> None:
    site = SmallSite()
    async with serving(site, Role.SUBMISSION, plaintext_networks=LOOPBACK) as server, connected(server) as line:
        await begun(line, "NOOP")
        site.world.at += 121
        await line.say(b"NOOP\r\n")
        assert (await line.hear()).startswith("250")
        assert (await line.hear()).startswith("421 4.4.2") and await line.hear() == ""
        # Who has signed in has all the time that is usual.
        async with connected(server) as other:
            await begun(other, "AUTH PLAIN AGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldA==")
            site.world.at += 121
            for _ in range(2):
                await other.say(b"NOOP\r\n")
                assert (await other.hear()).startswith("250")


async def test_a_large_message_under_tls_comes_in_whole(tls: Tls) -> None:
    """Reading is paused and resumed beneath TLS."""
    site = SmallSite()
    body = b"".join(b"%08d" % number + b"x" * 60 + b"\r\n" for number in range(120_000))
    async with serving(site, Role.MX, tls.server) as server:

        def deliver() -> None:
            with smtplib.SMTP("127.0.0.1", server.port, timeout=S_MAX * 3) as client:
                client.starttls(context=tls.client)
                client.sendmail("x@other.example", ["alice@example.org"], b"S: x\r\n\r\n" + body)

        await asyncio.to_thread(deliver)
    assert site.delivered[0][1].endswith(b"S: x\r\n\r\n" + body)


async def test_stopping_shows_idle_sessions_out_and_lets_messages_finish() -> None:
    site = SmallSite()
    server = await listen(site.port, Settings(hostname="h"), ("127.0.0.1", 0), role=Role.MX)
    async with connected(server) as idle, connected(server) as busy:
        await begun(idle)
        await begun(busy, "MAIL FROM:<x@other.example>", "RCPT TO:<alice@example.org>", "DATA")
        stopped = asyncio.create_task(server.close())
        assert (await idle.hear()).startswith("421 4.3.2") and await idle.hear() == ""
        await busy.say(b"S: x\r\n\r\n.\r\n")
        assert (await busy.hear()).startswith("250 2.0.0")
        assert (await busy.hear()).startswith("421 4.3.2")
        await stopped
    assert len(site.delivered) == 1


async def test_stopping_waits_no_longer_than_the_grace_time() -> None:
    server = await listen(SmallSite().port, Settings(hostname="h", grace_s_max=0.05), ("127.0.0.1", 0), role=Role.MX)
    async with connected(server) as busy:
        await begun(busy, "MAIL FROM:<x@other.example>", "RCPT TO:<alice@example.org>", "DATA")
        await server.close()
        assert (await busy.hear()).startswith("421 4.3.2") and await busy.hear() == ""
    assert server.connections == 0


async def test_our_bug_is_not_the_peers_fault() -> None:
    """Style: anything but a refusal is our bug; the peer hears only that we failed, and the session goes on."""

    class Broken(SmallSite):
        async def resolve(self, address: str) -> Recipient | Refusal:
            if address.startswith("bob"):
                raise ZeroDivisionError("inner words")
            return await super().resolve(address)

        async def deliver(self, *args: Any, **kwargs: Any) -> Any:
            raise ZeroDivisionError("inner words")

    async with serving(Broken()) as server, connected(server) as line:
        await begun(line, "MAIL FROM:<x@other.example>", "RCPT TO:<alice@example.org>")
        await line.say(b"RCPT TO:<bob@example.org>\r\n")
        assert (await line.hear()) == "451 4.3.0 We failed; it is not your fault. Try again later"
        await line.say(b"DATA\r\n")
        assert (await line.hear()).startswith("354")
        await line.say(b"S: x\r\n\r\n.\r\nNOOP\r\n")
        assert (await line.hear()).startswith("451 4.3.0")
        assert (await line.hear()).startswith("250")


async def test_our_bug_is_answered_for_each_recipient_by_lmtp() -> None:
    """RFC 2033 §4.2: the client counts on one reply for each."""

    class Broken(SmallSite):
        async def deliver(self, *args: Any, **kwargs: Any) -> Any:
            raise ZeroDivisionError("inner words")

    async with serving(Broken(), Role.LMTP) as server, connected(server) as line:
        assert (await line.hear()).startswith("220")
        await line.say(b"LHLO there\r\nMAIL FROM:<x@other.example>\r\nRCPT TO:<alice@example.org>\r\n")
        await line.say(b"RCPT TO:<bob@example.org>\r\nBDAT 9 LAST\r\nS: x\r\n\r\n.NOOP\r\n")
        assert [(await line.hear())[:3] for _ in range(7)] == ["250", "250", "250", "250", "451", "451", "250"]


async def test_a_peer_on_a_socket_for_both_versions() -> None:
    site, settings = SmallSite(), Settings(hostname="h", plaintext_networks=LOOPBACK)
    probe = socket.socket(socket.AF_INET6)
    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    probe.bind(("::", 0))
    server = Server(site.port, settings, Role.SUBMISSION, None)
    listener = await asyncio.get_running_loop().create_server(server.protocol, sock=probe)
    reader, writer = await asyncio.open_connection("127.0.0.1", probe.getsockname()[1])
    line = Line(reader, writer)
    assert (await line.hear()).startswith("220")
    await line.say(b"EHLO there\r\n")
    assert (await line.hear()).startswith("250 AUTH")  # the network is recognised
    listener.close()
    await server.close()
    writer.close()


async def test_a_full_disk_is_a_451_after_the_message() -> None:
    site = SmallSite(feed_fails=True)
    async with serving(site) as server, connected(server) as line:
        await begun(line, "MAIL FROM:<x@other.example>", "RCPT TO:<alice@example.org>", "DATA")
        await line.say(b"S: x\r\n\r\nQUIT\r\n.\r\nNOOP\r\n")
        assert (await line.hear()).startswith("451 4.3.0")
        assert (await line.hear()).startswith("250")
        site.feed_fails = False
        for command in ("MAIL FROM:<x@other.example>", "RCPT TO:<alice@example.org>", "DATA"):
            await line.say(command.encode() + b"\r\n")
            assert (await line.hear())[0] in "23"
        await line.say(b"S: x\r\n\r\n.\r\n")
        assert (await line.hear()).startswith("250")


@pytest.mark.parametrize("queue_works", [True, False])
async def test_a_delivery_that_reaches_some_goes_on_in_the_outbox(queue_works: bool) -> None:
    """To refuse it would double it for those who have it."""
    site = SmallSite(refuse={2: Refusal(Reason.UNAVAILABLE)})
    site.refuse_queue = None if queue_works else Refusal(Reason.UNAVAILABLE)
    async with serving(site) as server, connected(server) as line:
        await begun(line, "MAIL FROM:<x@other.example>", "RCPT TO:<alice@example.org>", "RCPT TO:<bob@example.org>", "DATA")
        await line.say(b"S: x\r\n\r\n.\r\n")
        assert (await line.hear())[:3] == ("250" if queue_works else "451")
    assert [account for account, _ in site.delivered] == [1]
    assert [command.recipients for command, _ in site.queued] == ([("bob@example.org",)] if queue_works else [])


async def test_lmtp_answers_for_each_and_queues_what_a_group_lacks() -> None:
    """RFC 2033 §4.2: who cannot have it is refused alone; a group that has it in part is the outbox's to finish, for those
    who lack it."""
    site = SmallSite(people={"alice@example.org": 1, "bob@example.org": 2, "carol@example.org": 3})
    site.refuse = {2: Refusal(Reason.UNAVAILABLE), 3: Refusal(Reason.ACCOUNT_SUSPENDED)}
    site.aliases["all@example.org"] = Recipient("all@example.org", (1, 2))
    site.aliases["some@example.org"] = Recipient("some@example.org", (1, 3))
    async with serving(site, Role.LMTP) as server, connected(server) as line:
        assert (await line.hear()).startswith("220")
        await line.say(b"LHLO there\r\nMAIL FROM:<x@other.example>\r\n")
        for name in ("alice", "bob", "carol", "all", "some"):
            await line.say(f"RCPT TO:<{name}@example.org>\r\n".encode())
        await line.say(b"DATA\r\nS: x\r\n\r\n.\r\n")
        codes = [(await line.hear())[:3] for _ in range(13)]
    assert codes == ["250"] * 7 + ["354", "250", "451", "550", "250", "250"]
    assert [command.recipients for command, _ in site.queued] == [("bob@example.org",)]
    assert [account for account, _ in site.delivered] == [1]


async def test_each_account_gets_a_message_once() -> None:
    site = SmallSite(aliases={"all@example.org": Recipient("all@example.org", (1, 2))})
    async with serving(site) as server, connected(server) as line:
        await begun(line, "MAIL FROM:<x@other.example>", "RCPT TO:<alice@example.org>", "RCPT TO:<all@example.org>", "DATA")
        await line.say(b"S: x\r\n\r\n.\r\n")
        assert (await line.hear()).startswith("250")
    assert sorted(account for account, _ in site.delivered) == [1, 2]
    assert b"\tfor <" not in site.delivered[0][1]  # RFC 5321 §7.6


async def connected_and_answered(server: Server) -> None:
    """Others are served meanwhile; many turns of the loop, so that all that can be read has been."""
    async with connected(server) as other:
        await begun(other, *["NOOP"] * 100)


async def test_a_slow_disk_slows_the_peer() -> None:
    """Memory stays bounded: while the site does not take more, no more is read."""
    gate, asked = asyncio.Event(), asyncio.Event()

    class SlowIngest(MemoryIngest):
        async def feed(self, data: bytes | memoryview) -> bool:
            asked.set()
            await gate.wait()
            self.size += len(data)
            return True

        async def finish(self, prepend: bytes = b"", header: bytes | None = None) -> Memo | Refusal:
            return Memo(prepend)

    class SlowSite(SmallSite):
        def ingest(self, limit_bytes: int) -> MemoryIngest:
            return SlowIngest(self, limit_bytes)

    total, line_bytes = 32 << 20, b"x" * 1022 + b"\r\n"
    async with serving(SlowSite()) as server, connected(server) as line:
        await begun(line, "MAIL FROM:<x@other.example>", "RCPT TO:<alice@example.org>", "DATA")
        sending = asyncio.create_task(line.say(line_bytes * (total // len(line_bytes)) + b".\r\n"))
        talk = next(iter(server._sessions.values()))
        async with asyncio.timeout(S_MAX):
            await asked.wait()
            await connected_and_answered(server)
        assert talk.wire.parser.buffered < 2 << 20 and not sending.done()
        gate.set()
        assert (await line.hear()).startswith("250")
        await sending


async def test_a_client_that_does_not_read_is_not_written_to_for_ever() -> None:
    async with serving(SmallSite(), write_s_max=0.2) as server, connected(server) as line:
        assert (await line.hear()).startswith("220")
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(S_MAX):
                while server.connections:
                    line.writer.write(b"HELP\r\n" * 4096)
                    await asyncio.sleep(0)
        assert server.connections == 0
