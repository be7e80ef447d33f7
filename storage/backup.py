"""`angarium backup`: all of a serving site in a new folder, verified by reading everything back.

Each partition is taken up to where its events were durable when its turn came; partitions that others rely on come
after those (mail before the directory, the queue before the mail), so that what a backup holds of one is explained by
what it holds of the next. Contents are read from the blobs, which are there before the tables show an event.
"""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import structlog

from cluster.control.partitions import Ended
from cluster.domain.mailbox.content import Segment
from cluster.log.model import CHUNK_BYTES_MAX, LogUnavailable, Record
from cluster.position import position
from storage import archive
from storage.archive import (
    EVENTS_MAGIC,
    INCOMPLETE,
    MANIFEST,
    MANIFEST_SUM,
    PACK_BYTES_MAX,
    PACK_MAGIC,
    BackupFailed,
    Chain,
    Event,
    File,
    Manifest,
    Names,
    Part,
    Piece,
    Writer,
    chained,
)
from storage.blobs import BlobCorrupt, BlobMissing, Blobs, BlobsUnavailable
from storage.overview import Progress
from storage.verification import verified

SHOWN_S_MAX = 120.0  # for the tables, and so the blobs, to reach the mark
GROUP_BYTES_MAX, GROUP_BLOBS_MAX = 1 << 20, 64
INCOMPLETE_TEXT = "This backup was begun and not finished. It cannot be restored: remove this folder.\n"

log = structlog.get_logger("backup")


class Source(Protocol):
    """The log, as far as a backup needs it: cluster.log.jetstream."""

    async def history(self, partition: str) -> tuple[Ended, ...]: ...

    def read(
        self, partition: str, after: int, upto: int, *, contents: bool = False
    ) -> AsyncIterator[tuple[Record, ...]]: ...


class BackedUp(NamedTuple):
    """What is backed up. `partitions`: those relied on first, as cluster.partitions.of_site gives them. `shown`: waits
    until the tables have reached a position, False after the timeout (storage.news.Hub.reached). `config`: name below
    `config/` → file. `now`: unix seconds."""

    site: str
    version: str
    now: float
    partitions: tuple[str, ...]
    log: Source
    blobs: Blobs
    shown: Callable[[str, int, float], Awaitable[bool]]
    config: Mapping[str, Path]


async def backup(target: Path, site: BackedUp) -> AsyncGenerator[Progress, None]:
    """Raises BackupFailed. A folder in which it did not come to its end says so, and has no manifest."""
    try:
        await asyncio.to_thread(_begin, target)
        with tempfile.TemporaryDirectory(prefix=".names-", dir=target) as scratch:
            work = _Backup(target, site, Names(Path(scratch)))
            async for step in work.run():
                yield step
        async for step in verified(target, work.manifest, target):
            yield step
        await asyncio.to_thread(_finish, target, work.manifest)
    except OSError as error:
        where = error.filename or target
        raise BackupFailed(
            f"{where}: {error.strerror or error}: the backup is incomplete; remove {target} and begin again"
        ) from error
    except (LogUnavailable, BlobsUnavailable) as error:
        raise BackupFailed(f"the backup in {target} is incomplete: {error}; remove it and begin again") from error
    if work.manifest.missing:
        yield Progress("contents that this site had lost", len(work.manifest.missing), 0, "blobs", warning=True)


def _begin(target: Path) -> None:
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise BackupFailed(f"{target} is not empty: choose a new folder")
    (target / INCOMPLETE).write_text(INCOMPLETE_TEXT, encoding="ascii")
    for name in ("config", "events", "blobs"):
        (target / name).mkdir(mode=0o700)


