"""A selected mailbox as one session sees it: its UIDs in order, and what it still has to be told.

A message's sequence number is its place among the UIDs. Messages that others expunged stay in the view until the client
may be told (RFC 9051 §7.5.1). The UIDs are shared with the sessions that see the same (storage/uids.py).

A `Spans` is a set of places: half-open (start, stop), ascending, not touching.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence

from cluster.domain.mailbox import ranges
from cluster.domain.mailbox.events import Ranges
from protocols.imap.model import STAR, Partial, SequenceSet
from protocols.port import Named, Uids

Spans = list[tuple[int, int]]
NOTHING_RECENT = 1 << 32  # above every UID: in another's mailbox, and in revision 2, nothing is \\Recent


class NoSuchMessage(Exception):
    """A sequence number beyond the mailbox (RFC 9051 §9 seq-number: such a request is BAD)."""


class View:
    """`recent_from`: UIDs from it on are \\Recent in this session. `name`: as the client says it. `account`: whose mailbox;
    `reader`: who sees it, 0 = the owner; `rights` what that one may do (RFC 4314 §2.1). `selected`: not only examined."""

    def __init__(
        self,
        mailbox: int,
        name: str,
        uids: Uids,
        modseq: int,
        *,
        uidvalidity: int,
        whose: Named,
        selected: bool,
        recent_from: int,
        keywords: Iterable[str] = (),
    ) -> None:
        self.account, self.reader, self.rights, self.selected = whose.account, whose.reader, whose.rights, selected
        self.mailbox, self.name, self.modseq, self.uidvalidity = mailbox, name, modseq, uidvalidity
        self.uids = uids.copy()
        self.recent_from = recent_from
        self.keywords = set(keywords)
        self.saved: array[int] = array("I")  # "$", RFC 5182
        self._gone: set[int] = set()

    @property
    def writable(self) -> bool:
        """Whether anything may be changed here, if only what this reader has read."""
        return self.selected and (not self.reader or any(right in self.rights for right in "swtei"))

    @property
    def read_only(self) -> bool:
        """RFC 4314 §5.2: \\Seen is each reader's own, and no reason to call it READ-WRITE."""
        return not self.selected or bool(self.reader) and not any(right in self.rights for right in "wtei")

    def may(self, right: str) -> bool:
        return not self.reader or right in self.rights

    def __len__(self) -> int:
        return len(self.uids)

    @property
    def last(self) -> int:
        """The highest UID, 0 if there is none."""
        return self.uids[-1] if self.uids else 0

    def place(self, uid: int) -> int | None:
        at = self.uids.left_of(uid)
        return at if at < len(self.uids) and self.uids[at] == uid else None

    def recent(self) -> int:
        """How many are \\Recent."""
        return len(self.uids) - self.uids.left_of(self.recent_from)

    # -- sets --------------------------------------------------------------------------------------------------------------
    def spans(self, asked: SequenceSet, uid: bool, *, lenient: bool = False) -> Spans:
        """The places named. Raises NoSuchMessage for sequence numbers that are not there; such UIDs are passed over, and with
        `lenient` such numbers."""
        if asked.saved:
            # RFC 5182 §2.1: what was expunged since is no longer in it
            return spans_of(place for saved in self.saved if (place := self.place(saved)) is not None)
        total = len(self.uids)
        found: Spans = []
        for first, last in asked.pairs:
            if uid:
                # RFC 9051 §9: "*" is the highest UID, so that 559:* always holds the last message
                low, high = sorted((first or self.last, last or self.last))
                start, stop = self.uids.left_of(low), self.uids.up_to(high)
            else:
                low, high = sorted((first or total, last or total))
                if (high > total or low < 1) and not lenient:
                    raise NoSuchMessage
                start, stop = max(low - 1, 0), min(high, total)
            if start < stop:
                found.append((start, stop))
        return merged(found)

    def ranges(self, spans: Spans) -> Ranges:
        """As UIDs. They may hold UIDs that are not in the view: whoever reads by them filters by `place`."""
        return tuple((self.uids[start], self.uids[stop - 1]) for start, stop in spans)

    def exact(self, spans: Spans) -> Ranges:
        """The UIDs of these places and no others, for commands that change something."""
        out: list[tuple[int, int]] = []
        for start, stop in spans:
            first = last = self.uids[start]
            if self.uids[stop - 1] - first == stop - 1 - start:
                out.append((first, self.uids[stop - 1]))
                continue
            for uid in self.uids[start + 1 : stop]:
                if uid != last + 1:
                    out.append((first, last))
                    first = uid
                last = uid
            out.append((first, last))
        return _joined(out)

    def absent(self, uids: Ranges) -> Ranges:
        """Those of them that are not in the view; costs what is there of them, not what is there."""
        spans = ((self.uids.left_of(first), self.uids.up_to(last)) for first, last in uids)
        there = self.exact([span for span in spans if span[0] < span[1]])
        return ranges.subtract(uids, there) if there else uids

    def uids_of(self, spans: Spans) -> Iterator[int]:
        for start, stop in spans:
            yield from self.uids[start:stop]

    # -- news --------------------------------------------------------------------------------------------------------------
    def append(self, uids: Sequence[int]) -> None:
        """New messages, ascending, all above `last`."""
        assert not uids or uids[0] > self.last
        self.uids.extend(uids)

    def lose(self, vanished: Ranges) -> None:
        """Others expunged these: to be told when that is allowed."""
        for first, last in vanished:
            start, stop = self.uids.left_of(first), self.uids.up_to(last)
            self._gone.update(self.uids[start:stop])

    def is_lost(self, uid: int) -> bool:
        return uid in self._gone

    @property
    def untold(self) -> bool:
        return bool(self._gone)

    def take_lost(self) -> tuple[list[int], list[int]]:
        """(sequence numbers from the highest down, UIDs ascending) of what is gone; from now on it is not in the view.

        From the highest down, each number is right when it is said (RFC 9051 §7.5.1: each EXPUNGE lowers those above)."""
        lost = sorted(self._gone)
        self._gone.clear()
        places = [place for uid in lost if (place := self.place(uid)) is not None]
        uids = [self.uids[place] for place in places]
        self.uids.remove(uids)
        return [place + 1 for place in reversed(places)], uids


