"""Sessions that are carried to another site, over real sockets: signing in, news, back-pressure, who goes away when."""

import asyncio
import base64
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import uvloop
from scramp import ScramClient

from cluster.domain.actor import Actor
from cluster.domain.mailbox.commands import AppendMessage, NewMessage
from cluster.domain.refusal import Refusal
from protocols.imap.server import ImapServer
from protocols.imap.settings import Settings
from protocols.port import Account
from protocols.wire import KEEPALIVE_IDLE_S, READ_BYTES_MAX, WRITE_BYTES_HIGH, Wire
from tests.carried import FAR, NEAR, Authority, Neighbours, Pair, door_of
from tests.contracts.test_imap_server import ANNA, MIB, Peer, connected
from tests.live import eventually
from tests.memory_site import MemorySite, spool

THIRD = "dr"
PLAIN = base64.b64encode(f"\0{ANNA}\0secret".encode()).decode()


class Place:
    """A near site where anna signs in, and a far one where her mail is."""

    def __init__(self, near: Pair, far: Pair) -> None:
        self.near_site, self.far_site = MemorySite(), MemorySite()
        self.others = Neighbours(near.way, {NEAR, FAR})
        settings = Settings(plaintext_networks=(ipaddress.ip_network("127.0.0.0/8"),), sites=self.others, reach_s_max=2.0)
        self.near = ImapServer(self.near_site, settings)
        self.far = ImapServer(self.far_site, msgspec.structs.replace(settings, hostname="far"))
        self.far_pair = far
        self.anna: Account

    async def start(self) -> None:
        self.anna = await self.far_site.account(ANNA, "secret")
        here = await self.near_site.account(ANNA, "secret")
        self.near_site.kept_at[here.id] = (FAR,)
        await self.near.listen("127.0.0.1", 0)
        self.others.doors[FAR] = await door_of(self.far, self.far_pair.door)

    async def carried(self) -> Peer:
        return await connected(self.near.port, signed_in=True)

    async def append(self, text: bytes) -> None:
        """Somebody else does, at the far site."""
        spooled = spool(text)
        command = AppendMessage(self.anna.id, "INBOX", (NewMessage(spooled.content, 0),))
        answer = await self.far_site.execute(Actor("other"), command, (spooled,))
        assert not isinstance(answer, Refusal), answer


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, Pair]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    return authority.pair(NEAR), authority.pair(FAR)


@asynccontextmanager
async def placed(pairs: tuple[Pair, Pair]) -> AsyncIterator[Place]:
    place = Place(*pairs)
    await place.start()
    try:
        yield place
    finally:
        await asyncio.gather(place.near.close(), place.far.close())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_whole_session_is_served_by_the_other_site(run: Any, pairs: tuple[Pair, Pair]) -> None:
    """As if it were here: literals both ways, long answers, news while idle, and the end."""

    async def scenario() -> None:
        async with placed(pairs) as place:
            peer = await connected(place.near.port)
            said = await peer.ask(f"a LOGIN {ANNA} secret")
            assert len(said) == 1 and said[0].startswith("a OK [CAPABILITY IMAP4rev1 ") and said[0].endswith("] Signed in.")
            (far_wire,) = place.far._sessions.values()
            assert far_wire._transport is not None
            line = far_wire._transport.get_extra_info("socket")
            assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEPALIVE_IDLE_S
            assert (await peer.ask("b CAPABILITY"))[0].split()[2:] == said[0].partition("]")[0].split()[3:]
            peer.writer.write(b"c APPEND INBOX {11}\r\n")
            assert (await peer.line()).startswith("+ ")
            peer.writer.write(b"Subject: x\n\r\n")
            assert (await peer.line()).startswith("c OK [APPENDUID ")
            long = b"Subject: y\r\n\r\n" + b"0123456789abcdef" * 200_000
            assert (await peer.ask(b"d APPEND INBOX {%d+}\r\n" % len(long) + long))[-1].startswith("d OK")
            assert (await peer.ask("e SELECT INBOX"))[-1].startswith("e OK [READ-WRITE]")
            peer.writer.write(b"f FETCH 2 BODY.PEEK[]\r\n")
            assert (await peer.line()) == f"* 2 FETCH (BODY[] {{{len(long)}}}\r\n"
            assert await peer.reader.readexactly(len(long)) == long
            assert (await peer.line()) == ")\r\n" and (await peer.line()).startswith("f OK")
            peer.writer.write(b"g IDLE\r\n")
            assert (await peer.line()).startswith("+ ")
            await place.append(b"Subject: news\r\n\r\n")
            assert (await peer.line()) == "* 3 EXISTS\r\n"
            assert (await peer.line()).endswith("RECENT\r\n")
            peer.writer.write(b"DONE\r\n")
            assert (await peer.line()).startswith("g OK")
            assert [line[:5] for line in await peer.ask("h LOGOUT")] == ["* BYE", "h OK "]
            assert await peer.line() == ""
            await eventually(_none(place.near))
            await eventually(_none(place.far))

    run(scenario())


