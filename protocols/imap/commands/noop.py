"""NOOP (RFC 9051 §6.1.2) and CHECK (RFC 3501 §6.4.1): what is new is told after every command, so also after these."""

from protocols.imap.model import Reply, Request
from protocols.imap.state import Talk


async def noop(talk: Talk, request: Request) -> Reply:
    return Reply("OK", "Nothing done, as asked.")


async def check(talk: Talk, request: Request) -> Reply:
    # RFC 3501 §6.4.1: a checkpoint; here every change was durable before it was acknowledged.
    return Reply("OK", "All is safe.")