def merged(spans: Spans) -> Spans:
    """Any spans, as a Spans."""
    out: Spans = []
    for start, stop in sorted(spans):
        if out and start <= out[-1][1]:
            if stop > out[-1][1]:
                out[-1] = (out[-1][0], stop)
        else:
            out.append((start, stop))
    return out


def spans_of(places: Iterable[int]) -> Spans:
    """Of ascending places."""
    out: Spans = []
    for place in places:
        if out and out[-1][1] == place:
            out[-1] = (out[-1][0], place + 1)
        else:
            out.append((place, place + 1))
    return out


def total(spans: Spans) -> int:
    return sum(stop - start for start, stop in spans)


def within(spans: Spans, partial: Partial) -> Spans:
    """RFC 9394 §3.3: of these places those of a range, counted from the first or (below 0) from the last."""
    low, high = partial
    count = total(spans)
    first, stop = (low - 1, high) if low > 0 else (count + low, count + high + 1)
    out: Spans = []
    at = 0
    for start, end in spans:
        begin, until = max(start, start + first - at), min(end, start + stop - at)
        if begin < until:
            out.append((begin, until))
        at += end - start
    return out


def chunks(spans: Spans, size: int) -> Iterator[Spans]:
    """The same places in pieces of at most `size`."""
    piece: Spans = []
    room = size
    for start, stop in spans:
        while start < stop:
            end = min(stop, start + room)
            piece.append((start, end))
            room -= end - start
            start = end
            if not room:
                yield piece
                piece, room = [], size
    if piece:
        yield piece


def _joined(pairs: list[tuple[int, int]]) -> Ranges:
    out: list[tuple[int, int]] = []
    for first, last in pairs:
        if out and out[-1][1] + 1 == first:
            out[-1] = (out[-1][0], last)
        else:
            out.append((first, last))
    return tuple(out)


assert STAR == 0  # `first or last`: "*" is what is falsy
