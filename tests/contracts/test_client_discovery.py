"""How clients find their node: what is published in the zone, what Thunderbird and Outlook are told; by HTTP on a door over
a directory in memory and on the real site. Three sites here are what an operator writes into three configurations.
"""

import datetime
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import aiohttp
import dns.rdatatype
import dns.zone
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.domain.refusal import Reason
from cluster.offers import Offer
from node.config import Config, ConfigRefused, Member, load
from node.init import Plan, make_site
from node.listeners import Listeners
from node.management import Management
from node.offers import offers
from node.tls import Certificates
from protocols.admin.model import Dns, DnsRecord
from protocols.admin.server import start
from protocols.admin.zone import published
from protocols.autoconfig.errors import SAID
from protocols.autoconfig.model import REQUEST_BYTES_MAX, Door, SyntaxRefused
from protocols.autoconfig.parser import OUTLOOK_REQUEST, outlook
from protocols.autoconfig.session import add_routes
from protocols.autoconfig.writer import OUTLOOK_ANSWER
from tests.contracts.admin_site import MemoryAdministration, MemorySite
from tests.live import Live, configure

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
PLACE = "/autodiscover/autodiscover.xml"
MEMBERS = (
    Member("pune", "198.51.100.1", 0),
    Member("mumbai", "mumbai.example.org", 0, ports={"imap": 0, "imaps": 1993}),
    Member("dr", "203.0.113.9", 20000, hostname="DR.example.net"),
)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Config:
    plan = Plan(tmp_path_factory.mktemp("three") / "pune", "pune", "example.org", "", members=MEMBERS)
    config = make_site(plan, NOW)
    return configure(config, 'host = "mumbai.example.org"', 'ports = {imap = 0, imaps = 1993}\nhost = "mumbai.example.org"')


# -- the zone -----------------------------------------------------------------------------------------------------------


def parsed(answer: Dns, kind: str) -> dict[str, list[str]]:
    """The zone's text as a name server reads it: name → data, lowest priority first."""
    zone = dns.zone.from_text(answer.zone, origin=answer.domain, relativize=False, check_origin=False)
    found: dict[str, list[str]] = {}
    for name, _, data in zone.iterate_rdatas(dns.rdatatype.from_text(kind)):
        found.setdefault(str(name).removesuffix(f"{answer.domain}."), []).append(data.to_text())
    return {name: sorted(data, key=lambda text: int(text.split()[0]) if kind != "CNAME" else 0) for name, data in found.items()}


def test_three_sites_in_order_of_preference(three: Config) -> None:
    answer = published("example.org", offers(three))
    assert answer.notes == (
        "other servers know port 25 only: lead it to 20025 at dr.example.net",
    )
    assert parsed(answer, "MX") == {"": ["10 pune.example.org.", "20 mumbai.example.org.", "30 dr.example.net."]}
    # RFC 6186 §3.1 and §3.4, RFC 8314 §5.1.
    assert parsed(answer, "SRV") == {
        "_imaps._tcp.": ["10 0 993 pune.example.org.", "20 0 1993 mumbai.example.org.", "30 0 20993 dr.example.net."],
        "_imap._tcp.": ["10 0 143 pune.example.org.", "30 0 20143 dr.example.net."],
        "_submissions._tcp.": ["10 0 465 pune.example.org.", "20 0 465 mumbai.example.org.", "30 0 20465 dr.example.net."],
        "_submission._tcp.": ["10 0 587 pune.example.org.", "20 0 587 mumbai.example.org.", "30 0 20587 dr.example.net."],
        "_pop3s._tcp.": ["10 0 995 pune.example.org.", "20 0 995 mumbai.example.org.", "30 0 20995 dr.example.net."],
        "_pop3._tcp.": ["10 0 110 pune.example.org.", "20 0 110 mumbai.example.org.", "30 0 20110 dr.example.net."],
        "_autodiscover._tcp.": ["10 0 443 pune.example.org.", "20 0 443 mumbai.example.org.", "30 0 20443 dr.example.net."],
    }
    assert parsed(answer, "CNAME") == {"autoconfig.": ["pune.example.org."], "autodiscover.": ["pune.example.org."]}


