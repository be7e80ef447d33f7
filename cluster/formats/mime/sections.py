"""Byte ranges of a message, from its structure alone: for BODY[section] and for storing large parts once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from cluster.formats.mime.model import PART_BLOB_BYTES_MIN, Part

Range = tuple[int, int]
SectionKind = Literal["", "HEADER", "TEXT", "MIME"]


def section(structure: Part, path: Sequence[int], kind: SectionKind = "") -> Range | None:
    """The range of BODY[path.kind] (RFC 9051 §6.4.5.1), `None` when there is no such part.

    HEADER.FIELDS is cut out of HEADER with `header_fields`.
    """
    if not path:
        return None if kind == "MIME" else _of_message(structure, kind)
    part = find_part(structure, path)
    if part is None:
        return None
    if kind == "":
        return part.body_start, part.end
    if kind == "MIME":
        return part.header_start, part.body_start
    # RFC 9051 §6.4.5.1: HEADER and TEXT of a part are those of the message that it encloses
    return None if part.message is None else _of_message(part.message, kind)


def _of_message(message: Part, kind: SectionKind) -> Range:
    if kind == "HEADER":
        return message.header_start, message.body_start
    return (message.body_start if kind == "TEXT" else message.header_start), message.end


def find_part(structure: Part, path: Sequence[int]) -> Part | None:
    """The part with this number; a message that is no multipart has itself as its only part, 1 (RFC 9051 §6.4.5.1)."""
    holder: Part | None = structure
    part: Part | None = None
    for number in path:
        if holder is None:
            return None
        if holder.children:
            if not 1 <= number <= len(holder.children):
                return None
            part = holder.children[number - 1]
        elif number == 1:
            part = holder
        else:
            return None
        holder = part if part.children else part.message
    return part


def parts(structure: Part, enter_messages: bool = True) -> Iterator[Part]:
    """Every part in the order of its bytes, the whole first; those of enclosed messages if these are to be entered."""
    pending = [structure]
    while pending:
        part = pending.pop()
        yield part
        pending.extend(reversed(part.children))
        if enter_messages and part.message is not None:
            pending.append(part.message)


def segments(structure: Part, size: int) -> list[Range]:
    """Consecutive ranges that cover the message whole; the body of a leaf above PART_BLOB_BYTES_MIN is one of them."""
    out: list[Range] = []
    at = 0
    for part in parts(structure):
        if part.children or part.message is not None or part.size <= PART_BLOB_BYTES_MIN:
            continue
        if part.body_start > at:
            out.append((at, part.body_start))
        out.append((part.body_start, part.end))
        at = part.end
    if at < size:
        out.append((at, size))
    return out
