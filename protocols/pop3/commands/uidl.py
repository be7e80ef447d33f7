"""UIDL (RFC 1939 §7)."""

from protocols.pop3.commands.numbers import message_number
from protocols.pop3.commands.several import several
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk


async def uidl(talk: Talk, argument: bytes) -> Reply | None:
    drop = talk.maildrop()
    if argument:
        number = message_number(drop, argument)
        return number if isinstance(number, Reply) else Reply(True, f"{number} {drop.unique_id(number)}")
    talk.say(Reply(True, "Here they are."))
    await several(talk, (f"{number} {drop.unique_id(number)}" for number in drop.numbers()))
    return None
