"""STAT (RFC 1939 §5): messages marked as deleted are not counted."""

from protocols.pop3.commands.numbers import nothing
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk


async def stat(talk: Talk, argument: bytes) -> Reply:
    nothing(argument)
    drop = talk.maildrop()
    await drop.know_sizes(talk.site)
    return Reply(True, f"{len(drop.uids) - len(drop.deleted)} {sum(map(drop.size, drop.numbers()))}")
