"""Whose mailbox a name means, and whether who says it may do there what it asks for (RFC 4314 §4)."""

from cluster.domain.mailbox import rights
from cluster.domain.refusal import Reason, Refusal
from protocols.imap.state import Talk
from protocols.port import Named

NOT_PERMITTED = Refusal(Reason.NOT_PERMITTED, "Its owner does not let you do this.")
NO_SUCH_MAILBOX = Refusal(Reason.NO_SUCH_MAILBOX, "There is no such mailbox.")


async def named(talk: Talk, name: str, needed: str = "") -> Named | Refusal:
    """`needed`: rights that the command needs there, all of them. One's own mailbox need not be there."""
    found = await talk.site.named(talk.who(), name)
    if isinstance(found, Refusal) or found.may(needed):
        return found
    # RFC 4314 §6: what one may not even see is as what is not there
    return NOT_PERMITTED if rights.LOOKUP in found.rights else NO_SUCH_MAILBOX
