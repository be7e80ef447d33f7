"""ID (RFC 2971). What the client says of itself changes nothing."""

from importlib import metadata

from protocols.imap.model import Reply, Request
from protocols.imap.state import Talk

NAME = "Angarium"


def version() -> str:
    try:
        return metadata.version("angarium")
    except metadata.PackageNotFoundError:
        return "0"


async def identify(talk: Talk, request: Request) -> Reply:
    talk.say(f'ID ("name" "{NAME}" "version" "{version()}")')
    return Reply("OK", "Pleased to meet you.")
