"""The lists of words of a site's mailboxes, as its sessions ask them: one folder, a folder in it for each mailbox, and there
segments named by the UIDs that they speak for. A UID names one message for ever, so that nothing in them grows old: what
was expunged is in no session's view. All of it can be thrown away: it is made again from the messages.
"""

import asyncio
import contextlib
import shutil
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from cluster.formats.searched import Needle, needle
from storage.search.segment import Segment, SegmentDamaged

SUFFIX = ".words"
VERSION = "1"  # of the files, and of what they are made from: raised when either changes, and all is made again
SEGMENTS_OPEN_MAX = 256
SEGMENTS_A_MAILBOX_MAX = 4_096

log = structlog.get_logger("search")


class Lookup(msgspec.Struct, frozen=True):
    """`text`: casefolded. `exact`: the sections hold what the key looks at and nothing else; otherwise who has it there is to
    be read."""

    sections: tuple[str, ...]
    text: str
    exact: bool


class Verdict(msgspec.Struct, frozen=True):
    """`spans`: UIDs, first and last, that the index speaks for. There, what is neither `surely` nor `perhaps` is not found."""

    surely: frozenset[int]
    perhaps: frozenset[int]
    spans: tuple[tuple[int, int], ...]


class Place(NamedTuple):
    """A mailbox's folder."""

    mailbox: int
    uidvalidity: int

    @property
    def name(self) -> str:
        return f"{self.mailbox:x}-{self.uidvalidity:x}"


class Named(NamedTuple):
    """A segment's file."""

    first: int
    last: int
    path: Path


class SearchIndex:
    """Reads what an Indexer writes, this process's or another's. `folder`: of the whole index, all versions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / VERSION
        self._open: OrderedDict[Path, Segment] = OrderedDict()
        self._lock = threading.Lock()  # lookups are made in threads

    def places(self) -> list[Place]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in self.folder.iterdir():
                mailbox, _, uidvalidity = path.name.partition("-")
                with contextlib.suppress(ValueError):
                    found.append(Place(int(mailbox, 16), int(uidvalidity, 16)))
        return found

    def path(self, place: Place, first: int, last: int) -> Path:
        return self.folder / place.name / f"{first}-{last}{SUFFIX}"

    def segments(self, place: Place) -> list[Named]:
        """Ascending, without those that lie within another: what a merge leaves behind is the same twice."""
        named = []
        with contextlib.suppress(OSError):  # then it is read
            for path in (self.folder / place.name).iterdir():
                first, _, last = path.name.removesuffix(SUFFIX).partition("-")
                if path.suffix == SUFFIX and first.isdigit() and last.isdigit():
                    named.append(Named(int(first), int(last), path))
        named.sort(key=lambda one: (one.first, -one.last))
        out: list[Named] = []
        for one in named[:SEGMENTS_A_MAILBOX_MAX]:
            if not out or one.last > out[-1].last:
                out.append(one)
        return out

    def opened(self, path: Path) -> Segment | None:
        """Slow the first time; any thread may ask. None: it is gone, or damaged and so thrown away."""
        with self._lock:
            if (known := self._open.get(path)) is not None:
                self._open.move_to_end(path)
                return known
        try:
            segment = Segment(path)
        except SegmentDamaged:
            log.warning("a part of the search index is damaged: it is made again", file=path.name)
            path.unlink(missing_ok=True)
            return None
        except OSError:
            return None
        with self._lock:
            self._open[path] = segment
            while len(self._open) > SEGMENTS_OPEN_MAX:
                self._open.popitem(last=False)
        return segment

    async def look_up(self, place: Place, asked: Sequence[Lookup]) -> list[Verdict | None]:
        """One answer for each, in order; None where it can tell nothing."""
        needles = [needle(one.text) for one in asked]
        if not any(needles) or not (named := self.segments(place)):
            return [None] * len(asked)
        self._let_go(self.folder / place.name, {name.path for name in named})
        return await asyncio.to_thread(self._looked_up, named, asked, needles)

    def forget(self, place: Place) -> None:
        """The mailbox is gone."""
        shutil.rmtree(self.folder / place.name, ignore_errors=True)

    def forget_leftovers(self) -> None:
        """Other versions, and what a crash left half written. Only for who alone writes, and writes nothing now."""
        with contextlib.suppress(OSError):  # another time, then
            for other in self.folder.parent.iterdir():
                if other.is_dir() and other != self.folder:
                    shutil.rmtree(other, ignore_errors=True)
            for half in self.folder.glob("*/*.tmp"):
                half.unlink(missing_ok=True)

    def _looked_up(
        self, named: Sequence[Named], asked: Sequence[Lookup], needles: Sequence[Needle | None]
    ) -> list[Verdict | None]:
        segments = [one for name in named if (one := self.opened(name.path)) is not None]
        return [
            None if wanted is None else _verdict(segments, one, wanted)
            for one, wanted in zip(asked, needles, strict=True)
        ]

    def _let_go(self, folder: Path, wanted: set[Path]) -> None:
        """Of a mailbox's files those that a merge has replaced: nobody looks into them again."""
        with self._lock:
            for path in [path for path in self._open if path.parent == folder and path not in wanted]:
                del self._open[path]


def _verdict(segments: Sequence[Segment], asked: Lookup, wanted: Needle) -> Verdict:
    surely: list[int] = []
    perhaps: list[int] = []
    for segment in segments:
        holding = set[int]()
        for section in asked.sections:
            holding |= segment.holding(section, wanted)
        uids = segment.uids
        (surely if asked.exact and wanted.exact else perhaps).extend([uids[number] for number in holding])
        perhaps.extend([uids[number] for number in segment.partly if number not in holding])
        perhaps.extend(segment.unread)
    spans = tuple((segment.first, segment.last) for segment in segments)
    # Segments that overlap say the same, but one may have read what another could not.
    sure = frozenset(surely)
    return Verdict(sure, frozenset(perhaps) - sure, spans)