def test_the_text_and_the_records_say_the_same(three: Config) -> None:
    answer = published("example.org", offers(three))
    zone = dns.zone.from_text(answer.zone, origin="example.org", relativize=False, check_origin=False)
    told = {
        DnsRecord(str(name), ttl, dns.rdatatype.to_text(data.rdtype), data.to_text())
        for name, ttl, data in zone.iterate_rdatas()
    }
    assert told == set(answer.records) and len(told) == len(answer.records)


def test_every_site_of_the_three_says_the_same(three: Config, tmp_path: Path) -> None:
    """The first one's file is what the others are made like, and what they know of each other."""
    mumbai = make_site(Plan(tmp_path / "mumbai", "mumbai", "example.org", "", like=three.dir), NOW)
    assert mumbai.hostname == "mumbai.example.org"
    mumbai = configure(mumbai, "[ports]", "[ports]\nimap = 0\nimaps = 1993\n#")
    assert published("example.org", offers(mumbai)) == published("example.org", offers(three))


PLAIN = {"smtp": 25, "imaps": 993, "submissions": 465, "http": 80, "https": 443}


@pytest.mark.parametrize(
    ("told", "note"),
    [
        ([Offer("a", "a.example.org", PLAIN), Offer("b", "192.0.2.1", PLAIN)], "site b is left out"),
        ([Offer("a", "a.example.org", PLAIN), Offer("b", "2001:db8::1", PLAIN)], "site b is left out"),
        ([Offer("a", "a.example.org", PLAIN), Offer("b", "a.example.org", PLAIN)], "sites a and b have one name"),
        ([Offer("a", "a.example.org", PLAIN | {"https": 8443})], "lead 443 to 8443 at a.example.org"),
        ([Offer("a", "a.example.org", {"imaps": 993})], "no site takes mail by SMTP"),
        ([Offer("a", "a.example.org", {"imaps": 993})], "no site speaks HTTP"),
    ],
)
def test_what_an_administrator_has_to_see_to(told: Sequence[Offer], note: str) -> None:
    answer = published("example.org", told)
    assert any(note in each for each in answer.notes), answer.notes
    # The note is in the text too, and what is left is still a zone without a line twice.
    assert note in answer.zone and len(set(answer.records)) == len(answer.records)
    assert parsed(answer, "SRV")["_imaps._tcp."] == ["10 0 993 a.example.org."]


def test_a_port_that_is_none_is_refused(three: Config, tmp_path: Path) -> None:
    config = make_site(Plan(tmp_path / "pune", "pune", "example.org", "", members=MEMBERS), NOW)
    for wrong in ("imapz = 1", "imaps = 70000"):
        file = tmp_path / "pune" / "angarium.toml"
        before = file.read_text()
        file.write_text(before.replace('host = "mumbai.example.org"', f'host = "mumbai.example.org"\nports = {{{wrong}}}'))
        with pytest.raises(ConfigRefused, match="backbone.member.ports"):
            load(config.dir)
        file.write_text(before)


# -- mail programs ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def standing(told: Sequence[Offer], tls: ssl.SSLContext | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    site = await MemorySite.with_domain()
    app = aiohttp.web.Application()
    door = Door(MemoryAdministration(site), told, told[0], site.world.now())
    add_routes(app, lambda: door)
    server = await start(app, "127.0.0.1", None if tls else 0, 0 if tls else None, tls)
    base = f"https://127.0.0.1:{server.https_port}" if tls else f"http://127.0.0.1:{server.http_port}"
    try:
        async with aiohttp.ClientSession(base) as http:
            yield http
    finally:
        await server.stop()
        site.credentials.close()


@pytest.fixture
async def http(three: Config) -> AsyncIterator[aiohttp.ClientSession]:
    async with standing(offers(three)) as client:
        yield client


