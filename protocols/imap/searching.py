"""Is a message what a search asks for? Pure. What is not known yet makes the answer None, so that cheap keys decide first.

A message is looked at on rising levels: 0 its place and UID, 1 its flags, 2 its row, 3 its description, 4 its bytes.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping

import msgspec

from cluster.domain.mailbox.events import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from cluster.formats import mime
from cluster.formats.searched import people, words_of
from protocols.imap import indexed
from protocols.imap.model import Key
from protocols.imap.rendering import email_id, thread_id
from protocols.imap.view import Spans, View, merged
from protocols.port import Flags, Lookup, Message, Verdict

DAY_S = 86_400

PLACES, FLAGS, ROWS, DESCRIBED, BYTES = range(5)


class Candidate(msgspec.Struct):
    """One message, as far as it is known. `header`, `body`: casefolded, made of its bytes when first asked for."""

    place: int
    uid: int
    recent: bool
    row: Flags | Message | None = None
    described: mime.Description | None = None
    header: bytes | None = None
    text: "Texts | None" = None

    @property
    def message(self) -> Message:
        assert isinstance(self.row, Message)
        return self.row


class Texts(msgspec.Struct, frozen=True):
    """Decoded and casefolded: the header, one field a line, and what SEARCH BODY looks at."""

    header: str
    body: str


class Asked(msgspec.Struct, frozen=True):
    """A key with its sets resolved. `spans` for SEQUENCE and UID; `now`: unix seconds, for OLDER and YOUNGER; `level`: the
    lowest on which it can be decided. `verdict`: the index's, which may decide it at once."""

    word: str
    level: int
    key: Key
    now: int
    spans: tuple[tuple[int, int], ...] = ()
    keys: tuple["Asked", ...] = ()
    verdict: Verdict | None = None


Verdicts = Mapping[Lookup, Verdict]


def resolved(key: Key, view: View, now: int, *, verdicts: Verdicts | None = None, lenient: bool = False) -> Asked:
    """Raises NoSuchMessage, unless `lenient`."""
    if key.word in ("SEQUENCE", "UID"):
        assert key.messages is not None
        return Asked("SEQUENCE", PLACES, key, now, tuple(view.spans(key.messages, key.word == "UID", lenient=lenient)))
    if key.word in ("AND", "OR", "NOT"):
        # cheap keys first: they spare the dear ones
        keys = sorted((resolved(one, view, now, verdicts=verdicts, lenient=lenient) for one in key.keys), key=_dearness)
        return Asked(key.word, max(one.level for one in keys), key, now, (), tuple(keys))
    lookup = indexed.lookup(key) if verdicts else None
    return Asked(key.word, _level(key), key, now, verdict=verdicts.get(lookup) if verdicts and lookup else None)


def _dearness(asked: Asked) -> int:
    return PLACES if asked.verdict is not None else asked.level


def _level(key: Key) -> int:
    if key.word == "HEADER":
        return DESCRIBED if key.field in _ENVELOPE_FIELDS and key.text else BYTES
    return KEYS[key.word][0]


def bounds(asked: Asked, view: View) -> Spans:
    """Places outside are surely no match: sets, and what the index knows, narrow the search before it begins."""
    whole = [(0, len(view))] if len(view) else []
    within = _within(asked, view)
    return whole if within is None else both(whole, within)


def _within(asked: Asked, view: View) -> Spans | None:
    """None: it narrows nothing."""
    if asked.word == "SEQUENCE":
        return list(asked.spans)
    if asked.verdict is not None:
        return indexed.possible(asked.verdict, view)
    if asked.word not in ("AND", "OR"):
        return None
    found = [_within(one, view) for one in asked.keys]
    narrow = [one for one in found if one is not None]
    if asked.word == "OR":
        return merged([span for one in narrow for span in one]) if len(narrow) == len(found) else None
    within = narrow[0] if narrow else None
    for one in narrow[1:]:
        within = both(within or [], one)
    return within


