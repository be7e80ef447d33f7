"""SELECT and EXAMINE (RFC 9051 §6.3.2, §6.3.3), with CONDSTORE (RFC 7162 §3.1.8) and QRESYNC (§3.2.5)."""

import asyncio
from collections.abc import Sequence

from cluster.domain.mailbox import names, ranges, rights
from cluster.domain.mailbox.events import Ranges
from cluster.domain.refusal import Refusal
from protocols.imap import writer
from protocols.imap.commands.create import mailbox_id
from protocols.imap.commands.quota import warn
from protocols.imap.errors import refused
from protocols.imap.model import Reply, Request, Resync, Select
from protocols.imap.naming import named
from protocols.imap.state import Talk
from protocols.imap.view import NOTHING_RECENT, View
from protocols.port import Flags, Selected

RESYNC_CHUNK = 1000  # ranges
RESYNC_ROWS = 5000


async def select(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Select)
    if given.resync is not None and not talk.resync:
        # RFC 7162 §3.2.5: only after ENABLE QRESYNC
        return Reply("BAD", "ENABLE QRESYNC comes first.")
    if given.resync is not None and given.resync.matched and talk.uid_only:
        return Reply("BAD", "With UIDONLY there are no sequence numbers.", "UIDREQUIRED")  # RFC 9586 §3
    selecting = request.word == "SELECT"
    if talk.view is not None:
        # RFC 9051 §6.3.2: whether or not the new one can be selected; §7.1 CLOSED
        await talk.deselect()
        talk.say("OK [CLOSED] The mailbox before is closed.")
    place = await named(talk, given.mailbox, rights.READ)
    if isinstance(place, Refusal):
        return refused(place)
    since: int | None = 0
    if given.resync is not None:
        token = await talk.site.token(place.account, given.resync.modseq)
        if isinstance(token, Refusal):
            return refused(token)
        since = token
    recent = not place.reader and selecting and not talk.revision_2
    found = await talk.site.select(place.account, place.name, recent=recent, reader=place.reader)
    if isinstance(found, Refusal):
        return refused(found)
    if given.condstore:
        talk.enable("CONDSTORE")
    status = found.status
    view = View(
        status.mailbox.id,
        place.prefix + status.mailbox.name,
        found.uids,
        status.highestmodseq,
        uidvalidity=status.mailbox.uidvalidity,
        whose=place,
        selected=selecting and found.status.mailbox.id > 0,  # what was expunged is read only
        recent_from=NOTHING_RECENT if place.reader else status.recent_from,
        keywords=found.keywords,
    )
    await talk.open(view)
    _describe(talk, view, found)
    if given.resync is not None:
        no = await _resync(talk, view, found, given.resync, since)
        if no is not None:
            await talk.deselect()
            return no
    await warn(talk)
    # RFC 9051 §6.3.2
    return Reply("OK", "Selected.", "READ-ONLY" if view.read_only else "READ-WRITE")


def _describe(talk: Talk, view: View, found: Selected) -> None:
    status = found.status
    talk.say_flags(view)
    talk.say(f"{len(view)} EXISTS")
    if talk.revision_2:
        # RFC 9051 §6.3.2: LIST is required; RFC 3501 clients do not expect it
        attributes = "" if view.reader else status.mailbox.special_use
        talk.say(f'LIST ({attributes}) "{names.SEPARATOR}" '.encode("ascii") + talk.name(view.name))
    else:
        talk.say(f"{view.recent()} RECENT")
        place = view.place(found.first_unseen) if found.first_unseen else None
        if place is not None and not talk.uid_only:
            talk.say(f"OK [UNSEEN {place + 1}] The first that is unseen.")
    talk.say(f"OK [UIDVALIDITY {status.mailbox.uidvalidity}] UIDs hold.")
    talk.say(f"OK [UIDNEXT {status.uidnext}] The next UID.")
    talk.say(f"OK [HIGHESTMODSEQ {max(status.highestmodseq, 1)}] The newest change.")
    talk.say(f"OK [MAILBOXID ({mailbox_id(view.mailbox)})] It keeps this through RENAME.")  # RFC 8474 §4.2


async def _resync(talk: Talk, view: View, found: Selected, asked: Resync, since: int | None) -> Reply | None:
    """RFC 7162 §3.2.5.1: what changed since the client was here. `since`: what its MODSEQ counts here, None = it is lost. A
    refusal, if the site cannot tell."""
    status = found.status
    if asked.uidvalidity != status.mailbox.uidvalidity:
        return None  # the client's knowledge is of another mailbox; UIDVALIDITY tells it
    known: Ranges = ranges.limit(asked.known or ranges.EVERY_UID, 1, status.uidnext - 1)
    changed: tuple[Flags, ...] | None
    if since is None or asked.modseq > status.highestmodseq:
        # A MODSEQ that is not in history, or never was this mailbox's: all flags, and every UID that is not there.
        vanished, changed = view.absent(known), None
    else:
        changes = await talk.site.changes(view.account, view.mailbox, since, reader=view.reader)
        if isinstance(changes, Refusal):
            return refused(changes)
        # What went after the view was made is told later, by the next poll.
        vanished, changed = view.absent(ranges.intersect(changes.vanished, known)), changes.changed
    if vanished:
        talk.say(f"VANISHED (EARLIER) {writer.ranges(vanished)}")
    if changed is not None:
        # What the changes have already is not looked for again, message by message, in the whole mailbox.
        for at in range(0, len(changed), RESYNC_ROWS):
            await _tell(talk, view, [row for row in changed[at : at + RESYNC_ROWS] if ranges.contains(known, row.uid)])
        return None
    for piece in (known[at : at + RESYNC_CHUNK] for at in range(0, len(known), RESYNC_CHUNK)):
        rows = await talk.site.flags(view.account, view.mailbox, piece, reader=view.reader)
        if isinstance(rows, Refusal):
            return refused(rows)
        await _tell(talk, view, rows)
    return None


async def _tell(talk: Talk, view: View, rows: Sequence[Flags]) -> None:
    for row in rows:
        place = view.place(row.uid)
        if place is not None:
            shown = writer.flags(row.flags, row.keywords, talk.shows_recent(row.uid))
            talk.put(f"* {talk.row(place, row.uid)} (UID {row.uid} FLAGS ({shown}) MODSEQ ({row.modseq}))\r\n".encode("ascii"))
    if talk.full:
        await talk.flush()
    await asyncio.sleep(0)