def servers(text: bytes, element: str) -> list[tuple[str, ...]]:
    names = ("hostname", "port", "socketType", "authentication", "username")
    return [
        tuple(server.findtext(name, "") for name in names)
        for server in ElementTree.fromstring(text).iterfind(f"emailProvider/{element}")
    ]


@pytest.mark.parametrize("path", ["/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml"])
async def test_thunderbird_is_told_all_sites(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path, params={"emailaddress": "anna@Example.org"}) as answer:
        assert (answer.status, answer.content_type) == (200, "text/xml")
        text = await answer.read()
    more = ("password-cleartext", "%EMAILADDRESS%")
    assert servers(text, "incomingServer[@type='imap']") == [
        ("pune.example.org", "993", "SSL", *more),
        ("mumbai.example.org", "1993", "SSL", *more),
        ("dr.example.net", "20993", "SSL", *more),
        ("pune.example.org", "143", "STARTTLS", *more),
        ("dr.example.net", "20143", "STARTTLS", *more),
    ]
    assert servers(text, "outgoingServer[@type='smtp']") == [
        (name, str(base + port), kind, *more)
        for port, kind in ((465, "SSL"), (587, "STARTTLS"))
        for name, base in (("pune.example.org", 0), ("mumbai.example.org", 0), ("dr.example.net", 20000))
    ]
    root = ElementTree.fromstring(text)
    assert (root.tag, root.get("version")) == ("clientConfig", "1.1")
    assert root.find("emailProvider[@id='example.org']/domain").text == "example.org"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("host", "address", "status"),
    [
        ("autoconfig.example.org", "", 200),
        ("AUTOCONFIG.Example.ORG:8080", "", 200),
        ("example.org", "", 200),
        ("autoconfig.example.org", "anna@elsewhere.example", 404),
        ("elsewhere.example", "anna@example.org", 200),
        ("autoconfig.elsewhere.example", "", 404),
        ("[::1]:80", "", 404),
        ("", "", 404),
        ("example.org", "no address", 404),
        ("example.org", "a@\0", 404),
        ("example.org", "a" * 400 + "@example.org", 404),
    ],
)
async def test_the_domain_is_that_of_the_address_or_of_the_name(
    http: aiohttp.ClientSession, host: str, address: str, status: int
) -> None:
    query = {"emailaddress": address} if address else {}
    async with http.get("/mail/config-v1.1.xml", params=query, headers={"Host": host}) as answer:
        assert answer.status == status
        ElementTree.fromstring(await answer.read())


def request(address: str = "anna@example.org", schema: str = OUTLOOK_ANSWER, namespace: str = OUTLOOK_REQUEST) -> bytes:
    return (
        f'<?xml version="1.0" encoding="utf-8"?><Autodiscover xmlns="{namespace}"><Request><EMailAddress>{address}'
        f"</EMailAddress><AcceptableResponseSchema>{schema}</AcceptableResponseSchema></Request></Autodiscover>"
    ).encode()


async def told(http: aiohttp.ClientSession, data: bytes, path: str = PLACE) -> tuple[int, ElementTree.Element]:
    async with http.post(path, data=data, headers={"Content-Type": "text/xml"}) as answer:
        assert answer.content_type == "text/xml"
        return answer.status, ElementTree.fromstring(await answer.read())


def code(root: ElementTree.Element) -> str | None:
    namespace = "{http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006}"
    return root.findtext(f"{namespace}Response/{namespace}Error/{namespace}ErrorCode")


