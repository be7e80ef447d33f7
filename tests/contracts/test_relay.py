"""The relay against a foreign smarthost (aiosmtpd) with planted refusals, over the outbox's own logic."""

import asyncio
import contextlib
import email
import email.policy
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from hypothesis import given
from hypothesis import strategies as st

from cluster.domain.mailbox.content import Content
from cluster.domain.outbox import retry
from cluster.domain.outbox.commands import QueueMessage
from cluster.domain.outbox.events import SENT_COPY
from cluster.domain.refusal import Reason, Refusal
from protocols.port import Recipient, SiteUnavailable
from protocols.smtp.client import Smarthost, Tls
from protocols.smtp.parser import Parser
from protocols.smtp.relay import Relay, RelaySettings
from protocols.stuffing import Stuffing
from tests import certificates
from tests.contracts.smtp_site import NOW, Memo, SmallSite

MESSAGE = b"Received: from x\r\nFrom: alice@example.org\r\nSubject: hi\r\n\r\n.dots\r\n..\r\nlast"


@dataclass
class Host:
    """A foreign smarthost's handler. `replies`: what it answers to a recipient; `data`: to a message, in turn."""

    replies: dict[str, str] = field(default_factory=dict)
    data: list[str] = field(default_factory=list)
    drop: bool = False
    taken: list[tuple[str, list[str], bytes]] = field(default_factory=list)
    sessions: set[int] = field(default_factory=set)
    secured: bool = False
    user: bytes | None = None
    options: list[str] = field(default_factory=list)

    async def handle_MAIL(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        self.options = options
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        reply = self.replies.get(address, "250 OK")
        if reply.startswith("2"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.drop:
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
            return "421 gone"
        self.sessions.add(id(session))
        self.secured = session.ssl is not None
        reply = self.data.pop(0) if self.data else "250 2.0.0 OK"
        if reply.startswith("2"):
            assert isinstance(envelope.content, bytes)
            self.taken.append((str(envelope.mail_from), list(envelope.rcpt_tos), envelope.content))
        return reply


@contextlib.asynccontextmanager
async def smarthost(host: Host, **options: Any) -> AsyncIterator[Smarthost]:
    loop = asyncio.get_running_loop()

    def authenticator(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        host.user = data.login
        return AuthResult(success=data.password == b"secret", handled=False)

    server = await loop.create_server(
        lambda: SMTP(host, hostname="smart.example", authenticator=authenticator, enable_SMTPUTF8=True, **options),
        "127.0.0.1",
        0,
    )
    yield Smarthost("127.0.0.1", server.sockets[0].getsockname()[1], Tls.NONE)
    server.close()
    await server.wait_closed()


class Case:
    """A site, its outbox and a relay."""

    def __init__(self, host: Smarthost | None) -> None:
        self.site = SmallSite()
        self.leading = True
        settings = RelaySettings(hostname="mail.example.org", smarthost=host)
        self.relay = Relay(self.site.port, self.site, settings, lambda: self.leading, self._wait)

    async def _wait(self, timeout_s: float) -> None:
        await asyncio.Event().wait()

    async def queue(self, *recipients: str, sender: str = "alice@example.org", message: bytes = MESSAGE, id: int = 77) -> None:
        memo = Memo(message)
        eight_bit = not message.isascii()
        command = QueueMessage(id, sender, recipients, memo.content, 1, eight_bit, eight_bit)
        assert not isinstance(await self.site.queue(None, command, [memo]), Refusal)  # type: ignore[arg-type]

    def outcomes(self) -> dict[str, str]:
        return {one.recipient: one.outcome for record in self.site.recorded for one in record.attempts}

    def told(self) -> bytes:
        """The one message that somebody here got."""
        ((_, data),) = self.site.delivered
        return data


async def test_handed_over_byte_for_byte() -> None:
    """RFC 5321 §4.5.2: dots arrive as they were; a last line without CRLF gets one."""
    host = Host()
    async with smarthost(host) as where:
        case = Case(where)
        await case.queue("x@other.example", "y@other.example")
        await case.queue("z@other.example", id=78)
        assert await case.relay.once()
        assert not await case.relay.once()
    assert sorted(host.taken)[0] == ("alice@example.org", ["x@other.example", "y@other.example"], MESSAGE + b"\r\n")
    assert len(host.taken) == 2 and not case.site.outbox.messages
    assert set(case.outcomes().values()) == {"sent"} and f"SIZE={len(MESSAGE)}" in host.options


async def test_each_recipient_has_its_own_fate() -> None:
    host = Host({"no@other.example": "550 5.1.1 Nobody", "later@other.example": "450 4.2.0 Busy"})
    async with smarthost(host) as where:
        case = Case(where)
        await case.queue("ok@other.example", "no@other.example", "later@other.example")
        await case.relay.once()
        assert case.outcomes() == {
            "ok@other.example": "sent", "no@other.example": "failed", "later@other.example": "deferred",
        }  # fmt: skip
        # Only who is pending is tried again, and not before its time.
        assert not await case.relay.once()
        host.replies.clear()
        case.site.world.at += retry.DELAYS_S[0]
        assert await case.relay.once()
    assert [recipients for _, recipients, _ in host.taken] == [["ok@other.example"], ["later@other.example"]]
    assert not case.site.outbox.messages
    told = case.told()
    assert told.startswith(b"Return-Path: <>\r\n")
    report = email.message_from_bytes(told, policy=email.policy.default)  # noqa: TID251  (a foreign reader of ours)
    assert report["To"] == "alice@example.org" and report["Auto-Submitted"] == "auto-replied"
    assert report.get_content_type() == "multipart/report"
    explained, status, header = report.iter_parts()
    assert "no@other.example" in explained.get_content()
    groups: Any = status.get_payload()
    assert groups[0]["Reporting-MTA"] == "dns; mail.example.org"
    assert groups[1]["Final-Recipient"] == "rfc822; no@other.example"
    assert (groups[1]["Action"], groups[1]["Status"]) == ("failed", "5.1.1")
    assert groups[1]["Diagnostic-Code"] == "smtp; 550 5.1.1 Nobody" and len(groups) == 2
    assert header.get_content_type() == "text/rfc822-headers" and "Subject: hi" in header.get_content()


@pytest.mark.parametrize("reply", ["451 4.3.0 Full", "421 4.3.2 Stopping"])
async def test_a_refused_message_waits(reply: str) -> None:
    host = Host(data=[reply])
    async with smarthost(host) as where:
        case = Case(where)
        await case.queue("x@other.example")
        await case.relay.once()
        assert case.outcomes() == {"x@other.example": "deferred"}
        assert case.site.outbox.messages[77].next_at == NOW + retry.DELAYS_S[0]
        case.site.world.at = case.site.outbox.messages[77].next_at
        await case.relay.once()
    assert len(host.taken) == 1 and not case.site.outbox.messages


async def test_a_connection_that_breaks_loses_nothing() -> None:
    host = Host(drop=True)
    async with smarthost(host) as where:
        case = Case(where)
        await case.queue("x@other.example")
        await case.relay.once()
        assert case.outcomes() == {"x@other.example": "deferred"} and not case.site.delivered
        host.drop = False
        case.site.world.at += 3600
        await case.relay.once()
    assert len(host.taken) == 1 and not case.site.outbox.messages


async def test_after_days_the_sender_is_told_that_time_is_over() -> None:
    """RFC 5321 §4.5.4.1."""
    case = Case(Smarthost("127.0.0.1", 1, Tls.NONE))  # nobody listens there
    await case.queue("x@other.example")
    tries = 0
    while case.site.outbox.messages:
        case.site.world.at = max(case.site.world.at, case.site.outbox.messages[77].next_at)
        assert await case.relay.once()
        tries += 1
    assert case.outcomes() == {"x@other.example": "expired"} and 100 < tries < 150
    assert case.site.world.at == NOW + retry.EXPIRY_S
    assert b"Status: 5.4.7\r\n" in case.told()


async def test_without_a_smarthost_mail_for_elsewhere_stays() -> None:
    case = Case(None)
    await case.queue("x@other.example", "bob@example.org")
    await case.relay.once()
    assert case.outcomes() == {"x@other.example": "deferred", "bob@example.org": "sent"}
    assert case.told().startswith(b"Return-Path: <alice@example.org>\r\nReceived: from x\r\n")
    assert case.site.recorded[0].attempts[0].text or case.site.recorded[0].attempts[1].text


async def test_people_here_get_it_once_though_it_is_not_recorded() -> None:
    """Crashed between delivery and record, the transaction's number keeps it from doubling."""
    case = Case(None)
    await case.queue("bob@example.org")
    case.site.refuse_record = Refusal(Reason.UNAVAILABLE)
    await case.relay.once()
    assert len(case.site.delivered) == 1 and case.site.outbox.messages
    crashed = Case(None)
    crashed.site = case.site
    case.site.refuse_record = None
    again = Relay(case.site.port, case.site, RelaySettings(hostname="h"), lambda: True, case._wait)
    await again.once()
    assert len(case.site.delivered) == 1 and not case.site.outbox.messages


async def test_the_senders_copy_is_filed_and_nothing_else() -> None:
    """As it is, for whom it is of; and nobody is told where that is not possible."""
    case = Case(None)
    await case.queue("alice@example.org", sender=SENT_COPY)
    await case.queue("bob@example.org", sender=SENT_COPY, id=78)  # of account 1, and the address is another's by now
    assert await case.relay.once()
    assert case.site.delivered == [(1, MESSAGE)] and case.site.sent == [1]
    assert case.outcomes() == {"alice@example.org": "sent", "bob@example.org": "failed"} and not case.site.outbox.messages


async def test_the_senders_copy_waits_and_moves_as_mail_does() -> None:
    case = Case(None)
    case.site.refuse[1] = Refusal(Reason.UNAVAILABLE, "away", ("mail-north",))
    await case.queue("alice@example.org", sender=SENT_COPY)
    assert await case.relay.once()
    assert case.outcomes() == {"alice@example.org": "deferred"}
    del case.site.refuse[1]
    case.site.away[1] = ("south",)
    case.site.world.at += 3600
    assert await case.relay.once()
    assert case.outcomes() == {"alice@example.org": "sent"} and not case.site.delivered
    assert [list(queue.values()) for queue in case.site.handed.values()] == [[("alice@example.org",)]]


async def test_what_cannot_be_recorded_is_not_sent_again() -> None:
    host = Host()
    async with smarthost(host) as where:
        case = Case(where)
        await case.queue("x@other.example")
        case.site.refuse_record = Refusal(Reason.UNAVAILABLE)
        await case.relay.once()
        assert not await case.relay.once()
        case.site.refuse_record = None
        await case.relay.once()
    assert len(host.taken) == 1 and not case.site.outbox.messages and case.outcomes() == {"x@other.example": "sent"}


async def test_tables_that_lag_do_not_double() -> None:
    host = Host()
    async with smarthost(host) as where:
        case = Case(where)
        await case.queue("x@other.example")
        case.site.refuse_record = Refusal(Reason.NOT_SHOWN_YET)  # in the log; the tables show the old state
        await case.relay.once()
        case.site.refuse_record = None
        assert not await case.relay.once()
    assert len(host.taken) == 1


async def test_only_who_leads_sends() -> None:
    host = Host()
    async with smarthost(host) as where:
        case = Case(where)
        await case.queue("x@other.example")
        case.leading = False
        assert not await case.relay.once()
    assert not host.taken and not case.site.recorded


async def test_nothing_answers_the_null_sender() -> None:
    """RFC 5321 §6.1: no notification about a notification."""
    host = Host({"no@other.example": "550 5.1.1 Nobody"})
    async with smarthost(host) as where:
        case = Case(where)
        await case.queue("no@other.example", sender="")
        await case.relay.once()
    assert case.outcomes() == {"no@other.example": "failed"} and not case.site.delivered and len(case.site.queued) == 1


async def test_a_sender_elsewhere_is_told_through_the_outbox() -> None:
    case = Case(None)
    await case.queue("gone@example.org", sender="x@other.example")
    await case.relay.once()
    command, data = case.site.queued[-1]
    assert (command.sender, command.recipients) == ("", ("x@other.example",))
    assert data.startswith(b"Date: ") and b"Final-Recipient: rfc822; gone@example.org\r\n" in data


async def test_a_failure_is_not_recorded_before_its_sender_is_told() -> None:
    host = Host({"no@other.example": "550 5.1.1 Nobody"})
    async with smarthost(host) as where:
        case = Case(where)
        await case.queue("no@other.example")
        case.site.refuse[1] = Refusal(Reason.UNAVAILABLE)
        await case.relay.once()
        assert case.outcomes() == {"no@other.example": "deferred"}
        del case.site.refuse[1]
        case.site.world.at += 60
        await case.relay.once()
    assert case.outcomes() == {"no@other.example": "failed"} and len(case.site.delivered) == 1


async def test_an_alias_that_leads_elsewhere_by_now() -> None:
    host = Host()
    async with smarthost(host) as where:
        case = Case(where)
        await case.queue("team@example.org")
        case.site.aliases["team@example.org"] = Recipient("team@example.org", (), ("p@other.example", "q@other.example"))
        await case.relay.once()
    assert host.taken[0][1] == ["p@other.example", "q@other.example"] and case.outcomes() == {"team@example.org": "sent"}


async def test_a_message_that_cannot_be_read_keeps_nobody() -> None:
    class Site(SmallSite):
        async def read(self, content: Content, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
            if b"broken" in self.blobs[content.hash]:
                yield b"Subject: "
                raise SiteUnavailable("the blob is gone")
            async for piece in super().read(content, start, end):
                yield piece

    host = Host()
    async with smarthost(host) as where:
        case = Case(where)
        case.site = Site()
        settings = RelaySettings(hostname="h", smarthost=where)
        case.relay = Relay(case.site.port, case.site, settings, lambda: True, case._wait)
        await case.queue("x@other.example", message=b"Subject: broken\r\n\r\n")
        await case.queue("y@other.example", id=78)
        await case.relay.once()
    assert case.outcomes() == {"x@other.example": "deferred", "y@other.example": "sent"}
    assert [recipients for _, recipients, _ in host.taken] == [["y@other.example"]]


async def test_eight_bit_and_utf8_are_asked_for() -> None:
    host = Host()
    async with smarthost(host) as where:
        case = Case(where)
        await case.queue("ä@other.example", message="Subject: ä\r\n\r\nö\r\n".encode())
        await case.relay.once()
        assert {"BODY=8BITMIME", "SMTPUTF8"} <= set(host.options)
        await case.queue("b@other.example", message=b"Subject: a\r\n\r\no\r\n", id=79)
        await case.relay.once()
        assert not {"BODY=8BITMIME", "SMTPUTF8"} & set(host.options)


async def test_a_message_over_the_smarthosts_size_is_not_sent() -> None:
    """RFC 1870 §6."""
    host = Host()
    async with smarthost(host, data_size_limit=10) as where:
        case = Case(where)
        await case.queue("x@other.example")
        await case.relay.once()
    assert case.outcomes() == {"x@other.example": "failed"} and b"Status: 5.3.4" in case.told()


@pytest.mark.parametrize("way", [Tls.REQUIRED, Tls.OPPORTUNISTIC, Tls.NONE])
async def test_signed_in_under_tls(way: Tls, tmp_path: Path) -> None:
    """RFC 3207, RFC 4954: the authority is checked where TLS is required."""
    context, trusted = certificates.contexts(tmp_path, "127.0.0.1")
    host = Host()
    async with smarthost(host, tls_context=context, auth_require_tls=way is not Tls.NONE) as where:
        chosen = None if way is Tls.OPPORTUNISTIC else trusted
        case = Case(Smarthost(where.host, where.port, way, "us", "secret", chosen))
        await case.queue("x@other.example")
        await case.relay.once()
        assert case.outcomes() == {"x@other.example": "sent"}
        assert host.secured == (way is not Tls.NONE) and host.user == b"us"
        # Somebody else's certificate, and a wrong password: the mail waits.
        for wrong in (Smarthost(where.host, where.port, Tls.REQUIRED, "us", "secret"),
                      Smarthost(where.host, where.port, way, "us", "wrong", chosen)):  # fmt: skip
            waiting = Case(wrong)
            await waiting.queue("x@other.example")
            await waiting.relay.once()
            assert waiting.outcomes() == {"x@other.example": "deferred"}
    assert len(host.taken) == 1 and "secret" not in repr(wrong)


async def test_starttls_that_is_not_offered_is_not_done_without() -> None:
    host = Host()
    async with smarthost(host) as where:
        case = Case(Smarthost(where.host, where.port, Tls.REQUIRED))
        await case.queue("x@other.example")
        await case.relay.once()
    assert case.outcomes() == {"x@other.example": "deferred"} and not host.taken


@pytest.mark.parametrize("garbage", [b"", b"hello\r\n", b"220 x\r\n\xff\xff\xff\xff\r\n", b"220-" + b"x" * 200_000])
async def test_who_does_not_speak_smtp(garbage: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(garbage)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    case = Case(Smarthost("127.0.0.1", server.sockets[0].getsockname()[1], Tls.NONE))
    await case.queue("x@other.example")
    await case.relay.once()
    assert case.outcomes() == {"x@other.example": "deferred"}
    server.close()


async def test_the_loop_works_when_it_is_woken() -> None:
    host = Host()
    woken, worked = asyncio.Event(), asyncio.Event()
    async with smarthost(host) as where:
        case = Case(where)

        async def wait(timeout_s: float) -> None:
            if case.site.recorded:
                worked.set()
            await woken.wait()
            woken.clear()

        settings = RelaySettings(hostname="h", smarthost=where)
        relay = Relay(case.site.port, case.site, settings, lambda: True, wait)
        running = asyncio.create_task(relay.run())
        await case.queue("x@other.example")
        woken.set()
        async with asyncio.timeout(10):
            await worked.wait()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert len(host.taken) == 1


@given(st.integers(1, 200), st.integers(0, 6 * 86_400))
def test_the_next_try_is_later_and_in_time(tries: int, age: int) -> None:
    next_at = retry.next_try(tries, 1000, 1000 + age)
    if age >= retry.EXPIRY_S:
        assert next_at is None
    else:
        assert next_at is not None and 1000 + age < next_at <= 1000 + retry.EXPIRY_S
        assert next_at - age - 1000 <= 3600


@given(
    st.lists(st.sampled_from([b".", b"\r\n", b"a", b"\r", b"\n", b".\r\n", b""]), max_size=20), st.lists(st.integers(0, 30))
)
def test_what_is_stuffed_ends_where_it_should(words: list[bytes], cuts: list[int]) -> None:
    """Stuffed by us and read by us: one message, clean, whatever the pieces, and nothing after it."""
    message = b"".join(words)
    ends = sorted({min(cut, len(message)) for cut in cuts} | {len(message)})
    stuffing, wire, at = Stuffing(), b"", 0
    for end in ends:
        wire += stuffing.stuffed(message[at:end])
        at = end
    wire += stuffing.end()
    parser = Parser()
    parser.expect_data()
    parser.feed(wire)
    piece = parser.next()
    assert piece is not None and piece.last and piece.clean and parser.buffered == 0  # type: ignore[union-attr]
    if b"\r" not in message.replace(b"\r\n", b"") and b"\n" not in message.replace(b"\r\n", b""):
        whole = message if message.endswith(b"\r\n") or not message else message + b"\r\n"
        assert piece.data == whole  # type: ignore[union-attr]
