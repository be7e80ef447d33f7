"""How the log lies in the engine: names of streams and subjects, headers, and what workers say to an appender.

Stream `EV-<p>-<e>` takes `ev.<p>.<e>.<noun>.<entity>` (events) and `ct.<p>.<e>.<entity>` (content). A copy `CP-<p>-<e>`
takes `cp.<p>.<e>.ev.<noun>.<entity>` and `cp.<p>.<e>.ct.<entity>`, and the position rides in a header there.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import msgspec
import zstandard

from cluster.log.engine import Kept, Message
from cluster.log.model import CHUNK_BYTES_MAX, Blob, NewEvent, Record, Stale, Stored
from cluster.position import position

COMMAND_HEADER = "Angarium-Command"  # hex of the command id, on every event
HASH_HEADER = "Angarium-Hash"  # hex of SHA-256 of the whole clear content
CHUNK_HEADER = "Angarium-Chunk"  # index/count, 0-based
ENCODING_HEADER = "Angarium-Encoding"  # zstd, or absent
POSITION_HEADER = "Angarium-Position"  # on copies: decimal position at the origin

ZSTD_LEVEL = 1
INLINE_COMPRESS_BYTES_MAX = 128 << 10  # more than this is compressed in a thread

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")
_ESCAPED = re.compile(rb"=([0-9A-F]{2})")


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """A piece of content as it is stored. `encoding`: zstd or empty."""

    hash: bytes
    index: int
    count: int
    encoding: str
    data: bytes


class Request(msgspec.Struct, frozen=True, array_like=True):
    """What an appender is asked: one command's chunks, then its events. Without events it is an upload, and `command`
    any 16 random bytes."""

    command: bytes
    entity: str
    events: tuple[NewEvent, ...] = ()
    depends: tuple[str, ...] = ()
    read_at: int = 0
    chunks: tuple[Chunk, ...] = ()


class Mark(msgspec.Struct, frozen=True, array_like=True, tag="mark"):
    """As promised: `durable`: position of the last message, content or event; `event`: of the last event, 0 = none yet.
    `written`: of the last message on disk where this was said, which copies may take and nobody may show."""

    durable: int
    event: int
    written: int = 0


class Confirmed(msgspec.Struct, frozen=True, array_like=True, tag="confirmed"):
    """A copy's word: it has all of history up to `position` on disk. `life`: of its site's engine."""

    site: str
    life: str
    position: int


class Busy(msgspec.Struct, frozen=True, array_like=True, tag="busy"):
    """Not taken, or not known. `again`: the same request may be sent again at once."""

    why: str
    again: bool


Answer = Stored | Stale | Busy

encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_answer: Callable[[bytes], Answer] = msgspec.msgpack.Decoder(Answer).decode
decode_mark = msgspec.msgpack.Decoder(Mark).decode
decode_confirmed = msgspec.msgpack.Decoder(Confirmed).decode


class Stream(NamedTuple):
    """Where an epoch of a partition lies."""

    name: str
    partition: str
    epoch: int
    copy: bool

    @property
    def events(self) -> str:
        return f"cp.{self.partition}.{self.epoch}.ev.>" if self.copy else f"ev.{self.partition}.{self.epoch}.>"

    def events_of(self, noun: str, entity: str | None) -> str:
        """`entity` None: of all."""
        return f"{self.events[:-1]}{token(noun)}.{'>' if entity is None else token(entity)}"

    @property
    def contents(self) -> str:
        return f"cp.{self.partition}.{self.epoch}.ct.>" if self.copy else f"ct.{self.partition}.{self.epoch}.>"

    @property
    def subjects(self) -> list[str]:
        return [f"cp.{self.partition}.{self.epoch}.>"] if self.copy else [self.events, self.contents]


def domain_of(site: str) -> str:
    """The JetStream domain of a site's own engine."""
    return f"site-{site}"


def stream_of(partition: str, epoch: int, *, copy: bool = False) -> Stream:
    return Stream(f"{'CP' if copy else 'EV'}-{partition}-{epoch}", partition, epoch, copy)


def is_copy(stream: str) -> bool:
    """Whether a stream of that name is a copy's."""
    return stream.startswith("CP-")


def named(partition: str) -> str:
    """The partition's name if it is one. Raises ValueError."""
    if not _NAME.fullmatch(partition):
        raise ValueError(f"not a name for a partition: {partition!r}")
    return partition


