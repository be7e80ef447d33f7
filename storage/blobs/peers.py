"""Blobs that other sites have: ours for them, theirs for us. What comes is compared with its name before it is kept."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from enum import Enum
from typing import Protocol

import structlog

from cluster.domain.mailbox.content import Segment
from cluster.log.blobs import PIECE_BYTES_MAX, SMALL_BYTES_MAX, NoAnswer, NotThere, Piece, SmallSource, Source
from cluster.log.model import Blob
from storage.blobs import BlobCorrupt, BlobMissing, Blobs, Contents

FETCHES_MAX = 16  # at once; each holds a few pieces of 512 KiB
FETCH_S_MAX = 600.0  # of one blob, from all sites together
ON_DEMAND_S_MAX = 10.0  # that a session waits for content from other sites
SILENT_S = 10.0  # who did not answer is asked last for so long

log = structlog.get_logger("blobs")


class Outcome(Enum):
    HERE = "here"
    NOWHERE = "nowhere"  # every other site answered, and none has it
    UNANSWERED = "unanswered"


class Giving(Protocol):
    """The other sites: `cluster.log.blobs.Peers`."""

    def pieces(self, site: str, hash: bytes, size: int | None = None) -> AsyncIterator[bytes]:
        """Raises NotThere, NoAnswer."""
        ...

    async def small(self, site: str, hashes: Sequence[bytes]) -> Sequence[bytes | None]:
        """Raises NotThere, NoAnswer."""
        ...


def source(blobs: Blobs) -> Source:
    """What we answer the other sites."""

    async def piece(hash: bytes, start: int) -> Piece | None:
        try:
            size = await blobs.size(hash)
            if size is None or not 0 <= start <= size:
                return None
            read = blobs.read((Segment(hash, size),), start, start + PIECE_BYTES_MAX)
            return Piece(size, b"".join([piece async for piece in read]))
        except (BlobMissing, BlobCorrupt, ValueError):  # ValueError: not even a name
            return None

    return piece


def small_source(blobs: Blobs) -> SmallSource:
    """What we answer to who asks for many small ones."""

    async def small(hashes: Sequence[bytes]) -> list[bytes | None]:
        room, wanted = PIECE_BYTES_MAX, list[bytes | None]()
        for hash, size in zip(hashes, await blobs.sizes(hashes), strict=True):
            fits = size is not None and size <= SMALL_BYTES_MAX
            if fits and size > room:  # type: ignore[operator]
                break
            room -= size if fits else 0  # type: ignore[operator]
            wanted.append(hash if fits else None)
        found = iter(await blobs.get_many([hash for hash in wanted if hash is not None]))
        return [None if hash is None else next(found) for hash in wanted]

    return small


class Fetcher:
    """Puts blobs of `others` into `blobs`. `others`: the sites that have a store, not ours and no witness; whoever knows of
    a new one sets it anew. `fetched` hears of each that came. `close` it."""

    def __init__(
        self,
        blobs: Blobs,
        giving: Giving,
        others: Sequence[str],
        monotonic: Callable[[], float] = time.monotonic,
        fetched: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        self.blobs = blobs
        self._giving = giving
        self.others = tuple(others)
        self._monotonic = monotonic
        self._told = fetched
        self._silent_until: dict[str, float] = {}
        self._ways = asyncio.Semaphore(FETCHES_MAX)
        self._under_way: dict[bytes, asyncio.Task[Outcome]] = {}
        self.fetched = 0  # blobs, since the start
        self.fetched_bytes = 0

    async def fetch(self, hash: bytes, size: int | None = None) -> Outcome:
        """Asks one site after the other until one gave what the name says; not durable before `blobs.sync`. Who asks for
        the same blob meanwhile waits for the same answer; the fetch goes on when who asked no longer waits. Raises
        BlobsUnavailable."""
        task = self._under_way.get(hash)
        if task is None:
            task = self._under_way[hash] = asyncio.create_task(self._fetch(hash, size), name="fetch a blob")
            task.add_done_callback(lambda done: self._ended(hash, done))
        return await asyncio.shield(task)

    async def fetch_small(self, wanted: Sequence[Segment]) -> set[bytes]:
        """Those of them, none above SMALL_BYTES_MAX, that came from the first sites to have any; the others are to be fetched
        one by one. Not durable before `blobs.sync`. Raises BlobsUnavailable."""
        left, came = [segment.hash for segment in wanted], set[bytes]()
        for site in self._by_patience():
            asked, lacking = left, list[bytes]()
            try:
                while asked:
                    async with self._ways:
                        given = await self._giving.small(site, asked)
                    sound = {hash: data for hash, data in zip(asked, given, strict=False) if data is not None and _is(hash, data)}
                    await self.blobs.put([Blob(hash, data) for hash, data in sound.items()])
                    for hash in sound:
                        await self._came(hash, len(sound[hash]))
                    came |= set(sound)
                    lacking += [hash for hash in asked[: len(given)] if hash not in sound]
                    asked = asked[len(given) :]
            except NotThere:
                pass
            except NoAnswer as error:
                self._is_silent(site, error)
            left = lacking + asked
            if not left:
                break
        return came

    async def close(self) -> None:
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, hash: bytes, task: asyncio.Task[Outcome]) -> None:
        self._under_way.pop(hash, None)
        if not task.cancelled():
            task.exception()  # It was raised to those who still waited.

    async def _fetch(self, hash: bytes, size: int | None) -> Outcome:
        try:
            async with self._ways, asyncio.timeout(FETCH_S_MAX):
                return await self._from_one(hash, size)
        except TimeoutError:
            return Outcome.UNANSWERED

    async def _from_one(self, hash: bytes, size: int | None) -> Outcome:
        outcome = Outcome.NOWHERE
        for site in self._by_patience():
            try:
                await self.blobs.keep(hash, self._counted(self._giving.pieces(site, hash, size)))
            except NotThere:
                continue
            except BlobCorrupt as error:
                # It has it no more than one who says so.
                log.error("another site gave a blob that belies its name", site=site, hash=hash.hex(), error=str(error))
            except NoAnswer as error:
                self._is_silent(site, error)
                outcome = Outcome.UNANSWERED
            else:
                await self._came(hash)
                return Outcome.HERE
        return outcome

    def _by_patience(self) -> list[str]:
        """The other sites, those last that were silent of late."""
        now = self._monotonic()
        return sorted(self.others, key=lambda site: self._silent_until.get(site, 0.0) > now)

    def _is_silent(self, site: str, error: NoAnswer) -> None:
        if self._silent_until.get(site, 0.0) <= self._monotonic():
            log.warning("no blob from another site", site=site, error=str(error))
        self._silent_until[site] = self._monotonic() + SILENT_S

    async def _came(self, hash: bytes, size: int = 0) -> None:
        self.fetched += 1
        self.fetched_bytes += size
        if self._told is not None:
            await self._told(hash)

    async def _counted(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            self.fetched_bytes += len(piece)
            yield piece


class OnDemand(Contents):
    """What sessions read: what is not here comes from another site while they wait, ON_DEMAND_S_MAX at most, and stays."""

    def __init__(self, fetcher: Fetcher, wait_s: float = ON_DEMAND_S_MAX) -> None:
        self._fetcher = fetcher
        self._blobs = fetcher.blobs
        self._wait_s = wait_s

    async def get_many(self, hashes: Sequence[bytes]) -> list[bytes | None]:
        """None where a blob is nowhere, or did not come in time."""
        found = await self._blobs.get_many(hashes)
        lacking = list({hash for hash, data in zip(hashes, found, strict=True) if data is None})
        if not lacking or not await self._fetched([(hash, None) for hash in lacking], self._wait_s):
            return found
        came = dict(zip(lacking, await self._blobs.get_many(lacking), strict=True))
        return [came[hash] if data is None else data for hash, data in zip(hashes, found, strict=True)]

    async def read(self, segments: Sequence[Segment], start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Raises BlobMissing, BlobCorrupt, as `Blobs.read` does, when no other site could give it in time."""
        start, end, _ = slice(start, end).indices(sum(segment.size for segment in segments))
        until = None
        while True:
            try:
                async for piece in self._blobs.read(segments, start, end):
                    start += len(piece)
                    yield piece
                return
            except (BlobMissing, BlobCorrupt):
                now = asyncio.get_running_loop().time()
                until = now + self._wait_s if until is None else until
                lacking = await self._lacking(segments, start, end)
                if now >= until or not await self._fetched(lacking, until - now):
                    raise

    async def _lacking(self, segments: Sequence[Segment], start: int, end: int) -> list[tuple[bytes, int | None]]:
        """What is missing of bytes `start` to `end`; if nothing is, the first blob that cannot be read."""
        needed, base = [], 0
        for segment in segments:
            if base < end and start < base + segment.size:
                needed.append(segment)
            base += segment.size
        missing = set(await self._blobs.missing([segment.hash for segment in needed]))
        if missing:
            return [(segment.hash, segment.size) for segment in needed if segment.hash in missing]
        for segment in needed:
            try:
                await self._blobs.verify(segment.hash)
            except (BlobMissing, BlobCorrupt):
                return [(segment.hash, segment.size)]
        return []

    async def _fetched(self, lacking: Sequence[tuple[bytes, int | None]], wait_s: float) -> bool:
        """Whether any of them came in time."""
        if not lacking:
            return False
        tasks = [asyncio.create_task(self._fetcher.fetch(hash, size)) for hash, size in lacking]
        try:
            await asyncio.wait(tasks, timeout=wait_s)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        return Outcome.HERE in outcomes


def _is(hash: bytes, data: bytes) -> bool:
    return hashlib.sha256(data).digest() == hash
