"""EXPUNGE (RFC 9051 §6.4.3) and UID EXPUNGE (§6.4.9, RFC 4315 §2.1)."""

from cluster.domain.mailbox import commands
from cluster.domain.refusal import Refusal
from protocols.imap.errors import refused
from protocols.imap.model import Expunge, Reply, Request
from protocols.imap.state import Talk

READ_ONLY = Reply("NO", "The mailbox was opened for reading only.", "READ-ONLY")


async def expunge(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Expunge)
    view = talk.mailbox()
    if not view.writable:
        return READ_ONLY
    # RFC 9051 §6.4.3: what this session has not been told of yet is nothing that its user wanted gone
    spans = [(0, len(view))] if given.messages is None else view.spans(given.messages, uid=True)
    code = ""
    if spans and len(view):
        done = await talk.site.execute(talk.actor, commands.Expunge(view.account, view.mailbox, view.exact(spans)))
        if isinstance(done, Refusal):
            return refused(done)
        await talk.poll(expunges=True)
        if talk.condstore and done.position:
            code = f"HIGHESTMODSEQ {view.modseq}"  # RFC 7162 §3.2.7
    return Reply("OK", "Expunged.", code)
