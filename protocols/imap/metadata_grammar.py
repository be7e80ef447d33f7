"""The arguments of GETMETADATA and SETMETADATA (RFC 5464 §5), and of LIST's return option METADATA (RFC 9590 §4)."""

from cluster.domain.mailbox import annotations
from protocols.imap.grammar import Cursor
from protocols.imap.model import GetMetadata, SetMetadata, SyntaxRefused

ENTRIES_MAX = 100
INFINITE = -1
DEPTHS = {"0": 0, "1": 1, "INFINITY": INFINITE}


def get_metadata(at: Cursor) -> GetMetadata:
    """The options stand before the mailbox in the grammar, and behind it in an example: both are understood."""
    at.space()
    limit, depth = None, 0
    if at.took(b"("):
        limit, depth = _options(at)
        at.space()
    mailbox = at.mailbox()
    at.space()
    if at.peek(b"(MAXSIZE") or at.peek(b"(DEPTH"):
        at.need(b"(")
        limit, depth = _options(at)
        at.space()
    return GetMetadata(mailbox, entries(at), limit, depth)


def _options(at: Cursor) -> tuple[int | None, int]:
    limit, depth = None, 0
    while True:
        match at.word():
            case "MAXSIZE":  # RFC 5464 §4.2.1
                at.space()
                limit = at.number()
            case "DEPTH":  # RFC 5464 §4.2.2
                at.space()
                word = at.word()
                if word not in DEPTHS:
                    raise at.fail("0, 1 or infinity")
                depth = DEPTHS[word]
            case _:
                raise SyntaxRefused("no such option of GETMETADATA")
        if at.took(b")"):
            return limit, depth
        at.space()


def entries(at: Cursor) -> tuple[str, ...]:
    """One, or several in parentheses; each once."""
    if not at.took(b"("):
        return (entry(at),)
    found = {entry(at): None}
    while at.took(b" "):
        found[entry(at)] = None
        if len(found) > ENTRIES_MAX:
            raise SyntaxRefused("too many entries")
    at.need(b")")
    return tuple(found)


def entry(at: Cursor) -> str:
    """RFC 5464 §3.2: what is no entry's name is BAD."""
    found = annotations.entry(at.astring().decode("latin-1"))
    if found is None:
        raise SyntaxRefused("no such entry")
    return found


def set_metadata(at: Cursor) -> SetMetadata:
    at.space()
    mailbox = at.mailbox()
    at.need(b" (")
    values: dict[str, bytes | None] = {}
    while not values or at.took(b" "):
        name = entry(at)
        if name in (annotations.SHARED, annotations.PRIVATE):
            raise SyntaxRefused("no such entry")
        at.space()
        values[name] = at.nstring()
        if len(values) > ENTRIES_MAX:
            raise SyntaxRefused("too many entries")
    at.need(b")")
    return SetMetadata(mailbox, tuple(values.items()))
