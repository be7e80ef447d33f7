"""BODY[section]<partial> and BINARY (RFC 9051 §6.4.5): bytes of messages, by offsets, several small messages read at once."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from cluster.domain.mailbox.content import Content
from cluster.formats import mime
from protocols.imap.model import FetchItem, Section
from protocols.imap.state import Talk
from protocols.imap.writer import literal
from protocols.port import Message, Site, SiteUnavailable
from protocols.wire import WireClosed

SMALL_BYTES_MAX = 512 * 1024  # up to here a message is read whole, in company; above, it is streamed
GROUP_BYTES_MAX = 2 * 1024 * 1024
DECODED_HERE_BYTES_MAX = 128 * 1024  # larger parts are decoded in a thread


_description = msgspec.msgpack.Decoder(mime.Description).decode


class Unavailable(Exception):
    """A message's bytes cannot be had now."""


class UnknownEncoding(Exception):
    """RFC 3516 §4.3: a Content-Transfer-Encoding that cannot be undone."""


class Wanted(msgspec.Struct, frozen=True):
    """A message of which the bytes up to `end` are needed."""

    row: Message
    described: mime.Description
    end: int

    def start(self) -> Content:
        """The message's first segments, as many as hold those bytes."""
        content, size = content_of(self.row), 0
        for count, segment in enumerate(content.segments, 1):
            size += segment.size
            if size >= self.end:
                return Content(content.hash, size, content.segments[:count], b"")
        return content


class Loaded(msgspec.Struct, frozen=True):
    """`data`: the bytes that were wanted, and perhaps more; None: there are many, and they are to be streamed, or, with
    `missing`, they cannot be had now."""

    row: Message
    described: mime.Description
    data: bytes | None
    missing: bool = False


def wanted(row: Message, items: Sequence[FetchItem]) -> Wanted:
    """How far into the message the items reach: for its header alone, an attachment is not read."""
    described = _description(row.description)
    end = 0
    for item in items:
        where = bounds(described.structure, item.section) if item.section is not None else None
        if where is not None and item.partial is not None and item.word == "BODY[]" and "FIELDS" not in item.label.decode():
            end = max(end, min(where[1], where[0] + sum(item.partial)))
        elif where is not None:
            end = max(end, where[1])
    return Wanted(row, described, end)


async def loaded(site: Site, asked: Sequence[Wanted]) -> AsyncGenerator[Loaded, None]:
    """In order; the next group is read while the caller writes this one."""
    groups = _groups(asked)
    ahead: asyncio.Task[list[Loaded]] | None = None
    try:
        for number, group in enumerate(groups):
            found = await (ahead if ahead is not None else _read(site, group))
            ahead = asyncio.create_task(_read(site, groups[number + 1])) if number + 1 < len(groups) else None
            for one in found:
                yield one
    finally:
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)


def _groups(asked: Sequence[Wanted]) -> list[list[tuple[Wanted, Content]]]:
    """With what is to be read of each; together at most GROUP_BYTES_MAX of those that are read at once."""
    groups: list[list[tuple[Wanted, Content]]] = []
    room = 0
    for one in asked:
        start = one.start()
        cost = start.size if start.size <= SMALL_BYTES_MAX else 0
        if not groups or cost > room:
            groups.append([])
            room = GROUP_BYTES_MAX
        groups[-1].append((one, start))
        room -= cost
    return groups


async def _read(site: Site, group: Sequence[tuple[Wanted, Content]]) -> list[Loaded]:
    small = [start for _, start in group if start.size <= SMALL_BYTES_MAX]
    found = iter(await site.read_many(small) if small else ())
    out = []
    for one, start in group:
        streamed = start.size > SMALL_BYTES_MAX
        data = None if streamed else next(found)
        out.append(Loaded(one.row, one.described, data, missing=data is None and not streamed))
    return out


def content_of(row: Message) -> Content:
    assert row.content is not None, "rows with bytes are asked for with their contents"
    return row.content


async def ranged(site: Site, row: Message, data: bytes | None, start: int, end: int) -> bytes:
    """Bytes [start, end) of a message, from `data` if they are in it."""
    if data is not None and len(data) >= end:
        return data[start:end]
    try:
        async with aclosing(_pieces(site, content_of(row), start, end)) as pieces:
            return b"".join([piece async for piece in pieces])
    except SiteUnavailable as error:
        raise Unavailable from error


