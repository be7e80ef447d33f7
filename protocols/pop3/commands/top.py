"""TOP (RFC 1939 §7)."""

from protocols.pop3.commands.numbers import GONE, NO_SUCH_MESSAGE, numbers
from protocols.pop3.commands.retr import send
from protocols.pop3.extract import Beginning
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk


async def top(talk: Talk, argument: bytes) -> Reply | None:
    number, lines = numbers(argument, 2)
    drop = talk.maildrop()
    if not drop.has(number):
        return NO_SUCH_MESSAGE
    row = await drop.message(talk.site, number)
    if row is None:
        return GONE
    await send(talk, row, Reply(True, "This is how it begins."), Beginning(lines))
    return None
