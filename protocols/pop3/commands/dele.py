"""DELE (RFC 1939 §5): only marked; it goes with QUIT."""

from protocols.pop3.commands.numbers import message_number
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk


async def dele(talk: Talk, argument: bytes) -> Reply:
    number = message_number(talk.maildrop(), argument)
    if isinstance(number, Reply):
        return number
    talk.maildrop().deleted.add(number)
    return Reply(True, "It will be deleted by QUIT.")
