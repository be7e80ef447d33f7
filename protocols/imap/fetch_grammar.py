"""What FETCH asks for (RFC 9051 §6.4.5, §9 fetch-att)."""

from typing import get_args

from protocols.imap.grammar import Cursor
from protocols.imap.model import Fetch, FetchItem, Partial, Section, SyntaxRefused
from protocols.imap.writer import astring

ITEMS_MAX = 200
FIELDS_MAX = 500
DEPTH_PARTS_MAX = 64

# RFC 9051 §6.4.5: macros stand alone
MACROS: dict[str, tuple[str, ...]] = {
    "ALL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"),
    "FAST": ("FLAGS", "INTERNALDATE", "RFC822.SIZE"),
    "FULL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"),
}
PLAIN = frozenset(
    ("FLAGS", "UID", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODYSTRUCTURE", "MODSEQ", "EMAILID", "THREADID", "SAVEDATE")
)
# RFC 3501 §6.4.5: older names for sections, which the reply repeats
OLD: dict[str, tuple[Section, bool]] = {
    "RFC822": (Section(), False),
    "RFC822.HEADER": (Section(kind="HEADER"), True),
    "RFC822.TEXT": (Section(kind="TEXT"), False),
}
SECTION_WORDS = frozenset(get_args(Section.__annotations__["kind"])) - {""}


def fetch(at: Cursor, uid: bool) -> Fetch:
    at.space()
    messages = at.sequence_set()
    at.space()
    items: list[FetchItem] = []
    if at.took(b"("):
        while not items or at.took(b" "):
            items.append(item(at))
            if len(items) > ITEMS_MAX:
                raise SyntaxRefused("too many items")
        at.need(b")")
    elif (macro := MACROS.get(at.peek_word())) is not None:
        at.word()
        items = [FetchItem(word, word.encode()) for word in macro]
    else:
        items.append(item(at))
    changed_since, vanished, partial = _modifiers(at) if at.took(b" (") else (None, False, None)
    if vanished and (not uid or changed_since is None):
        # RFC 7162 §3.2.6: VANISHED only with UID FETCH and CHANGEDSINCE
        raise SyntaxRefused("VANISHED needs UID FETCH and CHANGEDSINCE")
    if partial is not None and not uid:
        raise SyntaxRefused("PARTIAL needs UID FETCH")  # RFC 9394 §3.3
    unique = {(item.word, item.label): item for item in items}
    return Fetch(uid, messages, tuple(unique.values()), changed_since, vanished, partial)


def _modifiers(at: Cursor) -> tuple[int | None, bool, Partial | None]:
    changed_since, vanished, partial = None, False, None
    while True:
        match at.word():
            case "CHANGEDSINCE":  # RFC 7162 §3.1.4.1
                at.space()
                changed_since = at.number64()
            case "VANISHED":
                vanished = True
            case "PARTIAL" if partial is None:
                at.space()
                partial = at.partial()
            case _:
                raise SyntaxRefused("no such modifier of FETCH")
        if at.took(b")"):
            return changed_since, vanished, partial
        at.space()


def item(at: Cursor) -> FetchItem:
    """RFC 9051 §9 fetch-att."""
    word = at.word()
    if word in ("BODY", "BODY.PEEK") and at.peek(b"["):
        return _sectioned(at, "BODY[]", b"BODY", _section(at), peek=word == "BODY.PEEK")
    if word in ("BINARY", "BINARY.PEEK") and at.peek(b"["):
        return _sectioned(at, "BINARY[]", b"BINARY", _numbers_only(at), peek=word == "BINARY.PEEK")
    if word == "BINARY.SIZE" and at.peek(b"["):
        section = _numbers_only(at)
        return FetchItem("BINARY.SIZE[]", b"BINARY.SIZE[" + shown(section) + b"]", section)
    if word == "BODY":
        return FetchItem("BODY", b"BODY")
    if word in OLD:
        section, peek = OLD[word]
        return FetchItem("BODY[]", word.encode(), section, peek=peek)
    if word == "PREVIEW":
        _lazy(at)
        return FetchItem("PREVIEW", b"PREVIEW")
    if word in PLAIN:
        return FetchItem(word, word.encode())
    raise SyntaxRefused(f"no such item of FETCH: {word}")


def _lazy(at: Cursor) -> None:
    """RFC 8970 §3.2: (LAZY). Previews are made when a message comes, so both forms cost the same."""
    if at.took(b" ("):
        if at.word() != "LAZY":
            raise SyntaxRefused("no such modifier of PREVIEW")
        at.need(b")")


def _sectioned(at: Cursor, word: str, name: bytes, section: Section, *, peek: bool) -> FetchItem:
    label = name + b"[" + shown(section) + b"]"
    partial = None
    if at.took(b"<"):
        first = at.number64()
        at.need(b".")
        count = at.number64()
        at.need(b">")
        if count == 0:
            raise SyntaxRefused("a partial of nothing")  # RFC 9051 §9: nz-number
        partial = (first, count)
        label += b"<%d>" % first  # RFC 9051 §7.5.2: the reply names only the origin
    return FetchItem(word, label, section, partial, peek)


def _path(at: Cursor) -> tuple[list[int], bool]:
    """(part numbers, a dot follows the last)."""
    path: list[int] = []
    while at.peek_digit():
        path.append(at.number())
        if path[-1] == 0 or len(path) > DEPTH_PARTS_MAX:
            raise SyntaxRefused("no such part")
        if not at.took(b"."):
            return path, False
    return path, True


def _numbers_only(at: Cursor) -> Section:
    at.need(b"[")
    path, dotted = _path(at)
    if path and dotted:
        raise at.fail("a part number")
    at.need(b"]")
    return Section(tuple(path))


def _section(at: Cursor) -> Section:
    at.need(b"[")
    if at.took(b"]"):
        return Section()
    path, dotted = _path(at)
    if not dotted:
        at.need(b"]")
        return Section(tuple(path))
    kind = at.word()
    if kind not in SECTION_WORDS or (kind == "MIME" and not path):
        raise SyntaxRefused("no such section")
    fields: list[bytes] = []
    if kind.startswith("HEADER.FIELDS"):
        at.need(b" (")
        while not fields or at.took(b" "):
            fields.append(at.astring())
        at.need(b")")
        if len(fields) > FIELDS_MAX:
            raise SyntaxRefused("too many fields")
    at.need(b"]")
    return Section(tuple(path), kind, tuple(fields))  # type: ignore[arg-type]  # SECTION_WORDS are the literals


def section_of(text: bytes) -> Section:
    """What stands between the brackets (RFC 9051 §9 section-spec). Raises SyntaxRefused."""
    at = Cursor(b"[" + text + b"]")
    section = _section(at)
    at.end()
    return section


def shown(section: Section) -> bytes:
    """What stands in the brackets of the reply."""
    parts = [str(number).encode() for number in section.path]
    if section.kind:
        parts.append(section.kind.encode())
    out = b".".join(parts)
    if section.fields:
        # RFC 9051 §9: header-fld-name is an astring; it comes back as it was sent, quoted where it must be
        out += b" (" + b" ".join(astring(field) for field in section.fields) + b")"
    return out
