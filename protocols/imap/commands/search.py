"""SEARCH (RFC 9051 §6.4.4) with RETURN (RFC 4731), SAVE (RFC 5182), MODSEQ (RFC 7162 §3.1.5).

Level by level (see searching.py): what cheap keys have decided is not looked at again. Goes in pieces, so that other
sessions are answered in between.
"""

import asyncio
from array import array
from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from cluster.domain.refusal import Refusal
from cluster.formats import mime
from protocols.imap import bodies, rendering, searching, writer
from protocols.imap.errors import refused
from protocols.imap.model import Key, Reply, Request, Search
from protocols.imap.search_grammar import CHARSETS
from protocols.imap.searching import BYTES, DESCRIBED, FLAGS, PLACES, ROWS, Asked, Candidate, Texts, matches
from protocols.imap.state import Talk
from protocols.imap.view import Spans, chunks, spans_of
from protocols.port import Message

CHUNK = 1000
BYTES_CHUNK = 100
TEXT_HERE_BYTES_MAX = 64 * 1024  # larger messages are decoded in a thread
TEXT_PART_BYTES_MAX = 4 * 1024 * 1024  # read of one part of a large message


async def search(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Search)
    view = talk.mailbox()
    if given.charset and "UTF8=ACCEPT" in talk.enabled:
        return Reply("BAD", "With UTF8=ACCEPT no charset is named.")  # RFC 9755 §3
    if given.charset and given.charset not in CHARSETS:
        return _failed(talk, given, Reply("NO", "No such charset here.", f"BADCHARSET ({' '.join(sorted(CHARSETS))})"))
    key = given.key
    with_modseq = _names(given.key, "MODSEQ")
    if with_modseq:
        talk.enable("CONDSTORE")  # RFC 7162 §3.1
        judged = await _judged(talk, given.key)
        if isinstance(judged, Refusal):
            return _failed(talk, given, refused(judged))
        key = judged
    asked = searching.resolved(key, view, int(talk.site.world.now()))
    found = _Found(talk, asked, with_modseq)
    for piece in chunks(searching.bounds(asked, [(0, len(view))] if len(view) else []), CHUNK):
        no = await found.look(piece)
        if no is not None:
            return _failed(talk, given, no)
        await asyncio.sleep(0)
    _answer(talk, request.tag, given, found)
    return Reply("OK", "Searched.")


def _failed(talk: Talk, given: Search, reply: Reply) -> Reply:
    if given.returns is not None and "SAVE" in given.returns:
        talk.mailbox().saved = array("I")  # RFC 5182 §2.1: a NO empties "$"
    return reply


async def _judged(talk: Talk, key: Key) -> Key | Refusal:
    """The key with each MODSEQ as it counts here: above one that is lost anything may have changed."""
    if key.word == "MODSEQ":
        token = await talk.site.token(talk.who(), key.number)
        return token if isinstance(token, Refusal) else msgspec.structs.replace(key, number=token or 0)
    keys: list[Key] = []
    for one in key.keys:
        judged = await _judged(talk, one)
        if isinstance(judged, Refusal):
            return judged
        keys.append(judged)
    return msgspec.structs.replace(key, keys=tuple(keys))


def _names(key: Key, word: str) -> bool:
    return key.word == word or any(_names(one, word) for one in key.keys)


