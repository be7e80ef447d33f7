"""How a backup lies in its folder (ops/decisions/backup-format.md), and reading it with every check. Blocks.

    manifest.json     what there is, written last: without it a backup is incomplete
    manifest.sha256   its checksum, as sha256sum(1) writes it
    config/…          the site's own files
    events/NAME       a partition's events, framed
    blobs/N.pack      contents, framed, ascending by hash

A framed file: 8 bytes of magic, then frames: stored bytes, clear bytes (4 bytes each, little endian), 16 bytes of BLAKE2b
of what is stored, and that: one Zstandard frame (RFC 8878) of a MessagePack array.
"""

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import zstandard

from cluster import codec
from cluster.control.partitions import Ended
from cluster.domain.mailbox.content import Segment
from cluster.domain.mailbox.events import MessageAppended
from cluster.domain.outbox.events import MessageQueued
from cluster.log.model import Record

FORMAT = 1
MANIFEST, MANIFEST_SUM, INCOMPLETE = "manifest.json", "manifest.sha256", "incomplete"
EVENTS_MAGIC, PACK_MAGIC = b"AGBEVT1\n", b"AGBPCK1\n"
FRAME_CLEAR_BYTES_MAX = 64 << 20
MANIFEST_BYTES_MAX = 256 << 20
PACK_BYTES_MAX = 256 << 20
LEVEL = 3
NAMES_IN_MEMORY_BYTES_MAX = 16 << 20

_FRAME = struct.Struct("<II16s")
_NAME = struct.Struct("<32sQ")


class BackupFailed(Exception):
    """The text is one line that names the file and says what is wrong."""


class BackupDamaged(BackupFailed):
    """What is in the folder is not, or not all, what was written."""


class File(msgspec.Struct, frozen=True):
    """`name`: below the backup's folder. `sha256`: hexadecimal."""

    name: str
    bytes: int
    sha256: str
    mode: int = 0o600


class Part(msgspec.Struct, frozen=True):
    """A partition. `last`: position of its last event, 0 = none. `digest`: rolling over its events (`chained`)."""

    name: str
    history: tuple[Ended, ...]
    last: int
    events: int
    digest: str
    file: File


class Manifest(msgspec.Struct, frozen=True):
    """`made_at`: unix seconds. `blobs`, `blob_bytes`: contents in the packs, clear. `missing`: hashes (hexadecimal) that
    events name and the site had lost."""

    format: int
    site: str
    version: str
    made_at: float
    partitions: tuple[Part, ...]
    packs: tuple[File, ...]
    blobs: int
    blob_bytes: int
    config: tuple[File, ...]
    missing: tuple[str, ...] = ()


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Of a content: `chunk` (0-based) of `chunks`, each but the last CHUNK_BYTES_MAX long."""

    hash: bytes
    chunk: int
    chunks: int
    data: bytes


class Event(msgspec.Struct, frozen=True, array_like=True):
    position: int
    noun: str
    entity: str
    payload: bytes


encode = msgspec.msgpack.Encoder().encode
_decode_events = msgspec.msgpack.Decoder(tuple[Event, ...]).decode
_decode_pieces = msgspec.msgpack.Decoder(tuple[Piece, ...]).decode


class Chain(NamedTuple):
    """The digest over a partition's events so far, how many, and the position of the last."""

    digest: bytes = bytes(32)
    events: int = 0
    last: int = 0


def chained(chain: Chain, event: Event) -> Chain:
    digest = hashlib.blake2b(chain.digest, digest_size=32)
    digest.update(encode(event))
    return Chain(digest.digest(), chain.events + 1, event.position)


