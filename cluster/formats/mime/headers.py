"""Header blocks: finding their end, splitting them into fields, reading typed values and their parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from cluster.formats.mime.model import PARAMS_MAX, Buffer, Params, Part
from cluster.formats.mime.words import decode_charset, decode_words

_BLANK_LINE = re.compile(rb"\n\r?\n")
_BLANK_FIRST = re.compile(rb"\r?\n")
# A field and its continuation lines (RFC 5322 §2.2, §2.2.3); blanks before the colon are obsolete syntax (§4.5).
_FIELD = re.compile(rb"\n([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)")
_FOLDED = re.compile(rb"\n([^\n]*(?:\n[ \t][^\n]*)*)")
_FIELD_NAME = re.compile(rb"[!-9;-~]+")
_UNFOLDED_OUT = b"\0\r\n"

_TOKEN = rb"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+"  # RFC 2045 §5.1
_MEDIA_TYPE = re.compile(rb"[ \t]*(?:\([^()]*\)[ \t]*)?(" + _TOKEN + rb")[ \t]*/[ \t]*(" + _TOKEN + rb")")
_FIRST_TOKEN = re.compile(rb"[ \t]*(?:\([^()]*\)[ \t]*)?(" + _TOKEN + rb")")
_PARAM = re.compile(rb';[ \t]*([^\s=;"]+)[ \t]*=[ \t]*(?:"([^"\\]*(?:\\.[^"\\]*)*)(?:"|\\?\Z)|([^;]*))', re.DOTALL)
_TAIL_COMMENT = re.compile(rb"[ \t]\(.*\)\Z", re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)

Fields = dict[bytes, bytes]

ENVELOPE_NAMES = frozenset(b"date subject from sender reply-to to cc bcc in-reply-to message-id references".split())
PART_NAMES = frozenset(
    b"content-" + name for name in b"type transfer-encoding disposition id description language location md5".split()
)
_LISTED = frozenset((b"to", b"cc", b"bcc"))


def header_end(data: Buffer, start: int, limit: int) -> int:
    """Where the body starts: behind the first blank line, in CRLF or LF, or at `limit` when there is none."""
    if first := _BLANK_FIRST.match(data, start, limit):
        return first.end()
    blank = _BLANK_LINE.search(data, start, limit)
    return blank.end() if blank else limit


def unfold(value: bytes) -> bytes:
    """RFC 5322 §2.2.3: take the line breaks out, keep the blanks behind them."""
    return value.translate(None, _UNFOLDED_OUT).strip(b" \t")


def parse_fields(block: bytes, wanted: frozenset[bytes]) -> Fields:
    """Unfolded values of the fields with these lower-case names; of a repeated one the first, of recipients all."""
    fields: Fields = {}
    for name, value in _FIELD.findall(b"\n" + block):
        key = name.lower()
        if key not in wanted:
            continue
        if key not in fields:
            fields[key] = unfold(value)
        elif key in _LISTED:  # RFC 5322 §3.6 allows one; where there are more, nobody is to be left out
            fields[key] += b", " + unfold(value)
    return fields


def header_fields(header: bytes, names: Iterable[str | bytes], exclude: bool = False) -> bytes:
    """HEADER.FIELDS, or with `exclude` HEADER.FIELDS.NOT (RFC 9051 §6.4.5.1): raw fields in their order, a blank line.

    Lines that are no fields are named by nobody, so the latter keeps them.
    Serves as well for stripping Bcc: ``header_fields(header, ["bcc"], exclude=True)``.
    """
    lines, blank = _lines_and_blank(header)
    chosen = _chosen(frozenset(map(_lower, names)))
    if exclude:
        left = lines if chosen is None else chosen.sub(b"", lines)
        return (left[1:] + b"\n" if left else b"") + blank
    found = chosen.findall(lines) if chosen else ()
    return b"\n".join(found) + (b"\n" if found else b"") + blank


def header_value(header: bytes, name: str | bytes) -> str | None:
    """Decoded value of a header field for SEARCH; repeated fields one a line. `None` when there is no such field."""
    chosen = _chosen(frozenset((_lower(name),)))
    fields = chosen.findall(_lines_and_blank(header)[0]) if chosen else ()
    return "\n".join(decode_words(unfold(field.partition(b":")[2])) for field in fields) if fields else None


def decoded_header(header: bytes) -> str:
    """A whole header as text, one field a line, encoded words decoded."""
    return "\n".join(decode_words(unfold(field)) for field in _FOLDED.findall(_lines_and_blank(header)[0]))


def _lower(name: str | bytes) -> bytes:
    return (name.encode("utf-8", "replace") if isinstance(name, str) else name).lower()


def _lines_and_blank(header: bytes) -> tuple[bytes, bytes]:
    """The lines of a header, each with a line feed before it and none behind it, and its blank line (or one made up)."""
    if header.endswith((b"\n\r\n", b"\n\n")) or header in (b"\r\n", b"\n"):
        blank = b"\r\n" if header.endswith(b"\r\n") else b"\n"
        header = header[: -len(blank)]
    else:  # RFC 9051 §6.4.5.1: the delimiting blank line is always included
        blank = b"\n" if header.endswith(b"\n") and not header.endswith(b"\r\n") else b"\r\n"
    if header and not header.endswith(b"\n"):
        header += blank
    return (b"\n" + header[:-1] if header else b""), blank


@lru_cache(maxsize=128)
def _chosen(names: frozenset[bytes]) -> re.Pattern[bytes] | None:
    """Finds whole fields of these names. Clients ask for the same few sets of names again and again."""
    possible = sorted(name for name in names if _FIELD_NAME.fullmatch(name))
    if not possible:
        return None
    either = b"|".join(map(re.escape, possible))
    return re.compile(rb"\n((?:" + either + rb")[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE)


def media_type(value: bytes) -> tuple[str, str] | None:
    """Type and subtype in lower case, or `None` if they cannot be read (RFC 2045 §5.1)."""
    found = _MEDIA_TYPE.match(value)
    return (found[1].decode("ascii").lower(), found[2].decode("ascii").lower()) if found else None


def first_token(value: bytes) -> str | None:
    """The first token in lower case: a disposition or a transfer encoding."""
    found = _FIRST_TOKEN.match(value)
    return found[1].decode("ascii").lower() if found else None


def parse_params(value: bytes) -> Params:
    """Parameters in their order, unquoted (RFC 2045 §5.1). Bare values may hold blanks and specials, as many do."""
    if b";" not in value:
        return ()
    params: list[tuple[str, bytes]] = []
    for name, quoted, plain in _PARAM.findall(value):
        if quoted:
            text = _QUOTED_PAIR.sub(rb"\1", quoted) if b"\\" in quoted else quoted
        else:
            text = plain.strip(b" \t")
            if text.endswith(b")"):
                text = _TAIL_COMMENT.sub(b"", text).rstrip(b" \t")
        params.append((name.decode("ascii", "replace").lower(), text))
        if len(params) == PARAMS_MAX:
            break
    return tuple(params)


def parameter_bytes(params: Params, name: str) -> tuple[bytes, str | None, bool] | None:
    """(bytes, charset, whether RFC 2231 was used) of a parameter: continuations (§3) and percent signs (§4) undone."""
    plain: bytes | None = None
    pieces: dict[int, tuple[bytes, bool]] = {}
    for key, value in params:
        if key == name:
            plain = value if plain is None else plain
        elif key.startswith(name + "*"):
            rest = key[len(name) + 1 :]
            encoded = rest.endswith("*") or rest == ""
            digits = rest.rstrip("*") or "0"
            if digits.isascii() and digits.isdigit() and len(digits) <= 4:
                pieces.setdefault(int(digits), (value, encoded))
    if 0 not in pieces:
        return None if plain is None else (plain, None, False)
    out, charset, number = [], None, 0
    while number in pieces:
        value, encoded = pieces[number]
        if number == 0 and encoded and value.count(b"'") >= 2:
            label, _, value = value.split(b"'", 2)
            charset = label.decode("ascii", "replace") or None
        out.append(unquote_to_bytes(value) if encoded else value)
        number += 1
    return b"".join(out), charset, True


def parameter(params: Params, name: str) -> str | None:
    """A parameter as text: RFC 2231 decoded, and RFC 2047 too where an agent wrongly used it."""
    found = parameter_bytes(params, name)
    if found is None:
        return None
    value, charset, extended = found
    return decode_charset(value, charset) if extended else decode_words(value)


def filename(part: Part) -> str | None:
    """The name of a file: `filename` of the disposition (RFC 2183 §2.3), else `name` of the type."""
    return parameter(part.disposition_params, "filename") or parameter(part.params, "name")
