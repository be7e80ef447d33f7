"""POP3 sessions that are carried to the site with the mail, by the certificates that real sites have and over real sockets."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from scramp import ScramClient

from cluster.control.roster import revoked
from cluster.domain.refusal import Refusal
from node.carrying import LANGUAGES, Sites
from node.config import Config
from node.roster import note
from protocols import carrying
from protocols.imap.server import ImapServer
from protocols.imap.settings import Settings as ImapSettings
from protocols.pop3.server import Pop3Server
from tests.contracts.test_carrying_between_sites import HOST, keyed, roster_of, showing
from tests.contracts.test_pop3_server import ANNA, PASSWORD, SHORT, TRUSTED, Peer, connected, with_anna
from tests.live import eventually
from tests.memory_site import MemorySite

EXTERNAL = base64.b64encode(ANNA.encode()).decode()


class Pair:
    """anna signs in at north, her mail is at south, whose door for sites IMAP and POP3 share."""

    def __init__(self, north: Config, south: Config) -> None:
        assert north.backbone is not None and south.backbone is not None
        self.north, self.south = north, south
        self.near_site, self.far_site = MemorySite(), MemorySite()
        far_sites = Sites(south, south.backbone)
        self.near = Pop3Server(self.near_site, msgspec.structs.replace(TRUSTED, sites=Sites(north, north.backbone)))
        self.far = Pop3Server(self.far_site, msgspec.structs.replace(TRUSTED, hostname="far", sites=far_sites))
        self.door = ImapServer(self.far_site, ImapSettings(sites=far_sites))
        self.far_sites = far_sites

    async def start(self, *messages: bytes, earlier: bool) -> None:
        self.anna = await with_anna(self.far_site, *messages)
        account = await self.near_site.account(ANNA, PASSWORD)
        self.near_site.kept_at[account.id] = ("south",)
        await self.near.listen(HOST, 0)
        await self.far.listen(HOST, 0)
        assert self.far_sites.address is not None
        others = None if earlier else {"pop3": self.far.opened_by_site}
        await self.door.listen_to_sites(*self.far_sites.address, self.far_sites.door, others=others)

    async def left(self) -> int:
        found = await self.far_site.select(self.anna.id, "INBOX")
        assert not isinstance(found, Refusal)
        return len(found.uids)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Config]:
    return keyed(tmp_path_factory.mktemp("sites"))


@asynccontextmanager
async def opened(sites: tuple[Config, Config], *messages: bytes, earlier: bool = False) -> AsyncIterator[Pair]:
    """`earlier`: south's release knows nothing of carried POP3."""
    pair = Pair(*sites)
    try:
        await pair.start(*messages, earlier=earlier)
        yield pair
    finally:
        await asyncio.gather(pair.near.close(), pair.far.close(), pair.door.close())


async def test_a_whole_session_is_served_by_the_other_site(sites: tuple[Config, Config]) -> None:
    large = b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 50_000
    async with opened(sites, SHORT, large) as pair:
        async with connected(pair.near) as peer:
            assert await peer.sign_in() == "+OK There are 2 messages."
            assert await peer.ask("UIDL 1") == "+OK 1 1.1"
            assert (await peer.ask("RETR 2")).startswith("+OK")
            assert await peer.reader.readexactly(len(large) + 3) == large + b".\r\n"
            assert (await peer.ask("CAPA")).startswith("+OK")
            said = (await peer.reader.readuntil(b"\r\n.\r\n")).decode().split("\r\n")
            assert "IMPLEMENTATION Angarium" in said and not any(line.startswith(("SASL", "STLS")) for line in said)
            assert (await peer.ask("DELE 1")).startswith("+OK")
            assert await pair.left() == 2, "RFC 1939 §6: at QUIT, and not before"
            assert (await peer.ask("QUIT")).startswith("+OK") and await peer.line() == ""
        assert await pair.left() == 1
        (introduced,) = pair.far_site.introductions
        assert introduced[:2] == (ANNA, "north")
        assert introduced[2].address == HOST and len(introduced[2].session) == 12 and introduced[2].protocol == "pop3"

        async def ended() -> bool:
            return pair.near.sessions == pair.far.sessions == 0

        await eventually(ended)


