"""Finds the parts of a message by byte offsets, in one pass over its bytes and one over each header.

The lines that begin with "--" are listed once, by one regular expression; the tree is then cut out of that list, so
attachments are never read line by line and depth costs nothing. Whatever the bytes, there is an answer.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from msgspec.structs import replace

from cluster.formats.mime.addresses import parse_addresses
from cluster.formats.mime.headers import (
    ENVELOPE_NAMES,
    PART_NAMES,
    Fields,
    first_token,
    header_end,
    media_type,
    parameter_bytes,
    parse_fields,
    parse_params,
)
from cluster.formats.mime.model import (
    BOUNDARY_BYTES_MAX,
    BOUNDARY_LINES_MAX,
    DEPTH_MAX,
    HEADER_BYTES_MAX,
    HEADERS_BYTES_MAX,
    INNER_ADDRESSES_MAX,
    PARTS_MAX,
    Buffer,
    Envelope,
    Part,
)

_DASHES = re.compile(rb"\n--([^\n]{0,%d})" % (BOUNDARY_BYTES_MAX + 64))
_FIELD_START = re.compile(rb"[!-9;-~]+[ \t]*:")
_MESSAGE_NAMES = ENVELOPE_NAMES | PART_NAMES
_IDENTITY = frozenset(("7bit", "8bit", "binary"))
_COUNT_BYTES = 256 * 1024


class _Mark(NamedTuple):
    """A line that may be a delimiter; `after` is where the next line starts."""

    start: int
    after: int
    closing: bool


class _Slot(NamedTuple):
    """Where a part is to be found, and what it is when it does not say so."""

    start: int
    body: int
    end: int
    depth: int
    default: tuple[str, str]


def walk(data: Buffer) -> tuple[Part, Fields]:
    """The structure of a message, and its unfolded fields (those of ENVELOPE_NAMES and PART_NAMES)."""
    whole = _Slot(0, header_end(data, 0, len(data)), len(data), 0, ("text", "plain"))
    return _Walk(data).part(whole, _MESSAGE_NAMES)


def _between(marks: list[_Mark], start: int, end: int) -> list[_Mark]:
    return marks[bisect_left(marks, (start,)) : bisect_left(marks, (end,))]


def envelope_of(fields: Fields) -> Envelope:
    """The ENVELOPE of a header (RFC 9051 §7.5.2)."""
    get = fields.get
    from_ = parse_addresses(get(b"from", b""))
    return Envelope(
        get(b"date"),
        get(b"subject"),
        from_,
        parse_addresses(get(b"sender", b"")) or from_,  # RFC 9051 §7.5.2: absent or empty, they are set to From
        parse_addresses(get(b"reply-to", b"")) or from_,
        parse_addresses(get(b"to", b"")),
        parse_addresses(get(b"cc", b"")),
        parse_addresses(get(b"bcc", b"")),
        get(b"in-reply-to"),
        get(b"message-id"),
    )


class _Walk:
    """One message being walked; lives for one call."""

    def __init__(self, data: Buffer) -> None:
        self.data = data
        self.size = len(data)
        self.marks: dict[bytes, list[_Mark]] | None = None
        self.parts_left = PARTS_MAX
        self.addresses_left = INNER_ADDRESSES_MAX
        self.header_bytes_left = HEADERS_BYTES_MAX

    def part(self, slot: _Slot, names: frozenset[bytes]) -> tuple[Part, Fields]:
        self.parts_left -= 1
        length = min(slot.body - slot.start, HEADER_BYTES_MAX, self.header_bytes_left)
        self.header_bytes_left -= length
        fields = parse_fields(bytes(self.data[slot.start : slot.start + length]), names)
        return self._describe(slot, fields), fields

    def _describe(self, slot: _Slot, fields: Fields) -> Part:
        content_type = fields.get(b"content-type")
        params = parse_params(content_type) if content_type else ()
        # RFC 2045 §5.2: absent means text/plain, and so does what cannot be read
        kind = (media_type(content_type) or ("text", "plain")) if content_type is not None else slot.default
        encoding = first_token(fields.get(b"content-transfer-encoding", b"")) or "7bit"  # RFC 2045 §6.1
        children: tuple[Part, ...] = ()
        message: Part | None = None
        envelope: Envelope | None = None
        if kind[0] == "multipart":
            boundary = parameter_bytes(params, "boundary")
            if slot.depth >= DEPTH_MAX or self.parts_left <= 0:
                kind = ("application", "octet-stream")
            elif not boundary or not (children := self._children(slot, boundary[0].rstrip(b" \t"), kind[1])):
                kind = ("text", "plain")
        elif kind in (("message", "rfc822"), ("message", "global")):
            if slot.depth >= DEPTH_MAX or self.parts_left <= 0 or not self._is_open(slot, encoding):
                kind = ("application", "octet-stream")
            else:
                inner_body = header_end(self.data, slot.body, slot.end)
                inner = _Slot(slot.body, inner_body, slot.end, slot.depth + 1, ("text", "plain"))
                message, inner_fields = self.part(inner, _MESSAGE_NAMES)
                envelope = self._inner_envelope(inner_fields)
        disposition = fields.get(b"content-disposition")
        language = fields.get(b"content-language", b"")
        return Part(
            slot.start,
            slot.body,
            slot.end,
            kind[0],
            kind[1],
            params,
            encoding,
            self._lines(slot.body, slot.end, message) if kind[0] == "text" or message else 0,
            children,
            message,
            envelope,
            fields.get(b"content-id"),
            fields.get(b"content-description"),
            first_token(disposition) if disposition else None,
            parse_params(disposition) if disposition else (),
            tuple(tag for tag in language.replace(b",", b" ").split() if tag) if language else (),
            fields.get(b"content-location"),
            fields.get(b"content-md5"),
        )

    def _children(self, slot: _Slot, boundary: bytes, subtype: str) -> tuple[Part, ...]:
        """RFC 2046 §5.1.1: the parts between the delimiter lines; preamble and epilogue belong to none."""
        if not 0 < len(boundary) <= BOUNDARY_BYTES_MAX:
            return ()
        # RFC 2046 §5.1.5: in a digest, parts are messages unless they say otherwise
        default = ("message", "rfc822") if subtype == "digest" else ("text", "plain")
        found: list[Part] = []
        start = -1  # of the part that is open
        for mark in self._delimiters(slot, boundary):
            if start >= 0:
                body = header_end(self.data, start, mark.start)
                end = self._before_delimiter(body, mark.start)
                found.append(self.part(_Slot(start, body, end, slot.depth + 1, default), PART_NAMES)[0])
            start = -1 if mark.closing else min(mark.after, slot.end)
            if start < 0 or self.parts_left <= 1:
                break
        if start >= 0:  # never closed, or more parts than we count: the last one has all the rest
            body = header_end(self.data, start, slot.end)
            found.append(self.part(_Slot(start, body, slot.end, slot.depth + 1, default), PART_NAMES)[0])
        return tuple(found)

    def _before_delimiter(self, body: int, delimiter: int) -> int:
        """The end of a body: RFC 2046 §5.1.1 gives the line break before it to the delimiter; not a header's."""
        if delimiter <= body or self.data[delimiter - 1] != 0x0A:
            return delimiter
        return delimiter - (2 if delimiter - 2 >= body and self.data[delimiter - 2] == 0x0D else 1)

    def _is_open(self, slot: _Slot, encoding: str) -> bool:
        """Whether an enclosed message can be read as it stands: RFC 2046 §5.2.1 forbids encoding it, yet some do."""
        return encoding in _IDENTITY or _FIELD_START.match(self.data, slot.body, slot.end) is not None

    def _inner_envelope(self, fields: Fields) -> Envelope:
        envelope = envelope_of(fields)
        lists = (envelope.from_, envelope.sender, envelope.reply_to, envelope.to, envelope.cc, envelope.bcc)
        self.addresses_left -= sum(map(len, lists))
        if self.addresses_left < 0:
            return replace(envelope, from_=(), sender=(), reply_to=(), to=(), cc=(), bcc=())
        return envelope

    def _delimiters(self, slot: _Slot, boundary: bytes) -> Iterator[_Mark]:
        """The delimiter lines of a multipart in their order, up to the closing one."""
        if self.marks is None:
            self.marks = self._all_marks(slot.body)
        closing = _between(self.marks.get(boundary + b"--", []), slot.body, slot.end)[:1]
        yield from _between(self.marks.get(boundary, []), slot.body, closing[0].start if closing else slot.end)
        yield from (mark._replace(closing=True) for mark in closing)

    def _all_marks(self, body: int) -> dict[bytes, list[_Mark]]:
        """All lines from `body` on that begin with two dashes, by what follows these. No later multipart starts earlier."""
        marks: dict[bytes, list[_Mark]] = {}
        found = _DASHES.finditer(self.data, max(body - 1, 0))
        for line in islice(found, BOUNDARY_LINES_MAX):
            end = line.end()
            if end == self.size or self.data[end] == 0x0A:  # not longer than any delimiter
                mark = _Mark(line.start() + 1, min(end + 1, self.size), False)
                marks.setdefault(line[1].rstrip(b" \t\r"), []).append(mark)
        return marks

    def _lines(self, start: int, end: int, message: Part | None = None) -> int:
        """Line feeds of a body. Those of an enclosed message's body are known already if it is text or a message."""
        if message is not None and (message.type == "text" or message.message is not None):
            return self._lines(start, message.body_start) + message.lines
        if isinstance(self.data, bytes):
            return self.data.count(b"\n", start, end)
        windows = range(start, end, _COUNT_BYTES)  # a view cannot count, and must not be copied whole
        return sum(bytes(self.data[at : min(at + _COUNT_BYTES, end)]).count(b"\n") for at in windows)