class Writer:
    """A file that is written once, synced and measured. Raises OSError."""

    def __init__(self, root: Path, name: str, mode: int = 0o600) -> None:
        self._name = name
        self._mode = mode
        self._sum = hashlib.sha256()
        self.bytes = 0
        self._file = os.fdopen(os.open(root / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._sum.update(data)
        self.bytes += len(data)

    def frame(self, clear: bytes) -> None:
        stored = zstandard.ZstdCompressor(level=LEVEL).compress(clear)
        self.write(_FRAME.pack(len(stored), len(clear), hashlib.blake2b(stored, digest_size=16).digest()))
        self.write(stored)

    def finish(self) -> File:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return File(self._name, self.bytes, self._sum.hexdigest(), self._mode)

    def close(self) -> None:
        """Without a promise; harmless after finish."""
        if not self._file.closed:
            self._file.close()


class Names:
    """The contents that events name, each once, in the order of their hashes; on disk when there are many."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting = [bytearray() for _ in range(256)]
        self._bytes = 0

    def take(self, events: Sequence[Event]) -> None:
        for event in events:
            for segment in _segments(event.payload):
                self._waiting[segment.hash[0]] += _NAME.pack(segment.hash, segment.size)
                self._bytes += _NAME.size
        if self._bytes > NAMES_IN_MEMORY_BYTES_MAX:
            for first, names in enumerate(self._waiting):
                with (self._folder / f"{first:02x}").open("ab") as file:
                    file.write(names)
                names.clear()
            self._bytes = 0

    def beginning_with(self, first: int) -> dict[bytes, int]:
        """Hash → clear bytes, ascending, of those whose first byte this is."""
        path = self._folder / f"{first:02x}"
        packed = (path.read_bytes() if path.exists() else b"") + self._waiting[first]
        found = dict(_NAME.iter_unpack(packed))
        return {hash: found[hash] for hash in sorted(found)}


def _segments(payload: bytes) -> tuple[Segment, ...]:
    try:
        _, event = codec.decode(payload)
    except codec.Undecodable:  # it names nothing that this release could show
        return ()
    return event.content.segments if isinstance(event, MessageAppended | MessageQueued) else ()


def sum_of(manifest: bytes) -> bytes:
    """What stands in MANIFEST_SUM."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def read_manifest(root: Path) -> Manifest:
    """Raises BackupDamaged; OSError where the folder cannot be read."""
    path = root / MANIFEST
    if not path.exists() or (root / INCOMPLETE).exists():
        raise BackupDamaged(f"{root} is no complete backup: it was not finished, or something else is there")
    if path.stat().st_size > MANIFEST_BYTES_MAX:
        raise BackupDamaged(f"{path}: longer than a manifest can be")
    text = path.read_bytes()
    sum_file = root / MANIFEST_SUM
    if not sum_file.exists() or sum_file.read_bytes() != sum_of(text):
        raise BackupDamaged(f"{path}: it is not what {MANIFEST_SUM} says")
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BackupDamaged(f"{path}: {error}") from None
    if manifest.format != FORMAT:
        raise BackupDamaged(f"{path}: format {manifest.format} is not one that this release reads ({FORMAT})")
    return manifest


def frames(root: Path, file: File, magic: bytes) -> Iterator[bytes]:
    """The clear bytes of every frame. Raises BackupDamaged, with the file's name, wherever it is not what was written."""
    path = root / file.name
    total = hashlib.sha256()
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise BackupDamaged(f"{path} is not there") from None
    with stream:
        if os.fstat(stream.fileno()).st_size != file.bytes:
            raise BackupDamaged(f"{path}: {os.fstat(stream.fileno()).st_size} bytes where {file.bytes} were written")
        head = stream.read(len(magic))
        if head != magic:
            raise BackupDamaged(f"{path}: not a file of this kind")
        total.update(head)
        while head := stream.read(_FRAME.size):
            at = stream.tell() - len(head)
            total.update(head)
            if len(head) < _FRAME.size:
                raise BackupDamaged(f"{path}: torn at byte {at}")
            stored_bytes, clear_bytes, digest = _FRAME.unpack(head)
            stored = stream.read(min(stored_bytes, file.bytes))
            total.update(stored)
            if clear_bytes > FRAME_CLEAR_BYTES_MAX or hashlib.blake2b(stored, digest_size=16).digest() != digest:
                raise BackupDamaged(f"{path}: damaged at byte {at}")
            try:
                clear = zstandard.ZstdDecompressor().decompress(stored, max_output_size=FRAME_CLEAR_BYTES_MAX)
            except zstandard.ZstdError as error:
                raise BackupDamaged(f"{path}: damaged at byte {at}: {error}") from None
            if len(clear) != clear_bytes:
                raise BackupDamaged(f"{path}: damaged at byte {at}")
            yield clear
    if total.hexdigest() != file.sha256:
        raise BackupDamaged(f"{path}: damaged: its checksum is another")


def events_of(root: Path, part: Part) -> Iterator[tuple[Event, ...]]:
    """Raises BackupDamaged."""
    for clear in frames(root, part.file, EVENTS_MAGIC):
        try:
            yield _decode_events(clear)
        except msgspec.MsgspecError as error:
            raise BackupDamaged(f"{root / part.file.name}: {error}") from None


def pieces_of(root: Path, pack: File) -> Iterator[tuple[Piece, ...]]:
    """Raises BackupDamaged."""
    for clear in frames(root, pack, PACK_MAGIC):
        try:
            yield _decode_pieces(clear)
        except msgspec.MsgspecError as error:
            raise BackupDamaged(f"{root / pack.name}: {error}") from None


def config_of(root: Path, file: File) -> bytes:
    """Raises BackupDamaged."""
    path = root / file.name
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BackupDamaged(f"{path} is not there") from None
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise BackupDamaged(f"{path}: damaged: its checksum is another")
    return data


def record_of(event: Event) -> Record:
    return Record(event.position, event.noun, event.entity, event.payload)


def content_of(piece: Piece) -> Record:
    """As a follower meets it."""
    return Record(0, "", "", piece.data, piece.hash, piece.chunk, piece.chunks)


def sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
