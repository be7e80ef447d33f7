"""QUIT (RFC 1939 §5 and §6): the only word by which anything is deleted."""

import structlog

from cluster.domain.mailbox.commands import Expunge
from cluster.domain.refusal import Reason, Refusal
from protocols.pop3.commands.numbers import nothing
from protocols.pop3.errors import TEMPORARY
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk

# RFC 1939 §6: some or all of them are still there
NOT_DELETED = Reply(False, "The messages could not be deleted: try again.", TEMPORARY)
GOODBYE = Reply(True, "Goodbye.")

log = structlog.get_logger("pop3")


async def quit(talk: Talk, argument: bytes) -> Reply:
    nothing(argument)
    # RFC 1939 §6: whatever comes of it, the connection ends
    talk.closing = True
    drop = talk.drop
    if drop is None or not drop.deleted:
        return GOODBYE
    # One command, one fact: all of them, or none. What others have expunged meanwhile is nothing to complain of.
    command = Expunge(drop.account, drop.mailbox, drop.deletions(), only_deleted=False)
    done = await talk.site.execute(talk.actor, command)
    if isinstance(done, Refusal) and done.reason is not Reason.NOT_SHOWN_YET:
        log.warning("messages were not deleted", why=done.reason.value, count=len(drop.deleted))
        return NOT_DELETED
    return GOODBYE
