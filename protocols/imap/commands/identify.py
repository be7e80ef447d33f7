"""ID (RFC 2971). What a client says of itself changes nothing; a site says whose session it carries, before it signs in."""

import ipaddress
import re
from importlib import metadata

import structlog

from protocols.imap.model import Id, Reply, Request
from protocols.imap.state import Talk

NAME = "Angarium"

_SESSION = re.compile("[0-9A-Za-z-]{1,64}")


def version() -> str:
    try:
        return metadata.version("angarium")
    except metadata.PackageNotFoundError:
        return "0"


async def identify(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Id)
    if talk.introducer and talk.account is None:
        _told(talk, {field.lower(): value for field, value in given.pairs})
    talk.say(f'ID ("name" "{NAME}" "version" "{version()}")')
    return Reply("OK", "Pleased to meet you.")


def _told(talk: Talk, fields: dict[bytes, bytes]) -> None:
    """From where the client came, and what its session is called there: by the names that proxies use."""
    session = fields.get(b"x-session-id", b"").decode("ascii", "replace")
    if _SESSION.fullmatch(session):
        talk.session = session
    try:
        talk.peer = str(ipaddress.ip_address(fields.get(b"x-originating-ip", b"").decode("ascii", "replace")))
    except ValueError:
        return
    structlog.contextvars.bind_contextvars(session=talk.session, peer=talk.peer)
