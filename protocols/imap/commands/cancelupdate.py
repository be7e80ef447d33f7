"""CANCELUPDATE (RFC 5267 §4.3.5)."""

from protocols.imap.model import CancelUpdate, Reply, Request
from protocols.imap.state import Talk


async def cancel_update(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, CancelUpdate)
    if not all(tag in talk.contexts for tag in given.tags):
        return Reply("BAD", "No such search goes on.")
    for tag in given.tags:
        talk.contexts.pop(tag, None)
    return Reply("OK", "No more of it.")
