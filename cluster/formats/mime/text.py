"""The words of a message for people and for SEARCH: its text parts decoded, HTML reduced to what is read."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from cluster.formats.mime.headers import decoded_header, parameter
from cluster.formats.mime.model import HEADER_BYTES_MAX, PREVIEW_CHARS_MAX, TEXT_CHARS_MAX, Buffer, Part
from cluster.formats.mime.sections import parts
from cluster.formats.mime.words import decode_charset, decode_part

PREVIEW_PLAIN_BYTES_MAX = 4 * 1024  # read of a part to make a preview
PREVIEW_HTML_BYTES_MAX = 64 * 1024
TEXT_BYTES_A_CHAR = 12  # generous: a character as three bytes of UTF-8, quoted-printable

_TAG = re.compile(r"[/!?]?([A-Za-z][A-Za-z0-9]*)?")
_HIDDEN_END = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style", "title")}
_INLINE = frozenset("a abbr b big code em font i small span strong sub sup tt u wbr".split())


def html_text(markup: str, chars_max: int = TEXT_CHARS_MAX) -> str:
    """What is read of HTML: no tags, comments, scripts, styles. Linear in its length; stops soon after `chars_max`."""
    out: list[str] = []
    at = kept = 0
    while kept < chars_max:
        tag = markup.find("<", at)
        piece = markup[at:] if tag < 0 else markup[at:tag]
        out.append(piece)
        kept += len(piece.strip())
        if tag < 0:
            break
        name = _TAG.match(markup, tag + 1)
        if markup.startswith("<!--", tag):
            at = markup.find("-->", tag + 4) + 3
        elif name is None or name.end() == tag + 1:
            out.append("<")  # a bare sign, no tag
            at = tag + 1
            continue
        else:
            at = markup.find(">", name.end()) + 1
            element = (name[1] or "").lower()
            if element not in _INLINE:
                out.append(" ")
            if at and element in _HIDDEN_END and markup[tag + 1] != "/":
                closing = _HIDDEN_END[element].search(markup, at)
                at = closing.start() if closing else 0
        if at < 3:  # what was opened is never closed: browsers show nothing more either
            break
    return html.unescape("".join(out)).replace("\0", "")


def part_text(body: bytes, part: Part, chars_max: int = TEXT_CHARS_MAX) -> str:
    """Text of a text part from its (encoded) body: decoded, converted from its charset, without tags if it is HTML."""
    decoded = decode_part(body, part.encoding)
    text = decode_charset(body if decoded is None else decoded, parameter(part.params, "charset"))
    if part.subtype in ("html", "xhtml", "xml"):
        text = html_text(text, chars_max)
    return text[:chars_max]


def text_parts(structure: Part) -> Iterator[Part]:
    """The text/* leaves, also those of enclosed messages."""
    return (part for part in parts(structure) if part.type == "text" and part.message is None)


def header_text(data: Buffer, structure: Part) -> str:
    """The header of the message, decoded, one field a line."""
    end = min(structure.body_start, structure.header_start + HEADER_BYTES_MAX)
    return decoded_header(bytes(data[structure.header_start : end]))


def body_text(data: Buffer, structure: Part, chars_max: int = TEXT_CHARS_MAX) -> str:
    """What SEARCH BODY looks at (RFC 9051 §6.4.4): text parts and headers of enclosed messages, cut at `chars_max`."""
    out: list[str] = []
    left = chars_max
    for part in parts(structure):
        if left <= 0:
            break
        if part.message is not None:
            text = header_text(data, part.message)[:left]
        elif part.type == "text":
            end = min(part.end, part.body_start + left * TEXT_BYTES_A_CHAR)
            text = part_text(bytes(data[part.body_start : end]), part, left)
        else:
            continue
        out.append(text)
        left -= len(text) + 1
    return "\n".join(out)


def searched_ranges(structure: Part, part_bytes_max: int) -> Iterator[tuple[int, int]]:
    """Of a large message: all the bytes that `header_text` and `body_text` look at, at most so many of each part."""
    for part in parts(structure):
        if part.type == "text":
            yield part.body_start, min(part.end, part.body_start + part_bytes_max)
        elif part.message is not None or part is structure:
            head = part.message or part
            yield head.header_start, min(head.body_start, head.header_start + HEADER_BYTES_MAX)


def search_text(data: Buffer, structure: Part, chars_max: int = TEXT_CHARS_MAX) -> str:
    """What SEARCH TEXT looks at: the header of the message, and its body."""
    head = header_text(data, structure)[:chars_max]
    return f"{head}\n{body_text(data, structure, chars_max - len(head))}"


def preview(data: Buffer, structure: Part) -> str:
    """RFC 8970 §3.1: the first PREVIEW_CHARS_MAX characters of the text, blanks run together; empty without text."""
    for part in parts(structure, enter_messages=False):
        if part.type != "text" or part.disposition == "attachment":
            continue
        plain = part.subtype != "html"
        end = min(part.end, part.body_start + (PREVIEW_PLAIN_BYTES_MAX if plain else PREVIEW_HTML_BYTES_MAX))
        text = part_text(bytes(data[part.body_start : end]), part, 4 * PREVIEW_CHARS_MAX)
        short = " ".join(text.split())[:PREVIEW_CHARS_MAX].rstrip()
        if short:
            return short
    return ""
