"""How a blob lies in its file: a header, frames, an index.

    header   magic, bytes of a frame, clear bytes of the blob, bytes of the whole file    (24 bytes, little endian)
    frames   each one Zstandard frame (RFC 8878) with its checksum, of 256 KiB clear bytes; the last one of what is left
    index    for each frame its stored bytes, 4 bytes little endian

So a range costs no more than the frames it touches, a torn file shows by its length, and a flipped bit by the checksum.
Zstandard stores what does not shrink as it is. The file says its frame size itself: another may be chosen later.
"""

import os
import struct
import threading
from collections.abc import Iterator
from typing import NamedTuple

import zstandard

from storage.blobs import PIECE_BYTES_MAX, BlobCorrupt

FRAME_BYTES = PIECE_BYTES_MAX
FRAME_BYTES_MAX = 16 << 20  # that a file may ask for
LEVEL = 1  # of 1 to 22: level 3 took 50 % longer to save 5 %

_MAGIC = b"AGB1"
_HEADER = struct.Struct("<4sIQQ")
_ENTRY_BYTES = 4


class Codec(threading.local):
    """A compressor and a decompressor for each thread: neither may be used by two at once."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress
        self._decompress = zstandard.ZstdDecompressor().decompress

    def expand(self, frame: bytes, clear: int) -> bytes:
        """Raises BlobCorrupt unless `frame` holds exactly `clear` bytes."""
        try:
            if zstandard.frame_content_size(frame) != clear:
                raise BlobCorrupt("a frame has another length than its place")
            return self._decompress(frame)
        except zstandard.ZstdError as error:
            raise BlobCorrupt(f"a frame does not decode: {error}") from None


class Shape(NamedTuple):
    """What a header says. `clear`, `stored`: bytes of the blob and of its file."""

    frame_bytes: int
    clear: int
    stored: int

    @property
    def frames(self) -> int:
        return -(-self.clear // self.frame_bytes)


def shape_of(header: bytes, stored: int) -> Shape:
    """Raises BlobCorrupt where the header is none, or the file has not the length that it says."""
    if len(header) < _HEADER.size:
        raise BlobCorrupt("shorter than a header")
    magic, frame_bytes, clear, said = _HEADER.unpack_from(header)
    if magic != _MAGIC or not 0 < frame_bytes <= FRAME_BYTES_MAX:
        raise BlobCorrupt("not a blob's header")
    shape = Shape(frame_bytes, clear, said)
    if said != stored or said < _HEADER.size + shape.frames * _ENTRY_BYTES:
        raise BlobCorrupt(f"{stored} bytes where {said} were written")
    return shape


def encode(codec: Codec, data: bytes | memoryview) -> bytes:
    """A whole file for a blob that is in memory."""
    view = memoryview(data)
    frames = [codec.compress(view[at : at + FRAME_BYTES]) for at in range(0, len(view), FRAME_BYTES)]
    index = _index([len(frame) for frame in frames])
    stored = _HEADER.size + sum(map(len, frames)) + len(index)
    return b"".join((_HEADER.pack(_MAGIC, FRAME_BYTES, len(view), stored), *frames, index))


def decode(codec: Codec, raw: bytes) -> bytes:
    """The blob in a whole file. Raises BlobCorrupt."""
    shape = shape_of(raw[: _HEADER.size], len(raw))
    if shape.frames == 1:
        return codec.expand(raw[_HEADER.size : -_ENTRY_BYTES], shape.clear)
    out, at = [], _HEADER.size
    for number, length in enumerate(_lengths(shape, raw[len(raw) - shape.frames * _ENTRY_BYTES :])):
        out.append(codec.expand(raw[at : at + length], _clear_bytes(shape, number)))
        at += length
    return b"".join(out)


def shape_at(fd: int) -> Shape:
    """Raises BlobCorrupt, OSError."""
    return shape_of(os.pread(fd, _HEADER.size, 0), os.fstat(fd).st_size)


def pieces(codec: Codec, fd: int, start: int, end: int | None) -> Iterator[bytes]:
    """The clear bytes `start` to `end` (None: all), frame by frame. Raises BlobCorrupt, also for a range outside."""
    shape = shape_at(fd)
    end = shape.clear if end is None else end
    if not 0 <= start <= end <= shape.clear:
        raise BlobCorrupt(f"bytes {start} to {end} of a blob of {shape.clear}")
    if start == end:
        return
    index_bytes = shape.frames * _ENTRY_BYTES
    lengths = _lengths(shape, os.pread(fd, index_bytes, shape.stored - index_bytes))
    first = start // shape.frame_bytes
    at = _HEADER.size + sum(lengths[:first])
    for number in range(first, -(-end // shape.frame_bytes)):
        clear = codec.expand(os.pread(fd, lengths[number], at), _clear_bytes(shape, number))
        at += lengths[number]
        base = number * shape.frame_bytes
        if start > base or end < base + len(clear):
            clear = clear[max(start - base, 0) : end - base]
        for cut in range(0, len(clear), PIECE_BYTES_MAX):
            yield clear[cut : cut + PIECE_BYTES_MAX]


class FrameWriter:
    """Writes a blob whose size is not known yet into an empty file, frame by frame. Raises OSError."""

    def __init__(self, codec: Codec, fd: int) -> None:
        self._codec = codec
        self._fd = fd
        self._rest = bytearray()
        self._lengths: list[int] = []
        self._clear = 0
        write_all(fd, bytes(_HEADER.size))

    def add(self, data: bytes | memoryview) -> None:
        self._clear += len(data)
        self._rest += data
        whole = len(self._rest) - len(self._rest) % FRAME_BYTES
        for at in range(0, whole, FRAME_BYTES):
            self._frame(bytes(self._rest[at : at + FRAME_BYTES]))
        del self._rest[:whole]

    def finish(self) -> None:
        if self._rest:
            self._frame(bytes(self._rest))
        write_all(self._fd, _index(self._lengths))
        stored = _HEADER.size + sum(self._lengths) + len(self._lengths) * _ENTRY_BYTES
        os.pwrite(self._fd, _HEADER.pack(_MAGIC, FRAME_BYTES, self._clear, stored), 0)

    def _frame(self, clear: bytes) -> None:
        frame = self._codec.compress(clear)
        write_all(self._fd, frame)
        self._lengths.append(len(frame))


def write_all(fd: int, data: bytes) -> None:
    """A disk that fills up takes a part first, and refuses the next call. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _index(lengths: list[int]) -> bytes:
    return struct.pack(f"<{len(lengths)}I", *lengths)


def _lengths(shape: Shape, index: bytes) -> tuple[int, ...]:
    if len(index) != shape.frames * _ENTRY_BYTES:
        raise BlobCorrupt("a short index")
    lengths = struct.unpack(f"<{shape.frames}I", index)
    if sum(lengths) != shape.stored - _HEADER.size - len(index):
        raise BlobCorrupt("an index that does not fit its frames")
    return lengths


def _clear_bytes(shape: Shape, number: int) -> int:
    return min(shape.frame_bytes, shape.clear - number * shape.frame_bytes)