async def _full(wire: Wire) -> bool:
    return not wire._writable.is_set()


def _none(server: ImapServer) -> Any:
    async def ended() -> bool:
        return server.sessions == 0

    return ended


async def test_whoever_signs_in_and_however(pairs: tuple[Pair, Pair]) -> None:
    """No password goes to the other site, so it need not be known here; it hears whose session it is, and from where."""
    async with placed(pairs) as place:
        one = await connected(place.near.port)
        assert (await one.ask(f"a AUTHENTICATE PLAIN {PLAIN}"))[-1].startswith("a OK [CAPABILITY ")
        two, client = await connected(place.near.port), ScramClient(["SCRAM-SHA-256"], ANNA, "secret")
        first = base64.b64encode(client.get_client_first().encode()).decode()
        two.writer.write(f"a AUTHENTICATE SCRAM-SHA-256 {first}\r\n".encode())
        client.set_server_first(base64.b64decode((await two.line())[2:]).decode())
        two.writer.write(base64.b64encode(client.get_client_final().encode()) + b"\r\n")
        client.set_server_final(base64.b64decode((await two.line())[2:]).decode())
        two.writer.write(b"\r\n")
        assert (await two.line()).startswith("a OK [CAPABILITY ")
        for peer in (one, two):
            assert (await peer.ask("b STATUS INBOX (MESSAGES)"))[0] == '* STATUS "INBOX" (MESSAGES 0)'
        heard = place.far_site.introductions
        assert [(address, by) for address, by, _ in heard] == [(ANNA, NEAR)] * 2
        assert {actor.address for *_, actor in heard} == {"127.0.0.1"}
        assert all(len(actor.session) == 12 for *_, actor in heard) and heard[0][2].session != heard[1][2].session


async def test_what_was_sent_ahead_goes_along(pairs: tuple[Pair, Pair]) -> None:
    async with placed(pairs) as place:
        peer = await connected(place.near.port)
        peer.writer.write(f"a LOGIN {ANNA} secret\r\nb SELECT INBOX\r\nc APPEND Sent {{5+}}\r\nx\r\ny".encode())
        peer.writer.write(b"z\r\n\r\nd LOGOUT\r\n")
        answered = [line for line in (await peer.reader.read()).decode().split("\r\n") if line[:2] in ("a ", "b ", "c ", "d ")]
        assert [line[:4] for line in answered] == ["a OK", "b OK", "c OK", "d OK"]


async def test_a_client_that_says_nothing_more_still_hears_its_answers(pairs: tuple[Pair, Pair]) -> None:
    async with placed(pairs) as place:
        peer = await connected(place.near.port)
        peer.writer.write(f"a LOGIN {ANNA} secret\r\nb SELECT INBOX\r\n".encode())
        peer.writer.write_eof()
        said = (await peer.reader.read()).decode()
        assert "\r\nb OK" in said and "BYE" not in said


async def test_a_client_that_reads_nothing_holds_up_the_other_site(pairs: tuple[Pair, Pair]) -> None:
    async with placed(pairs) as place:
        await place.append(b"Subject: x\r\n\r\n" + b"0" * 32 * MIB)
        peer = await place.carried()
        await peer.ask("b SELECT INBOX")
        peer.writer.write(b"c FETCH 1 BODY.PEEK[]\r\n")
        assert (await peer.line()).startswith("* 1 FETCH")
        (wire,) = place.near._sessions.values()
        transport = wire._transport
        assert transport is not None
        await eventually(lambda: _full(wire))
        assert transport.get_write_buffer_size() <= WRITE_BYTES_HIGH + READ_BYTES_MAX + MIB
        assert len(await peer.reader.readexactly(32 * MIB)) == 32 * MIB
        peer.writer.write(b"d NOOP\r\n")
        while not (line := await peer.line()).startswith("d OK"):
            assert line, "closed"


async def test_a_site_that_goes_away_between_two_replies_is_a_goodbye(pairs: tuple[Pair, Pair]) -> None:
    async with placed(pairs) as place:
        peer = await place.carried()
        await peer.ask("b SELECT INBOX")
        for wire in place.far._sessions.values():
            wire.abort()
        assert (await peer.line()).startswith("* BYE [UNAVAILABLE] ")
        assert await peer.line() == ""
        again = await place.carried()
        assert (await again.ask("c SELECT INBOX"))[-1].startswith("c OK")


