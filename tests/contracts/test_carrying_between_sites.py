"""Who is let in at the door for sites: by the certificates, keys and rosters that real sites have, without their engines."""

import asyncio
import base64
import datetime
import ipaddress
import random
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from cluster.control.roster import Member, Roster, joined, revoked
from node import certs, nkeys
from node.backbone import ROSTER_NAME, read_roster
from node.carrying import Sites
from node.config import Config, load
from node.doctor import check_links
from node.init import Plan, configuration_text, keyed_secrets, make_site, renew_certificate, write
from node.roster import note
from protocols.imap.server import ImapServer
from protocols.imap.settings import Settings
from tests.contracts.test_imap_server import ANNA, Peer, connected
from tests.memory_site import MemorySite

NOW = datetime.datetime.now(datetime.UTC)
HOST = "127.0.0.1"
CARRY = Member("", HOST, 0).carry_port
EXTERNAL = f"AUTHENTICATE EXTERNAL {base64.b64encode(ANNA.encode()).decode()}"


def bases() -> tuple[int, int]:
    """Whose doors for sites are free."""
    while True:
        north, south = random.SystemRandom().sample(range(8_000, 25_000, 20), 2)
        try:
            for base in (north, south):
                with socket.socket() as probe:
                    probe.bind((HOST, base + CARRY))
        except OSError:
            continue
        return north, south


def keyed(folder: Path) -> tuple[Config, Config]:
    """The first site and one that joined it."""
    north_base, south_base = bases()
    north = make_site(Plan(folder / "north", "north", "example.org", "", port_base=north_base, host=HOST), NOW)
    authority = north.tls.ca.read_bytes(), north.tls.ca_key.read_bytes()
    request, key = certs.make_request("south")
    link = certs.sign(*authority, certs.requested_key(request), (HOST,), NOW, "south")
    chain, server_key = certs.issue(*authority, ("south.example.org", HOST), NOW)
    seed, leaf_key = nkeys.make()
    roster = read_roster(north.roster_file)
    assert roster is not None
    grown = joined(roster, Member("south", HOST, south_base, leaf_key=leaf_key, pin=certs.pin(link)))
    home = folder / "south"
    (home / "tls").mkdir(parents=True)
    plan = Plan(home, "south", "example.org", "south.example.org", port_base=south_base)
    for name, content in {
        "tls/ca.pem": authority[0], "tls/link.pem": link, "tls/link.key": key, "tls/server.pem": chain,
        "tls/server.key": server_key, "secrets.toml": keyed_secrets("00", seed).encode(),
        ROSTER_NAME: msgspec.json.encode(grown), "angarium.toml": configuration_text(plan).encode(),
    }.items():  # fmt: skip
        write(home / name, content, 0o600)
    note(north.roster_file, grown)
    return load(north.dir), load(home)


def listed(folder: Path) -> tuple[Config, Config]:
    """Sites that were written down by hand, and share the authority's key."""
    north_base, south_base = bases()
    members = (Member("north", HOST, north_base), Member("south", HOST, south_base), Member("third", HOST, 7000))
    plan = Plan(folder / "north", "north", "example.org", "", port_base=north_base, members=members)
    north = make_site(plan, NOW)
    like = Plan(folder / "south", "south", "example.org", "", port_base=south_base, like=north.dir)
    return north, make_site(like, NOW)


class Pair:
    """anna signs in at north, her mail is at south."""

    def __init__(self, north: Config, south: Config) -> None:
        assert north.backbone is not None and south.backbone is not None
        self.north, self.south = north, south
        self.near_sites, self.far_sites = Sites(north, north.backbone), Sites(south, south.backbone)
        trusted = Settings(plaintext_networks=(ipaddress.ip_network("127.0.0.0/8"),))
        self.near_site, self.far_site = MemorySite(), MemorySite()
        self.near = ImapServer(self.near_site, msgspec.structs.replace(trusted, sites=self.near_sites))
        self.far = ImapServer(self.far_site, msgspec.structs.replace(trusted, sites=self.far_sites, tls=self._public))

    def _public(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.south.tls.certificate, self.south.tls.key)
        return context

    async def start(self) -> None:
        await self.far_site.account(ANNA, "secret")
        account = await self.near_site.account(ANNA, "secret")
        self.near_site.kept_at[account.id] = ("south",)
        await self.near.listen(HOST, 0)
        assert self.far_sites.address is not None
        await self.far.listen_to_sites(*self.far_sites.address, self.far_sites.door)

    @property
    def door(self) -> int:
        return self.far.port

    async def signed_in(self) -> tuple[Peer, str]:
        peer = await connected(self.near.port)
        return peer, (await peer.ask(f"a LOGIN {ANNA} secret"))[-1]


