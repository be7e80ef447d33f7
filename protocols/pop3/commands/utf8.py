"""UTF8 (RFC 6856 §2.1)."""

from protocols.pop3.commands.numbers import nothing
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk


async def utf8(talk: Talk, argument: bytes) -> Reply:
    nothing(argument)
    # There is nothing to remember: messages go out byte for byte, names and passwords are read as UTF-8, with it or without.
    return Reply(True, "UTF-8 it is.")
