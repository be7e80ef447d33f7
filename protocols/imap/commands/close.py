"""CLOSE (RFC 9051 §6.4.1) and UNSELECT (§6.4.2, RFC 3691)."""

from cluster.domain.mailbox import rights
from cluster.domain.mailbox.commands import Expunge
from cluster.domain.refusal import Reason, Refusal
from protocols.imap.errors import refused
from protocols.imap.model import Reply, Request
from protocols.imap.state import Talk
from protocols.port import Done


async def close(talk: Talk, request: Request) -> Reply:
    """Expunges without telling, if the mailbox was selected for writing."""
    view = talk.mailbox()
    code = ""
    # RFC 4314 §4 CLOSE: without the right to nothing is expunged, and it is closed all the same
    if view.writable and view.may(rights.EXPUNGE) and len(view):
        done = await talk.site.execute(talk.actor, Expunge(view.account, view.mailbox, view.exact([(0, len(view))])))
        if isinstance(done, Refusal) and done.reason is not Reason.NOT_PERMITTED:
            return refused(done)
        if talk.resync and isinstance(done, Done) and done.position:
            code = f"HIGHESTMODSEQ {done.position}"  # RFC 7162 §3.2.8
    await talk.deselect()
    return Reply("OK", "Closed.", code)


async def unselect(talk: Talk, request: Request) -> Reply:
    await talk.deselect()
    return Reply("OK", "Closed, and nothing expunged.")