class _Found:
    """The places found so far, and the highest MODSEQ of them where that is asked for."""

    def __init__(self, talk: Talk, asked: Asked, with_modseq: bool) -> None:
        self.talk, self.asked, self.with_modseq = talk, asked, with_modseq
        self.with_text = _names(asked.key, "BODY") or _names(asked.key, "TEXT")
        self.view = talk.mailbox()
        self.places: list[int] = []
        self.modseqs: dict[int, int] = {}

    async def look(self, piece: Spans) -> Reply | None:
        """Looks at one piece; a refusal if the site cannot tell."""
        view = self.view
        recent_from = rendering_recent(self.talk)
        pending = [
            Candidate(place, uid, uid >= recent_from)
            for start, stop in piece
            for place, uid in zip(range(start, stop), view.uids[start:stop], strict=True)
        ]
        places: list[int] = []
        if not self.with_modseq:
            pending = self._decide(pending, PLACES, places)
        if pending and (self.with_modseq or self.asked.level >= FLAGS):
            rows = await self.talk.site.flags(self.talk.who(), view.mailbox, view.ranges(_spans(pending)))
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
            self.talk.who(), self.view.mailbox, ranges, described=level == DESCRIBED, contents=False
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
        answer = self.talk.site.messages(
            self.talk.who(), self.view.mailbox, self.view.ranges(_spans(pending)), described=True, contents=True
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
        one.header = await bodies.ranged(self.talk.site, one.message, data, structure.header_start, structure.body_start)
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
    for part in mime.parts(structure):
        if part.type == "text":
            start, end = part.body_start, min(part.end, part.body_start + TEXT_PART_BYTES_MAX)
        elif part.message is not None or part is structure:
            head = part.message or part
            start, end = head.header_start, min(head.body_start, head.header_start + mime.HEADER_BYTES_MAX)
        else:
            continue
        whole[start:end] = await bodies.ranged(talk.site, row, None, start, end)
    return whole


def _text(data: bytes | bytearray, structure: mime.Part) -> Texts:
    return Texts(mime.header_text(data, structure).casefold(), mime.body_text(data, structure).casefold())


def _spans(pending: Sequence[Candidate]) -> Spans:
    return spans_of(one.place for one in pending)


def rendering_recent(talk: Talk) -> int:
    """RFC 9051 §A: in revision 2 nothing is \\Recent."""
    return 1 << 32 if talk.revision_2 else talk.mailbox().recent_from


def _answer(talk: Talk, tag: str, given: Search, found: _Found) -> None:
    view = talk.mailbox()
    places = found.places
    numbers = [view.uids[place] for place in places] if given.uid else [place + 1 for place in places]
    # RFC 9051 §7.3.4: in revision 2 the answer is ESEARCH, as if RETURN (ALL) was said
    returns = given.returns if given.returns is not None else (frozenset(("ALL",)) if talk.revision_2 else None)
    if returns is None:
        modseq = f" (MODSEQ {max(found.modseqs.values())})" if found.modseqs else ""
        talk.say("SEARCH" + "".join([f" {number}" for number in numbers]) + modseq)
        return
    if "SAVE" in returns:
        view.saved = array("I", (view.uids[place] for place in _saved(places, returns)))
        if returns == {"SAVE"}:
            return  # RFC 5182 §2.1: only the result variable was asked for
    talk.say(_extended(tag, given.uid, returns, numbers, [found.modseqs.get(place, 0) for place in places]))


def _saved(places: list[int], returns: frozenset[str]) -> list[int]:
    """RFC 5182 §2.4: with MIN or MAX alone only those are kept."""
    if returns & {"ALL", "COUNT"} or not returns & {"MIN", "MAX"} or not places:
        return places
    kept = {places[0]} if "MIN" in returns else set()
    return sorted(kept | ({places[-1]} if "MAX" in returns else set()))


def _extended(tag: str, uid: bool, returns: frozenset[str], numbers: list[int], modseqs: list[int]) -> str:
    """RFC 9051 §7.3.4, RFC 4731 §3.1."""
    words = [f'ESEARCH (TAG "{tag}")']
    if uid:
        words.append("UID")
    if numbers:
        if "MIN" in returns:
            words.append(f"MIN {numbers[0]}")
        if "MAX" in returns:
            words.append(f"MAX {numbers[-1]}")
        if "ALL" in returns:
            words.append(f"ALL {writer.numbers(numbers)}")
    if "COUNT" in returns:
        words.append(f"COUNT {len(numbers)}")
    if numbers and any(modseqs):
        # RFC 4731 §3.2: of the messages that are named; of all, where ALL or COUNT is
        named = modseqs
        if not returns & {"ALL", "COUNT"}:
            named = [modseqs[0]] if "MIN" in returns else []
            named += [modseqs[-1]] if "MAX" in returns else []
        if named:
            words.append(f"MODSEQ {max(named)}")
    return " ".join(words)
