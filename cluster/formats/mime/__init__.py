"""Messages of RFC 5322 and MIME (RFC 2045 to 2047, 2183, 2231, 6532), read by byte offsets.

Pure functions over any bytes at all, CRLF or LF: none raises, all take linear time, and what they return are frozen
values that msgspec encodes. Ranges always give the message back byte for byte. Left out on purpose: building messages
(the standard library does that), and the IMAP words for ENVELOPE and BODYSTRUCTURE (the IMAP writer has them).
"""

from cluster.formats.mime.addresses import addr_spec, mailboxes, parse_address, parse_addresses
from cluster.formats.mime.dates import format_date, format_internaldate, parse_date, parse_internaldate
from cluster.formats.mime.description import describe, message_ids
from cluster.formats.mime.headers import filename, header_fields, header_value, parameter
from cluster.formats.mime.model import (
    ADDRESSES_MAX,
    BOUNDARY_BYTES_MAX,
    BOUNDARY_LINES_MAX,
    DEPTH_MAX,
    HEADER_BYTES_MAX,
    HEADERS_BYTES_MAX,
    INNER_ADDRESSES_MAX,
    PARAMS_MAX,
    PART_BLOB_BYTES_MIN,
    PARTS_MAX,
    PREVIEW_CHARS_MAX,
    REFERENCES_MAX,
    TEXT_CHARS_MAX,
    Address,
    Buffer,
    Description,
    Envelope,
    Params,
    Part,
)
from cluster.formats.mime.sections import Range, SectionKind, find_part, parts, section, segments
from cluster.formats.mime.subjects import base_subject, read_subject
from cluster.formats.mime.text import (
    body_text,
    header_text,
    html_text,
    part_text,
    search_text,
    searched_ranges,
    text_parts,
)
from cluster.formats.mime.words import decode_charset, decode_part, decode_words

__all__ = [
    "ADDRESSES_MAX", "BOUNDARY_BYTES_MAX", "BOUNDARY_LINES_MAX", "DEPTH_MAX", "HEADERS_BYTES_MAX", "HEADER_BYTES_MAX",
    "INNER_ADDRESSES_MAX", "PARAMS_MAX", "PARTS_MAX", "PART_BLOB_BYTES_MIN", "PREVIEW_CHARS_MAX", "REFERENCES_MAX",
    "TEXT_CHARS_MAX", "Address", "Buffer", "Description", "Envelope", "Params", "Part", "Range", "SectionKind",
    "addr_spec", "base_subject", "body_text", "decode_charset", "decode_part", "decode_words", "describe", "filename",
    "find_part", "format_date", "format_internaldate", "header_fields", "header_text", "header_value", "html_text",
    "mailboxes", "message_ids", "parameter", "parse_address", "parse_addresses", "parse_date", "parse_internaldate",
    "part_text", "parts", "read_subject", "search_text", "searched_ranges", "section", "segments", "text_parts",
]  # fmt: skip