async def _pieces(site: Site, content: Content, start: int, end: int) -> AsyncGenerator[bytes, None]:
    async for piece in site.read(content, start, end):
        yield piece


def bounds(structure: mime.Part, section: Section) -> tuple[int, int] | None:
    """Where a section stands; HEADER.FIELDS is cut out of its header afterwards. None: there is no such part."""
    match section.kind:
        case "HEADER.FIELDS" | "HEADER.FIELDS.NOT":
            return mime.section(structure, section.path, "HEADER")
        case kind:
            return mime.section(structure, section.path, kind)


async def write(talk: Talk, row: Message, data: bytes | None, item: FetchItem, described: mime.Description) -> None:
    """Puts `label value` of a BODY[…], BINARY[…] or BINARY.SIZE[…]. Raises Unavailable and UnknownEncoding before anything is put."""
    section = item.section
    assert section is not None
    where = bounds(described.structure, section)
    if item.word in ("BINARY[]", "BINARY.SIZE[]"):
        value = await _decoded(talk.site, row, data, section, described, where)
        if item.word == "BINARY.SIZE[]":
            talk.put(item.label + b" %d" % len(value or b""))
        else:
            # RFC 3516 §4.2: literal8 where NULs are
            talk.put(item.label + b" " + (b"NIL" if value is None else literal(_part(value, item.partial))))
        return
    if where is None:
        talk.put(item.label + b" NIL")
        return
    if section.kind.startswith("HEADER.FIELDS"):
        header = await ranged(talk.site, row, data, *where)
        value = mime.header_fields(header, section.fields, exclude=section.kind.endswith("NOT"))
        _put(talk, item.label, _part(value, item.partial))
        return
    start, end = where
    if item.partial is not None:
        # RFC 9051 §6.4.5.1: an origin beyond the end gives the empty string
        start = min(end, start + item.partial[0])
        end = min(end, start + item.partial[1])
    if data is not None and len(data) >= end:
        _put(talk, item.label, data[start:end] if end - start < len(data) else data)
    else:
        await _stream(talk, row, item.label, start, end)


def _put(talk: Talk, label: bytes, value: bytes) -> None:
    """A plain literal even with NULs in it: the message comes back byte for byte."""
    talk.put(b"%b {%d}\r\n" % (label, len(value)))
    talk.put(value)


async def _stream(talk: Talk, row: Message, label: bytes, start: int, end: int) -> None:
    begun = False
    sent = 0
    try:
        if end > start:
            async with aclosing(_pieces(talk.site, content_of(row), start, end)) as pieces:
                async for piece in pieces:
                    if not begun:
                        begun = True
                        talk.put(b"%b {%d}\r\n" % (label, end - start))
                    talk.put(piece)
                    sent += len(piece)
                    if talk.full:
                        await talk.flush()
    except SiteUnavailable as error:
        if not begun:
            raise Unavailable from error
        # A literal cannot be taken back: the client must not mistake what follows for its end.
        talk.wire.abort()
        raise WireClosed("a blob went away in mid-literal") from error
    if not begun:
        talk.put(label + b" {0}\r\n")
    assert sent == end - start or not begun, "a blob is shorter than its fact says"


async def _decoded(
    site: Site, row: Message, data: bytes | None, section: Section, described: mime.Description, where: tuple[int, int] | None
) -> bytes | None:
    if where is None:
        return None
    body = await ranged(site, row, data, *where)
    part = mime.find_part(described.structure, section.path) if section.path else None
    if part is None:
        return body  # RFC 3516 §4.1: BINARY[] is the message itself
    if len(body) <= DECODED_HERE_BYTES_MAX:
        value = mime.decode_part(body, part.encoding)
    else:
        value = await asyncio.to_thread(mime.decode_part, body, part.encoding)
    if value is None:
        raise UnknownEncoding
    return value


def _part(value: bytes, partial: tuple[int, int] | None) -> bytes:
    return value if partial is None else value[partial[0] : partial[0] + partial[1]]
