"""Values → bytes of IMAP. Strings are quoted where they can be, else literals, so that any bytes survive."""

import re
from collections.abc import Iterable, Sequence

from cluster.domain.mailbox.events import SYSTEM_FLAGS, Ranges
from protocols.imap import utf7
from protocols.imap.model import Reply

QUOTED_BYTES_MAX = 1024  # longer strings are literals: old clients have small buffers for lines

_QUOTABLE = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x7f]*")
_QUOTABLE_UTF8 = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\xff]*")
# What needs no escape either: nearly every word of an ENVELOPE, so that one look is enough.
_PLAIN = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x21\x23-\x5b\x5d-\x7f]{0,%d}" % QUOTED_BYTES_MAX)
_ATOM = re.compile(rb'[^\x00-\x20(){%*"\\\x7f-\xff]+')
_SPECIAL = re.compile(rb'(["\\])')
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")

_BITS: tuple[tuple[int, str], ...] = tuple((bit, name) for name, bit in SYSTEM_FLAGS.items())


def string(value: bytes, utf8: bool = False) -> bytes:
    """RFC 9051 §9 string. `utf8`: 8-bit characters may be quoted, if they are UTF-8 (RFC 9051 §4.3)."""
    if _PLAIN.fullmatch(value):
        return b'"%b"' % value
    if len(value) <= QUOTED_BYTES_MAX:
        if _QUOTABLE.fullmatch(value):
            return quoted(value)
        if utf8 and _QUOTABLE_UTF8.fullmatch(value) and _is_utf8(value):
            return quoted(value)
    return literal(value)


def quoted(value: bytes) -> bytes:
    """The caller knows that it holds neither NUL, CR nor LF."""
    return b'"' + (_SPECIAL.sub(rb"\\\1", value) if b'"' in value or b"\\" in value else value) + b'"'


def literal(value: bytes) -> bytes:
    """RFC 9051 §4.3; `~{n}` (literal8) only where a NUL makes it needed."""
    head = b"~{%d}\r\n" if b"\0" in value else b"{%d}\r\n"
    return head % len(value) + value


def nstring(value: bytes | None, utf8: bool = False) -> bytes:
    return b"NIL" if value is None else string(value, utf8)


def astring(value: bytes, utf8: bool = False) -> bytes:
    return value if _ATOM.fullmatch(value) and value.upper() != b"NIL" else string(value, utf8)


def mailbox(name: str, utf8: bool = False) -> bytes:
    """Quoted always: some clients take no other form."""
    return string(utf7.encode(name, utf8), utf8)


def flags(bits: int, keywords: Sequence[str] = (), recent: bool = False) -> str:
    """Without parentheses."""
    names = [name for bit, name in _BITS if bits & bit]
    if recent:
        names.append("\\Recent")
    names.extend(keywords)
    return " ".join(names)


def ranges(value: Ranges) -> str:
    """RFC 9051 §9 uid-set: 1:3,7."""
    return ",".join(str(first) if first == last else f"{first}:{last}" for first, last in value)


def numbers(values: Iterable[int]) -> str:
    """The same of any ascending numbers."""
    out: list[str] = []
    first = last = -2
    for value in values:
        if value == last + 1:
            last = value
            continue
        if last >= 0:
            out.append(str(first) if first == last else f"{first}:{last}")
        first = last = value
    if last >= 0:
        out.append(str(first) if first == last else f"{first}:{last}")
    return ",".join(out)


def ordered(values: Sequence[int]) -> str:
    """A uid-set that keeps the order given (RFC 4315 §3: COPYUID pairs by place)."""
    out: list[str] = []
    at = 0
    while at < len(values):
        end = at
        while end + 1 < len(values) and values[end + 1] == values[end] + 1:
            end += 1
        out.append(str(values[at]) if end == at else f"{values[at]}:{values[end]}")
        at = end + 1
    return ",".join(out)


def tagged(tag: str, reply: Reply) -> bytes:
    return f"{tag} {condition(reply)}\r\n".encode("ascii")


def condition(reply: Reply) -> str:
    code = f"[{reply.code}] " if reply.code else ""
    return f"{reply.state} {code}{text(reply.text) or 'Done.'}"


def text(value: str) -> str:
    """resp-text: printable ASCII in one line, whatever came in."""
    return _UNPRINTABLE.sub("?", value)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
