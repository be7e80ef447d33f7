"""Keeps the search index of a site, beside everything else: little by little, with pauses longer than its work.

A mailbox's UIDs only rise, so that what is still to be listed is what comes after its last segment: nothing else has to be
remembered, and after a crash it goes on from there. A few messages at the end are left to be read by whoever searches.
Small segments are joined as they gather, neighbours of about a size first, so that each message is written again a few times.
"""

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from cluster.domain.mailbox.content import Content
from cluster.formats import mime
from cluster.formats.searched import searched
from storage.blobs import BlobCorrupt, BlobMissing, Blobs, BlobsUnavailable
from storage.postgres.pool import AWAY
from storage.postgres.search_view import Row, SearchState, SearchView
from storage.search.index import Named, Place, SearchIndex
from storage.search.segment import MESSAGES_MAX, Builder, merged

TAIL_MESSAGES_MIN = 64  # fewer are not worth a segment: they are read
ROWS_AT_ONCE = 20
WORDS_MAX = 8_000_000  # in the lists of one segment while it is made: about 100 MB
WHOLE_BYTES_MAX = 512 * 1024  # of a larger message only what is searched is read
PART_BYTES_MAX = 4 * 1024 * 1024
MISSING_WAIT_S = 3600.0  # content that is not here may be on its way for so long
LOOK_EVERY_S = 5.0
TIDY_EVERY_S = 60.0
REST = 3.0  # pauses, in times of the work before them
REST_S_MIN = 0.005
LATE_S = 0.02  # the loop is busy with others when a pause lasts so much longer than asked
LATE_REST_S = 0.25

log = structlog.get_logger("search")


class Mailbox(NamedTuple):
    place: Place
    uidnext: int


class Gap(NamedTuple):
    """UIDs that no segment speaks for: above `after`, up to `upto` where one that was damaged is gone; None = to the end."""

    after: int
    upto: int | None


