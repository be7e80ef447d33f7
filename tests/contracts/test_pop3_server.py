"""POP3 on real sockets, and what no conversation can show: TLS, whose mail is elsewhere, lost tails, big messages."""

import asyncio
import base64
import datetime
import ipaddress
import poplib
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from scramp import ScramClient

from cluster.domain.directory.commands import ChangeAccount
from cluster.domain.mailbox.commands import Expunge
from cluster.domain.mailbox.content import Content
from cluster.domain.refusal import Reason, Refusal
from node import certs
from protocols.pop3.server import Pop3Server
from protocols.pop3.settings import Settings
from protocols.port import Account, Done, Site, SiteUnavailable, Spooled
from tests.live import ACTOR, Live
from tests.memory_site import MemorySite
from tests.transcripts.pop3.play import ARRIVED_AT, append

CLIENT_S_MAX = 20.0
ANNA, PASSWORD = "anna@example.org", "secret"
TRUSTED = Settings(hostname="localhost", plaintext_networks=(ipaddress.ip_network("127.0.0.0/8"),))
SHORT = b"Subject: short\r\n\r\nIt is.\r\n"


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def line(self) -> str:
        """"" at the end."""
        async with asyncio.timeout(CLIENT_S_MAX):
            return (await self.reader.readline()).decode().rstrip("\r\n")

    async def ask(self, *requests: str) -> str:
        """The first line of the answer to the last one."""
        self.writer.write("".join(f"{request}\r\n" for request in requests).encode())
        for _ in requests[1:]:
            await self.line()
        return await self.line()

    async def sign_in(self, address: str = ANNA) -> str:
        return await self.ask(f"USER {address}", f"PASS {PASSWORD}")


@asynccontextmanager
async def serving(site: Site, settings: Settings = TRUSTED, *, implicit_tls: bool = False) -> AsyncIterator[Pop3Server]:
    server = Pop3Server(site, settings)
    await server.listen("127.0.0.1", 0, implicit_tls=implicit_tls)
    try:
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def connected(server: Pop3Server) -> AsyncIterator[Peer]:
    peer = Peer(*await asyncio.open_connection("127.0.0.1", server.port))
    assert await peer.line() == "+OK localhost speaks POP3."
    try:
        yield peer
    finally:
        peer.writer.close()


async def with_anna(site: MemorySite, *messages: bytes) -> Account:
    account = await site.account(ANNA, PASSWORD)
    for data in messages:
        await append(site, account.id, data)
    return account


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, ssl.SSLContext]:
    """(settings without trusted networks, what a client trusts)"""
    folder, now = tmp_path_factory.mktemp("tls"), datetime.datetime.now(datetime.UTC)
    authority = certs.make_authority("test", now)
    chain, key = certs.issue(*authority, ("localhost", "127.0.0.1"), now)
    for name, data in (("ca", authority[0]), ("chain", chain), ("key", key)):
        Path(folder / name).write_bytes(data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "chain", folder / "key")
    return Settings(hostname="localhost", tls=lambda: context), ssl.create_default_context(cafile=str(folder / "ca"))


# -- TLS ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implicit", [True, False])
async def test_poplib_by_tls(tls: tuple[Settings, ssl.SSLContext], implicit: bool) -> None:
    """RFC 8314 §3.1 POP3S, RFC 2595 §4 STLS."""
    settings, trust = tls
    site = MemorySite()
    await with_anna(site, SHORT, b"Subject: dots\n\n.\n..\n")

    def talk(port: int) -> list[bytes]:
        client: poplib.POP3
        if implicit:
            client = poplib.POP3_SSL("localhost", port, context=trust, timeout=CLIENT_S_MAX)
        else:
            client = poplib.POP3("localhost", port, timeout=CLIENT_S_MAX)
            assert "STLS" in client.capa() and not {"USER", "SASL"} & set(client.capa())
            client.stls(context=trust)
        assert "STLS" not in client.capa() and client.capa()["SASL"] == ["PLAIN", "SCRAM-SHA-256"]
        client.utf8()
        client.user(ANNA)
        client.pass_(PASSWORD)
        count, size = client.stat()
        messages = [client.retr(number)[1] for number in range(1, count + 1)]
        assert size == sum(len(line) + 2 for message in messages for line in message)
        assert client.top(1, 0)[1] == [b"Subject: short", b""]
        client.dele(1)
        client.quit()
        return messages[1]

    async with serving(site, settings, implicit_tls=implicit) as server:
        assert await asyncio.to_thread(talk, server.port) == [b"Subject: dots", b"", b".", b".."]


