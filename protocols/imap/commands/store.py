"""STORE (RFC 9051 §6.4.6) with UNCHANGEDSINCE (RFC 7162 §3.1.3)."""

from cluster.domain.mailbox.commands import ChangeFlags
from cluster.domain.refusal import Refusal
from protocols.imap import writer
from protocols.imap.commands.expunge import READ_ONLY
from protocols.imap.errors import refused
from protocols.imap.model import Reply, Request, Store
from protocols.imap.state import Talk
from protocols.imap.view import Spans, chunks
from protocols.port import Flags

CHUNK = 2000


async def store(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Store)
    view = talk.mailbox()
    spans = view.spans(given.messages, given.uid)
    if given.unchanged_since is not None:
        talk.enable("CONDSTORE")  # RFC 7162 §3.1
    if not view.writable:
        return READ_ONLY
    if not spans:
        return Reply("OK", "No such messages.")
    if given.silent:
        # What others did before is told, as silence is only about what this command does (RFC 9051 §6.4.6).
        await talk.poll(expunges=False)
    unchanged_since = given.unchanged_since
    if unchanged_since is not None:
        token = await talk.site.token(view.account, unchanged_since)
        if isinstance(token, Refusal):
            return refused(token)
        # RFC 7162 §3.1.3: a client that knows them by a MODSEQ that is lost does not know how they are: 0 fails for all.
        unchanged_since = token or 0
    command = ChangeFlags(
        view.account, view.mailbox, view.exact(spans), given.mode, given.flags, given.keywords, unchanged_since
    )
    done = await talk.site.execute(talk.actor, command)
    if isinstance(done, Refusal):
        return refused(done)
    missing = await _tell(talk, spans, given)
    if done.modified:
        # RFC 7162 §3.1.3: the set is of UIDs or of sequence numbers, as the command was
        uids = [uid for first, last in done.modified for uid in range(first, last + 1)]
        places = [place + 1 for uid in uids if (place := view.place(uid)) is not None]
        return Reply("OK", "Some were changed meanwhile.", f"MODIFIED {writer.numbers(uids if given.uid else places)}")
    # RFC 5530 §3: the client may want to say NOOP
    return Reply("OK", "Stored.", "EXPUNGEISSUED" if missing else "")


async def _tell(talk: Talk, spans: Spans, given: Store) -> bool:
    """The flags as they are now. Silent: only remembered as told, with their MODSEQ where the client needs it (RFC 7162
    §3.1.3). True if a message was not there any more."""
    view = talk.mailbox()
    missing = False
    for piece in chunks(spans, CHUNK):
        rows = await talk.site.flags(view.account, view.mailbox, view.exact(piece), reader=view.reader)
        if isinstance(rows, Refusal):
            return missing
        missing = missing or len(rows) < sum(stop - start for start, stop in piece)
        for row in rows:
            talk.told[row.uid] = row.modseq
            words = _words(talk, row, given)
            place = view.place(row.uid)
            if words and place is not None:
                talk.put(f"* {talk.row(place, row.uid)} ({' '.join(words)})\r\n".encode("ascii"))
        fresh = {keyword for row in rows for keyword in row.keywords} - view.keywords
        if fresh:
            view.keywords |= fresh
            talk.say_flags(view)
        if talk.full:
            await talk.flush()
    return missing


def _words(talk: Talk, row: Flags, given: Store) -> list[str]:
    words: list[str] = []
    if not given.silent:
        words.append(f"FLAGS ({writer.flags(row.flags, row.keywords, talk.shows_recent(row.uid))})")
    if talk.condstore:
        words.append(f"MODSEQ ({row.modseq})")
    # RFC 9051 §6.4.9: with a UID command the UID is in every response
    if words and (given.uid or talk.resync):
        words.insert(0, f"UID {row.uid}")
    return words
