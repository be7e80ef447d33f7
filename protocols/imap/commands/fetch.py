"""FETCH (RFC 9051 §6.4.5) with CHANGEDSINCE and VANISHED (RFC 7162 §3.1.4.1, §3.2.6).

Three ways, from cheap to dear: flags alone from the narrow table, rows, and rows with bytes. All go in pieces, so that
other sessions are answered in between and the client's pace is kept.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from cluster.domain.mailbox import ranges, rights
from cluster.domain.mailbox.commands import ChangeFlags
from cluster.domain.mailbox.events import SEEN, FlagMode
from cluster.domain.refusal import Refusal
from cluster.formats import mime
from protocols.imap import bodies, rendering, writer
from protocols.imap.errors import refused
from protocols.imap.model import Fetch, FetchItem, Reply, Request
from protocols.imap.rendering import FlagWords
from protocols.imap.state import Talk
from protocols.imap.view import NOTHING_RECENT, Spans, chunks, spans_of, total, within
from protocols.port import Flags, Message

FLAGS_CHUNK = 1000
ROWS_CHUNK = 500
BODIES_CHUNK = 200

UID = FetchItem("UID", b"UID")
FLAGS = FetchItem("FLAGS", b"FLAGS")
MODSEQ = FetchItem("MODSEQ", b"MODSEQ")


class _Work:
    """One FETCH being answered. `seen`: UIDs that it marked as read; the rest is what its tagged reply will have to say."""

    def __init__(self, talk: Talk, since: int | None) -> None:
        self.talk, self.since = talk, since
        self.view = talk.mailbox()
        self.items: list[FetchItem] = []
        self.flags = FlagWords(NOTHING_RECENT if talk.revision_2 else self.view.recent_from)
        self.seen: set[int] = set()
        self.missing = self.unavailable = self.unknown_encoding = False

    def reply(self) -> Reply:
        if self.unavailable:
            return Reply("NO", "Some messages cannot be had now: try again.", "UNAVAILABLE")
        if self.unknown_encoding:
            return Reply("NO", "Some parts have an encoding that nobody here can undo.", "UNKNOWN-CTE")
        # RFC 2180 §4.1.3, RFC 5530 §3: others expunged some of them
        return Reply("OK", "Fetched.", "EXPUNGEISSUED" if self.missing else "")


async def fetch(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Fetch)
    view = talk.mailbox()
    spans = view.spans(given.messages, given.uid)
    if given.partial is not None:
        spans = within(spans, given.partial)
    if given.changed_since is not None or any(item.word == "MODSEQ" for item in given.items):
        talk.enable("CONDSTORE")  # RFC 7162 §3.1
    if given.vanished and not talk.resync:
        return Reply("BAD", "ENABLE QRESYNC comes first.")
    since = None
    if given.changed_since is not None:
        token = await talk.site.token(view.account, given.changed_since)
        if isinstance(token, Refusal):
            return refused(token)
        since = token or 0  # of a lost one: everything
        if given.vanished and (no := await _vanished(talk, given, token)) is not None:
            return no
    work = _Work(talk, since)
    # RFC 4314 §4 FETCH: nor without the right to
    if view.selected and view.may(rights.SEEN) and any(not item.peek for item in given.items):
        no = await _mark_seen(work, spans)
        if no is not None:
            return no
    work.items = _completed(given, bool(work.seen) and talk.condstore, talk.uid_only)
    words = {item.word for item in work.items}
    if words <= rendering.FLAG_ITEMS:
        no = await _flags(work, spans)
        return no or work.reply()
    plain = rendering.FLAG_ITEMS | rendering.ROW_ITEMS | rendering.DESCRIBED_ITEMS
    for piece in chunks(spans, ROWS_CHUNK if words <= plain else BODIES_CHUNK):
        await _rows(work, piece, with_bytes=not words <= plain)
        if talk.full:  # what is left goes out with the reply, and with those of the commands that wait behind
            await talk.flush()
    return work.reply()


async def tell_new(talk: Talk, uids: Sequence[int], items: Sequence[FetchItem]) -> None:
    """FETCH responses that nobody asked for now (RFC 5465 §5.2): \\Seen is not set. Raises SiteUnavailable."""
    work = _Work(talk, None)
    work.items = [item for item in items if item.word != "UID"]
    work.items.insert(0, UID)
    if talk.condstore and MODSEQ not in work.items:
        work.items.append(MODSEQ)
    with_bytes = any(item.section is not None for item in work.items)
    places = (place for uid in uids if (place := work.view.place(uid)) is not None)
    for piece in chunks(spans_of(places), BODIES_CHUNK):
        await _rows(work, piece, with_bytes=with_bytes)


def _completed(given: Fetch, with_modseq: bool, uid_only: bool) -> list[FetchItem]:
    """With what the client did not ask for and is to have all the same."""
    items = [item for item in given.items if item.word != "UID"]
    # RFC 9586 §3: a UIDFETCH has the UID already, but who asks for it gets it
    if given.uid and not uid_only or len(items) < len(given.items):
        items.insert(0, UID)  # RFC 9051 §6.4.9
    # RFC 7162 §3.1.4.1: with CHANGEDSINCE the MODSEQ is in every response
    if (given.changed_since is not None or with_modseq) and MODSEQ not in items:
        items.append(MODSEQ)
    return items


async def _vanished(talk: Talk, given: Fetch, since: int | None) -> Reply | None:
    """RFC 7162 §3.2.6: VANISHED (EARLIER) for what of the set went since. `since` None: the client's MODSEQ is lost, and it
    is told every UID that is not there."""
    view = talk.mailbox()
    after = view.modseq if since is None else since
    changes = await talk.site.changes(view.account, view.mailbox, after, reader=view.reader)
    if isinstance(changes, Refusal):
        return refused(changes)
    # "*" reaches to the end of all UIDs here, so that 1:* also names what went at the end of the mailbox.
    asked = ranges.normalise((first or ranges.UID_MAX, last or ranges.UID_MAX) for first, last in given.messages.pairs)
    went = changes.vanished if since is not None else ranges.limit(asked, 1, changes.uidnext - 1)
    gone = ranges.intersect(went, asked)
    # What the client still has in its view it hears of as a VANISHED of its own.
    gone = view.absent(gone)
    if gone:
        talk.say(f"VANISHED (EARLIER) {writer.ranges(gone)}")
    return None


async def _mark_seen(work: _Work, spans: Spans) -> Reply | None:
    """RFC 9051 §6.4.5: BODY[…] without PEEK sets \\Seen. One command for all, before the rows are read."""
    talk, view = work.talk, work.view
    for piece in chunks(spans, FLAGS_CHUNK):
        rows = await talk.site.flags(view.account, view.mailbox, view.ranges(piece), reader=view.reader)
        if isinstance(rows, Refusal):
            return refused(rows)
        work.seen.update(row.uid for row in rows if not row.flags & SEEN and view.place(row.uid) is not None)
    if work.seen:
        command = ChangeFlags(view.account, view.mailbox, ranges.compress(work.seen), FlagMode.ADD, SEEN)
        if isinstance(await talk.site.execute(talk.actor, command), Refusal):
            # The message can still be read; that it was is not worth failing for.
            work.seen.clear()
    return None


async def _flags(work: _Work, spans: Spans) -> Reply | None:
    talk, view = work.talk, work.view
    words = [item.word for item in work.items]
    for piece in chunks(spans, FLAGS_CHUNK):
        rows = await talk.site.flags(view.account, view.mailbox, view.ranges(piece), work.since or 0, reader=view.reader)
        if isinstance(rows, Refusal):
            return refused(rows)
        if work.since is None and len(rows) < total(piece):
            rows = await _with_lost(work, piece, rows)
        talk.put(rendering.flag_lines(rows, view, words, work.flags, talk.uid_only))
        if talk.full:
            await talk.flush()
        await asyncio.sleep(0)
    return None


async def _with_lost(work: _Work, piece: Spans, rows: list[Flags]) -> list[Flags]:
    """Messages that others expunged are still there for sessions that hold their UID (RFC 2180 §4.1.1)."""
    known = {row.uid: row for row in rows}
    lost = ranges.compress(uid for uid in work.view.uids_of(piece) if uid not in known)
    if lost:
        view = work.view
        async for batch in work.talk.site.messages(view.account, view.mailbox, lost, reader=view.reader):
            for row in batch:
                known[row.uid] = Flags(row.uid, row.flags, row.keywords, row.modseq)
        work.missing = work.missing or any(uid not in known for uid in work.view.uids_of(piece))
    return [known[uid] for uid in sorted(known)]


async def _rows(work: _Work, piece: Spans, *, with_bytes: bool) -> None:
    talk, view = work.talk, work.view
    described = with_bytes or any(item.word in rendering.DESCRIBED_ITEMS for item in work.items)
    count = 0
    answer = talk.site.messages(
        view.account,
        view.mailbox,
        view.ranges(piece),
        since=work.since or 0,
        described=described,
        contents=with_bytes,
        reader=view.reader,
    )
    async for batch in answer:
        here = [row for row in batch if view.place(row.uid) is not None]
        count += len(here)
        if with_bytes:
            await _with_bytes(work, here)
        else:
            talk.put(b"".join([_plain_line(work, row, described) for row in here]))
        if talk.full:
            await talk.flush()
        await asyncio.sleep(0)
    work.missing = work.missing or (work.since is None and count < total(piece))


async def _with_bytes(work: _Work, rows: list[Message]) -> None:
    asked = [bodies.wanted(row, work.items) for row in rows]
    async with aclosing(bodies.loaded(work.talk.site, asked)) as found:
        async for one in found:
            if one.missing:
                work.unavailable = True
                continue
            await _line(work, one.row, one.described, one.data)
            if work.talk.full:
                await work.talk.flush()


def _plain_line(work: _Work, row: Message, described: bool) -> bytes:
    """One FETCH response of items that need no bytes of the message."""
    talk, place = work.talk, work.view.place(row.uid)
    assert place is not None
    about = rendering.description(row.description) if described else None
    items = [rendering.item(item, row, about, work.flags, talk.utf8) for item in work.items]
    return b"* %b (%b)\r\n" % (talk.row(place, row.uid).encode("ascii"), b" ".join(items))


async def _line(work: _Work, row: Message, described: mime.Description, data: bytes | None) -> None:
    """One FETCH response; nothing of it if a part of it cannot be had."""
    talk, place = work.talk, work.view.place(row.uid)
    assert place is not None
    wanted = work.items
    if row.uid in work.seen:
        talk.told[row.uid] = row.modseq
        if FLAGS not in wanted:
            wanted = [*wanted, FLAGS]  # RFC 9051 §6.4.5: the change of flags is told with it
    begun = talk.mark()
    try:
        talk.put(b"* %b (" % talk.row(place, row.uid).encode("ascii"))
        for number, item in enumerate(wanted):
            if number:
                talk.put(b" ")
            if item.section is None:
                talk.put(rendering.item(item, row, described, work.flags, talk.utf8))
            else:
                await bodies.write(talk, row, data, item, described)
        talk.put(b")\r\n")
    except bodies.Unavailable:
        talk.take_back(begun)
        work.unavailable = True
    except bodies.UnknownEncoding:
        talk.take_back(begun)
        work.unknown_encoding = True
