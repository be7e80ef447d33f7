"""NOOP (RFC 1939 §5)."""

from protocols.pop3.commands.numbers import nothing
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk


async def noop(talk: Talk, argument: bytes) -> Reply:
    nothing(argument)
    return Reply(True, "Here.")
