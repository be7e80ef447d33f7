"""autodiscover.xml: asked by Outlook and by telephones."""

from http import HTTPStatus

from cluster.domain.refusal import Refusal
from protocols.autoconfig import parser, writer
from protocols.autoconfig.errors import SAID, OutlookError
from protocols.autoconfig.model import Answer, Door, SyntaxRefused


async def settings(door: Door, data: bytes) -> Answer:
    try:
        request = parser.outlook(data)
    except SyntaxRefused as error:
        return _error(door, HTTPStatus.BAD_REQUEST, OutlookError.INVALID_REQUEST, f"Invalid request: {error}")
    if request.schema != writer.OUTLOOK_ANSWER:
        # An answer of the protocol, not a failure of this place: the program asks the same place for what it can read.
        return _error(door, HTTPStatus.OK, OutlookError.NO_SUCH_SCHEMA, "No provider for this response schema")
    domain = await door.domain(parser.domain_of(request.address))
    if isinstance(domain, Refusal):
        return _error(door, *SAID[domain.reason], domain.text or domain.reason.value)
    return Answer(HTTPStatus.OK, writer.outlook(request.address, door.offers))


def looked_at(door: Door) -> Answer:
    """Asked by GET, as people do: it is a place of the protocol, and nothing was asked."""
    return _error(door, HTTPStatus.OK, OutlookError.INVALID_REQUEST, "Invalid request: send an Autodiscover document by POST")


def elsewhere(door: Door) -> str | None:
    """Where a GET in the clear is led: Outlook tries it to find the place that speaks TLS ([MS-OXDSCLI]). Our own
    name, whatever the program called us. None where we do not speak it."""
    port, host = door.home.port("https"), door.home.hostname
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"https://{authority}/autodiscover/autodiscover.xml" if port else None


def _error(door: Door, status: HTTPStatus, code: OutlookError, message: str) -> Answer:
    return Answer(status, writer.outlook_error(code, message, door.now))
