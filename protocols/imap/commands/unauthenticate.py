"""UNAUTHENTICATE (RFC 8437): the same connection, and nobody signed in on it."""

from protocols.imap import writer
from protocols.imap.model import Reply, Request
from protocols.imap.state import Talk

OFF = Reply("BAD", "That is not offered here.")


def offered(talk: Talk) -> bool:
    """RFC 8437 §8: never at the far end of a session that is carried, where the next to sign in would be whom the client likes."""
    return talk.settings.unauthenticate and not talk.introducer


async def unauthenticate(talk: Talk, request: Request) -> Reply | None:
    if not offered(talk):
        return OFF
    await talk.deselect()
    await talk.notice(None)
    talk.sign_out()
    talk.put(writer.tagged(request.tag, Reply("OK", "Who is next?")))
    await talk.flush()
    talk.stop_deflating()
    return None
