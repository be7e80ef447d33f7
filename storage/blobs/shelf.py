"""The port `Blobs` over a shelf: a plain store that blocks, called in threads, many blobs at one hop."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import islice
from typing import Protocol, TypeVar

from cluster.domain.mailbox.content import Segment
from cluster.log.model import Blob
from storage.blobs import PIECE_BYTES_MAX, BlobCorrupt, BlobMissing, BlobsUnavailable
from storage.blobs.intake import ShelfIntake, Sink
from storage.portions import portions

READ_AHEAD_BYTES = 1 << 20  # that one hop reads for a reader
READ_AHEAD_SPANS = 64
WALK_BATCH = 1000

T = TypeVar("T")
Span = tuple[bytes, int, int]  # hash, start, end


class Shelf(Protocol):
    """A store that blocks; any method may be called by several threads at once. All raise OSError. `name`: see Blobs."""

    name: str

    def together(self) -> AbstractContextManager[None]:
        """What is put within is there when the block has ended."""
        ...

    def put(self, hash: bytes, data: bytes) -> bool:
        """Whether it is new (or was torn, and is mended). Raises BlobCorrupt."""
        ...

    def sink(self) -> Sink: ...
    def sync(self) -> None: ...
    def get(self, hash: bytes) -> bytes: ...
    def pieces(self, hash: bytes, start: int = 0, end: int | None = None) -> Iterator[bytes]: ...
    def size(self, hash: bytes) -> int | None: ...
    def verify(self, hash: bytes) -> None: ...
    def delete(self, hash: bytes) -> bool: ...
    def walk(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class ShelvedBlobs:
    """`threads` 0: the shelf is memory and is called where we stand."""

    def __init__(self, shelf: Shelf, threads: int, monotonic: Callable[[], float]) -> None:
        self.shelf = shelf
        self.name = shelf.name
        self._monotonic = monotonic
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="blobs") if threads else None

    async def put(self, blobs: Sequence[Blob]) -> int:
        return await self._hop(lambda: self._put(blobs)) if blobs else 0

    async def keep(self, hash: bytes, pieces: AsyncIterable[bytes]) -> None:
        incoming: _Incoming = await self._hop(lambda: _Incoming(self.shelf.sink()))
        try:
            async for piece in pieces:
                await self._hop(lambda piece=piece: incoming.add(piece))  # type: ignore[misc]
            await self._hop(lambda: incoming.commit(hash))
        finally:
            await self._hop(incoming.discard)

    def intake(self) -> ShelfIntake:
        return ShelfIntake(self.shelf, self._hop, self._monotonic)

    async def sync(self) -> None:
        await self._hop(self.shelf.sync)

    async def get(self, hash: bytes) -> bytes:
        return await self._hop(lambda: self.shelf.get(hash))

    async def get_many(self, hashes: Sequence[bytes]) -> list[bytes | None]:
        return await self._hop(lambda: [self._get(hash) for hash in hashes]) if hashes else []

    async def read(self, segments: Sequence[Segment], start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        spans = _spans(segments, start, end)
        for batch in portions(spans, lambda span: span[2] - span[1], READ_AHEAD_BYTES, READ_AHEAD_SPANS):
            for piece in await self._hop(lambda batch=batch: self._pieces(batch)):  # type: ignore[misc]
                yield piece

    async def size(self, hash: bytes) -> int | None:
        return await self._hop(lambda: self.shelf.size(hash))

    async def sizes(self, hashes: Sequence[bytes]) -> list[int | None]:
        return await self._hop(lambda: [self.shelf.size(hash) for hash in hashes])

    async def missing(self, hashes: Sequence[bytes]) -> list[bytes]:
        return await self._hop(lambda: [hash for hash in hashes if self.shelf.size(hash) is None])

    async def verify(self, hash: bytes) -> None:
        await self._hop(lambda: self.shelf.verify(hash))

    async def delete(self, hash: bytes) -> bool:
        return await self._hop(lambda: self.shelf.delete(hash))

    async def walk(self) -> AsyncIterator[list[bytes]]:
        names = self.shelf.walk()
        while batch := await self._hop(lambda: list(islice(names, WALK_BATCH))):
            yield batch

    async def close(self) -> None:
        await self._hop(self.shelf.close)
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    async def _hop(self, work: Callable[[], T]) -> T:
        try:
            if self._pool is None:
                return work()
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except OSError as error:
            raise BlobsUnavailable(str(error)) from error

    def _put(self, blobs: Sequence[Blob]) -> int:
        with self.shelf.together():
            return sum(self.shelf.put(blob.hash, blob.data) for blob in blobs)

    def _get(self, hash: bytes) -> bytes | None:
        try:
            return self.shelf.get(hash)
        except (BlobMissing, BlobCorrupt):
            return None

    def _pieces(self, spans: list[Span]) -> list[bytes]:
        return [piece for span in spans for piece in self.shelf.pieces(*span)]


class _Incoming:
    """A blob that comes in pieces. Who waited for a step may be cancelled while its thread still works: hence the lock."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._digest = hashlib.sha256()
        self._one = threading.Lock()

    def add(self, piece: bytes) -> None:
        with self._one:
            self._digest.update(piece)
            self._sink.add(piece)

    def commit(self, hash: bytes) -> None:
        with self._one:
            if self._digest.digest() != hash:
                raise BlobCorrupt(f"what came has the name {self._digest.hexdigest()}, not {hash.hex()}")
            self._sink.commit(hash)

    def discard(self) -> None:
        with self._one:
            self._sink.discard()


def pieces_of(data: bytes, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Of a whole blob in memory, as `Shelf.pieces` gives them. Raises BlobCorrupt for a range outside."""
    end = len(data) if end is None else end
    if not 0 <= start <= end <= len(data):
        raise BlobCorrupt(f"bytes {start} to {end} of a blob of {len(data)}")
    while start < end:
        cut = min(end, start - start % PIECE_BYTES_MAX + PIECE_BYTES_MAX)
        yield data[start:cut]
        start = cut


def _spans(segments: Sequence[Segment], start: int, end: int | None) -> Iterator[Span]:
    """What a slice of the whole needs of each blob, none longer than READ_AHEAD_BYTES and cut at its multiples, so that
    no frame is read twice."""
    total = sum(segment.size for segment in segments)
    start, end, _ = slice(start, end).indices(total)
    base = 0
    for segment in segments:
        at, stop = max(start - base, 0), min(end - base, segment.size)
        while at < stop:
            cut = min(stop, at - at % READ_AHEAD_BYTES + READ_AHEAD_BYTES)
            yield segment.hash, at, cut
            at = cut
        base += segment.size
