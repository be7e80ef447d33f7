"""Joins an organisation: the new machine's side of the join door. Makes this site's own keys, which never leave it, has them
certified by the first site, and writes its folder. Nothing is believed before the door has shown that it is the one that
the token names.
"""

import asyncio
import datetime
import ssl
from importlib.metadata import version
from typing import Any

import aiohttp
import msgspec

from cluster.domain.directory import addresses
from node import certs, nkeys
from node.backbone import ROSTER_NAME, ConfigRefused
from node.config import Config, load
from node.init import Plan, configuration_text, keyed_secrets, refuse_unsound, replace, write
from node.tokens import JoinToken
from protocols.admin.joining import Hello, Join, Joined

ANSWER_S_MAX = 60.0
REACH_S_MAX = 10.0
CLOCKS_APART_S_MAX = 300.0
JOIN_PATH = "/api/v1/cluster/join"


async def enter(plan: Plan, token: JoinToken, now: datetime.datetime) -> Config:
    """Writes the folder and gives its configuration. Raises ConfigRefused; the token is spent only if the first site let
    this one in."""
    refuse_unsound(msgspec.structs.replace(plan, domain="example.org", hostname="example.org"), plan.dir.absolute())
    hello = await _known(token)
    await _reached(hello.host, hello.leaf_port, "the first site's links")
    host = addresses.canonical_domain(plan.host) or ""
    plan = msgspec.structs.replace(
        plan, domain=hello.domain, hostname=plan.hostname or host or f"{plan.site}.{hello.domain}"
    )
    link_request, link_key = certs.make_request(plan.site)
    server_request, server_key = certs.make_request(plan.hostname)
    seed, leaf_key = nkeys.make()
    ask = Join(
        token.id, token.secret, plan.site, plan.host, plan.port_base, plan.hostname, link_request.decode(),
        server_request.decode(), leaf_key, version("angarium"), now.timestamp(), "witness" if plan.witness else "site",
    )  # fmt: skip
    joined = await _join(token, hello, ask, now)
    home = plan.dir.absolute()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (home / "tls").mkdir(mode=0o700)
    for name, content, mode in (
        ("tls/ca.pem", joined.ca.encode(), 0o644),
        ("tls/link.pem", joined.link_certificate.encode(), 0o644),
        ("tls/link.key", link_key, 0o600),
        ("tls/server.pem", joined.server_certificate.encode(), 0o644),
        ("tls/server.key", server_key, 0o600),
        ("secrets.toml", keyed_secrets(joined.hmac_key, seed).encode(), 0o600),
        (ROSTER_NAME, msgspec.json.format(msgspec.json.encode(joined.roster)), 0o600),
        ("angarium.toml", configuration_text(plan).encode(), 0o600),
    ):
        await asyncio.to_thread(write, home / name, content, mode)
    return load(home)


async def renew(config: Config, token: JoinToken, now: datetime.datetime) -> None:
    """New certificates for a site that is a member: the key of its links stays, since the others know it by that. Raises
    ConfigRefused."""
    backbone, tls = config.backbone, config.tls
    if backbone is None or backbone.roster is None:
        raise ConfigRefused(f"{config.dir} is not of a site that joined others: renew without --token")
    own = backbone.of(config.site)
    hello = await _known(token)
    try:
        link_request, _ = certs.make_request(config.site, tls.link_key.read_bytes())
        server_request, server_key = certs.make_request(config.hostname)
    except (OSError, ValueError) as error:
        raise ConfigRefused(f"{tls.link_key}: {error}") from None
    ask = Join(
        token.id, token.secret, config.site, own.host, own.port_base, config.hostname, link_request.decode(),
        server_request.decode(), own.leaf_key, version("angarium"), now.timestamp(), own.role, renew=True,
    )  # fmt: skip
    joined = await _join(token, hello, ask, now)
    replace(tls.link_certificate, joined.link_certificate.encode(), 0o644)
    replace(tls.key, server_key, 0o600)
    replace(tls.certificate, joined.server_certificate.encode(), 0o644)


async def _known(token: JoinToken) -> Hello:
    """The door's greeting, if it is the one that the token names. Raises ConfigRefused."""
    door = f"{token.host}:{token.port}"
    hello = await _hello(token, door)
    if certs.fingerprint(hello.ca.encode()) != token.ca:
        raise ConfigRefused(
            f"the site at {door} is of another organisation than the token: its authority is "
            f"{certs.fingerprint(hello.ca.encode())[:16]}…, the token's {token.ca[:16]}…: is the address right?"
        )
    return hello


async def _hello(token: JoinToken, door: str) -> Hello:
    """Whoever answers there may be anybody still."""
    untrusting = ssl.create_default_context()
    untrusting.check_hostname = False
    untrusting.verify_mode = ssl.CERT_NONE
    try:
        return msgspec.json.decode(await _asked(token, untrusting, "GET", None), type=Hello)
    except aiohttp.ClientConnectorError as error:
        raise ConfigRefused(
            f"nothing answers at {door}: {error.strerror or error}: is the first site running, and this port open to here?"
        ) from None
    except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as error:
        raise ConfigRefused(f"what answers at {door} is no join door: {str(error) or type(error).__name__}") from None


async def _join(token: JoinToken, hello: Hello, ask: Join, now: datetime.datetime) -> Joined:
    trusting = ssl.create_default_context(cadata=hello.ca)
    trusting.check_hostname = False  # It is known by its authority, whatever name it is reached by.
    try:
        return msgspec.json.decode(await _asked(token, trusting, "POST", msgspec.to_builtins(ask)), type=Joined)
    except aiohttp.ClientConnectorCertificateError as error:
        there = datetime.datetime.fromtimestamp(hello.clock, datetime.UTC)
        if abs(hello.clock - now.timestamp()) > CLOCKS_APART_S_MAX:
            raise ConfigRefused(
                f"the clocks differ: there it is {there:%Y-%m-%d %H:%M:%S} UTC, here {now:%Y-%m-%d %H:%M:%S}; by this one the "
                "first site's certificate is not valid: set the wrong one"
            ) from None
        said = error.certificate_error
        raise ConfigRefused(
            f"the certificate of {token.host}:{token.port} is not by the organisation's own authority, or not valid: {said}: "
            "there run `angarium doctor`"
        ) from None
    except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as error:
        raise ConfigRefused(
            f"the first site stopped answering: {str(error) or type(error).__name__}: look into its log whether this site "
            "joined; if it did, make another token for another name"
        ) from None


async def _asked(token: JoinToken, tls: ssl.SSLContext, method: str, body: Any) -> bytes:
    host = f"[{token.host}]" if ":" in token.host else token.host
    timeout = aiohttp.ClientTimeout(total=ANSWER_S_MAX, connect=REACH_S_MAX)
    connector = aiohttp.TCPConnector(ssl=tls)
    async with aiohttp.ClientSession(f"https://{host}:{token.port}", timeout=timeout, connector=connector) as http:
        async with http.request(method, JOIN_PATH, json=body) as answer:
            text = await answer.read()
            if answer.status >= 400:
                raise ConfigRefused(_detail(text) or f"the first site answered {answer.status} {answer.reason}")
            return text


def _detail(text: bytes) -> str:
    """RFC 9457 §3.1.4."""
    try:
        return str(msgspec.json.decode(text)["detail"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        return ""


async def _reached(host: str, port: int, what: str) -> None:
    try:
        async with asyncio.timeout(REACH_S_MAX):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        said = str(error) or "no answer"
        raise ConfigRefused(f"{host}:{port} ({what}) cannot be reached from here: {said}: open it in the firewall") from None
    writer.close()
    await writer.wait_closed()