@asynccontextmanager
async def opened(north: Config, south: Config) -> AsyncIterator[Pair]:
    pair = Pair(north, south)
    await pair.start()
    try:
        yield pair
    finally:
        await asyncio.gather(pair.near.close(), pair.far.close())


def showing(ca: Path, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    context.check_hostname = False
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


async def heard(port: int, context: ssl.SSLContext, *requests: str) -> str:
    """All that the door says until it ends; what was asked is asked whatever it says. Empty = it did not even speak."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port, ssl=context)
        writer.write("".join(f"{request}\r\n" for request in (*requests, "z LOGOUT")).encode())
        async with asyncio.timeout(20):
            said = (await reader.read()).decode()
        writer.close()
    except (ssl.SSLError, ConnectionError):
        return ""
    return said


@pytest.mark.parametrize("make", [keyed, listed])
async def test_sites_of_one_organisation_carry_sessions_to_each_other(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    async with opened(*make(tmp_path)) as pair:
        peer, said = await pair.signed_in()
        assert said.startswith("a OK [CAPABILITY ")
        assert (await peer.ask("b SELECT INBOX"))[-1].startswith("b OK")
        assert [(address, by) for address, by, _ in pair.far_site.introductions] == [(ANNA, "north")]


async def test_at_the_door_a_site_speaks_for_people_and_nobody_has_a_password(tmp_path: Path) -> None:
    async with opened(*keyed(tmp_path)) as pair:
        tls = pair.north.tls
        context = showing(tls.ca, tls.link_certificate, tls.link_key)
        said = await heard(pair.door, context, f"a LOGIN {ANNA} secret", "b AUTHENTICATE PLAIN AHgAeA==", "c AUTHENTICATE EXTERNAL =")
        greeting, *_ = said.split("\r\n")
        assert "AUTH=EXTERNAL" in greeting and "LOGINDISABLED" in greeting and "AUTH=PLAIN" not in greeting
        assert "\r\na NO [PRIVACYREQUIRED]" in said and "\r\nb NO [CANNOT]" in said and "\r\nc NO [AUTHORIZATIONFAILED]" in said
        assert "\r\nd OK [CAPABILITY" in await heard(pair.door, context, f"d {EXTERNAL}")
        nobody = base64.b64encode(b"nobody@example.org").decode()
        assert "\r\ne NO [NONEXISTENT]" in await heard(pair.door, context, f"e AUTHENTICATE EXTERNAL {nobody}")
        forged = 'f ID ("x-originating-ip" "not an address" "X-Session-ID" "a\\"b")'
        assert "\r\nf OK" in await heard(pair.door, context, forged, f"g {EXTERNAL}")
        actor = pair.far_site.introductions[-1][2]
        assert actor.address == HOST and len(actor.session) == 12


async def test_at_the_public_doors_nobody_is_external(tmp_path: Path) -> None:
    async with opened(*keyed(tmp_path)) as pair:
        listener = await pair.far.listen(HOST, 0, implicit_tls=True)
        port = int(listener.sockets[0].getsockname()[1])
        tls = pair.north.tls
        said = await heard(port, showing(tls.ca, tls.link_certificate, tls.link_key), f"a {EXTERNAL}")
        assert "EXTERNAL" not in said.split("\r\n")[0] and "\r\na NO [CANNOT]" in said
        plain = await connected(pair.near.port)
        assert (await plain.ask(f"a {EXTERNAL}"))[-1].startswith("a NO [CANNOT]")
        told = 'b ID ("x-originating-ip" "203.0.113.9" "x-session-id" "forged")'
        assert (await plain.ask(told))[-1].startswith("b OK")
        assert (await plain.ask(f"c LOGIN {ANNA} secret"))[-1].startswith("c OK")
        assert pair.far_site.introductions[-1][2].address == HOST


async def test_whoever_is_no_site_is_refused(tmp_path: Path) -> None:
    async with opened(*keyed(tmp_path / "ours")) as pair:
        ca = pair.north.tls.ca
        assert await heard(pair.door, showing(ca, None, None), f"a {EXTERNAL}") == ""
        foreign, _ = keyed(tmp_path / "theirs")  # of another organisation, that calls itself north too
        context = showing(ca, foreign.tls.link_certificate, foreign.tls.link_key)
        assert await heard(pair.door, context, f"a {EXTERNAL}") == ""
        # The certificate for mail programs is by the same authority, and no site's.
        context = showing(ca, pair.north.tls.certificate, pair.north.tls.key)
        said = await heard(pair.door, context, f"a {EXTERNAL}")
        assert said.startswith("* BYE ") and "\r\na " not in said
        assert pair.far_site.introductions == []


async def test_a_stolen_site_is_shut_out_at_once(tmp_path: Path) -> None:
    async with opened(*keyed(tmp_path)) as pair:
        before, said = await pair.signed_in()
        assert said.startswith("a OK")
        await before.ask("b SELECT INBOX")
        note(pair.south.roster_file, revoked(roster_of(pair.south), "north"))
        _, said = await pair.signed_in()
        assert said.startswith("a NO [UNAVAILABLE]")
        assert len(pair.far_site.introductions) == 1
        before.writer.write(b"c NOOP\r\n")
        assert (await before.line()).startswith("* BYE ")


async def test_a_site_that_was_shut_out_gets_no_sessions_of_ours(tmp_path: Path) -> None:
    """Also not by whoever sits at its address."""
    async with opened(*keyed(tmp_path)) as pair:
        note(pair.north.roster_file, revoked(roster_of(pair.north), "south"))
        assert (await pair.signed_in())[1].startswith("a NO [UNAVAILABLE]")
        roster = roster_of(pair.south)
        other = msgspec.structs.replace(roster.members[1], site="east", pin="0" * 64)
        note(pair.north.roster_file, msgspec.structs.replace(roster, members=(*roster.members, other), number=9))
        (account,) = pair.near_site.kept_at
        pair.near_site.kept_at[account] = ("east",)
        assert (await pair.signed_in())[1].startswith("a NO [UNAVAILABLE]")
        assert pair.far_site.introductions == []


async def test_a_renewed_certificate_is_taken_without_a_restart(tmp_path: Path) -> None:
    async with opened(*keyed(tmp_path)) as pair:
        renew_certificate(pair.north, NOW)
        pair.near_sites.reload()
        assert (await pair.signed_in())[1].startswith("a OK")
        pair.north.tls.link_certificate.write_text("nonsense")
        pair.near_sites.reload()
        assert (await pair.signed_in())[1].startswith("a OK")


async def test_a_listed_site_whose_certificate_names_none_is_told_to_renew_it(tmp_path: Path) -> None:
    """As those of earlier releases are."""
    north, south = listed(tmp_path)
    assert check_links(north, NOW) == []
    chain, key = certs.issue(north.tls.ca.read_bytes(), north.tls.ca_key.read_bytes(), ("localhost", HOST), NOW)
    north.tls.certificate.write_bytes(chain)
    north.tls.key.write_bytes(key)
    (finding,) = check_links(north, NOW)
    assert finding.level == "warning" and "certificate renew" in finding.remedy
    async with opened(north, south) as pair:
        assert (await pair.signed_in())[1].startswith("a NO [UNAVAILABLE]")
        renew_certificate(north, NOW)
        assert check_links(north, NOW) == []
        pair.near_sites.reload()
        assert (await pair.signed_in())[1].startswith("a OK")


def roster_of(config: Config) -> Roster:
    roster = read_roster(config.roster_file)
    assert roster is not None
    return roster
