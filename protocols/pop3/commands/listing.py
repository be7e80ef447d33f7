"""LIST (RFC 1939 §5)."""

from protocols.pop3.commands.numbers import message_number
from protocols.pop3.commands.several import several
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk


async def listing(talk: Talk, argument: bytes) -> Reply | None:
    drop = talk.maildrop()
    if argument:
        number = message_number(drop, argument)
        if isinstance(number, Reply):
            return number
        await drop.message(talk.site, number)
        return Reply(True, f"{number} {drop.size(number)}")
    await drop.know_sizes(talk.site)
    talk.say(Reply(True, "Here they are."))
    await several(talk, (f"{number} {drop.size(number)}" for number in drop.numbers()))
    return None