def _finish(target: Path, manifest: Manifest) -> None:
    """Last of all, so that a manifest is never there without what it tells of."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    for folder in (*(entry for entry in target.rglob("*") if entry.is_dir()), target):
        archive.sync_folder(folder)
    for name, data in ((MANIFEST_SUM, archive.sum_of(text)), (MANIFEST, text)):
        file = Writer(target, name)
        file.write(data)
        file.finish()
    archive.sync_folder(target)
    (target / INCOMPLETE).unlink()
    archive.sync_folder(target)
    archive.sync_folder(target.parent)


class _Backup:
    def __init__(self, root: Path, site: BackedUp, names: Names) -> None:
        self._root = root
        self._site = site
        self._names = names
        self._parts: list[Part] = []
        self._packs = _Packs(root)
        self._missing: list[bytes] = []
        self._config: list[File] = []

    @property
    def manifest(self) -> Manifest:
        site, packs = self._site, self._packs
        return Manifest(
            archive.FORMAT,
            site.site,
            site.version,
            site.now,
            tuple(reversed(self._parts)),
            tuple(packs.files),
            packs.blobs,
            packs.blob_bytes,
            tuple(self._config),
            tuple(sorted(hash.hex() for hash in self._missing)),
        )

    async def run(self) -> AsyncGenerator[Progress, None]:
        for number, (name, path) in enumerate(sorted(self._site.config.items()), 1):
            self._config.append(await asyncio.to_thread(_copied, self._root, f"config/{name}", path))
            yield Progress("configuration", number, len(self._site.config), "files")
        done = 0
        for partition in reversed(self._site.partitions):
            async for count in self._partition(partition):
                done += count
                yield Progress("events", done, 0, "events")
        yield Progress("events", done, done, "events")
        total = await asyncio.to_thread(lambda: sum(len(self._names.beginning_with(first)) for first in range(256)))
        done = 0
        try:
            for first in range(256):
                names = await asyncio.to_thread(self._names.beginning_with, first)
                async for count in self._contents(names):
                    done += count
                    yield Progress("contents", done, total, "blobs")
            await asyncio.to_thread(self._packs.finish)
        finally:
            self._packs.close()
        yield Progress("contents", total, total, "blobs")

    # -- events -------------------------------------------------------------------------------------------------------

    async def _partition(self, partition: str) -> AsyncGenerator[int, None]:
        history = await self._site.log.history(partition)
        upto = max((position(ended.epoch, ended.last) for ended in history if ended.last), default=0)
        if not await self._site.shown(partition, upto, SHOWN_S_MAX):
            raise BackupFailed(f"the tables do not reach the end of {partition}: see `angarium doctor` and try again")
        file = await asyncio.to_thread(Writer, self._root, f"events/{partition}")
        chain = Chain()
        try:
            await asyncio.to_thread(file.write, EVENTS_MAGIC)
            async for records in self._site.log.read(partition, 0, upto) if upto else _nothing():
                chain = await asyncio.to_thread(self._write, file, records, chain)
                yield len(records)
            written = await asyncio.to_thread(file.finish)
        finally:
            file.close()
        self._parts.append(Part(partition, history, chain.last, chain.events, chain.digest.hex(), written))

    def _write(self, file: Writer, records: Sequence[Record], chain: Chain) -> Chain:
        events = [Event(record.position, record.noun, record.entity, record.payload) for record in records]
        file.frame(archive.encode(events))
        for event in events:
            chain = chained(chain, event)
        self._names.take(events)
        return chain

    # -- contents -----------------------------------------------------------------------------------------------------

    async def _contents(self, names: Mapping[bytes, int]) -> AsyncGenerator[int, None]:
        """In order: small ones many to a frame, a large one in several."""
        group: list[bytes] = []
        size = 0
        for hash, length in names.items():
            if group and (size + length > GROUP_BYTES_MAX or len(group) == GROUP_BLOBS_MAX):
                yield await self._group(group)
                group, size = [], 0
            if length > CHUNK_BYTES_MAX:
                yield await self._large(hash, length)
            else:
                group.append(hash)
                size += length
        if group:
            yield await self._group(group)

    async def _group(self, hashes: Sequence[bytes]) -> int:
        found = await self._site.blobs.get_many(hashes)
        self._missing += await asyncio.to_thread(self._packs.add_whole, hashes, found)
        return len(hashes)

    async def _large(self, hash: bytes, length: int) -> int:
        try:
            await self._site.blobs.verify(hash)
        except (BlobMissing, BlobCorrupt) as error:
            log.error("content is lost", hash=hash.hex(), error=str(error))
            self._missing.append(hash)
            return 1
        chunks = -(-length // CHUNK_BYTES_MAX)
        for chunk in range(chunks):
            start = chunk * CHUNK_BYTES_MAX
            read = self._site.blobs.read((Segment(hash, length),), start, start + CHUNK_BYTES_MAX)
            data = b"".join([piece async for piece in read])
            await asyncio.to_thread(self._packs.add, (Piece(hash, chunk, chunks, data),))
        return 1


class _Packs:
    """Files of at most PACK_BYTES_MAX. Blocks; one thread at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: Writer | None = None
        self.files: list[File] = []
        self.blobs = 0
        self.blob_bytes = 0

    def add_whole(self, hashes: Sequence[bytes], found: Sequence[bytes | None]) -> list[bytes]:
        """One frame; gives back those that are missing, or not what their name says."""
        pieces = []
        lost = []
        for hash, data in zip(hashes, found, strict=True):
            if data is None or hashlib.sha256(data).digest() != hash:
                log.error("content is lost", hash=hash.hex())
                lost.append(hash)
            else:
                pieces.append(Piece(hash, 0, 1, data))
        if pieces:
            self.add(pieces)
        return lost

    def add(self, pieces: Sequence[Piece]) -> None:
        clear = archive.encode(pieces)
        if self._open is not None and self._open.bytes + len(clear) > PACK_BYTES_MAX:
            self.finish()
        if self._open is None:
            self._open = Writer(self._root, f"blobs/{len(self.files) + 1:06d}.pack")
            self._open.write(PACK_MAGIC)
        self._open.frame(clear)
        self.blobs += sum(piece.chunk + 1 == piece.chunks for piece in pieces)
        self.blob_bytes += sum(len(piece.data) for piece in pieces)

    def finish(self) -> None:
        if self._open is not None:
            self.files.append(self._open.finish())
            self._open = None

    def close(self) -> None:
        if self._open is not None:
            self._open.close()


def _copied(root: Path, name: str, path: Path) -> File:
    folder = (root / name).parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("rb") as source:
        data, mode = source.read(), os.fstat(source.fileno()).st_mode & 0o777
    file = Writer(root, name, mode)
    file.write(data)
    return file.finish()


async def _nothing() -> AsyncIterator[tuple[Record, ...]]:
    return
    yield
