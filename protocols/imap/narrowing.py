"""What the tables can say of a search at once (RFC 9051 §6.4.4): which messages have the flags, the day and the size. Pure.

A search that asks for more looks only at those; one that asks for nothing else is answered.
"""

from collections.abc import Iterable

import msgspec

from cluster.domain.mailbox.events import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from protocols.imap.searching import Asked
from protocols.imap.view import Spans, View, spans_of
from protocols.port import Having

ANYTHING = Having()

_FLAGS = {"ANSWERED": ANSWERED, "DELETED": DELETED, "DRAFT": DRAFT, "FLAGGED": FLAGGED, "SEEN": SEEN}
_FLAG_KEYS = {word: Having(present=bit) for word, bit in _FLAGS.items()} | {
    f"UN{word}": Having(absent=bit) for word, bit in _FLAGS.items()
}


class Needed(msgspec.Struct, frozen=True):
    """`having`: of every message that matches. `enough`: and no other has it."""

    having: Having
    enough: bool


def needed(asked: Asked) -> Needed:
    match asked.word:
        case "AND":
            each = [needed(key) for key in asked.keys]
            return Needed(both(one.having for one in each), all(one.enough for one in each))
        case "NOT" if len(asked.keys) == 1:
            word = asked.keys[0].word
            opposite = word.removeprefix("UN") if word.startswith("UN") else f"UN{word}"
            if word in _FLAG_KEYS:
                return Needed(_FLAG_KEYS[opposite], True)
        case "ALL":
            return Needed(ANYTHING, True)
    having = _of(asked.word, asked.key.number)
    return Needed(having or ANYTHING, having is not None)


def _of(word: str, number: int) -> Having | None:
    if (flags := _FLAG_KEYS.get(word)) is not None:
        return flags
    match word:
        case "SINCE":
            return Having(first_day=number)
        case "BEFORE":
            return Having(last_day=number - 1)
        case "ON":
            return Having(first_day=number, last_day=number)
        case "LARGER":
            return Having(larger=number)
        case "SMALLER":
            return Having(smaller=number)
    return None


def both(each: Iterable[Having]) -> Having:
    """What has all of it."""
    whole = ANYTHING
    for one in each:
        whole = Having(
            whole.present | one.present,
            whole.absent | one.absent,
            _most(whole.first_day, one.first_day),
            _least(whole.last_day, one.last_day),
            _most(whole.larger, one.larger),
            _least(whole.smaller, one.smaller),
        )
    return whole


def places(uids: Iterable[int], view: View) -> Spans:
    """Of those that the view has."""
    return spans_of(place for uid in uids if (place := view.place(uid)) is not None)


def _most(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else max(a, b)


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)