async def test_what_is_sent_ahead_of_tls_drops_the_line(tls: tuple[Settings, ssl.SSLContext]) -> None:
    """RFC 2595 §4: what somebody slipped in before the handshake is never taken for the client's word."""
    async with serving(MemorySite(), tls[0]) as server, connected(server) as peer:
        assert await peer.ask("STLS", "USER anna") == ""


async def test_a_name_said_before_tls_is_forgotten(tls: tuple[Settings, ssl.SSLContext]) -> None:
    settings = msgspec.structs.replace(tls[0], plaintext_networks=TRUSTED.plaintext_networks)
    async with serving(MemorySite(), settings) as server, connected(server) as peer:
        assert (await peer.ask(f"USER {ANNA}", "STLS")).startswith("+OK")
        await peer.writer.start_tls(tls[1], server_hostname="localhost")
        assert await peer.ask(f"PASS {PASSWORD}") == "-ERR Say USER first."
        assert await peer.ask("STLS") == "-ERR TLS is on already."


# -- signing in ---------------------------------------------------------------------------------------------------------


async def test_scram() -> None:
    """RFC 5034 §4, RFC 7677 §3."""
    site = MemorySite()
    await with_anna(site, SHORT)
    async with serving(site) as server, connected(server) as peer:
        for secret in ("wrong", PASSWORD):
            client = ScramClient(["SCRAM-SHA-256"], ANNA, secret)
            first = base64.b64encode(client.get_client_first().encode()).decode()
            challenge = await peer.ask(f"AUTH SCRAM-SHA-256 {first}")
            client.set_server_first(base64.b64decode(challenge.removeprefix("+ ")).decode())
            answer = await peer.ask(base64.b64encode(client.get_client_final().encode()).decode())
            if secret == "wrong":
                assert answer.startswith("-ERR [AUTH] ")
        client.set_server_final(base64.b64decode(answer.removeprefix("+ ")).decode())
        assert await peer.ask("") == "+OK There is one message."


async def test_who_has_no_mail_here_is_told_where_it_is() -> None:
    site = MemorySite()
    account = await with_anna(site)
    site.kept_at[account.id] = ("mumbai", "dr")
    async with serving(site) as server, connected(server) as peer:
        assert await peer.sign_in() == "-ERR [SYS/TEMP] Your mail is kept at another site: connect to mumbai or dr."
        del site.kept_at[account.id]
        assert await peer.sign_in() == "+OK There are 0 messages."


async def test_only_so_many_connections() -> None:
    async with serving(MemorySite(), msgspec.structs.replace(TRUSTED, connections_max=1)) as server, connected(server):
        late = Peer(*await asyncio.open_connection("127.0.0.1", server.port))
        assert await late.line() == "-ERR [SYS/TEMP] Too many connections."
        assert await late.line() == ""
        late.writer.close()


async def test_a_silent_client_is_told_nothing_and_loses_nothing() -> None:
    """RFC 1939 §3."""
    site = MemorySite()
    account = await with_anna(site, SHORT)
    async with serving(site, msgspec.structs.replace(TRUSTED, idle_s_max=1)) as server, connected(server) as peer:
        assert (await peer.ask(f"USER {ANNA}", f"PASS {PASSWORD}", "DELE 1")).startswith("+OK")
        assert await peer.line() == ""
    assert await count(site, account) == 1


