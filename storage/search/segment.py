"""A list of words of some messages of one mailbox, in one file that never changes; and how it is made.

File: MAGIC, length and CRC of a head in MessagePack, the head, then arrays at the offsets that it names, in the byte order of
the machine. A section has its words as lines in UTF-8, the offset of each line's end, and for each word the messages that have
it, by their number in the segment.
"""

import mmap
import os
import struct
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from cluster.formats.searched import SECTIONS, Needle, Searched, words

MAGIC = b"ANGSRCH1"
MESSAGES_MAX = 4_096  # in one segment: their numbers fit in two bytes
_FIXED = struct.Struct("=8sIIQ")


class SegmentDamaged(Exception):
    """Torn, or of another version: it is made again."""


class Section(msgspec.Struct, frozen=True, array_like=True):
    """Offsets from the end of the head: of the lines, of their ends, of where each word's messages begin, of those."""

    lines: int
    ends: int
    begins: int
    messages: int
    size: int
    words: int


class Head(msgspec.Struct, frozen=True, array_like=True):
    """`first`, `last`: UIDs that it speaks for. `partly`: numbers of messages of which not all is listed; `unread`: UIDs within
    `first` and `last` of which nothing is. `crc`: of what follows the head."""

    first: int
    last: int
    uids: bytes
    partly: bytes
    unread: bytes
    crc: int
    sections: tuple[Section, ...]


class Segment:
    """An open file, read once to see that it is whole. Raises SegmentDamaged, OSError."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            fixed = file.read(_FIXED.size)
            if len(fixed) < _FIXED.size:
                raise SegmentDamaged(path.name)
            magic, size, crc, length = _FIXED.unpack(fixed)
            raw = file.read(size)
            if magic != MAGIC or zlib.crc32(raw) != crc:
                raise SegmentDamaged(path.name)
            self.head = msgspec.msgpack.decode(raw, type=Head)
            if length != os.fstat(file.fileno()).st_size:
                raise SegmentDamaged(path.name)
            # Never closed by hand: views into it live as long as somebody looks.
            self._data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))[_FIXED.size + size :]
        if zlib.crc32(self._data) != self.head.crc:
            raise SegmentDamaged(path.name)
        self.first, self.last = self.head.first, self.head.last
        self.uids = _ints(self.head.uids)
        self.partly = frozenset(_ints(self.head.partly))
        self.unread = frozenset(_ints(self.head.unread))

    def holding(self, section: str, needle: Needle) -> set[int]:
        """The numbers of messages that have all its pieces in the section."""
        found: set[int] | None = None
        for piece in needle.pieces:
            some = self._having(self.head.sections[SECTIONS.index(section)], piece.encode("utf-8", "surrogatepass"))
            found = some if found is None else found & some
            if not found:
                break
        return found or set()

    def _having(self, where: Section, piece: bytes) -> set[int]:
        found: set[int] = set()
        lines = self._lines(where)
        at = lines.find(piece)
        if at < 0:
            return found
        ends = self._data[where.ends : where.ends + 4 * where.words].cast("I")
        begins, messages = self._messages(where)
        whole, anchored = len(self.uids), piece[:1] == b"\n"
        while at >= 0 and len(found) < whole:
            word = bisect_right(ends, at + anchored)
            found.update(messages[begins[word] : begins[word + 1]])
            at = lines.find(piece, ends[word] - 1)
        return found

    def _lines(self, where: Section) -> bytes:
        return bytes(self._data[where.lines : where.lines + where.size])

    def _messages(self, where: Section) -> "tuple[memoryview[int], memoryview[int]]":
        begins = self._data[where.begins : where.begins + 4 * (where.words + 1)].cast("I")
        return begins, self._data[where.messages : where.messages + 2 * begins[where.words]].cast("H")

    def listed(self, section: int) -> Iterator[tuple[bytes, Sequence[int]]]:
        """Each word with its messages' numbers."""
        where = self.head.sections[section]
        begins, messages = self._messages(where)
        lines = self._lines(where)[1:-1].split(b"\n") if where.words else []
        for number, word in enumerate(lines):
            yield word, messages[begins[number] : begins[number + 1]]


class Builder:
    """Gathers messages, ascending by UID, and writes them as one segment."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.uids = array("I")
        self._partly = array("I")
        self._unread = array("I")
        self._sections: list[dict[bytes, array[int]]] = [{} for _ in SECTIONS]
        self.words = 0  # counted with each message

    def __len__(self) -> int:
        return len(self.uids)

    @property
    def messages(self) -> int:
        """Those that it speaks for, also where it has none of their words."""
        return len(self.uids) + len(self._unread)

    def add(self, uid: int, found: Searched) -> None:
        number = len(self.uids)
        self.uids.append(uid)
        if not found.whole:
            self._partly.append(number)
        for section, listed in zip(SECTIONS, self._sections, strict=True):
            for word in words(found.texts[section]):
                key = word.encode("utf-8", "surrogatepass")
                have = listed.get(key)
                if have is None:
                    listed[key] = array("H", (number,))
                else:
                    have.append(number)
                self.words += 1

    def unread(self, uid: int) -> None:
        self._unread.append(uid)

    def take(self, segment: Segment) -> None:
        """All of a segment that follows what is there."""
        base = len(self.uids)
        self.uids.extend(segment.uids)
        self._partly.extend(sorted(base + number for number in segment.partly))
        self._unread.extend(sorted(segment.unread))
        for number, listed in enumerate(self._sections):
            for word, messages in segment.listed(number):
                have = listed.setdefault(word, array("H"))
                have.extend(base + message for message in messages)

    def write(self, path: Path, last: int) -> None:
        """Speaks for all UIDs from `first` to `last` then. Whole or not there at all, also after a crash. Raises OSError."""
        blobs: list[bytes] = []
        sections, at, crc = [], 0, 0
        for listed in self._sections:
            made = _laid_out(listed)
            begins = [at]
            for piece in made[:-1]:
                begins.append(begins[-1] + len(piece))
            sections.append(Section(begins[0], begins[1], begins[2], begins[3], len(made[0]), len(listed)))
            at = begins[-1] + len(made[-1])
            blobs += made
            for piece in made:
                crc = zlib.crc32(piece, crc)
        head = msgspec.msgpack.encode(
            Head(
                self.first,
                last,
                self.uids.tobytes(),
                self._partly.tobytes(),
                self._unread.tobytes(),
                crc,
                tuple(sections),
            )
        )
        written = path.with_suffix(f".{os.getpid()}.tmp")
        with written.open("wb") as file:
            file.write(_FIXED.pack(MAGIC, len(head), zlib.crc32(head), _FIXED.size + len(head) + at))
            file.write(head)
            file.writelines(blobs)
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)


def _laid_out(listed: dict[bytes, "array[int]"]) -> list[bytes]:
    order = sorted(listed)
    ends, begins, at = array("I"), array("I", (0,)), 1
    count = 0
    for word in order:
        at += len(word) + 1
        ends.append(at)
        count += len(listed[word])
        begins.append(count)
    lines = b"\n" + b"\n".join(order) + b"\n" if order else b""
    messages = b"".join([listed[word].tobytes() for word in order])
    return [lines, ends.tobytes(), begins.tobytes(), messages]


def _ints(raw: bytes) -> "array[int]":
    found = array("I")
    found.frombytes(raw)
    return found


def merged(segments: Iterable[Segment], path: Path) -> None:
    """Neighbours, ascending, as one."""
    builder, last = None, 0
    for segment in segments:
        builder = builder or Builder(segment.first)
        builder.take(segment)
        last = segment.last
    assert builder is not None
    builder.write(path, last)
