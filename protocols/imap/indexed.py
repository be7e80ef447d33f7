"""What the site's search index says of the keys of a search (RFC 9051 §6.4.4). Pure.

It speaks for stretches of UIDs. There a message surely has the text, or has it not, or must be looked at; elsewhere it tells
nothing.
"""

from bisect import bisect_right
from collections.abc import Iterator

from protocols.imap.model import Key
from protocols.imap.view import Spans, View, merged, spans_of
from protocols.port import Lookup, Verdict

NARROWS_SHARE = 4  # of a mailbox: where it leaves more than a fourth, each message is asked about

_SECTIONS = {
    "FROM": ("from",),
    "TO": ("to",),
    "CC": ("cc",),
    "BCC": ("bcc",),
    "SUBJECT": ("subject",),
    "BODY": ("body",),
    "TEXT": ("header", "body"),
}
_FIELDS = {b"subject": ("subject",), b"message-id": ("ids",), b"in-reply-to": ("ids",)}


def lookup(key: Key) -> Lookup | None:
    """How the index is asked; None: it cannot be."""
    if (sections := _SECTIONS.get(key.word)) is not None:
        return Lookup(sections, key.text, exact=True)
    if key.word == "HEADER":
        # Of the others the index knows that the words are in the header, but not in which field.
        return Lookup(_FIELDS.get(key.field, ("header",)), key.text, exact=key.field == b"subject")
    return None


def lookups(key: Key) -> Iterator[Lookup]:
    if (one := lookup(key)) is not None and one.text:
        yield one
    for inner in key.keys:
        yield from lookups(inner)


def decided(verdict: Verdict, uid: int) -> bool | None:
    if uid in verdict.surely:
        return True
    if uid in verdict.perhaps:
        return None
    at = bisect_right(verdict.spans, uid, key=lambda span: span[0]) - 1
    return False if at >= 0 and uid <= verdict.spans[at][1] else None


def possible(verdict: Verdict, view: View) -> Spans | None:
    """The places of which it does not say that they do not match; None: too many to be worth it."""
    uids = verdict.surely | verdict.perhaps
    return _open(verdict, uids, view) if len(uids) * NARROWS_SHARE <= len(view) else None


def settled(verdict: Verdict, view: View) -> list[int]:
    """The places that surely match, rising."""
    return [place for place, uid in enumerate(view.uids) if uid in verdict.surely]


def unsettled(verdict: Verdict, view: View) -> Spans:
    """The places of which it does not say whether they match."""
    return _open(verdict, verdict.perhaps, view)


def _open(verdict: Verdict, uids: frozenset[int], view: View) -> Spans:
    """The places of these UIDs, and of all that it does not speak for."""
    places = spans_of(place for uid in sorted(uids) if (place := view.place(uid)) is not None)
    at = 0
    for first, last in verdict.spans:
        places.append((at, view.uids.left_of(first)))
        at = view.uids.up_to(last)
    places.append((at, len(view)))
    return merged([span for span in places if span[0] < span[1]])
