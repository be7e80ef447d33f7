"""One message in, all that is kept of it beside its bytes out."""

from __future__ import annotations

import re

from cluster.formats.mime.dates import parse_date
from cluster.formats.mime.headers import Fields, filename
from cluster.formats.mime.model import REFERENCES_MAX, Buffer, Description, Part
from cluster.formats.mime.sections import parts
from cluster.formats.mime.subjects import SUBJECT_CHARS_MAX, base_subject
from cluster.formats.mime.text import preview
from cluster.formats.mime.walker import envelope_of, walk
from cluster.formats.mime.words import decode_words

MESSAGE_ID_BYTES_MAX = 998  # RFC 5322 §2.1.1: no line is longer
SUBJECT_BYTES_MAX = 12 * SUBJECT_CHARS_MAX
_COUNT_BYTES = 1 << 20

_MESSAGE_ID = re.compile(rb"<([^<>\s]+)>")
_BARE_ID = re.compile(rb"[^<>\s,;]+@[^<>\s,;]+")
_MACHINE_PARTS = frozenset(  # made for programs: signatures and reports, shown by no client as an attachment
    (
        "application/pgp-signature",
        "application/pkcs7-signature",
        "application/x-pkcs7-signature",
        "message/delivery-status",
        "message/global-delivery-status",
        "message/disposition-notification",
        "message/global-disposition-notification",
    )
)


def describe(data: Buffer) -> Description:
    """Describe a message of any bytes at all; never raises. Takes time linear in the size of the message."""
    structure, fields = walk(data)
    date = parse_date(fields.get(b"date", b""))
    references, own_references = _references(fields)
    return Description(
        size=len(data),
        header_bytes=structure.body_start,
        envelope=envelope_of(fields),
        structure=structure,
        preview=preview(data, structure),
        sent=date[0] if date else None,
        sent_zone=date[1] if date else 0,
        message_id=next(iter(message_ids(fields.get(b"message-id", b""))), None),
        references=references,
        subject_base=base_subject(decode_words(fields.get(b"subject", b"")[:SUBJECT_BYTES_MAX])),
        has_attachment=_has_attachment(structure),
        crlf_added=_crlf_added(data),
        own_references=own_references,
    )


def _crlf_added(data: Buffer) -> int:
    """A bare CR is a line end, as a bare LF is."""
    if isinstance(data, bytes | bytearray):
        ends, pairs = data.count(b"\n") + data.count(b"\r"), data.count(b"\r\n")
    else:
        ends = pairs = 0
        for at in range(0, len(data), _COUNT_BYTES):  # a view cannot count, and must not be copied whole
            window = bytes(data[at : at + _COUNT_BYTES + 1])  # with one byte more: a pair may lie across the cut
            pairs += window.count(b"\r\n")
            own = window[:_COUNT_BYTES]
            ends += own.count(b"\n") + own.count(b"\r")
    unended = len(data) > 0 and data[len(data) - 1] not in b"\r\n"
    return ends - 2 * pairs + 2 * unended


def message_ids(value: bytes) -> list[str]:
    """The ids in a Message-ID, In-Reply-To or References value, brackets and quotes taken off (RFC 5256 §2.2)."""
    found = _MESSAGE_ID.findall(value)
    if not found and (bare := _BARE_ID.fullmatch(value.strip())):
        found = [bare[0]]
    return [
        raw.translate(None, b'\0"\\').decode("utf-8", "replace") for raw in found if len(raw) <= MESSAGE_ID_BYTES_MAX
    ]


def _references(fields: Fields) -> tuple[tuple[str, ...], int]:
    """Those of References and then of In-Reply-To, and how many are of References."""
    own = list(dict.fromkeys(message_ids(fields.get(b"references", b""))))
    unique = list(dict.fromkeys(own + message_ids(fields.get(b"in-reply-to", b""))))
    count, over = len(own), len(unique) - REFERENCES_MAX
    if over > 0:
        unique = unique[:1] + unique[1 - REFERENCES_MAX :]  # the root of the thread and the nearest
        count = max(count - over, min(count, 1))
    return tuple(unique), count


def _has_attachment(structure: Part) -> bool:
    return any(_is_attachment(part) for part in parts(structure, enter_messages=False))


def _is_attachment(part: Part) -> bool:
    """What a person would call one. A picture with a Content-ID (RFC 2392) belongs into the text."""
    if part.children:
        return False
    if part.disposition == "attachment":
        return True
    if part.media_type in _MACHINE_PARTS or part.disposition == "inline" and part.content_id is not None:
        return False
    if part.type == "text":
        return part.disposition != "inline" and filename(part) is not None
    return part.content_id is None or part.type != "image" and filename(part) is not None