@pytest.mark.parametrize("path", [PLACE, "/Autodiscover/Autodiscover.xml", "/AutoDiscover/AUTODISCOVER.XML"])
async def test_outlook_is_told_all_sites(http: aiohttp.ClientSession, path: str) -> None:
    status, root = await told(http, request("Anna@Example.org"), path)
    assert status == 200 and root.tag.endswith("responseschema/2006}Autodiscover")
    space = {"a": OUTLOOK_ANSWER}
    assert root.findtext("a:Response/a:Account/a:AccountType", None, space) == "email"
    assert root.findtext("a:Response/a:Account/a:Action", None, space) == "settings"
    protocols = root.findall("a:Response/a:Account/a:Protocol", space)
    names = ("Type", "Server", "Port", "SSL", "Encryption", "LoginName", "SPA", "DomainRequired", "AuthRequired")
    rows = [tuple(each.findtext(f"a:{name}", "", space) for name in names) for each in protocols]
    more = ("Anna@Example.org", "off", "off", "on")
    assert rows[:11] == [
        ("IMAP", "pune.example.org", "993", "on", "SSL", *more),
        ("IMAP", "mumbai.example.org", "1993", "on", "SSL", *more),
        ("IMAP", "dr.example.net", "20993", "on", "SSL", *more),
        ("IMAP", "pune.example.org", "143", "on", "TLS", *more),
        ("IMAP", "dr.example.net", "20143", "on", "TLS", *more),
        ("POP3", "pune.example.org", "995", "on", "SSL", *more),
        ("POP3", "mumbai.example.org", "995", "on", "SSL", *more),
        ("POP3", "dr.example.net", "20995", "on", "SSL", *more),
        ("POP3", "pune.example.org", "110", "on", "TLS", *more),
        ("POP3", "mumbai.example.org", "110", "on", "TLS", *more),
        ("POP3", "dr.example.net", "20110", "on", "TLS", *more),
    ]
    assert [row[:3] + row[4:5] for row in rows[11:]] == [
        ("SMTP", name, str(base + port), kind)
        for port, kind in ((465, "SSL"), (587, "TLS"))
        for name, base in (("pune.example.org", 0), ("mumbai.example.org", 0), ("dr.example.net", 20000))
    ]


async def test_nothing_is_learnt_of_who_is_there(http: aiohttp.ClientSession) -> None:
    """MemorySite has no account at all, so that every name is nobody's; all hear the same but for the name they sent."""
    heard: set[object] = set()
    for name in ("anna", "nobody", "postmaster", "a&amp;b", "&lt;x&gt;"):
        _, root = await told(http, request(f"{name}@example.org"))
        sent = ElementTree.fromstring(f"<x>{name}@example.org</x>").text
        names = {each.text for each in root.iter(f"{{{OUTLOOK_ANSWER}}}LoginName")}
        assert names == {sent}
        for each in root.iter(f"{{{OUTLOOK_ANSWER}}}LoginName"):
            each.text = ""
        heard.add(ElementTree.tostring(root))
        async with http.get("/mail/config-v1.1.xml", params={"emailaddress": f"{sent}"}) as answer:
            heard.add((answer.status, await answer.read()))
    assert len(heard) == 2


BOMB = b'<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>'
OUTSIDE = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
HOSTILE = {
    "entities": BOMB + request("&c;@example.org").partition(b"?>")[2],
    "a file": OUTSIDE + request("&x;@example.org").partition(b"?>")[2],
    "an empty document type": b"<!DOCTYPE Autodiscover>" + request().partition(b"?>")[2],
    "an entity nobody defined": request("&y;@example.org"),
    "too big": request() + b" " * REQUEST_BYTES_MAX,
    "too deep": b'<Autodiscover xmlns="%s">' % OUTLOOK_REQUEST.encode() + b"<a>" * 1000,
    "a long address": request("a" * 1000 + "@example.org"),
    "an address twice": request().replace(b"<Accept", b"<EMailAddress>b@example.org</EMailAddress><Accept", 1),
    "another root": request(namespace="urn:other"),
    "nothing": b"",
    "zeros": b"\0" * 100,
    "another encoding": request().replace(b"utf-8", b"utf-7"),
    "no address": request(""),
    "cut": request()[:200],
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_xml_is_refused(http: aiohttp.ClientSession, data: bytes) -> None:
    if data == HOSTILE["another encoding"]:  # what it says of itself is not believed: it is read as UTF-8
        assert outlook(data).address == "anna@example.org"
        return
    status, root = await told(http, data)
    assert (status, code(root)) == (400, "600")
    assert "root:" not in ElementTree.tostring(root, encoding="unicode")


@given(st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda text: request(text))))
@example(b'<?xml version="1.0" encoding="nonsense"?><a/>')
@example(b"\xff\xfe<\0a\0/\0>\0")
def test_any_bytes_raise_nothing_else(data: bytes) -> None:
    try:
        asked = outlook(data)
    except SyntaxRefused:
        return
    assert asked.address and asked.schema