async def test_a_site_that_goes_away_in_a_literal_is_a_cut_line(pairs: tuple[Pair, Pair]) -> None:
    """RFC 9051 §4.3: a client that counts bytes must not take a goodbye for a message's."""
    async with placed(pairs) as place:
        await place.append(b"Subject: x\r\n\r\n" + b"0" * 32 * MIB)
        peer = await place.carried()
        await peer.ask("b SELECT INBOX")
        peer.writer.write(b"c FETCH 1 BODY.PEEK[]\r\n")
        assert (await peer.line()).startswith("* 1 FETCH")
        for wire in place.far._sessions.values():
            wire.abort()
        rest = await peer.reader.read()
        assert b"BYE" not in rest and len(rest) < 32 * MIB


async def test_where_no_site_answers_it_is_unavailable_and_no_wrong_password(pairs: tuple[Pair, Pair]) -> None:
    async with placed(pairs) as place:
        door = place.others.doors.pop(FAR)
        peer = await connected(place.near.port)
        for number in range(place.near._settings.sign_in_tries_max + 1):
            (said,) = await peer.ask(f"a{number} LOGIN {ANNA} secret")
            assert said.startswith(f"a{number} NO [UNAVAILABLE] Your mail is at {FAR}")
        assert (await peer.ask("b SELECT INBOX"))[-1].startswith("b BAD")
        place.others.doors[FAR] = door
        assert (await peer.ask(f"c LOGIN {ANNA} secret"))[-1].startswith("c OK")


async def test_a_site_that_takes_too_long_is_passed_over(pairs: tuple[Pair, Pair]) -> None:
    """And the next one serves it: here one accepts and says nothing, then one has the mail no more."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with placed(pairs) as place:
        mute = await asyncio.start_server(silent, "127.0.0.1", 0)
        third = ImapServer(MemorySite(), place.far._settings)
        try:
            place.others.doors |= {"mute": int(mute.sockets[0].getsockname()[1]), THIRD: await door_of(third, pairs[1].door)}
            moved = await third._site.account(ANNA, "secret")  # type: ignore[attr-defined]  # a MemorySite
            third._site.kept_at[moved.id] = (FAR,)  # type: ignore[attr-defined]
            (account,) = place.near_site.kept_at
            place.near_site.kept_at[account] = ("mute", THIRD, FAR)
            peer = await place.carried()
            assert (await peer.ask("b SELECT INBOX"))[-1].startswith("b OK")
            place.near_site.kept_at[account] = (THIRD,)
            (said,) = await (await connected(place.near.port)).ask(f"a LOGIN {ANNA} secret")
            assert said.startswith("a NO [UNAVAILABLE]")
        finally:
            mute.close()
            await third.close()


async def test_either_server_that_stops_says_goodbye(pairs: tuple[Pair, Pair]) -> None:
    for stopping in ("near", "far"):
        async with placed(pairs) as place:
            peer = await place.carried()
            await peer.ask("b SELECT INBOX")
            peer.writer.write(b"c IDLE\r\n")
            assert (await peer.line()).startswith("+ ")
            closing = asyncio.create_task(getattr(place, stopping).close())
            assert "[UNAVAILABLE] The server is stopping" in await peer.line()
            assert await peer.line() == ""
            await closing


@pytest.mark.parametrize("word", ["SELECT Sent", "NOOP", "STORE 1 FLAGS ()", "IDLE"])
async def test_a_session_whose_mail_is_kept_elsewhere_by_now_ends_to_be_carried(pairs: tuple[Pair, Pair], word: str) -> None:
    """RFC 9051 §7.1.5; a site that has lost its copy has old news only."""
    async with placed(pairs) as place:
        place.far._settings = msgspec.structs.replace(place.far._settings, still_here_s=0.2)
        await place.append(b"Subject: x\r\n\r\n")
        peer = await place.carried()
        await peer.ask("b SELECT INBOX")
        if word == "IDLE":
            peer.writer.write(b"c IDLE\r\n")
            assert (await peer.line()).startswith("+ ")
            assert await peer.line() == "* OK Still here.\r\n"
        place.far_site.kept_at[place.anna.id] = (THIRD,)
        if word != "IDLE":
            peer.writer.write(f"c {word}\r\n".encode())
        said = [line for line in (await peer.reader.read()).decode().split("\r\n") if line.startswith("* BYE")]
        assert said == ["* BYE [UNAVAILABLE] Your mail is kept at another site now; sign in again."]


async def test_a_silent_client_is_ended_by_whoever_serves_it(pairs: tuple[Pair, Pair]) -> None:
    async with placed(pairs) as place:
        place.far._settings = msgspec.structs.replace(place.far._settings, idle_s_max=1)
        peer = await place.carried()
        assert await peer.line() == "* BYE Nothing was heard for too long.\r\n"
        assert await peer.line() == ""
