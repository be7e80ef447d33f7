"""Who may come in: over TLS or from a trusted network, with the site's token or an administrator's own password; to one's own
settings with one's own password, or a token of the issuer that the site trusts."""

import base64
import binascii
import hashlib
import hmac
import ipaddress
from typing import NamedTuple

import msgspec
from aiohttp import web

from cluster.domain.actor import Actor
from cluster.domain.refusal import Refusal
from protocols.admin.door import Directory
from protocols.admin.errors import Fault, of_fault, of_refusal
from protocols.admin.model import Problem
from protocols.port import Account

CREDENTIALS_CHARS_MAX = 4096

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Gate(NamedTuple):
    """`plaintext_networks`: where passwords and tokens may travel without TLS, beside the machine itself."""

    token: str
    plaintext_networks: tuple[Network, ...]
    site: str
    node: str


def trusted(gate: Gate, request: web.Request) -> bool:
    """Whether what is said cannot be overheard, as far as the operator says."""
    if request.secure:
        return True
    try:
        peer = ipaddress.ip_address((request.remote or "").partition("%")[0])
    except ValueError:
        return False
    if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped:
        peer = peer.ipv4_mapped
    return peer.is_loopback or any(peer in network for network in gate.plaintext_networks)


async def admit(
    gate: Gate, site: Directory, request: web.Request, session: str, *, of_a_person: bool = False
) -> Actor | Problem:
    """`of_a_person`: whoever has an account, and nobody else."""
    if not trusted(gate, request):
        return of_fault(Fault.INSECURE, "use https: this network may not send a token in the clear")
    header = request.headers.get("Authorization", "")
    scheme, _, credentials = header.partition(" ")
    credentials = credentials.strip()
    actor = Actor(
        name="token",
        administrator=True,
        site=gate.site,
        node=gate.node,
        protocol="admin",
        address=request.remote or "",
        session=session,
    )
    if not credentials or len(credentials) > CREDENTIALS_CHARS_MAX:
        return of_fault(Fault.UNAUTHORIZED, "send `Authorization: Bearer` with the site's token (api_token in secrets.toml)")
    scheme = scheme.lower()  # RFC 9110 §11.1: schemes are case-insensitive
    if of_a_person and scheme == "bearer":
        if gate.token and _same(credentials, gate.token):
            return of_fault(Fault.FORBIDDEN, "the site's token is nobody's own: use /accounts/{address}")
        account = await site.sign_in_by_token("", credentials, msgspec.structs.replace(actor, name="", administrator=False))
        return of_refusal(account) if isinstance(account, Refusal) else _as(actor, account)
    match scheme:
        case "bearer":
            if gate.token and _same(credentials, gate.token):
                return actor
            return of_fault(Fault.UNAUTHORIZED, "this is not the site's token (api_token in secrets.toml)")
        case "basic":
            return await _by_password(site, actor, credentials, of_a_person)
        case _:
            return of_fault(Fault.UNAUTHORIZED, "only Bearer and Basic are understood here")


async def _by_password(site: Directory, actor: Actor, credentials: str, of_a_person: bool) -> Actor | Problem:
    """RFC 7617 §2: user-id ":" password in Base64; the charset is UTF-8."""
    try:
        name, colon, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        name = colon = password = ""
    if not colon or not name:
        return of_fault(Fault.UNAUTHORIZED, "not a name and a password in Base64")
    stranger = Actor(name, site=actor.site, node=actor.node, protocol="admin", address=actor.address, session=actor.session)
    account = await site.sign_in(name, password, stranger)
    if isinstance(account, Refusal):
        return of_refusal(account)
    if not account.administrator and not of_a_person:
        return of_fault(Fault.FORBIDDEN, f"{account.address} is not an administrator")
    return _as(actor, account)


def _as(actor: Actor, account: Account) -> Actor:
    return msgspec.structs.replace(
        actor, name=account.address, account=account.id, administrator=account.administrator
    )


def _same(given: str, wanted: str) -> bool:
    """In time that tells nothing, not even the length."""
    return hmac.compare_digest(*(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (given, wanted)))
