"""COPY (RFC 9051 §6.4.7) and MOVE (§6.4.8, RFC 6851), with COPYUID (RFC 4315 §3)."""

from cluster.domain.mailbox import rights
from cluster.domain.mailbox.commands import CopyMessages, RestoreMessages
from cluster.domain.mailbox.sharing import KEPT
from cluster.domain.refusal import Refusal
from protocols.imap import writer
from protocols.imap.across import bring
from protocols.imap.commands.expunge import READ_ONLY
from protocols.imap.commands.quota import warn
from protocols.imap.errors import refused
from protocols.imap.model import Copy, Reply, Request
from protocols.imap.naming import NOT_PERMITTED, named
from protocols.imap.state import Talk


async def copy(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Copy)
    view = talk.mailbox()
    moving = request.word.endswith("MOVE")
    restoring = view.mailbox < 0  # out of "Expunged/": it is restored, by COPY as by MOVE
    if moving and not view.writable and not restoring:
        return READ_ONLY
    spans = view.spans(given.messages, given.uid)
    if not spans:
        # RFC 9051 §6.4.9: a UID that is not there is passed over
        return Reply("OK", "No such messages.")
    if moving and not (view.may(rights.DELETE_MESSAGES) and view.may(rights.EXPUNGE)):
        return refused(NOT_PERMITTED)  # RFC 6851 §4.1: as COPY, STORE \Deleted and EXPUNGE together
    target = await named(talk, given.mailbox, rights.INSERT)
    if isinstance(target, Refusal):
        return refused(target, target=True)
    if restoring:
        if target.account != view.account:
            return refused(NOT_PERMITTED)  # one's own mail comes back to oneself first
        command: RestoreMessages | CopyMessages = RestoreMessages(view.account, -view.mailbox, view.exact(spans), target.name)
        done = await talk.site.execute(talk.actor, command)
    elif target.account == view.account and target.may(KEPT):
        command = CopyMessages(view.account, view.mailbox, target.name, view.exact(spans), moved=moving)
        done = await talk.site.execute(talk.actor, command)
    else:
        done = await bring(talk, spans, target, moving=moving)
    if isinstance(done, Refusal):
        return refused(done, target=True)
    code = ""
    if done.uids:
        code = f"COPYUID {done.uidvalidity} {writer.ordered(done.sources)} {writer.ordered(done.uids)}"
    if not moving:
        await warn(talk)
        return Reply("OK", "Copied.", code)
    # RFC 6851 §4.3: COPYUID comes untagged, before the expunges
    if code:
        talk.say(f"OK [{code}] Moved.")
    await talk.poll(expunges=True)
    # RFC 7162 §3.2.9: as for EXPUNGE
    return Reply("OK", "Done.", f"HIGHESTMODSEQ {view.modseq}" if talk.condstore and done.position else "")