async def test_what_was_sent_ahead_goes_along(sites: tuple[Config, Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 2449 §6.6; and a client that says nothing more still hears its answers."""
    monkeypatch.setattr(carrying, "HALF_CLOSED_QUIET_S", 1.0)
    async with opened(sites, SHORT) as pair, connected(pair.near) as peer:
        peer.writer.write(f"USER {ANNA}\r\nPASS {PASSWORD}\r\nSTAT\r\nUIDL 1\r\n".encode())
        peer.writer.write_eof()
        assert (await peer.reader.read()).decode().split("\r\n")[1:] == [
            "+OK There is one message.", f"+OK 1 {len(SHORT)}", "+OK 1 1.1", "",
        ]  # fmt: skip
        assert await pair.left() == 1


async def test_by_a_proof_of_the_password(sites: tuple[Config, Config]) -> None:
    async with opened(sites) as pair, connected(pair.near) as peer:
        client = ScramClient(["SCRAM-SHA-256"], ANNA, PASSWORD)
        first = base64.b64encode(client.get_client_first().encode()).decode()
        client.set_server_first(base64.b64decode((await peer.ask(f"AUTH SCRAM-SHA-256 {first}"))[2:]).decode())
        final = base64.b64encode(client.get_client_final().encode()).decode()
        client.set_server_final(base64.b64decode((await peer.ask(final))[2:]).decode())
        assert await peer.ask("") == "+OK There are 0 messages."
        assert await peer.ask("STAT") == "+OK 0 0"


async def test_who_goes_away_deletes_nothing(sites: tuple[Config, Config]) -> None:
    """RFC 1939 §6; whether it is the client, the other site, or either server that stops."""
    for who in ("client", "site", "near", "far"):
        async with opened(sites, SHORT) as pair:
            async with connected(pair.near) as peer:
                await peer.sign_in()
                assert (await peer.ask("DELE 1")).startswith("+OK")
                if who == "site":
                    for wire in pair.far._sessions.values():
                        wire.abort()
                if who in ("near", "far"):
                    await getattr(pair, who).close()
                if who != "client":
                    assert (await peer.line()).startswith("-ERR [SYS/TEMP]") if who == "far" else await peer.line() == ""

            async def ended(pair: Pair = pair) -> bool:
                return pair.near.sessions == pair.far.sessions == 0

            await eventually(ended)
            assert await pair.left() == 1


async def test_where_no_site_answers_it_is_no_wrong_password(sites: tuple[Config, Config]) -> None:
    """Out of reach; of a release that carries IMAP only; and without the mail itself."""
    async with opened(sites, earlier=True) as pair, connected(pair.near) as peer:
        for _ in range(TRUSTED.sign_in_tries_max + 1):
            assert await peer.sign_in() == "-ERR [SYS/TEMP] Your mail is at south, out of reach now: try again."
    async with opened(sites) as pair, connected(pair.near) as peer:
        pair.far_site.kept_at[pair.anna.id] = ("third",)
        assert (await peer.sign_in()).startswith("-ERR [SYS/TEMP]")
        (account,) = pair.near_site.kept_at
        pair.near_site.kept_at[account] = ("unknown", "south")
        del pair.far_site.kept_at[pair.anna.id]
        assert await peer.sign_in() == "+OK There are 0 messages."


# -- the door ------------------------------------------------------------------------------------------------------------


async def at_the_door(pair: Pair, context: ssl.SSLContext) -> Peer:
    context.set_alpn_protocols([LANGUAGES[1]])
    return Peer(*await asyncio.open_connection(HOST, pair.door.port, ssl=context))


async def test_at_the_door_a_site_speaks_for_people_and_nobody_has_a_password(sites: tuple[Config, Config]) -> None:
    async with opened(sites) as pair:
        tls = pair.north.tls
        peer = await at_the_door(pair, showing(tls.ca, tls.link_certificate, tls.link_key))
        assert await peer.line() == "+OK far speaks POP3."
        assert (await peer.ask(f"USER {ANNA}")).startswith("-ERR Passwords")
        assert (await peer.ask("AUTH PLAIN AHgAeA==")).startswith("-ERR There is no such mechanism")
        assert (await peer.ask("AUTH EXTERNAL =")).startswith("-ERR [AUTH]")
        for forged in ("ADDR=1.2.3.4", "ADDR=a b SESSION=1", "ADDR=1.2.3.4 SESSION=x"):
            assert (await peer.ask(f"XCLIENT {forged}")).startswith("-ERR")
        nobody = base64.b64encode(b"nobody@example.org").decode()
        assert (await peer.ask(f"AUTH EXTERNAL {nobody}")).startswith("-ERR")
        assert (await peer.ask(f"AUTH EXTERNAL {EXTERNAL}")).startswith("+OK")
        peer.writer.close()
        # The certificate for mail programs is by the same authority, and no site's.
        stranger = await at_the_door(pair, showing(tls.ca, tls.certificate, tls.key))
        assert (await stranger.line()).startswith("-ERR") and await stranger.line() == ""
        async with connected(pair.near) as public:
            assert (await public.ask(f"AUTH EXTERNAL {EXTERNAL}")).startswith("-ERR There is no such mechanism")
            assert (await public.ask("XCLIENT ADDR=1.2.3.4 SESSION=ab")).startswith("-ERR There is no such command")


async def test_a_stolen_site_is_shut_out_at_once(tmp_path: Path) -> None:
    async with opened(keyed(tmp_path)) as pair, connected(pair.near) as before, connected(pair.near) as later:
        assert (await before.sign_in()).startswith("+OK")
        note(pair.south.roster_file, revoked(roster_of(pair.south), "north"))
        assert (await later.sign_in()).startswith("-ERR [SYS/TEMP]")
        assert (await before.ask("STAT")).startswith("-ERR [SYS/TEMP]") and await before.line() == ""
