"""What a message is made of: the frozen values that the walker returns, and the limits it keeps.

All offsets are bytes from the start of the whole message, half open: ``data[start:end]``. Text taken from headers is
kept as the bytes that came (unfolded, encoded words untouched), because IMAP gives exactly those to its clients. Only
NUL, CR and LF are left out: no IMAP string can hold the first (RFC 9051 §4.3) and unfolding removes the others.
"""

from __future__ import annotations

import mmap

import msgspec

Buffer = bytes | bytearray | memoryview | mmap.mmap

HEADER_BYTES_MAX = 100 * 1024  # parsed of one header; what is beyond stays in its byte range, unread
HEADERS_BYTES_MAX = 200 * 1024  # parsed of all headers of one message, so that a description stays below 1 MiB
PARTS_MAX = 1_000  # in one message; the last one swallows the rest
DEPTH_MAX = 32  # of parts in parts; what lies deeper is an opaque part
BOUNDARY_BYTES_MAX = 256  # RFC 2046 §5.1.1 allows 70; others write more
BOUNDARY_LINES_MAX = 100_000  # lines that begin with "--" and are looked at
PARAMS_MAX = 64  # of one Content-Type or Content-Disposition
ADDRESSES_MAX = 2_000  # of one address header, group markers included
INNER_ADDRESSES_MAX = 10_000  # of all enclosed messages; those beyond are shown without any
REFERENCES_MAX = 100  # the first one and the last ones are kept
PREVIEW_CHARS_MAX = 200  # RFC 8970 §3.1 allows 256
TEXT_CHARS_MAX = 1_000_000  # of decoded text for searching
PART_BLOB_BYTES_MIN = 64 * 1024  # a leaf body above this is a range of its own

Params = tuple[tuple[str, bytes], ...]


class Address(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One address of an ENVELOPE (RFC 9051 §7.5.2): `name`, `adl` (source route), `mailbox`, `host`.

    `host is None` marks a group: with `mailbox` its name and its start, without its end. A mailbox whose
    domain is missing has the empty host, which is no group marker.
    """

    name: bytes | None
    adl: bytes | None
    mailbox: bytes | None
    host: bytes | None


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """RFC 9051 §7.5.2 ENVELOPE, in its order; `None` is an absent header, `()` a header without addresses."""

    date: bytes | None = None
    subject: bytes | None = None
    from_: tuple[Address, ...] = ()
    sender: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    to: tuple[Address, ...] = ()
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    in_reply_to: bytes | None = None
    message_id: bytes | None = None


class Part(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One part: its header is ``[header_start, body_start)``, its body ``[body_start, end)``.

    `type`, `subtype`, `encoding` and `disposition` are lower case. Parameters are in the order of the header, names in
    lower case, values unquoted but otherwise raw (RFC 2231 and RFC 2047 forms as they came: `parameter` decodes them).
    `lines` counts line feeds of the body of text parts and of enclosed messages, and is 0 for others.
    A multipart has at least one child; one in which no part was found is described as text/plain.
    An enclosed message (message/rfc822, message/global) has `envelope`, and `message`, which starts at `body_start`.
    """

    header_start: int
    body_start: int
    end: int
    type: str = "text"
    subtype: str = "plain"
    params: Params = ()
    encoding: str = "7bit"
    lines: int = 0
    children: tuple[Part, ...] = ()
    message: Part | None = None
    envelope: Envelope | None = None
    content_id: bytes | None = None
    description: bytes | None = None
    disposition: str | None = None
    disposition_params: Params = ()
    language: tuple[bytes, ...] = ()
    location: bytes | None = None
    md5: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes of the body, in its transfer encoding."""
        return self.end - self.body_start

    @property
    def media_type(self) -> str:
        return f"{self.type}/{self.subtype}"


class Description(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All that is kept of a message beside its bytes.

    `sent` is the Date header in Unix seconds, `sent_zone` its zone in minutes east (SENTSINCE and its like compare the
    local day, RFC 9051 §6.4.4). `references` are the ids of References, then of In-Reply-To, without brackets and
    duplicates; `message_id` likewise. `preview` follows RFC 8970, `subject_base` RFC 5256 §2.1. `crlf_added`: by how many
    bytes it grows where every line, the last one too, is to end with CRLF (RFC 1939 §11). `own_references`: how many of
    the `references`, from the first, are of References itself; -1 = not counted.
    """

    size: int
    header_bytes: int
    envelope: Envelope
    structure: Part
    preview: str
    sent: int | None
    sent_zone: int
    message_id: str | None
    references: tuple[str, ...]
    subject_base: str
    has_attachment: bool
    crlf_added: int = 0  # not counted by the first release
    own_references: int = -1  # nor this
