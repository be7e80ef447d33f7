"""Searches that go on (RFC 5267 §4): what comes to match, or matches no more, is told as it happens."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import msgspec

from cluster.domain.mailbox.events import Ranges
from cluster.domain.mailbox.ranges import UID_MAX
from protocols.imap import searching, writer
from protocols.imap.finding import CHUNK, Found
from protocols.imap.model import STAR, Key, SequenceSet
from protocols.imap.state import Talk
from protocols.imap.view import View, chunks, spans_of

CONTEXTS_MAX = 8  # of one session (RFC 5267 §4.3.1)


class Context:
    """One search of the selected mailbox with UPDATE. `uids`: what matches, ascending."""

    def __init__(self, talk: Talk, tag: str, found: Found, uid: bool) -> None:
        self._talk, self._view, self._tag, self._uid = talk, found.view, tag, uid
        self._key = fixed(found.asked.key, found.view)
        self._with_modseq = found.with_modseq
        self._uids = array("I", (found.view.uids[place] for place in found.places))

    def lost(self, gone: Ranges) -> None:
        """These are expunged; the client is not told so yet (RFC 5267 §4.3.4: REMOVEFROM comes before)."""
        removed: list[int] = []
        for first, last in reversed(gone):
            start, stop = bisect_left(self._uids, first), bisect_right(self._uids, last)
            removed[:0] = self._uids[start:stop]
            del self._uids[start:stop]
        self._say("REMOVEFROM", removed)

    async def changed(self, uids: Sequence[int]) -> bool:
        """Messages that came or whose flags changed; the client knows them by now (RFC 5267 §4.3.3: ADDTO comes behind
        EXISTS). False: what matches cannot be said any more."""
        view = self._view
        asked = searching.resolved(self._key, view, int(self._talk.site.world.now()), lenient=True)
        found = Found(self._talk, view, asked, self._with_modseq)
        places = sorted(place for uid in uids if (place := view.place(uid)) is not None)
        for piece in chunks(spans_of(places), CHUNK):
            if await found.look(piece) is not None:
                return False
        matching = {view.uids[place] for place in found.places}
        added, removed = [], []
        for uid in (view.uids[place] for place in places):
            at = bisect_left(self._uids, uid)
            known = at < len(self._uids) and self._uids[at] == uid
            if uid in matching and not known:
                self._uids.insert(at, uid)
                added.append(uid)
            elif known and uid not in matching:
                del self._uids[at]
                removed.append(uid)
        self._say("REMOVEFROM", removed)
        self._say("ADDTO", added)
        return True

    def _say(self, what: str, uids: list[int]) -> None:
        """RFC 5267 §4.3.2: at position 0, as mailbox order says where they belong."""
        if not uids:
            return
        places = [self._view.place(uid) for uid in uids] if not self._uid else []
        numbers = uids if self._uid else [place + 1 for place in places if place is not None]
        word = " UID" if self._uid else ""
        self._talk.say(f'ESEARCH (TAG "{self._tag}"){word} {what} (0 {writer.numbers(numbers)})')


def _pinned(pair: tuple[int, int], last: int) -> tuple[int, int]:
    if STAR not in pair:
        return pair
    low = min(pair[0] or last, pair[1] or last)
    return low or 1, (UID_MAX if pair != (STAR, STAR) else low or 1)


def fixed(key: Key, view: View) -> Key:
    """RFC 5267 §4.3: sequence numbers, "$" and the "*" of UIDs name what they named when the search was asked for; UIDs up to
    "*" are all that come."""
    if key.messages is not None and (key.word == "SEQUENCE" or key.messages.saved):
        spans = view.spans(key.messages, key.word == "UID", lenient=True)
        return Key("UID", messages=SequenceSet(view.exact(spans)))
    if key.messages is not None:
        return Key("UID", messages=SequenceSet(tuple(_pinned(pair, view.last) for pair in key.messages.pairs)))
    return msgspec.structs.replace(key, keys=tuple(fixed(one, view) for one in key.keys)) if key.keys else key