class Indexer:
    """`now`: unix seconds. Only one of the processes that share the folder works, the others wait for its end."""

    def __init__(
        self,
        index: SearchIndex,
        view: SearchView,
        blobs: Blobs,
        *,
        now: Callable[[], float],
        rest: float = REST,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._index = index
        self._view = view
        self._blobs = blobs
        self._now = now
        self._rest = rest
        self._look_every_s = look_every_s
        self._done: dict[Place, tuple[int, bool]] = {}  # UIDNEXT when all was listed, and whether there was a folder
        self._stuck: dict[Place, int] = {}  # messages that wait for content
        self._told = SearchState(0, 0, 0)
        self._told_at = float("-inf")
        self._size_bytes = 0
        self._tidied_at = float("-inf")

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                with _alone(self._index.folder):
                    while True:
                        await self.round()
                        await asyncio.sleep(self._look_every_s)
            except BlockingIOError:
                pass
            except (*AWAY, BlobsUnavailable) as error:  # AWAY has the disk's errors too
                log.warning("the search index waits", error=f"{type(error).__name__}: {error}")
            except Exception:
                log.exception("the search index failed")
            await asyncio.sleep(self._look_every_s)

    async def round(self) -> SearchState:
        """Everything that is to be listed now, and how it stands then. Raises one of AWAY, BlobsUnavailable."""
        if time.monotonic() - self._tidied_at >= TIDY_EVERY_S:
            await self._tidy()
        to_do, messages = await self._to_do()
        await self._tell(messages, to_do)
        while to_do:
            # One segment of each in turn, so that a large mailbox does not keep all others waiting.
            for mailbox in list(to_do):
                # An empty one, over a gap in which all are expunged, is a step too.
                listed = await self._list(mailbox.place)
                to_do[mailbox] -= listed or 0
                if to_do[mailbox] < TAIL_MESSAGES_MIN:
                    del to_do[mailbox]
                elif listed is None:
                    self._stuck[mailbox.place] = to_do.pop(mailbox)
                await self._tell(messages, to_do)
        return self._told

    async def _to_do(self) -> tuple[dict[Mailbox, int], int]:
        """Mailboxes with so many messages that are to be listed, and all messages of those that have an index."""
        places = set(self._index.places())
        to_do: dict[Mailbox, int] = {}
        messages = 0
        self._stuck = {}
        done: dict[Place, tuple[int, bool]] = {}
        for row in await self._view.large(TAIL_MESSAGES_MIN):
            mailbox = Mailbox(Place(row.mailbox, row.uidvalidity), row.uidnext)
            messages += row.messages
            stands = (row.uidnext, mailbox.place in places)
            if self._done.get(mailbox.place) != stands and (tail := await self._tail(mailbox)):
                to_do[mailbox] = tail
            else:
                done[mailbox.place] = stands
        self._done = done
        return to_do, messages

    async def _tail(self, mailbox: Mailbox) -> int:
        """How many messages are to be listed, 0 if they are too few."""
        gap = self._gap(mailbox.place)
        if gap.upto is None and mailbox.uidnext - 1 - gap.after < TAIL_MESSAGES_MIN:
            return 0
        count = await self._view.tail(mailbox.place.mailbox, gap.after)
        return count if count >= TAIL_MESSAGES_MIN else 0

    def _gap(self, place: Place) -> Gap:
        after = 0
        for one in self._index.segments(place):
            if one.first > after + 1:
                return Gap(after, one.first - 1)
            after = one.last
        return Gap(after, None)

    async def _tell(self, messages: int, to_do: Mapping[Mailbox, int]) -> None:
        waiting = sum(to_do.values()) + sum(self._stuck.values())
        state = SearchState(max(0, messages - waiting), waiting, self._size_bytes)
        if state != self._told or time.monotonic() - self._told_at >= TIDY_EVERY_S:
            await self._view.note(state)
            self._told, self._told_at = state, time.monotonic()

    async def _tidy(self) -> None:
        places = self._index.places()
        there = await self._view.there([place.mailbox for place in places])
        for place in places:
            if place not in there:
                await asyncio.to_thread(self._index.forget, place)
        await asyncio.to_thread(self._index.forget_leftovers)
        self._size_bytes = await asyncio.to_thread(_size, self._index.folder)
        self._tidied_at = time.monotonic()

    # ── one segment ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _list(self, place: Place) -> int | None:
        """The next segment of a mailbox: for how many messages it speaks; None where there is none to make now."""
        after, upto = self._gap(place)
        builder, last = Builder(after + 1), after
        while len(builder) + ROWS_AT_ONCE <= MESSAGES_MAX and builder.words < WORDS_MAX:
            began = time.monotonic()
            found = await self._view.rows(place.mailbox, last, ROWS_AT_ONCE)
            rows = [row for row in found if upto is None or row.uid <= upto]
            taken = await self._add(builder, rows)
            if taken:
                last = rows[taken - 1].uid
            if taken < ROWS_AT_ONCE:
                if upto is not None and taken == len(rows):
                    last = upto
                break
            await self._pause(time.monotonic() - began)
        if last - after < TAIL_MESSAGES_MIN and last != upto:
            return None
        path = self._index.path(place, after + 1, last)
        path.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        await asyncio.to_thread(builder.write, path, last)
        self._size_bytes += path.stat().st_size
        await self._join(place)
        await self._pause(time.monotonic() - began)
        return builder.messages

    async def _add(self, builder: Builder, rows: Sequence[Row]) -> int:
        """How many of them, from the first, are listed now, or never will be."""
        contents = await self._contents([(row.content, row.described) for row in rows])
        for number, (row, data) in enumerate(zip(rows, contents, strict=True)):
            if data is not None:
                await asyncio.to_thread(_listed, builder, row, data)
            elif row.saved_at > self._now() - MISSING_WAIT_S:
                return number
            else:
                builder.unread(row.uid)
        return len(rows)

    async def _contents(self, wanted: Sequence[tuple[Content, mime.Description]]) -> list[bytes | bytearray | None]:
        """As a search reads them."""
        small = [content for content, _ in wanted if content.size <= WHOLE_BYTES_MAX]
        hashes = [segment.hash for content in small for segment in content.segments]
        blobs = iter(await self._blobs.get_many(hashes) if hashes else ())
        out: list[bytes | bytearray | None] = []
        for content, described in wanted:
            if content.size > WHOLE_BYTES_MAX:
                out.append(await self._texts_only(content, described.structure))
                continue
            pieces = [next(blobs) for _ in content.segments]
            out.append(None if None in pieces else b"".join(piece for piece in pieces if piece is not None))
        return out

    async def _texts_only(self, content: Content, structure: mime.Part) -> bytearray | None:
        """With zeros where nothing is looked at."""
        whole = bytearray(content.size)
        try:
            for start, end in mime.searched_ranges(structure, PART_BYTES_MAX):
                at = start
                async for piece in self._blobs.read(content.segments, start, end):
                    whole[at : at + len(piece)] = piece
                    at += len(piece)
        except (BlobMissing, BlobCorrupt):
            return None
        return whole

    async def _join(self, place: Place) -> None:
        named = self._index.segments(place)
        while len(named) > 1:
            before, last = [await asyncio.to_thread(self._index.opened, one.path) for one in named[-2:]]
            if before is None or last is None or len(before.uids) + len(last.uids) > MESSAGES_MAX:
                return
            if len(before.uids) > 2 * len(last.uids) or before.last + 1 != last.first:
                return
            path = self._index.path(place, before.first, last.last)
            await asyncio.to_thread(merged, (before, last), path)
            for one in named[-2:]:
                one.path.unlink(missing_ok=True)
            named[-2:] = [Named(before.first, last.last, path)]

    async def _pause(self, worked_s: float) -> None:
        """Longer where the loop is late: then others need it."""
        wait_s = max(REST_S_MIN, worked_s * self._rest) if self._rest else 0.0
        began = time.monotonic()
        await asyncio.sleep(wait_s)
        if self._rest and time.monotonic() - began > wait_s + LATE_S:
            await asyncio.sleep(LATE_REST_S)


def _listed(builder: Builder, row: Row, data: bytes | bytearray) -> None:
    builder.add(row.uid, searched(data, row.described))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raises BlockingIOError while another process works on it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*") if path.is_file())
