"""LOGOUT (RFC 9051 §6.1.3)."""

from protocols.imap.model import Reply, Request
from protocols.imap.state import Talk


async def logout(talk: Talk, request: Request) -> Reply:
    await talk.deselect()
    talk.say("BYE Until next time.")
    talk.closing = True
    return Reply("OK", "Logged out.")
