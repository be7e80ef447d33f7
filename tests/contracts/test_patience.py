"""Clients that wait, say little, or take nothing, on a clock that is moved: how long each is borne with, and what it costs."""

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from cluster.domain.mailbox.commands import ChangeFlags, CopyMessages, CreateMailbox, Expunge
from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.events import FlagMode
from protocols.imap.server import ImapServer
from protocols.imap.settings import Settings as ImapSettings
from protocols.pop3.server import Pop3Server
from protocols.pop3.settings import Settings as Pop3Settings
from protocols.sessions import Sessions
from protocols.smtp.model import Role
from protocols.smtp.server import Server as SmtpServer
from protocols.smtp.settings import Settings as SmtpSettings
from protocols.wire import WRITE_BYTES_HIGH
from storage.news import SHOWN_LARGE_S_MAX, SHOWN_S_MAX, shown_s_max
from tests.contracts.smtp_site import SmallSite
from tests.memory_site import MemorySite, MemoryWorld
from tests.sim import clock
from tests.transcripts.pop3.play import append
from tests.transcripts.wire import MemoryTransport

MIB = 1024 * 1024
NEAR = (ipaddress.ip_network("127.0.0.0/8"),)
ANNA, SECRET = "anna@example.org", "secret"
IMAP, POP3 = ImapSettings(plaintext_networks=NEAR), Pop3Settings(plaintext_networks=NEAR)
MESSAGE = b"Subject: large\r\n\r\n" + b"x" * 70 * 6_000
MESSAGES = 60  # 25 MB
HELD_BYTES_MAX = WRITE_BYTES_HIGH + MIB  # before a client that takes nothing: the wire's buffer and one flush
READ_BYTES_MAX = 8 * MIB  # of blobs, for it

Line = tuple[MemoryTransport, asyncio.Protocol]
Test = Callable[[clock.VirtualLoop], Coroutine[Any, Any, None]]


class LoopWorld(MemoryWorld):
    """Time is the loop's."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class CountingSite(MemorySite):
    """How much of its blobs was read."""

    read_bytes = 0

    async def read_many(self, contents: Sequence[Content]) -> list[bytes | None]:
        found = await super().read_many(contents)
        self.read_bytes += sum(len(data or b"") for data in found)
        return found


class Deaf(MemoryTransport):
    """A client that takes nothing after a while: what is written stays here, as it would in the socket's buffer."""

    deaf = False
    paused = False

    def write(self, data: Any) -> None:
        super().write(data)
        if self.deaf and len(self.written) > WRITE_BYTES_HIGH and not self.paused:
            self.paused = True
            self._protocol.pause_writing()


def door(server: Sessions | SmtpServer) -> tuple[Deaf, asyncio.Protocol]:
    wire = server.protocol() if isinstance(server, SmtpServer) else server.door()  # type: ignore[attr-defined]
    transport = Deaf(wire)
    wire.connection_made(transport)
    return transport, wire


async def ask(line: Line, request: str) -> list[str]:
    """The answer's lines up to the tagged one; of POP3 and SMTP the first."""
    transport, wire = line
    wire.data_received(f"{request}\r\n".encode())
    tag, told = request.split(" ")[0], []
    while (answer := await transport.line()) is not None:
        told.append(answer)
        if answer.startswith((f"{tag} ", "+OK", "+ ")):
            return told
    raise AssertionError(f"closed: {told}")


async def imap_of(server: ImapServer) -> Line:
    line = door(server)
    await line[0].line()
    assert (await ask(line, f"a LOGIN {ANNA} {SECRET}"))[-1].startswith("a OK")
    assert (await ask(line, "b SELECT INBOX"))[-1].startswith("b OK")
    return line


async def site_of_anna(count: int = 0, message: bytes = MESSAGE) -> CountingSite:
    site = CountingSite(LoopWorld())
    account = await site.account(ANNA, SECRET)
    for _ in range(count):
        await append(site, account.id, message)
    return site


