"""XCLIENT, at the door for sites only: whose session it is that another site carries to here, for the audit trail. As mail servers say
it to each other; no standard has it.
"""

import re

import structlog

from protocols.pop3.model import Reply
from protocols.pop3.state import Talk

_TOLD = re.compile(rb"ADDR=([0-9A-Za-z.:%_-]{1,64}) SESSION=([0-9a-f]{1,32})")


async def xclient(talk: Talk, argument: bytes) -> Reply:
    told = _TOLD.fullmatch(argument)
    if not talk.introducer or told is None:
        return Reply(False, "There is no such command.")
    talk.peer, talk.session = told[1].decode("ascii"), told[2].decode("ascii")
    structlog.contextvars.bind_contextvars(session=talk.session, peer=talk.peer)
    return Reply(True, "So it is.")
