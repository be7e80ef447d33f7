"""Blobs on this machine's disk: small ones as rows, others as files."""

import heapq
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import groupby
from pathlib import Path

from storage.blobs import BlobMissing
from storage.blobs.files import NAME_FILE, FileShelf
from storage.blobs.frames import Codec
from storage.blobs.intake import Sink
from storage.blobs.shelf import ShelvedBlobs, pieces_of
from storage.blobs.small import SMALL_BYTES_MAX, SmallShelf

READ_THREADS = 4
SMALL_FILE = "small.sqlite"
MADE_FILE = "small.made"  # there was a file for small blobs


class DiskBlobs(ShelvedBlobs):
    """`root` is made where it is not there. Raises OSError."""

    def __init__(self, root: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.disk = DiskShelf(root)
        super().__init__(self.disk, READ_THREADS, monotonic)


class DiskShelf:
    """What is small and lies in a file, from an earlier release or because it came in pieces, is found there."""

    def __init__(self, root: Path) -> None:
        small, made = root / SMALL_FILE, root / MADE_FILE
        if made.exists() and not small.exists():
            # What it held is gone: as another store, this one is given everything once more.
            (root / NAME_FILE).unlink(missing_ok=True)
        self._files = FileShelf(root)
        self.name = self._files.name
        self._small = SmallShelf(os.path.abspath(small), f"{os.path.abspath(root)}/tmp", Codec())
        made.touch(mode=0o600)

    def together(self) -> AbstractContextManager[None]:
        return self._small.together()

    def put(self, hash: bytes, data: bytes) -> bool:
        return self._small.put(hash, data) if len(data) <= SMALL_BYTES_MAX else self._files.put(hash, data)

    def sink(self) -> Sink:
        return self._files.sink()

    def sync(self) -> None:
        self._small.sync()
        self._files.sync()

    def get(self, hash: bytes) -> bytes:
        data = self._small.find(hash)
        return self._files.get(hash) if data is None else data

    def pieces(self, hash: bytes, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        data = self._small.find(hash)
        yield from self._files.pieces(hash, start, end) if data is None else pieces_of(data, start, end)

    def size(self, hash: bytes) -> int | None:
        size = self._small.size(hash)
        return self._files.size(hash) if size is None else size

    def verify(self, hash: bytes) -> None:
        try:
            self._small.verify(hash)
        except BlobMissing:
            self._files.verify(hash)

    def clean(self, before: float) -> int:
        """See FileShelf."""
        return self._files.clean(before)

    def delete(self, hash: bytes) -> bool:
        was_small, was_file = self._small.delete(hash), self._files.delete(hash)
        return was_small or was_file

    def walk(self) -> Iterator[bytes]:
        for hash, _ in groupby(heapq.merge(self._small.walk(), self._files.walk())):
            yield hash

    def close(self) -> None:
        self._small.close()
        self._files.close()