def both(a: Spans, b: Spans) -> Spans:
    out: Spans = []
    i = j = 0
    while i < len(a) and j < len(b):
        start, stop = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if start < stop:
            out.append((start, stop))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return out


def matches(asked: Asked, one: Candidate, level: int) -> bool | None:
    """With what is known on this level; None = not decided yet."""
    match asked.word:
        case "AND":
            return _all(asked.keys, one, level)
        case "OR":
            unknown = False
            for key in asked.keys:
                found = matches(key, one, level)
                if found:
                    return True
                unknown = unknown or found is None
            return None if unknown else False
        case "NOT":
            found = _all(asked.keys, one, level)
            return None if found is None else not found
        case "SEQUENCE":
            at = bisect_right(asked.spans, one.place, key=lambda span: span[0]) - 1
            return at >= 0 and one.place < asked.spans[at][1]
    if asked.verdict is not None and (known := indexed.decided(asked.verdict, one.uid)) is not None:
        return known
    if asked.level > level:
        return None
    if asked.word == "HEADER":
        return _envelope_field(asked, one) if asked.level == DESCRIBED else _header_field(asked, one)
    return KEYS[asked.word][1](asked, one)


def _all(keys: tuple[Asked, ...], one: Candidate, level: int) -> bool | None:
    unknown = False
    for key in keys:
        found = matches(key, one, level)
        if found is False:
            return False
        unknown = unknown or found is None
    return None if unknown else True


def _flag(bit: int, wanted: bool) -> Callable[[Asked, Candidate], bool]:
    def test(asked: Asked, one: Candidate) -> bool:
        assert one.row is not None
        return bool(one.row.flags & bit) is wanted

    return test


def _keyword(wanted: bool) -> Callable[[Asked, Candidate], bool]:
    def test(asked: Asked, one: Candidate) -> bool:
        assert one.row is not None
        # RFC 9051 §2.3.2: keywords are the same in any case
        return any(keyword.lower() == asked.key.text for keyword in one.row.keywords) is wanted

    return test


def _compared(value: Callable[[Candidate], int | None], how: str) -> Callable[[Asked, Candidate], bool]:
    def test(asked: Asked, one: Candidate) -> bool:
        found, wanted = value(one), asked.key.number
        if found is None:
            return False
        return found < wanted if how == "<" else found == wanted if how == "=" else found >= wanted

    return test


def _internal_day(one: Candidate) -> int:
    """RFC 9051 §6.4.4: disregarding time and zone, that is the day as the date is written."""
    return (one.message.internal_at + one.message.internal_zone * 60) // DAY_S


def _sent_day(one: Candidate) -> int | None:
    described = one.described
    assert described is not None
    return None if described.sent is None else (described.sent + described.sent_zone * 60) // DAY_S


def _saved_day(one: Candidate) -> int:
    return one.message.saved_at // DAY_S


def _seen_new(asked: Asked, one: Candidate) -> bool:
    assert one.row is not None
    return one.recent and not one.row.flags & SEEN


def _people(name: str) -> Callable[[Asked, Candidate], bool]:
    def test(asked: Asked, one: Candidate) -> bool:
        assert one.described is not None
        return asked.key.text in people(getattr(one.described.envelope, name))

    return test


def _subject(asked: Asked, one: Candidate) -> bool:
    assert one.described is not None
    return asked.key.text in words_of(one.described.envelope.subject)


def _body(asked: Asked, one: Candidate) -> bool:
    assert one.text is not None
    return asked.key.text in one.text.body


def _text(asked: Asked, one: Candidate) -> bool:
    assert one.text is not None
    return asked.key.text in one.text.header or asked.key.text in one.text.body


# Fields that the envelope holds as they came; of people it holds what was understood, so those are looked for in the header.
_ENVELOPE_FIELDS = {b"subject": "subject", b"message-id": "message_id", b"in-reply-to": "in_reply_to"}