@lru_cache(maxsize=4096)
def token(text: str) -> str:
    """Any text as one token of a subject: other than letters, digits, _ and - becomes =XX, nothing at all becomes =."""
    return _UNSAFE.sub(lambda match: b"=%02X" % match[0][0], text.encode()).decode() or "="


@lru_cache(maxsize=4096)
def text(token: str) -> str:
    if token == "=":
        return ""
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), token.encode()).decode()


def event_message(stream: Stream, event: NewEvent, command: bytes) -> Message:
    head = "cp" if stream.copy else "ev"
    middle = ".ev" if stream.copy else ""
    subject = f"{head}.{stream.partition}.{stream.epoch}{middle}.{token(event.noun)}.{token(event.entity)}"
    return Message(subject, {COMMAND_HEADER: command.hex()}, event.payload)


def chunk_message(stream: Stream, entity: str, chunk: Chunk) -> Message:
    head = "cp" if stream.copy else "ct"
    middle = ".ct" if stream.copy else ""
    headers = {HASH_HEADER: chunk.hash.hex(), CHUNK_HEADER: f"{chunk.index}/{chunk.count}"}
    if chunk.encoding:
        headers[ENCODING_HEADER] = chunk.encoding
    return Message(f"{head}.{stream.partition}.{stream.epoch}{middle}.{token(entity)}", headers, chunk.data)


def copied_message(stream: Stream, record: Record) -> Message:
    """For a stream that is a copy."""
    if record.noun:
        message = event_message(stream, NewEvent(record.noun, record.entity, record.payload), b"")
        message.headers.pop(COMMAND_HEADER)  # Whoever needs it finds it in the envelope.
    else:
        message = chunk_message(stream, record.entity, Chunk(record.hash, record.chunk, record.chunks, "", record.payload))
    message.headers[POSITION_HEADER] = str(record.position)
    return message


def messages(stream: Stream, request: Request) -> list[Message]:
    return [chunk_message(stream, request.entity, chunk) for chunk in request.chunks] + [
        event_message(stream, event, request.command) for event in request.events
    ]


def position_of(stream: Stream, kept: Kept) -> int:
    carried = kept.headers.get(POSITION_HEADER)
    return int(carried) if carried is not None else position(stream.epoch, kept.sequence)


def record(stream: Stream, kept: Kept) -> Record:
    at = position_of(stream, kept)
    parts = kept.subject.split(".")
    if stream.copy:
        parts = [parts[3], *parts[1:3], *parts[4:]]
    if parts[0] == "ev":
        return Record(at, text(parts[3]), text(parts[4]), kept.data)
    index, _, count = kept.headers[CHUNK_HEADER].partition("/")
    clear = _clear(kept.headers, kept.data)
    return Record(at, "", text(parts[3]), clear, bytes.fromhex(kept.headers[HASH_HEADER]), int(index), int(count))


def _clear(headers: Mapping[str, str], data: bytes) -> bytes:
    match headers.get(ENCODING_HEADER, ""):
        case "":
            return data
        case "zstd":
            return zstandard.ZstdDecompressor().decompress(data, max_output_size=CHUNK_BYTES_MAX)
        case other:
            raise ValueError(f"content in an unknown encoding: {other}")


def _squeezed(hash: bytes, index: int, count: int, clear: bytes) -> Chunk:
    packed = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(clear)
    if len(packed) < len(clear):
        return Chunk(hash, index, count, "zstd", packed)
    return Chunk(hash, index, count, "", bytes(clear))


def count_of(blob: Blob) -> int:
    return max(1, -(-len(blob.data) // CHUNK_BYTES_MAX))


async def chunk(blob: Blob, index: int) -> Chunk:
    """The `index`th piece of `blob`, compressed. `blob.data` may be anything with a buffer, a mapped file too."""
    with memoryview(blob.data) as view:
        clear = bytes(view[index * CHUNK_BYTES_MAX : (index + 1) * CHUNK_BYTES_MAX])
    if len(clear) > INLINE_COMPRESS_BYTES_MAX:
        return await asyncio.to_thread(_squeezed, blob.hash, index, count_of(blob), clear)
    return _squeezed(blob.hash, index, count_of(blob), clear)
