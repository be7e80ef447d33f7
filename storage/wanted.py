"""Content that an event names and that is not here: noted before the event is folded, then fetched from other sites.

A site meets it that was added late or lost its disks: the log drops content when every copy has it. Nothing from the first
such event on is confirmed as kept, for a copy with missing blobs is no copy.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import structlog

from cluster import codec
from cluster.domain.mailbox.content import Segment
from cluster.domain.mailbox.events import MessageAppended
from cluster.domain.outbox.events import MessageQueued
from cluster.log.blobs import PIECE_BYTES_MAX, SMALL_BYTES_MAX, SMALL_MAX
from cluster.log.model import Record
from storage.blobs import Blobs, BlobsUnavailable
from storage.blobs.peers import Fetcher, Outcome
from storage.portions import portions
from storage.postgres.pool import AWAY, Connection, Database
from storage.postgres.wanted import Wanted, WantedStore
from storage.postgres.window import Naming
from storage.window import Windows

HERE_KNOWN_MAX = 16_384  # names of blobs that came of late
TOGETHER_MAX = 512  # fetched, then made durable together
AT_ONCE_MAX = 8  # leaves ways free for what a session waits for
PORTIONS_AT_ONCE_MAX = 4  # of small ones; each holds an answer
RETRY_FIRST_S = 0.5
RETRY_S_MAX = 300.0
LOST_AFTER_S = 24 * 3600.0  # that every other site says it has none; until then one may come back from its repair
LOOK_S_MAX = 30.0  # without word of something new

log = structlog.get_logger("wanted")


class WantedContent:
    """One partition's, as the one process of the site that follows it sees it. Without `fetcher` nobody is asked; without
    `windows` all content belongs here."""

    def __init__(
        self,
        partition: str,
        database: Database,
        blobs: Blobs,
        fetcher: Fetcher | None = None,
        *,
        windows: Windows | None = None,
        retry_first_s: float = RETRY_FIRST_S,
        lost_after_s: float = LOST_AFTER_S,
    ) -> None:
        self._partition = partition
        self._blobs = blobs
        self._fetcher = fetcher
        self._windows = windows
        self._store = WantedStore(database, partition)
        self._retry_first_s = retry_first_s
        self._lost_after_s = lost_after_s
        self._here: OrderedDict[bytes, None] = OrderedDict()
        self._noted = asyncio.Event()
        self._ways = asyncio.Semaphore(AT_ONCE_MAX)
        if windows is not None:
            windows.on_wanted[partition] = self._noted.set

    def came(self, hashes: Iterable[bytes]) -> None:
        """They are in the store: nobody need look for them."""
        for hash in hashes:
            self._here[hash] = None
            self._here.move_to_end(hash)
        while len(self._here) > HERE_KNOWN_MAX:
            self._here.popitem(last=False)

    async def look(self, db: Connection, records: Sequence[Record]) -> list[Naming]:
        """Before they are folded: what they name. Raises one of AWAY, BlobsUnavailable."""
        namings = [naming for record in records for naming in _namings(record)]
        if not namings:
            return namings
        since = self._windows.since(self._partition) if self._windows is not None else float("-inf")
        named = [
            (naming.segment, naming.position)
            for naming in namings
            if naming.segment.hash not in self._here and naming.at >= since
        ]
        if not named:
            return namings
        missing = set(await self._blobs.missing(list({segment.hash for segment, _ in named})))
        self.came(segment.hash for segment, _ in named if segment.hash not in missing)
        if missing:
            log.warning("content is not here", partition=self._partition, blobs=len(missing), at=named[0][1])
            await self._store.note(db, [(segment, at) for segment, at in named if segment.hash in missing])
            self._noted.set()
        return namings

    async def folded(self, db: Connection, namings: Sequence[Naming]) -> None:
        """After that: how long it stays here. Raises one of AWAY."""
        if self._windows is not None and namings:
            await self._windows.named(db, self._partition, namings)

    async def confirmable(self, upto: int) -> int:
        """`upto`, or less: the position before the first event whose content is wanted. Raises one of AWAY."""
        first = await self._store.first()
        return upto if first is None else min(upto, first - 1)

    async def fill(self) -> None:
        """Fetches what is wanted, for ever."""
        while True:
            self._noted.clear()
            wait_s = LOOK_S_MAX
            try:
                await self._round()
                due_in_s = await self._store.due_in_s()
                wait_s = LOOK_S_MAX if due_in_s is None else max(0.0, min(due_in_s, LOOK_S_MAX))
            except (*AWAY, BlobsUnavailable) as error:
                log.warning("fetching pauses", partition=self._partition, error=f"{type(error).__name__}: {error}")
                wait_s = RETRY_FIRST_S
            except Exception:
                log.exception("fetching failed", partition=self._partition)
            try:
                async with asyncio.timeout(wait_s):
                    await self._noted.wait()
            except TimeoutError:
                pass

    async def _round(self) -> None:
        while due := await self._store.due(TOGETHER_MAX):
            missing = set(await self._blobs.missing([wanted.segment.hash for wanted in due]))
            missing -= await self._small([wanted.segment for wanted in due if wanted.segment.hash in missing])
            async with asyncio.TaskGroup() as group:
                asked = {
                    wanted: group.create_task(self._outcome(wanted)) for wanted in due if wanted.segment.hash in missing
                }
            found = [
                wanted.segment.hash
                for wanted in due
                if wanted not in asked or asked[wanted].result() is Outcome.HERE
            ]  # fmt: skip
            if found:
                await self._blobs.sync()
                await self._store.found(found)
                self.came(found)
                log.info("content came from another site", partition=self._partition, blobs=len(found))
            for wanted, task in asked.items():
                if task.result() is not Outcome.HERE:
                    await self._failed(wanted, task.result())

    async def _small(self, wanted: Sequence[Segment]) -> set[bytes]:
        """Those that came, many in one answer: one by one each costs a way there and back."""
        small = [segment for segment in wanted if segment.size <= SMALL_BYTES_MAX]
        fetcher = self._fetcher
        if fetcher is None or len(small) < 2:
            return set()

        # Each as much as one answer holds: so the next is on its way while one is stored.
        answers = portions(small, lambda segment: segment.size, PIECE_BYTES_MAX, SMALL_MAX)
        ways = asyncio.Semaphore(PORTIONS_AT_ONCE_MAX)

        async def some(portion: Sequence[Segment]) -> set[bytes]:
            async with ways:
                return await fetcher.fetch_small(portion)

        try:
            return set().union(*await asyncio.gather(*map(some, answers)))
        except BlobsUnavailable as error:
            log.warning("blobs cannot be kept", partition=self._partition, error=str(error))
            return set()

    async def _outcome(self, wanted: Wanted) -> Outcome:
        if self._fetcher is None:
            return Outcome.NOWHERE
        try:
            async with self._ways:
                return await self._fetcher.fetch(wanted.segment.hash, wanted.segment.size)
        except BlobsUnavailable as error:
            log.warning("a blob cannot be kept", hash=wanted.segment.hash.hex(), error=str(error))
            return Outcome.UNANSWERED

    async def _failed(self, wanted: Wanted, outcome: Outcome) -> None:
        denied = outcome is Outcome.NOWHERE
        lost = wanted.lost or denied and wanted.denied_s is not None and wanted.denied_s >= self._lost_after_s
        if lost and not wanted.lost:
            log.error("content is lost: no site has it", partition=self._partition, hash=wanted.segment.hash.hex())
        again_in_s = min(RETRY_S_MAX, self._retry_first_s * 2.0 ** min(wanted.tries, 30))
        await self._store.failed(wanted.segment.hash, again_in_s, denied=denied, lost=lost)


def _namings(record: Record) -> list[Naming]:
    if record.noun not in ("mailbox", "outbox"):
        return []
    try:
        envelope, event = codec.decode(record.payload)
    except codec.Undecodable:
        return []  # The fold puts it aside.
    if not isinstance(event, MessageAppended | MessageQueued):
        return []
    return [Naming(segment, envelope.at / 1_000_000, record.position) for segment in event.content.segments]
