"""Finds the messages of a search (RFC 9051 §6.4.4), for SEARCH, SORT and THREAD.

Level by level (see searching.py): what cheap keys have decided is not looked at again. Goes in pieces, so that other
sessions are answered in between.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from cluster.domain.refusal import Refusal
from cluster.formats import mime
from protocols.imap import bodies, indexed, narrowing, rendering, searching
from protocols.imap.errors import refused
from protocols.imap.model import Key, Reply, Search
from protocols.imap.progress import Progress
from protocols.imap.search_grammar import CHARSETS
from protocols.imap.searching import BYTES, DESCRIBED, FLAGS, PLACES, ROWS, Asked, Candidate, Texts, matches
from protocols.imap.state import Talk
from protocols.imap.view import Spans, View, chunks, spans_of, total
from protocols.port import Message

CHUNK = 1000
ASKED_MIN = 2  # messages, above which the tables are asked which of them to look at
BYTES_CHUNK = 100
TEXT_HERE_BYTES_MAX = 64 * 1024  # larger messages are decoded in a thread
TEXT_PART_BYTES_MAX = 4 * 1024 * 1024  # read of one part of a large message


async def find(
    talk: Talk, tag: str, given: Search, view: View | None = None, progress: Progress | None = None
) -> "Found | Reply":
    """What matches in the selected mailbox; a reply where that cannot be said. Raises NoSuchMessage. `view`: of another
    mailbox, where numbers that are not there are passed over (RFC 7377 §2)."""
    lenient, view = view is not None, view or talk.mailbox()
    if given.charset and given.charset not in CHARSETS:
        return Reply("NO", "No such charset here.", f"BADCHARSET ({' '.join(sorted(CHARSETS))})")
    if talk.uid_only and _names(given.key, "SEQUENCE"):
        return Reply("BAD", "With UIDONLY there are no sequence numbers.", "UIDREQUIRED")  # RFC 9586 §3
    key = given.key
    with_modseq = _names(given.key, "MODSEQ")
    if with_modseq:
        talk.enable("CONDSTORE")  # RFC 7162 §3.1
        judged = await _judged(talk, view, given.key)
        if isinstance(judged, Refusal):
            return refused(judged)
        key = judged
    verdicts = await _verdicts(talk, view, key)
    asked = searching.resolved(key, view, int(talk.site.world.now()), verdicts=verdicts, lenient=lenient)
    found = Found(talk, view, asked, with_modseq)
    alone = None if with_modseq else asked.verdict
    where = searching.bounds(asked, view) if alone is None else indexed.unsettled(alone, view)
    needed = narrowing.needed(asked)
    # Somebody else than the owner has a \\Seen of its own, of which this question knows nothing.
    if needed.having != narrowing.ANYTHING and total(where) > ASKED_MIN and not with_modseq and not view.reader:
        uids = await talk.site.having(view.account, view.mailbox, needed.having)
        if isinstance(uids, Refusal):
            return refused(uids)
        where = searching.both(where, narrowing.places(uids, view))
        if needed.enough:
            found.places = [place for start, stop in where for place in range(start, stop)]
            return found
    progress = progress or Progress(talk, tag, total(where))
    for piece in chunks(where, CHUNK):
        no = await found.look(piece)
        if no is not None:
            return no
        await progress.made(total(piece))
        await asyncio.sleep(0)
    if alone is not None:
        found.places = sorted(found.places + indexed.settled(alone, view))
    return found


async def _verdicts(talk: Talk, view: View, key: Key) -> searching.Verdicts:
    """What the index knows of the texts that are looked for."""
    wanted = list(dict.fromkeys(indexed.lookups(key)))
    if not wanted or not len(view):
        return {}
    said = await talk.site.looked_up(view.account, view.mailbox, wanted)
    return {one: verdict for one, verdict in zip(wanted, said, strict=True) if verdict is not None}


async def _judged(talk: Talk, view: View, key: Key) -> Key | Refusal:
    """The key with each MODSEQ as it counts here: above one that is lost anything may have changed."""
    if key.word == "MODSEQ":
        token = await talk.site.token(view.account, key.number)
        return token if isinstance(token, Refusal) else msgspec.structs.replace(key, number=token or 0)
    keys: list[Key] = []
    for one in key.keys:
        judged = await _judged(talk, view, one)
        if isinstance(judged, Refusal):
            return judged
        keys.append(judged)
    return msgspec.structs.replace(key, keys=tuple(keys))


def _names(key: Key, word: str) -> bool:
    return key.word == word or any(_names(one, word) for one in key.keys)


class Found:
    """The places found so far, rising, and the highest MODSEQ of them where that is asked for."""

    def __init__(self, talk: Talk, view: View, asked: Asked, with_modseq: bool) -> None:
        self.talk, self.view, self.asked, self.with_modseq = talk, view, asked, with_modseq
        self.with_text = _names(asked.key, "BODY") or _names(asked.key, "TEXT")
        self.places: list[int] = []
        self.modseqs: dict[int, int] = {}

    async def look(self, piece: Spans) -> Reply | None:
        """Looks at one piece; a refusal if the site cannot tell."""
        view = self.view
        # RFC 9051 §A: in revision 2 nothing is \\Recent
        recent_from = 1 << 32 if self.talk.revision_2 else view.recent_from
        pending = [
            Candidate(place, uid, uid >= recent_from)
            for start, stop in piece
            for place, uid in zip(range(start, stop), view.uids[start:stop], strict=True)
        ]
        places: list[int] = []
        if not self.with_modseq:
            pending = self._decide(pending, PLACES, places)
        if pending and (self.with_modseq or self.asked.level >= FLAGS):
            rows = await self.talk.site.flags(
                view.account, view.mailbox, view.ranges(_spans(pending)), reader=view.reader
            )
            if isinstance(rows, Refusal):
                return refused(rows)
            by_uid = {row.uid: row for row in rows}
            # What others expunged since has no flags any more, and is not found.
            pending = [one for one in pending if one.uid in by_uid]
            for one in pending:
                one.row = by_uid[one.uid]
            pending = self._decide(pending, FLAGS, places)
        for level in (ROWS, DESCRIBED):
            if pending and self.asked.level >= level:
                pending = await self._with_rows(pending, level, places)
        for at in range(0, len(pending), BYTES_CHUNK):
            if not await self._with_bytes(pending[at : at + BYTES_CHUNK], places):
                return Reply("NO", "Some messages cannot be had now: try again.", "UNAVAILABLE")
        self.places.extend(sorted(places))
        return None

    def _decide(self, pending: list[Candidate], level: int, places: list[int]) -> list[Candidate]:
        """Adds to `places` what matches; gives back what is still open."""
        left = []
        for one in pending:
            answer = matches(self.asked, one, level)
            if answer is None:
                left.append(one)
            elif answer:
                places.append(one.place)
                if self.with_modseq and one.row is not None:
                    self.modseqs[one.place] = one.row.modseq
        return left

    async def _with_rows(self, pending: list[Candidate], level: int, places: list[int]) -> list[Candidate]:
        by_uid = {one.uid: one for one in pending}
        ranges = self.view.ranges(_spans(pending))
        there = []
        answer = self.talk.site.messages(
            self.view.account, self.view.mailbox, ranges, described=level == DESCRIBED, reader=self.view.reader
        )
        async for batch in answer:
            for row in batch:
                one = by_uid.get(row.uid)
                if one is not None:
                    one.row = row
                    one.described = rendering.description(row.description) if level == DESCRIBED else None
                    there.append(one)
            await asyncio.sleep(0)
        return self._decide(there, level, places)

    async def _with_bytes(self, pending: list[Candidate], places: list[int]) -> bool:
        by_uid = {one.uid: one for one in pending}
        rows: list[Message] = []
        view = self.view
        answer = self.talk.site.messages(
            view.account, view.mailbox, view.ranges(_spans(pending)), described=True, contents=True, reader=view.reader
        )
        async for batch in answer:
            rows.extend(row for row in batch if row.uid in by_uid)
        async with aclosing(bodies.loaded(self.talk.site, [self._wanted(row) for row in rows])) as found:
            async for loaded in found:
                if loaded.missing:
                    return False
                one = by_uid[loaded.row.uid]
                one.row, one.described = loaded.row, loaded.described
                try:
                    await self._read(one, loaded.described.structure, loaded.data)
                except bodies.Unavailable:
                    return False
                self._decide([one], BYTES, places)
                one.header = one.text = one.described = None
                await asyncio.sleep(0)
        return True

    def _wanted(self, row: Message) -> bodies.Wanted:
        described = rendering.description(row.description)
        return bodies.Wanted(row, described, row.size if self.with_text else described.header_bytes)

    async def _read(self, one: Candidate, structure: mime.Part, data: bytes | None) -> None:
        one.header = await bodies.ranged(
            self.talk.site, one.message, data, structure.header_start, structure.body_start
        )
        if not self.with_text:
            return
        if data is None:
            whole: bytes | bytearray = await _texts_only(self.talk, one.message, structure)
        else:
            whole = data
        if len(whole) <= TEXT_HERE_BYTES_MAX:
            one.text = _text(whole, structure)
        else:
            one.text = await asyncio.to_thread(_text, whole, structure)


async def _texts_only(talk: Talk, row: Message, structure: mime.Part) -> bytearray:
    """A large message with zeros where nothing is searched: pages that are never touched take no memory."""
    whole = bytearray(row.size)
    for start, end in mime.searched_ranges(structure, TEXT_PART_BYTES_MAX):
        whole[start:end] = await bodies.ranged(talk.site, row, None, start, end)
    return whole


def _text(data: bytes | bytearray, structure: mime.Part) -> Texts:
    return Texts(mime.header_text(data, structure).casefold(), mime.body_text(data, structure).casefold())


def _spans(pending: Sequence[Candidate]) -> Spans:
    return spans_of(one.place for one in pending)