async def test_who_does_not_sign_in_is_shown_out_whatever_it_says() -> None:
    async with serving(MemorySite(), msgspec.structs.replace(TRUSTED, sign_in_s_max=1)) as server, connected(server) as peer:
        async with asyncio.timeout(CLIENT_S_MAX):
            with pytest.raises(ConnectionError):
                while await peer.ask("LANG en"):
                    pass
                raise ConnectionResetError("closed")


async def test_a_server_that_stops_says_so() -> None:
    site = MemorySite()
    account = await with_anna(site, SHORT)
    async with serving(site) as server, connected(server) as peer:
        await peer.sign_in()
        assert (await peer.ask("DELE 1")).startswith("+OK")
        await server.close()
        assert (await peer.line()).startswith("-ERR [SYS/TEMP] The server is stopping")
    assert await count(site, account) == 1


async def count(site: MemorySite, account: Account) -> int:
    found = await site.select(account.id, "INBOX")
    assert not isinstance(found, Refusal)
    return len(found.uids)


# -- what fails behind it ------------------------------------------------------------------------------------------------


class Failing(MemorySite):
    """`refuses`: expunging. `gone`: contents cannot be read, after so many bytes of each."""

    refuses = False
    gone: int | None = None

    async def execute(self, actor: object, command: object, contents: Sequence[Spooled] = ()) -> Done | Refusal:
        if self.refuses and isinstance(command, Expunge):
            return Refusal(Reason.UNAVAILABLE)
        return await super().execute(actor, command, contents)  # type: ignore[arg-type]

    async def read(self, content: Content, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        async for piece in super().read(content, start, end if self.gone is None else self.gone):
            if piece:
                yield piece
        if self.gone is not None:
            raise SiteUnavailable("a blob is not here")


async def test_what_cannot_be_deleted_is_said() -> None:
    """RFC 1939 §6."""
    site = Failing()
    account = await with_anna(site, SHORT, SHORT)
    async with serving(site) as server, connected(server) as peer:
        await peer.sign_in()
        site.refuses = True
        assert (await peer.ask("DELE 1", "QUIT")).startswith("-ERR [SYS/TEMP] ")
        assert await peer.line() == ""
    assert await count(site, account) == 2


async def test_a_message_that_cannot_be_had_is_refused_and_the_session_goes_on() -> None:
    site = Failing()
    await with_anna(site, SHORT)
    async with serving(site) as server, connected(server) as peer:
        await peer.sign_in()
        site.gone = 0
        assert (await peer.ask("RETR 1")).startswith("-ERR [SYS/TEMP] ")
        site.gone = None
        assert await peer.ask("RETR 1") == "+OK 26 octets"


async def test_half_a_message_is_not_given_for_the_whole() -> None:
    site = Failing()
    await with_anna(site, SHORT)
    async with serving(site) as server, connected(server) as peer:
        await peer.sign_in()
        site.gone = 10
        peer.writer.write(b"RETR 1\r\n")
        with pytest.raises(ConnectionError):
            while line := await peer.line():
                assert line != "."
            raise ConnectionResetError("the end, in the middle")


async def test_nothing_is_deleted_by_what_was_shown_of_a_lost_tail() -> None:
    """Its mail comes again with other UIDs: that it was deleted would not be true."""
    site = MemorySite()
    account = await with_anna(site, SHORT)
    async with serving(site) as server, connected(server) as peer:
        await peer.sign_in()
        assert (await peer.ask("DELE 1")).startswith("+OK")
        (watch,) = site._watches[account.id]
        watch.rolled_back = True
        assert (await peer.ask("QUIT")).startswith("-ERR [SYS/TEMP] The mailbox goes on from an earlier state")
        assert await peer.line() == ""
    assert await count(site, account) == 1
    assert not site._watches[account.id]


# -- big ones ------------------------------------------------------------------------------------------------------------

PIECE = (b"x" * 997 + b"\n") * 256
PIECES = 200


class Endless(MemorySite):
    """One message of 50 MB, made while it is read."""

    read_pieces = 0

    async def read(self, content: Content, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        for _ in range(PIECES):
            self.read_pieces += 1
            yield PIECE


async def test_a_big_message_is_read_no_faster_than_it_is_taken() -> None:
    site = Endless()
    await with_anna(site, SHORT)
    async with serving(site) as server, connected(server) as peer:
        await peer.sign_in()
        assert await peer.ask("RETR 1") == "+OK 26 octets"
        taken = 0
        while taken < PIECES * (len(PIECE) + 256) + 3:
            async with asyncio.timeout(CLIENT_S_MAX):
                data = await peer.reader.read(1 << 16)
            assert data
            taken += len(data)
            # what waits: in the session, in both transports and both sockets
            assert site.read_pieces * len(PIECE) - taken < 16 << 20
        assert data.endswith(b"x\r\n.\r\n")


async def test_top_reads_no_more_than_it_gives() -> None:
    site = Endless()
    await with_anna(site, SHORT)
    async with serving(site) as server, connected(server) as peer:
        await peer.sign_in()
        assert (await peer.ask("TOP 1 0")).startswith("+OK")
        assert await peer.line() == "x" * 997  # there is no end of its header
    site = Endless()
    site_read = site.read

    async def with_header(content: Content, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        yield b"Subject: long\r\n\r\n"
        async for piece in site_read(content, start, end):
            yield piece

    site.read = with_header  # type: ignore[method-assign]
    await with_anna(site, SHORT)
    async with serving(site) as server, connected(server) as peer:
        await peer.sign_in()
        assert await peer.ask("TOP 1 3", "NOOP") == "Subject: long"
        assert [await peer.line() for _ in range(5)] == ["", *["x" * 997] * 3, "."]
        assert site.read_pieces == 1


async def test_hundreds_of_commands_at_once() -> None:
    """RFC 2449 §6.6."""
    site = MemorySite()
    await with_anna(site, *[SHORT] * 100)
    async with serving(site) as server, connected(server) as peer:
        await peer.sign_in()
        commands = [f"RETR {number}" for number in range(1, 101)] * 5
        peer.writer.write("".join(f"{command}\r\n" for command in commands).encode())
        for _ in commands:
            assert [await peer.line() for _ in range(5)] == ["+OK 26 octets", "Subject: short", "", "It is.", "."]


# -- with the real site --------------------------------------------------------------------------------------------------


async def test_only_mail_that_arrived_since_a_day_is_offered(live_site: Live) -> None:
    person = await live_site.person(password=PASSWORD)
    site = live_site.site
    for number in range(3):
        await append(site, person.id, SHORT, ARRIVED_AT + number)
    for since, expected in ((0, 3), (ARRIVED_AT + 1, 2), (ARRIVED_AT + 9, 0)):
        done = await site.execute(ACTOR, ChangeAccount(person.address, pop3_since=since))
        assert not isinstance(done, Refusal)
        async with serving(site) as server, connected(server) as peer:
            assert await peer.sign_in(person.address) == f"+OK There are {expected} messages."
            assert await peer.ask("STAT") == f"+OK {expected} {expected * 26}"


async def test_unique_ids_are_imaps(live_site: Live) -> None:
    person = await live_site.person(password=PASSWORD)
    await append(live_site.site, person.id, SHORT)
    selected = await live_site.site.select(person.id, "INBOX")
    assert not isinstance(selected, Refusal)
    async with serving(live_site.site) as server, connected(server) as peer:
        await peer.sign_in(person.address)
        assert await peer.ask("UIDL 1") == f"+OK 1 {selected.status.mailbox.uidvalidity}.{selected.uids[0]}"
        assert await peer.ask("DELE 1", "QUIT") == "+OK Goodbye."
    after = await live_site.site.select(person.id, "INBOX")
    assert not isinstance(after, Refusal) and not after.uids
