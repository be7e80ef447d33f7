"""RSET (RFC 1939 §5)."""

from protocols.pop3.commands.numbers import nothing
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk


async def rset(talk: Talk, argument: bytes) -> Reply:
    nothing(argument)
    talk.maildrop().deleted.clear()
    return Reply(True, "Nothing is marked as deleted.")
