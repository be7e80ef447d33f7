"""From the records of the log to blobs: small ones come in one record, large ones chunk by chunk."""

import hashlib
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from cluster.log.model import Record
from storage.blobs import BlobCorrupt, Taken

UNFINISHED_MAX = 64  # large blobs at once, for each follower; each holds a file and 256 KiB
UNFINISHED_S_MAX = 600.0  # without a new chunk

Hop = Callable[[Callable[[], Any]], Awaitable[Any]]


class Sink(Protocol):
    """A blob that is being written, under no name yet. All raise OSError."""

    def add(self, data: bytes) -> None: ...
    def commit(self, hash: bytes) -> None:
        """Gives it its name; the caller has compared the hash. Not durable before sync."""
        ...

    def discard(self) -> None:
        """Harmless after commit or twice."""
        ...


class Shelf(Protocol):
    def together(self) -> AbstractContextManager[None]: ...
    def put(self, hash: bytes, data: bytes) -> bool: ...
    def sink(self) -> Sink: ...


@dataclass(slots=True)
class _Unfinished:
    """`first`: position of its first chunk; `chunk`: the next one wanted; `fed_at`: when the last one came."""

    sink: Sink
    first: int
    fed_at: float
    chunk: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)


class Assembler:
    """Puts large blobs together, in bounded memory. Blocks; one thread at a time.

    A chunk that came before is passed over, and so is one whose predecessors were never seen: the upload that repeats
    brings them again. What nobody continues for UNFINISHED_S_MAX is dropped, and so is the one that waited longest when
    there are too many.
    """

    def __init__(self, new_sink: Callable[[], Sink], monotonic: Callable[[], float]) -> None:
        self._new_sink = new_sink
        self._monotonic = monotonic
        self._unfinished: dict[tuple[bytes, int], _Unfinished] = {}  # (hash, chunks), the longest waiting first

    def feed(self, record: Record) -> bytes | None:
        """The hash when this chunk made its blob whole. Raises BlobCorrupt (whole, but not what its name says: dropped)
        and OSError (then what was fed since the last sync is to be fed again)."""
        key = (record.hash, record.chunks)
        now = self._monotonic()
        blob = self._unfinished.pop(key, None)
        if blob is None:
            if record.chunk != 0:
                return None
            self._make_room(now)
            blob = _Unfinished(self._new_sink(), record.position, now)
        if record.chunk != blob.chunk:
            self._unfinished[key] = blob
            return None
        try:
            blob.sink.add(record.payload)
            blob.digest.update(record.payload)
            blob.chunk += 1
            blob.fed_at = now
            if blob.chunk < record.chunks:
                self._unfinished[key] = blob
                return None
            if blob.digest.digest() != record.hash:
                raise BlobCorrupt(f"the chunks of {record.hash.hex()} do not make it")
            blob.sink.commit(record.hash)
            return record.hash
        except (OSError, BlobCorrupt):
            self._unfinished.pop(key, None)
            blob.sink.discard()
            raise

    def unfinished_since(self) -> int | None:
        """The position of the oldest chunk that would be needed again after a restart."""
        return min((blob.first for blob in tuple(self._unfinished.values())), default=None)

    def drop_old(self) -> None:
        now = self._monotonic()
        old = [key for key, blob in self._unfinished.items() if now - blob.fed_at > UNFINISHED_S_MAX]
        for key in old:
            self._unfinished.pop(key).sink.discard()

    def close(self) -> None:
        while self._unfinished:
            self._unfinished.popitem()[1].sink.discard()

    def _make_room(self, now: float) -> None:
        self.drop_old()
        while len(self._unfinished) >= UNFINISHED_MAX:
            self._unfinished.pop(next(iter(self._unfinished))).sink.discard()


class ShelfIntake:
    """One follower's intake into a shelf (see storage.blobs.Intake)."""

    def __init__(self, shelf: Shelf, hop: Hop, monotonic: Callable[[], float]) -> None:
        self._shelf = shelf
        self._hop = hop
        self._assembler = Assembler(shelf.sink, monotonic)
        self._one = threading.Lock()  # a take that was cancelled may still run in its thread

    async def take(self, records: Sequence[Record]) -> Taken:
        contents = [record for record in records if not record.noun]
        if not contents:
            return Taken((), ())
        taken: Taken = await self._hop(lambda: self._take(contents))
        return taken

    def confirmable(self, reached: int) -> int:
        since = self._assembler.unfinished_since()
        return reached if since is None else min(reached, since - 1)

    def close(self) -> None:
        with self._one:
            self._assembler.close()

    def _take(self, contents: list[Record]) -> Taken:
        complete: list[bytes] = []
        corrupt: list[bytes] = []
        with self._one, self._shelf.together():
            self._assembler.drop_old()
            for record in contents:
                try:
                    if record.chunks <= 1:
                        self._shelf.put(record.hash, record.payload)
                        complete.append(record.hash)
                    elif self._assembler.feed(record) is not None:
                        complete.append(record.hash)
                except BlobCorrupt:
                    corrupt.append(record.hash)
        return Taken(tuple(complete), tuple(corrupt))
