"""Reads a whole backup back: every checksum, every digest of events, every content by its name, and that every content
which an event names is there.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

from cluster.position import shown
from storage.archive import (
    BackupDamaged,
    Chain,
    File,
    Manifest,
    Names,
    Part,
    Piece,
    chained,
    config_of,
    events_of,
    pieces_of,
    read_manifest,
)
from storage.overview import Progress


async def verify(target: Path) -> AsyncGenerator[Progress, None]:
    """Of a finished backup. Raises BackupDamaged with the name of the file, OSError where it cannot be read."""
    manifest = await asyncio.to_thread(read_manifest, target)
    async for step in verified(target, manifest):
        yield step


async def verified(target: Path, manifest: Manifest, scratch: Path | None = None) -> AsyncGenerator[Progress, None]:
    """The same for a manifest that is known. `scratch`: where the names of contents are sorted (40 bytes for each)."""
    with tempfile.TemporaryDirectory(prefix=".names-", dir=scratch) as folder:
        steps = _checks(target, manifest, Names(Path(folder)))
        while (step := await asyncio.to_thread(next, steps, None)) is not None:
            yield step


def _checks(root: Path, manifest: Manifest, names: Names) -> Iterator[Progress]:
    for number, file in enumerate(manifest.config, 1):
        config_of(root, file)
        yield Progress("verifying configuration", number, len(manifest.config), "files")
    total = sum(part.events for part in manifest.partitions)
    done = 0
    for part in manifest.partitions:
        for count in _events(root, part, names):
            done += count
            yield Progress("verifying events", done, total, "events")
    contents = _Contents(root, manifest, names)
    for pack in manifest.packs:
        for _ in contents.of_pack(pack):
            yield Progress("verifying contents", contents.blobs, manifest.blobs, "blobs")
    contents.finish()
    yield Progress("verified", manifest.blobs, manifest.blobs, "blobs")


def _events(root: Path, part: Part, names: Names) -> Iterator[int]:
    chain = Chain()
    for events in events_of(root, part):
        for event in events:
            if event.position <= chain.last:
                raise BackupDamaged(f"{root / part.file.name}: event {shown(event.position)} stands after a later one")
            chain = chained(chain, event)
        names.take(events)
        yield len(events)
    if (chain.digest.hex(), chain.events, chain.last) != (part.digest, part.events, part.last):
        raise BackupDamaged(f"{root / part.file.name}: these are not the {part.events} events that were written")


class _Contents:
    """Packs are ascending by hash, and so are the names: both are walked together, a 256th at a time."""

    def __init__(self, root: Path, manifest: Manifest, names: Names) -> None:
        self._root = root
        self._manifest = manifest
        self._names = names
        self._missing = {bytes.fromhex(hash) for hash in manifest.missing}
        self._first = 0
        self._wanted = set(names.beginning_with(0)) - self._missing
        self._open: Piece | None = None  # the last piece, while its content goes on
        self._digest = hashlib.sha256()
        self._bytes = 0
        self.blobs = 0

    def of_pack(self, pack: File) -> Iterator[None]:
        path = self._root / pack.name
        for pieces in pieces_of(self._root, pack):
            for piece in pieces:
                self._piece(path, piece)
            yield

    def finish(self) -> None:
        self._walk_to(256)
        manifest = self._manifest
        if self._open is not None or (self.blobs, self._bytes) != (manifest.blobs, manifest.blob_bytes):
            raise BackupDamaged(f"{self._root / 'blobs'}: {self.blobs} contents where {manifest.blobs} were written")

    def _piece(self, path: Path, piece: Piece) -> None:
        expected = (piece.hash, 0) if self._open is None else (self._open.hash, self._open.chunk + 1)
        if (piece.hash, piece.chunk) != expected or piece.hash[0] < self._first:
            raise BackupDamaged(f"{path}: contents in another order than they were written")
        self._walk_to(piece.hash[0])
        self._digest.update(piece.data)
        self._bytes += len(piece.data)
        self._open = piece
        if piece.chunk + 1 == piece.chunks:
            if self._digest.digest() != piece.hash:
                raise BackupDamaged(f"{path}: content {piece.hash.hex()} is not what its name says")
            self._wanted.discard(piece.hash)
            self._open, self._digest = None, hashlib.sha256()
            self.blobs += 1

    def _walk_to(self, first: int) -> None:
        while self._first < first:
            if self._wanted:
                lost = min(self._wanted).hex()
                raise BackupDamaged(f"{self._root / 'blobs'}: content {lost}, which an event names, is in no pack")
            self._first += 1
            if self._first < 256:
                self._wanted = set(self._names.beginning_with(self._first)) - self._missing
