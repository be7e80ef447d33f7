"""Blobs in memory: the same contract, for laws and simulation."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

from storage.blobs import BlobCorrupt, BlobMissing
from storage.blobs.shelf import ShelvedBlobs, pieces_of


class MemoryBlobs(ShelvedBlobs):
    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(MemoryShelf(), 0, monotonic)


class MemoryShelf:
    name = ""

    def __init__(self) -> None:
        self._blobs: dict[bytes, bytes] = {}

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def put(self, hash: bytes, data: bytes) -> bool:
        if hashlib.sha256(data).digest() != hash:
            raise BlobCorrupt(f"these bytes are not {hash.hex()}")
        new = hash not in self._blobs
        self._blobs[hash] = bytes(data)
        return new

    def sink(self) -> "MemorySink":
        return MemorySink(self._blobs)

    def sync(self) -> None:
        """Nothing here outlives the process."""

    def get(self, hash: bytes) -> bytes:
        try:
            return self._blobs[hash]
        except KeyError:
            raise BlobMissing(hash.hex()) from None

    def pieces(self, hash: bytes, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        yield from pieces_of(self.get(hash), start, end)

    def size(self, hash: bytes) -> int | None:
        data = self._blobs.get(hash)
        return None if data is None else len(data)

    def verify(self, hash: bytes) -> None:
        if hashlib.sha256(self.get(hash)).digest() != hash:
            raise BlobCorrupt(hash.hex())

    def delete(self, hash: bytes) -> bool:
        return self._blobs.pop(hash, None) is not None

    def walk(self) -> Iterator[bytes]:
        yield from sorted(self._blobs)

    def close(self) -> None:
        """Stays readable."""


class MemorySink:
    def __init__(self, blobs: dict[bytes, bytes]) -> None:
        self._blobs = blobs
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        self._data += data

    def commit(self, hash: bytes) -> None:
        self._blobs[hash] = bytes(self._data)

    def discard(self) -> None:
        self._data = bytearray()
