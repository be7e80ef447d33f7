"""IDLE (RFC 9051 §6.3.13, RFC 2177): what others do is told at once, until the client says DONE."""

from protocols.imap.model import Line, NeedMore, Reply, Request
from protocols.imap.state import Talk
from protocols.imap.waiting import watched


async def idle(talk: Talk, request: Request) -> Reply:
    talk.parser.expect_line()
    talk.say("+ idling")
    if talk.view is None and talk.notices is None:
        line = await talk.parsed()
    else:
        line = await watched(talk, idle=True)
    if isinstance(line, NeedMore):
        return Reply("OK", "The mailbox is gone.")
    if isinstance(line, Line) and line.data.upper() == b"DONE":
        return Reply("OK", "Awake.")
    return Reply("BAD", "IDLE ends with DONE.")