def _envelope_field(asked: Asked, one: Candidate) -> bool:
    assert one.described is not None
    return asked.key.text in words_of(getattr(one.described.envelope, _ENVELOPE_FIELDS[asked.key.field]))


def _header_field(asked: Asked, one: Candidate) -> bool:
    assert one.header is not None
    value = mime.header_value(one.header, asked.key.field)
    # RFC 9051 §6.4.4: an empty string asks whether the field is there at all
    return value is not None and asked.key.text in value.casefold()


def _older(asked: Asked, one: Candidate) -> bool:
    return one.message.internal_at <= asked.now - asked.key.number  # RFC 5032 §3


def _younger(asked: Asked, one: Candidate) -> bool:
    return one.message.internal_at >= asked.now - asked.key.number


Test = Callable[[Asked, Candidate], bool]

KEYS: dict[str, tuple[int, Test]] = {
    "ALL": (PLACES, lambda asked, one: True),
    "SAVEDATESUPPORTED": (PLACES, lambda asked, one: True),  # RFC 8514 §4.3
    "RECENT": (PLACES, lambda asked, one: one.recent),
    "OLD": (PLACES, lambda asked, one: not one.recent),
    "NEW": (FLAGS, _seen_new),
    "ANSWERED": (FLAGS, _flag(ANSWERED, True)),
    "DELETED": (FLAGS, _flag(DELETED, True)),
    "DRAFT": (FLAGS, _flag(DRAFT, True)),
    "FLAGGED": (FLAGS, _flag(FLAGGED, True)),
    "SEEN": (FLAGS, _flag(SEEN, True)),
    "UNANSWERED": (FLAGS, _flag(ANSWERED, False)),
    "UNDELETED": (FLAGS, _flag(DELETED, False)),
    "UNDRAFT": (FLAGS, _flag(DRAFT, False)),
    "UNFLAGGED": (FLAGS, _flag(FLAGGED, False)),
    "UNSEEN": (FLAGS, _flag(SEEN, False)),
    "KEYWORD": (FLAGS, _keyword(True)),
    "UNKEYWORD": (FLAGS, _keyword(False)),
    "MODSEQ": (FLAGS, _compared(lambda one: one.row.modseq if one.row else None, ">=")),
    "LARGER": (ROWS, lambda asked, one: one.message.size > asked.key.number),
    "SMALLER": (ROWS, lambda asked, one: one.message.size < asked.key.number),
    "BEFORE": (ROWS, _compared(_internal_day, "<")),
    "ON": (ROWS, _compared(_internal_day, "=")),
    "SINCE": (ROWS, _compared(_internal_day, ">=")),
    "SAVEDBEFORE": (ROWS, _compared(_saved_day, "<")),
    "SAVEDON": (ROWS, _compared(_saved_day, "=")),
    "SAVEDSINCE": (ROWS, _compared(_saved_day, ">=")),
    "OLDER": (ROWS, _older),
    "YOUNGER": (ROWS, _younger),
    "EMAILID": (ROWS, lambda asked, one: email_id(one.message) == asked.key.text),
    "THREADID": (ROWS, lambda asked, one: thread_id(one.message) == asked.key.text),
    "SENTBEFORE": (DESCRIBED, _compared(_sent_day, "<")),
    "SENTON": (DESCRIBED, _compared(_sent_day, "=")),
    "SENTSINCE": (DESCRIBED, _compared(_sent_day, ">=")),
    "FROM": (DESCRIBED, _people("from_")),
    "TO": (DESCRIBED, _people("to")),
    "CC": (DESCRIBED, _people("cc")),
    "BCC": (DESCRIBED, _people("bcc")),
    "SUBJECT": (DESCRIBED, _subject),
    "BODY": (BYTES, _body),
    "TEXT": (BYTES, _text),
}
