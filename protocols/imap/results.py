"""ESEARCH (RFC 9051 §7.3.4, RFC 4731 §3.1): what a search with RETURN answers, in mailbox order or sorted (RFC 5267 §3)."""

from array import array
from collections.abc import Sequence

import msgspec

from protocols.imap import writer
from protocols.imap.model import Partial
from protocols.imap.view import View


class Results(msgspec.Struct, frozen=True):
    """`places` in the order of the answer; `modseqs` by place, where they are to be told. `ordered`: they are sorted."""

    places: Sequence[int]
    modseqs: dict[int, int]
    ordered: bool = False


def within(places: Sequence[int], partial: Partial) -> Sequence[int]:
    """RFC 9394 §3.1: those of a range of results."""
    low, high = partial
    if low > 0:
        return places[low - 1 : high]
    count = len(places)
    return places[max(count + low, 0) : max(count + high + 1, 0)]


def save(view: View, found: Results, returns: frozenset[str], partial: Partial | None) -> None:
    """Sets "$" (RFC 5182 §2.4, RFC 9394 §3.2): all that was found, or what MIN, MAX and PARTIAL name where nothing else is."""
    places: Sequence[int] = found.places
    if not returns & {"ALL", "COUNT"} and returns & {"MIN", "MAX", "PARTIAL"}:
        kept = set(within(places, partial)) if partial is not None else set()
        if places and "MIN" in returns:
            kept.add(places[0])
        if places and "MAX" in returns:
            kept.add(places[-1])
        places = list(kept)
    view.saved = array("I", sorted(view.uids[place] for place in places))


def line(
    view: View, correlator: str, uid: bool, returns: frozenset[str], partial: Partial | None, found: Results
) -> str:  # the parts of a response, and nothing to group them by
    """The untagged response, without its star. `correlator`: whose answer it is, and of which mailbox (RFC 7377 §2.1)."""
    places = found.places
    named: list[int] = []  # whose MODSEQ is told (RFC 4731 §3.2): of all, where ALL or COUNT is
    words = [f"ESEARCH ({correlator})"]
    if uid:
        words.append("UID")
    if places and "MIN" in returns:
        words.append(f"MIN {_number(view, places[0], uid)}")
        named.append(places[0])
    if places and "MAX" in returns:
        words.append(f"MAX {_number(view, places[-1], uid)}")
        named.append(places[-1])
    if places and "ALL" in returns:
        words.append(f"ALL {_set(view, places, uid, found.ordered)}")
    if partial is not None:
        some = within(places, partial)
        # RFC 9394 §3.1: NIL where the whole range is beyond the results; the range as it was asked for
        words.append(f"PARTIAL ({_range(partial)} {_set(view, some, uid, found.ordered) or 'NIL'})")
        named.extend(some)
    if "COUNT" in returns:
        words.append(f"COUNT {len(places)}")
    if returns & {"ALL", "COUNT"}:
        named = list(places)
    modseq = max((found.modseqs.get(place, 0) for place in named), default=0)
    if modseq:
        words.append(f"MODSEQ {modseq}")
    return " ".join(words)


def _range(partial: Partial) -> str:
    low, high = partial
    return f"{low}:{high}" if low > 0 else f"{high}:{low}"


def _number(view: View, place: int, uid: bool) -> int:
    return view.uids[place] if uid else place + 1


def _set(view: View, places: Sequence[int], uid: bool, ordered: bool) -> str:
    numbers = [view.uids[place] for place in places] if uid else [place + 1 for place in places]
    # RFC 5267 §3.2: sorted results as ranges only where they rise
    return writer.ordered(numbers) if ordered else writer.numbers(numbers)
