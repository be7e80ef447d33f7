"""Rows → the data items of FETCH (RFC 9051 §7.5.2), but those that need a message's bytes."""

from array import array
from collections.abc import Callable, Iterable, Sequence

import msgspec

from cluster.formats import mime
from protocols.imap import writer
from protocols.imap.model import FetchItem
from protocols.imap.structure import envelope, structure
from protocols.imap.view import View
from protocols.port import Flags, Message

FLAG_ITEMS = frozenset(("FLAGS", "UID", "MODSEQ"))
ROW_ITEMS = frozenset(("INTERNALDATE", "RFC822.SIZE", "EMAILID", "THREADID", "SAVEDATE"))
DESCRIBED_ITEMS = frozenset(("ENVELOPE", "BODY", "BODYSTRUCTURE", "PREVIEW"))

description = msgspec.msgpack.Decoder(mime.Description).decode


class FlagWords:
    """Flags as they are written, each combination made once. `recent_from`: UIDs from it on are \\Recent."""

    def __init__(self, recent_from: int) -> None:
        self._recent_from = recent_from
        self._known: dict[tuple[int, tuple[str, ...], bool], str] = {}

    def __call__(self, row: Flags | Message) -> str:
        key = (row.flags, row.keywords, row.uid >= self._recent_from)
        words = self._known.get(key)
        if words is None:
            words = self._known[key] = f"FLAGS ({writer.flags(*key)})"
        return words


def flag_lines(
    rows: Sequence[Flags], view: View, words: Sequence[str], flags: FlagWords, uid_only: bool = False
) -> bytes:
    """Whole FETCH responses of UID, FLAGS and MODSEQ alone: the line that clients ask for by the hundred thousand. `uid_only`:
    UIDFETCH instead (RFC 9586 §3)."""
    if not uid_only and list(words) == ["UID", "FLAGS"]:
        lines = [f"* {number} FETCH (UID {row.uid} {flags(row)})\r\n" for number, row in _numbered(rows, view)]
    else:
        makers: list[Callable[[Flags], str]] = [_FLAG_MAKERS.get(word, flags) for word in words]
        name = "UIDFETCH" if uid_only else "FETCH"
        lines = [
            f"* {row.uid if uid_only else number} {name} ({' '.join([make(row) for make in makers])})\r\n"
            for number, row in _numbered(rows, view)
        ]
    return "".join(lines).encode("ascii")


def _numbered(rows: Sequence[Flags], view: View) -> Iterable[tuple[int, Flags]]:
    """With their sequence numbers; rows that the view does not have are left out."""
    first = view.place(rows[0].uid) if rows else None
    if first is not None and view.uids[first : first + len(rows)] == array("I", [row.uid for row in rows]):
        return enumerate(rows, first + 1)
    found = ((view.place(row.uid), row) for row in rows)
    return ((place + 1, row) for place, row in found if place is not None)


_FLAG_MAKERS: dict[str, Callable[[Flags], str]] = {
    "UID": lambda row: f"UID {row.uid}",
    "MODSEQ": lambda row: f"MODSEQ ({row.modseq})",
}


def item(word: FetchItem, row: Message, described: mime.Description | None, flags: FlagWords, utf8: bool) -> bytes:
    """One data item of a row; `described` for those in DESCRIBED_ITEMS."""
    match word.word:
        case "UID":
            return b"UID %d" % row.uid
        case "FLAGS":
            return flags(row).encode("ascii")
        case "MODSEQ":
            return b"MODSEQ (%d)" % row.modseq
        case "INTERNALDATE":
            return b'INTERNALDATE "%b"' % mime.format_internaldate(row.internal_at, row.internal_zone).encode("ascii")
        case "RFC822.SIZE":
            return b"RFC822.SIZE %d" % row.size
        case "EMAILID":
            return f"EMAILID ({email_id(row)})".encode("ascii")
        case "THREADID":
            return f"THREADID ({thread_id(row)})".encode("ascii") if row.thread_id else b"THREADID NIL"
        case "SAVEDATE":
            return b'SAVEDATE "%b"' % mime.format_internaldate(row.saved_at).encode("ascii")
    assert described is not None
    match word.word:
        case "ENVELOPE":
            return b"ENVELOPE " + envelope(described.envelope, utf8)
        case "BODYSTRUCTURE":
            return b"BODYSTRUCTURE " + structure(described.structure, True, utf8)
        case "BODY":
            return b"BODY " + structure(described.structure, False, utf8)
        case "PREVIEW":
            # RFC 8970 §3.1: UTF-8, whatever was enabled; what is not ASCII rides in a literal then
            return b"PREVIEW " + writer.string(described.preview.encode("utf-8"), utf8)
    raise AssertionError(word.word)


def email_id(row: Message) -> str:
    """RFC 8474 §5.1: equal for messages of equal bytes."""
    return "E" + row.email_id.hex()


def thread_id(row: Message) -> str:
    """RFC 8474 §5.2."""
    return f"T{row.thread_id:x}"
