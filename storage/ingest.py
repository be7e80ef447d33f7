"""Messages coming in: bytes become a `Content` and the blobs that it names.

Up to SPOOL_BYTES a message stays in memory; above that it is in a file without a name, which goes with the process.
One message at a time is described whole from memory (it must be looked at as one run of bytes), so that ten of 50 MiB
cost one of them and some MiB each for the others. Implements `protocols.port.Ingest` and `Spooled`.
"""

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from cluster.domain.mailbox.content import Content, Segment
from cluster.domain.refusal import Reason, Refusal
from cluster.formats import mime
from cluster.log.model import CHUNK_BYTES_MAX, INLINE_BYTES_MAX, Blob

SPOOL_BYTES = 1 << 20  # that a message may have in memory
WRITE_BYTES = 256 * 1024  # gathered before they are written to the file
PENDING_MAX = 1024  # pieces: a peer that sends single bytes must not cost a Python object for each
PREFIX_BYTES_MAX = 1 << 20  # of `prepend` and `header` together, beyond the header that they replace
DESCRIBE_HERE_BYTES = 128 * 1024  # described on the event loop: about 1 ms at worst, less than a thread for most mail
SEGMENT_BYTES_MAX = CHUNK_BYTES_MAX  # a longer part is several blobs, cut at multiples of this from its start
SPOOL_THREADS = 2

_NAME = "angarium-spool-"
_UNAVAILABLE = Refusal(Reason.UNAVAILABLE, "There is no room to take the message in; try again later.")
_TOO_BIG = Refusal(Reason.TOO_BIG, "The message is too big.")
_HEADER_TOO_BIG = Refusal(Reason.TOO_BIG, "The message's header is too big.")
_encode = msgspec.msgpack.Encoder().encode

T = TypeVar("T")
Range = tuple[int, int]


class Spool:
    """What all messages coming into one process share: a folder and threads. `close` when no message is under way."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder. Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = str(folder)
        self.files = ThreadPoolExecutor(SPOOL_THREADS, thread_name_prefix="spool")
        self.describer = ThreadPoolExecutor(1, thread_name_prefix="describe")  # one: each holds a whole message

    def ingest(self, limit_bytes: int) -> "MessageIngest":
        return MessageIngest(self, limit_bytes)

    def clean(self, before: float) -> int:
        """Removes files older than `before` (Unix seconds): only filesystems that know no nameless files leave any, when
        the process dies between two calls. Returns how many. Raises OSError."""
        removed = 0
        for entry in os.scandir(self.folder):
            if entry.name.startswith(_NAME) and entry.stat(follow_symlinks=False).st_mtime < before:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)
                    removed += 1
        return removed

    def close(self) -> None:
        self.files.shutdown(wait=False)
        self.describer.shutdown(wait=False)


class SpoolFile:
    """A file without a name. Closed when nobody holds it any more: a thread may still use it after its message is gone."""

    def __init__(self, folder: str) -> None:
        try:
            self.fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:  # not every filesystem can
            self.fd, name = tempfile.mkstemp(prefix=_NAME, dir=folder)
            os.unlink(name)

    def write(self, data: bytes, at: int) -> None:
        """A disk that fills up takes a part first, and refuses the next call. Raises OSError."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.fd, view, at)
            view, at = view[written:], at + written

    def read(self, size: int, at: int) -> bytes:
        """Raises OSError, also when the file is shorter."""
        data = os.pread(self.fd, size, at)
        if len(data) != size:
            raise OSError(f"the spool file has {len(data)} of {size} bytes")
        return data

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class Source(Protocol):
    """Where a finished message's bytes are."""

    async def read(self, start: int, end: int) -> bytes: ...