async def closed_after(line: Line) -> float:
    """Seconds until the server ends the connection."""
    began = asyncio.get_running_loop().time()
    while not line[0].is_closing():
        line[0].changed.clear()
        await line[0].changed.wait()
    return asyncio.get_running_loop().time() - began


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        clock.run(lambda _: test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@virtual
async def test_half_an_hour_of_silence_is_borne() -> None:
    """RFC 9051 §5.4: at least 30 minutes for who has signed in; then BYE."""
    server = ImapServer(await site_of_anna(), IMAP)
    line = await imap_of(server)
    for _ in range(3):
        await asyncio.sleep(30 * 60)
        assert (await ask(line, "n NOOP"))[-1].startswith("n OK")
    assert 30 * 60 < await closed_after(line) <= IMAP.idle_s_max
    assert bytes(line[0].written).startswith(b"* BYE ")
    await server.close()


@virtual
async def test_half_an_hour_of_idle_is_kept_alive_and_still_told() -> None:
    """RFC 2177: a client says IDLE again within 29 minutes; who does not has gone."""
    site = await site_of_anna(1, b"Subject: small\r\n\r\n")
    server = ImapServer(site, IMAP)
    line = await imap_of(server)
    for _ in range(4):
        assert await ask(line, "i IDLE") == ["+ idling"]
        await asyncio.sleep(29 * 60)
        found = await site.resolve(ANNA)
        await append(site, found.accounts[0], b"Subject: new\r\n\r\n")  # type: ignore[union-attr]
        while "EXISTS" not in (told := await line[0].line() or "gone"):
            assert told.startswith("* OK Still here"), told
        line[1].data_received(b"DONE\r\n")
        while not (await line[0].line() or "i").startswith("i"):
            pass
    await ask(line, "i IDLE")
    assert await closed_after(line) == IMAP.idle_s_max
    said = bytes(line[0].written)
    assert said.count(b"* OK Still here.\r\n") == IMAP.idle_s_max // IMAP.still_here_s and b"* BYE " in said
    await server.close()


@pytest.mark.parametrize("word", ["n NOOP\r\n", "x"])
def test_who_does_not_sign_in_is_shown_out_whatever_it_says(word: str) -> None:
    """Connections that cost nothing to hold are not held for ever: neither by words nor by a byte now and then."""

    async def main(loop: clock.VirtualLoop) -> None:
        server = ImapServer(await site_of_anna(), IMAP)
        line = door(server)
        while not line[0].is_closing() and loop.time() < 10 * IMAP.sign_in_s_max:
            line[1].data_received(word.encode())
            await asyncio.sleep(7)
        assert IMAP.sign_in_s_max <= loop.time() <= IMAP.sign_in_s_max + 7
        assert b"* BYE " in line[0].written
        await server.close()

    clock.run(main)


@virtual
async def test_pop3_waits_ten_minutes() -> None:
    """RFC 1939 §3."""
    server = Pop3Server(await site_of_anna(), POP3)
    line = door(server)
    await line[0].line()
    await ask(line, f"USER {ANNA}")
    await ask(line, f"PASS {SECRET}")
    await asyncio.sleep(600 - 1)
    assert (await ask(line, "NOOP"))[0].startswith("+OK")
    assert await closed_after(line) == POP3.idle_s_max >= 600
    await server.close()


@virtual
async def test_smtp_waits_five_minutes_for_a_command() -> None:
    """RFC 5321 §4.5.3.2.7; and §3.8: 421 before the connection ends."""
    settings = SmtpSettings(hostname="mail.example.org")
    server = SmtpServer(SmallSite().port, settings, Role.MX, None)
    line = door(server)
    assert await closed_after(line) == settings.command_s_max >= 300
    assert bytes(line[0].written).splitlines()[-1].startswith(b"421 ")
    await server.close()


@virtual
async def test_who_reads_nothing_costs_little_and_is_let_go() -> None:
    """25 MB are asked for, twice, and nothing is taken: no more than the buffers are filled, another is served at once, and the
    session ends after write_s_max."""
    site = await site_of_anna(MESSAGES)
    server = ImapServer(site, IMAP)
    line, other = await imap_of(server), await imap_of(server)
    line[0].deaf = True  # type: ignore[attr-defined]
    line[1].data_received(b"c UID FETCH 1:* BODY.PEEK[]\r\nd UID FETCH 1:* BODY.PEEK[]\r\n")
    began = asyncio.get_running_loop().time()
    for n in range(10):
        assert (await ask(other, f"n{n} UID FETCH 1 FLAGS"))[-1].startswith(f"n{n} OK")
    assert asyncio.get_running_loop().time() == began, "another was kept waiting"
    assert await closed_after(line) == IMAP.write_s_max
    assert WRITE_BYTES_HIGH < len(line[0].written) <= HELD_BYTES_MAX
    assert site.read_bytes <= READ_BYTES_MAX
    assert (await ask(other, "z NOOP"))[-1].startswith("z OK")
    await server.close()


@virtual
async def test_who_takes_no_pop3_message_is_let_go() -> None:
    site = await site_of_anna(1, b"Subject: large\r\n\r\n" + (b"x" * 70 + b"\r\n") * 400_000)
    server = Pop3Server(site, POP3)
    line = door(server)
    await line[0].line()
    await ask(line, f"USER {ANNA}")
    await ask(line, f"PASS {SECRET}")
    line[0].deaf = True
    line[1].data_received(b"RETR 1\r\n")
    assert await closed_after(line) == POP3.write_s_max
    assert WRITE_BYTES_HIGH < len(line[0].written) <= HELD_BYTES_MAX
    await server.close()


def test_the_tables_are_given_time_by_what_they_have_to_do() -> None:
    """A STORE of half a million messages took longer than the ten seconds that all were given, and was answered with NO."""
    of_one = shown_s_max(ChangeFlags(1, 2, ((7, 7),), FlagMode.ADD, 1))
    assert shown_s_max(CreateMailbox(1, "x", (2,))) == SHOWN_S_MAX <= of_one < SHOWN_S_MAX + 1
    for large in (ChangeFlags(1, 2, ((1, 500_000),), FlagMode.ADD, 1), Expunge(1, 2, ((1, 500_000),)),
                  CopyMessages(1, 2, "y", ((1, 500_000),))):  # fmt: skip
        assert shown_s_max(large) >= 10 * SHOWN_S_MAX
    assert shown_s_max(Expunge(1, 2, ((1, (1 << 32) - 1),))) == SHOWN_LARGE_S_MAX


@virtual
async def test_a_pipeline_of_hundreds_is_answered_in_its_order() -> None:
    """RFC 9051 §5.5; among them what waits for a literal."""
    server = ImapServer(await site_of_anna(3, b"Subject: small\r\n\r\n"), IMAP)
    line = await imap_of(server)
    words = [b"NOOP", b"UID SEARCH ALL", b"FETCH 1 FLAGS", b"STATUS Sent (MESSAGES)", b"STORE 2 +FLAGS (k)", b"CREATE {2+}\r\nxy",
             b"APPEND Sent {4+}\r\na\r\n\r"]  # fmt: skip
    line[1].data_received(b"".join(b"p%d %b\r\n" % (n, words[n % len(words)]) for n in range(700)))
    tags: list[str] = []
    while len(tags) < 700:
        told = await line[0].line()
        assert told is not None
        if told.startswith("p"):
            tags.append(told.split()[0])
    assert tags == [f"p{n}" for n in range(700)]
    await server.close()
