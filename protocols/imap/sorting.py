"""What SORT and THREAD go by (RFC 5256 §2, §3; RFC 5957 §3): rows → keys. Pure; no message's bytes are read for it."""

from collections.abc import Callable, Sequence

import msgspec

from cluster.formats import mime
from cluster.formats.casemap import casemap
from cluster.formats.threads import Threadable
from protocols.imap.model import SortKey
from protocols.port import Message

KEY_CHARS_MAX = 1_000  # of a name or a subject: what differs only behind it counts as equal


class Described(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The part of a mime.Description that is needed here; what is passed over is not decoded."""

    size: int
    header_bytes: int
    envelope: mime.Envelope
    structure: msgspec.Raw
    preview: msgspec.Raw
    sent: int | None
    sent_zone: int
    message_id: str | None
    references: tuple[str, ...]
    subject_base: str
    has_attachment: bool
    crlf_added: int = 0
    own_references: int = -1


described = msgspec.msgpack.Decoder(Described).decode

Value = int | str
_ROW_WORDS = frozenset(("ARRIVAL", "DATE", "SIZE"))


def needs_description(keys: Sequence[SortKey]) -> bool:
    return any(key.word not in _ROW_WORDS for key in keys)


def sent(row: Message) -> int:
    """RFC 5256 §2.2: in UTC; without a Date that can be read, the time of arrival."""
    return row.internal_at if row.sent is None else row.sent


def values(row: Message, keys: Sequence[SortKey]) -> tuple[Value, ...]:
    """RFC 5256 §3 BASE.6.4.SORT, one for each key."""
    known = described(row.description) if row.description else None
    return tuple(
        _OF_ROW[key.word](row) if key.word in _ROW_WORDS else _OF_ENVELOPE[key.word](known) if known is not None else ""
        for key in keys
    )


_OF_ROW: dict[str, Callable[[Message], int]] = {
    "ARRIVAL": lambda row: row.internal_at,
    "DATE": sent,
    "SIZE": lambda row: row.size,
}

_OF_ENVELOPE: dict[str, Callable[[Described], str]] = {
    "FROM": lambda known: _mailbox(known.envelope.from_),
    "TO": lambda known: _mailbox(known.envelope.to),
    "CC": lambda known: _mailbox(known.envelope.cc),
    "SUBJECT": lambda known: casemap(known.subject_base),
    "DISPLAYFROM": lambda known: _display(known.envelope.from_),
    "DISPLAYTO": lambda known: _display(known.envelope.to),
}
SORT_WORDS = frozenset((*_OF_ROW, *_OF_ENVELOPE))


def _mailbox(people: tuple[mime.Address, ...]) -> str:
    """The addr-mailbox of the first address, as ENVELOPE shows it."""
    return _text(people[0].mailbox) if people else ""


def _display(people: tuple[mime.Address, ...]) -> str:
    """RFC 5957 §3: the name, else the address."""
    if not people:
        return ""
    first = people[0]
    name = casemap(mime.decode_words(first.name[: 4 * KEY_CHARS_MAX])[:KEY_CHARS_MAX]) if first.name else ""
    if name or not first.mailbox:
        return name
    return _text(first.mailbox + b"@" + first.host) if first.host else _text(first.mailbox)


def _text(value: bytes | None) -> str:
    return casemap((value or b"")[:KEY_CHARS_MAX].decode("utf-8", "replace"))


def in_order(found: list[tuple[int, tuple[Value, ...]]], keys: Sequence[SortKey]) -> list[int]:
    """`found`: (place, values), by place. RFC 5256 §3: what is equal in all keys stays in mailbox order, and REVERSE is of
    one key alone; a stable sort from the last key to the first does both."""
    for at in range(len(keys) - 1, -1, -1):
        found.sort(key=lambda one, at=at: one[1][at], reverse=keys[at].reverse)  # type: ignore[misc]  # a key's values are of one type
    return [place for place, _ in found]


def threadable(row: Message, number: int) -> Threadable:
    known = described(row.description)
    subject = known.envelope.subject
    base, reply = mime.read_subject(mime.decode_words(subject[: 12 * KEY_CHARS_MAX])) if subject else ("", False)
    return Threadable(number, sent(row), casemap(base), reply, known.message_id, references(known))


def references(known: Described) -> tuple[str, ...]:
    """RFC 5256 §3: those of References, else the first of In-Reply-To alone."""
    own = known.own_references
    if own < 0:  # an earlier release did not count them
        answered = mime.message_ids(known.envelope.in_reply_to or b"")
        own = 0 if set(known.references) <= set(answered) else len(known.references)
    return known.references[: own or 1]
