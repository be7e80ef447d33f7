"""CLOSE (RFC 9051 §6.4.1) and UNSELECT (§6.4.2, RFC 3691)."""

from cluster.domain.mailbox.commands import Expunge
from cluster.domain.refusal import Refusal
from protocols.imap.errors import refused
from protocols.imap.model import Reply, Request
from protocols.imap.state import Talk


async def close(talk: Talk, request: Request) -> Reply:
    """Expunges without telling, if the mailbox was selected for writing."""
    view = talk.mailbox()
    code = ""
    if view.writable and len(view):
        done = await talk.site.execute(talk.actor, Expunge(talk.who(), view.mailbox, view.exact([(0, len(view))])))
        if isinstance(done, Refusal):
            return refused(done)
        if talk.resync and done.position:
            code = f"HIGHESTMODSEQ {done.position}"  # RFC 7162 §3.2.8
    await talk.deselect()
    return Reply("OK", "Closed.", code)


async def unselect(talk: Talk, request: Request) -> Reply:
    await talk.deselect()
    return Reply("OK", "Closed, and nothing expunged.")