class MessageIngest:
    """See protocols.port.Ingest. `size`: bytes fed."""

    def __init__(self, spool: Spool, limit_bytes: int) -> None:
        self.size = 0
        self._spool = spool
        self._limit = limit_bytes
        self._pending: list[bytes] = []  # in memory: all; spooled: what is not written yet
        self._pending_bytes = 0
        self._head = b""  # the first SPOOL_BYTES, once the rest is on disk
        self._file: SpoolFile | None = None
        self._written = 0
        self._refusal: Refusal | None = None

    async def feed(self, data: bytes | memoryview) -> bool:
        self.size += len(data)
        if self._refusal is None:
            if self.size > self._limit:
                self._refuse(_TOO_BIG)
                return False
            # A view's buffer may be used again by whoever lent it.
            self._pending.append(data if type(data) is bytes else bytes(data))
            self._pending_bytes += len(data)
            if self.size > SPOOL_BYTES and self._pending_bytes >= WRITE_BYTES:
                await self._flush()
            elif len(self._pending) >= PENDING_MAX:
                self._pending = [b"".join(self._pending)]
        return self._refusal is not _TOO_BIG

    def head(self, limit: int) -> bytes:
        if self._file is None and len(self._pending) > 1:
            self._pending = [b"".join(self._pending)]
        whole = self._head or (self._pending[0] if self._pending else b"")
        return whole[: min(limit, SPOOL_BYTES)]

    async def finish(self, prepend: bytes = b"", header: bytes | None = None) -> "SpooledMessage | Refusal":
        """Refusals: TOO_BIG, UNAVAILABLE. The ingest is empty afterwards, whatever the answer."""
        try:
            if self._refusal is None and self._file is not None and self._pending:
                await self._flush()
            if self._refusal is not None:
                return self._refusal
            if self._file is not None:
                return await self._finish_file(self._file, prepend, header)
            return await self._finish_memory(prepend, header)
        finally:
            self.abandon()

    def abandon(self) -> None:
        self._pending = []
        self._head = b""
        self._file = None
        self._refusal = self._refusal or _UNAVAILABLE

    async def _flush(self) -> None:
        data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        self._pending, self._pending_bytes = [], 0
        try:
            if self._file is None:
                self._head = data[:SPOOL_BYTES]
                self._file = await self._in_thread(lambda: SpoolFile(self._spool.folder))
            file, at = self._file, PREFIX_BYTES_MAX + self._written
            self._written += len(data)
            await self._in_thread(lambda: file.write(data, at))
        except OSError:
            self._refuse(_UNAVAILABLE)

    async def _finish_memory(self, prepend: bytes, header: bytes | None) -> "SpooledMessage":
        pieces = self._pending
        if header is not None:
            whole = b"".join(pieces)
            end = _header_end(whole)
            pieces = [header] if end is None else [header, whole[end:]]
        data = b"".join((prepend, *pieces)) if prepend or len(pieces) != 1 else pieces[0]
        if len(data) <= DESCRIBE_HERE_BYTES:
            content = _describe(data)
        else:
            content = await asyncio.get_running_loop().run_in_executor(self._spool.files, _describe, data)
        return SpooledMessage(content, _Memory(data))

    async def _finish_file(self, file: SpoolFile, prepend: bytes, header: bytes | None) -> "SpooledMessage | Refusal":
        # The file begins with a hole, so that what goes before the message can be put there.
        prefix, start = prepend, PREFIX_BYTES_MAX
        if header is not None:
            prefix = prepend + header
            end = _header_end(self._head)
            if end is None:
                return _HEADER_TOO_BIG
            start += end
        start -= len(prefix)
        if start < 0:
            return _HEADER_TOO_BIG
        size = PREFIX_BYTES_MAX + self._written - start

        def describe() -> Content:
            file.write(prefix, start)
            return _describe(file.read(size, start))

        try:
            content = await asyncio.get_running_loop().run_in_executor(self._spool.describer, describe)
        except OSError:
            return _UNAVAILABLE
        return SpooledMessage(content, _File(file, start, self._spool))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._spool.files, work)

    def _refuse(self, refusal: Refusal) -> None:
        self._refusal = refusal
        self.abandon()


class SpooledMessage:
    """See protocols.port.Spooled. `inline_bytes`: of all its blobs; up to INLINE_BYTES_MAX they may ride in the append."""

    def __init__(self, content: Content, source: Source) -> None:
        self.content = content
        self._source: Source | None = source
        self.inline_bytes = sum(segment.size for segment in dict.fromkeys(content.segments))

    async def blobs(self) -> AsyncIterator[Blob]:
        """Each blob once, in the order of the message, none above SEGMENT_BYTES_MAX. Raises OSError, and ValueError
        after `release`."""
        at = 0
        seen = set()
        for segment in self.content.segments:
            if self._source is None:
                raise ValueError("the message was released")
            if segment.hash not in seen:
                seen.add(segment.hash)
                yield Blob(segment.hash, await self._source.read(at, at + segment.size))
            at += segment.size

    async def pieces(self) -> AsyncIterator[bytes]:
        """See protocols.port.Spooled."""
        for start in range(0, self.content.size, WRITE_BYTES):
            if self._source is None:
                raise OSError("the message was released")
            yield await self._source.read(start, min(start + WRITE_BYTES, self.content.size))

    async def inline(self) -> tuple[Blob, ...] | None:
        """All blobs, or None where they are too much for an append. Raises as `blobs` does."""
        if self.inline_bytes > INLINE_BYTES_MAX:
            return None
        return tuple([blob async for blob in self.blobs()])

    def release(self) -> None:
        self._source = None


class _Memory:
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, start: int, end: int) -> bytes:
        return self._data[start:end]  # the whole of it is no copy


class _File:
    def __init__(self, file: SpoolFile, start: int, spool: Spool) -> None:
        self._file = file
        self._start = start
        self._spool = spool

    async def read(self, start: int, end: int) -> bytes:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._spool.files, self._file.read, end - start, self._start + start)


def _describe(data: bytes) -> Content:
    description = mime.describe(data)
    whole = hashlib.sha256(data).digest()
    segments = tuple(_segments(data, whole, mime.segments(description.structure, len(data))))
    return Content(whole, len(data), segments, _encode(description), description.sent)


def _segments(data: bytes, whole: bytes, ranges: list[Range]) -> Iterator[Segment]:
    view = memoryview(data)
    for start, end in ranges:
        for cut in range(start, end, SEGMENT_BYTES_MAX):
            piece = view[cut : min(cut + SEGMENT_BYTES_MAX, end)]
            yield Segment(whole if len(piece) == len(data) else hashlib.sha256(piece).digest(), len(piece))


def _header_end(data: bytes) -> int | None:
    """Where the header block ends, its closing empty line included (RFC 5322 §2.1); None where there is no such line."""
    if data.startswith((b"\r\n", b"\n")):
        return data.index(b"\n") + 1
    ends = [at + len(mark) for mark in (b"\n\r\n", b"\n\n") if (at := data.find(mark)) >= 0]
    return min(ends, default=None)