async def test_outlook_elsewhere_and_in_other_schemas(http: aiohttp.ClientSession) -> None:
    status, root = await told(http, request("anna@elsewhere.example"))
    assert (status, code(root)) == (404, "500")
    mobile = "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/responseschema/2006"
    status, root = await told(http, request(schema=mobile))
    assert (status, code(root)) == (200, "601")


async def test_outlook_by_get_is_led_to_tls_by_our_own_name(http: aiohttp.ClientSession) -> None:
    async with http.get("/AutoDiscover/autodiscover.xml", allow_redirects=False, headers={"Host": "evil.example"}) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "https://pune.example.org:443/autodiscover/autodiscover.xml")
    async with standing([Offer("a", "a.example.org", {"imaps": 993})]) as alone, alone.get(PLACE) as answer:
        assert (answer.status, code(ElementTree.fromstring(await answer.read()))) == (200, "600")


async def test_outlook_by_get_over_tls_is_told_what_to_do(three: Config) -> None:
    context = ssl.create_default_context(cafile=three.tls.ca)
    server = Certificates(three.tls.certificate, three.tls.key).context()
    async with standing(offers(three), server) as secure, secure.get(PLACE, ssl=context) as answer:
        assert (answer.status, code(ElementTree.fromstring(await answer.read()))) == (200, "600")


def test_every_refusal_has_an_answer() -> None:
    assert set(SAID) == set(Reason)
    assert SAID[Reason.UNAVAILABLE][0] == 503 and SAID[Reason.NO_SUCH_DOMAIN][0] == 404


# -- the real site ------------------------------------------------------------------------------------------------------


async def test_the_real_site(live_site: Live) -> None:
    """Its own ports, its own directory, its own token."""
    person = await live_site.person()
    domain = person.address.partition("@")[2]
    config = live_site.parts.config
    certificates = Certificates(config.tls.certificate, config.tls.key)
    listeners = Listeners(live_site.parts, certificates, None, Management(live_site.parts))
    await listeners.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{config.ports.http}") as http:
            async with http.get("/mail/config-v1.1.xml", headers={"Host": f"autoconfig.{domain}"}) as answer:
                found = servers(await answer.read(), "incomingServer")
            assert [row[:2] for row in found] == [
                ("mail.example.org", str(config.ports.imaps)),
                ("mail.example.org", str(config.ports.imap)),
                ("mail.example.org", str(config.ports.pop3s)),
                ("mail.example.org", str(config.ports.pop3)),
            ]
            status, root = await told(http, request(person.address))
            assert (status, code(root)) == (200, None)
            status, root = await told(http, request("anna@elsewhere.example"))
            assert (status, code(root)) == (404, "500")
            path = f"/api/v1/domains/{domain}/dns"
            async with http.get(path) as answer:
                assert answer.status == 401
            token = {"Authorization": f"Bearer {config.api_token}"}
            async with http.get(path, headers=token) as answer:
                said: Any = msgspec.json.decode(await answer.read(), type=Dns)
            assert parsed(said, "SRV")["_imaps._tcp."] == [f"10 0 {config.ports.imaps} mail.example.org."]
            async with http.get("/api/v1/domains/elsewhere.example/dns", headers=token) as answer:
                assert answer.status == 404
    finally:
        await listeners.stop()
