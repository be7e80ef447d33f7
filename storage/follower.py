"""Keeps this site's tables and blobs in step with a partition's log, for as long as the process lives.

Several processes of a site may run one for the same partition: an advisory lock of the database lets one work, the others
wait for its end. Blobs are written before the events that name them are folded, so who meets an event finds its content, or it is noted as
wanted.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Coroutine, Sequence

import structlog

from cluster.log.model import LogUnavailable, Record, RolledBack
from cluster.position import Position, shown
from storage.blobs import Blobs, BlobsUnavailable, Intake
from storage.postgres.folded import Waiting, note_waiting
from storage.postgres.history import TooFarBack
from storage.postgres.pool import AWAY, DETERMINISTIC, SLOW, Connection, Database, Plain
from storage.projector import OURS, Fold, WaitsForRelease
from storage.rebuild import RebuildFailed, rebuild
from storage.rollback import History, roll_back
from storage.wanted import WantedContent

LOCK_POLL_S = 0.5
RETRY_S = 0.25
KEEP_EVERY_S = 5.0
WAIT_FOR_RELEASE_S = 10.0
SLOW_TRIES_MAX = 3  # of an event that takes longer than a statement may; then its entity is held

log = structlog.get_logger("follower")


class Follower:
    """`wanted`: how content comes that is not in the log any more; without it nobody else is asked."""

    def __init__(
        self,
        partition: str,
        source: History,
        database: Database,
        blobs: Blobs,
        *,
        wanted: WantedContent | None = None,
        keep_every_s: float = KEEP_EVERY_S,
    ) -> None:
        self.partition = partition
        self.source = source
        self.database = database
        self.blobs = blobs
        self.wanted = wanted or WantedContent(partition, database, blobs)
        self._keep_every_s = keep_every_s
        self._folded = 0
        self._waits_at = 0  # an event of a later release
        self._slow_upto = 0  # one event up to there took too long: they are folded one by one
        self._slow: dict[int, int] = {}  # position → tries
        self._taken = 0  # up to where this run has met the log: below _folded while contents come once more

    async def run(self) -> None:
        while True:
            try:
                connection = await self.database.own()
            except AWAY:
                await asyncio.sleep(RETRY_S)
                continue
            waits: WaitsForRelease | None = None
            try:
                await _while_connected(connection, self._locked(connection))
            except (*AWAY, LogUnavailable, BlobsUnavailable) as error:
                log.warning("following pauses", partition=self.partition, error=f"{type(error).__name__}: {error}")
            except WaitsForRelease as error:
                waits = error
            except Exception:
                log.exception("following failed", partition=self.partition)
            finally:
                connection.terminate()  # Its lock too: another process of the site may have that release.
            if waits is not None:
                await self._wait(waits)
            await asyncio.sleep(RETRY_S)

    async def _locked(self, connection: Connection) -> None:
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", lock_key(self.partition)):  # noqa: ASYNC110
            await asyncio.sleep(LOCK_POLL_S)
        fold = Fold(connection, self.partition)
        self._folded = (await fold.start()).position
        # What was folded but not yet kept comes once more: the disk may not have had it when the machine went down.
        after = self._taken = min(self._folded, await self._kept(connection))
        log.info("following", partition=self.partition, after=after, folded=self._folded)
        intake = self.blobs.intake()
        beside = asyncio.gather(self._keep(intake), self.wanted.fill())
        try:
            async for records in self.source.follow(self.partition, Position(after), standing=self._folded):
                await self._batch(fold, intake, records)
        except RolledBack as lost:
            log.warning("history goes on elsewhere", partition=self.partition, end=shown(lost.end))
            await self._roll_back(fold, lost.end)
        finally:
            beside.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beside
            intake.close()

    async def _kept(self, connection: Connection) -> int:
        """Not by the pool, which serves nobody before the tables stand where they stood."""
        kept = await connection.fetchrow("SELECT position, store FROM blobs_kept WHERE partition = $1", self.partition)
        if kept is None or kept["store"] in ("", self.blobs.name):
            return kept["position"] if kept is not None else 0
        # All of the log comes once more, and what is no longer in it is fetched from other sites.
        log.error("the blobs are gone: this is another store than the one that had them", partition=self.partition)
        await connection.execute(
            "UPDATE blobs_kept SET position = 0, store = $2 WHERE partition = $1", self.partition, self.blobs.name
        )
        return 0

    async def _batch(self, fold: Fold, intake: Intake, records: Sequence[Record]) -> None:
        taken = await intake.take(records)
        for corrupt in taken.corrupt:
            log.error("content in the log belies its name", partition=self.partition, hash=corrupt.hex())
        self.wanted.came(taken.complete)
        # Of those that come once more too: the store may have lost what it had.
        namings = await self.wanted.look(fold.db, records)
        events = [record for record in records if record.noun and record.position > self._folded]
        if events:
            await self._fold(fold, events)
        await self.wanted.folded(fold.db, namings)
        self._taken = records[-1].position
        self._folded = max(self._folded, self._taken)

    async def _fold(self, fold: Fold, events: Sequence[Record]) -> None:
        if events[0].position <= self._slow_upto:
            for event in events:
                await self._fold_slow(fold, event)
            return
        try:
            try:
                await fold.batch(events)
            except (*DETERMINISTIC, *OURS):
                await fold.batch_around_faults(events)
        except SLOW:
            self._slow_upto = events[-1].position
            raise

    async def _fold_slow(self, fold: Fold, event: Record) -> None:
        """One that takes too long whenever it is tried must not hold up all others for ever."""
        tries = self._slow.get(event.position, 0)
        try:
            if tries < SLOW_TRIES_MAX:
                await fold.batch_around_faults([event])
            else:
                log.error("event takes too long", partition=self.partition, position=event.position)
                await fold.set_aside(event, "it takes too long to fold", held=True)
            self._slow.pop(event.position, None)
        except SLOW:
            self._slow[event.position] = tries + 1
            raise

    async def _roll_back(self, fold: Fold, end: int) -> None:
        """The caller begins anew afterwards, from where the tables stand."""
        try:
            await roll_back(fold, self.source, end)
        except TooFarBack as error:
            log.warning("tables are made anew", partition=self.partition, why=str(error))
            rows = await fold.db.fetch("SELECT partition FROM folded")
            try:
                async for _ in rebuild(self.database, self.source, [row["partition"] for row in rows]):
                    pass
            except RebuildFailed as failed:
                log.error("tables cannot be made anew", partition=self.partition, why=str(failed))

    async def _wait(self, wait: WaitsForRelease) -> None:
        if self._waits_at != wait.position:
            self._waits_at = wait.position
            log.error("waits for a newer release", partition=self.partition, at=shown(wait.position), fact=wait.event)
        try:
            await note_waiting(self.database, Waiting(self.partition, wait.position, wait.event))
        except AWAY as error:
            log.warning("wait not noted", partition=self.partition, error=f"{type(error).__name__}: {error}")
        await asyncio.sleep(WAIT_FOR_RELEASE_S)

    async def _keep(self, intake: Intake) -> None:
        """Contents whose blobs are on disk leave the log."""
        kept = dropped = 0
        while True:
            await asyncio.sleep(self._keep_every_s)
            upto = intake.confirmable(self._taken)
            if upto <= kept and dropped >= kept:
                continue
            try:
                upto = await self.wanted.confirmable(upto)
                if upto > kept:
                    await self.blobs.sync()
                    await self.database.run(
                        "INSERT INTO blobs_kept AS k VALUES ($1, $2, $3) ON CONFLICT (partition) "
                        "DO UPDATE SET position = greatest(k.position, $2), store = $3",
                        self.partition,
                        upto,
                        self.blobs.name,
                    )
                    kept = upto
                if dropped < kept:
                    # Again and again: a copy may confirm more while nothing new comes.
                    dropped = await self.source.drop_contents(self.partition, Position(kept))
            except (*AWAY, LogUnavailable, BlobsUnavailable) as error:
                log.warning(
                    "contents stay in the log", partition=self.partition, error=f"{type(error).__name__}: {error}"
                )
            except Exception:
                log.exception("contents stay in the log", partition=self.partition)


def lock_key(partition: str) -> int:
    """Of the advisory lock that whoever writes the partition's tables holds."""
    return int.from_bytes(hashlib.sha256(b"projector/" + partition.encode()).digest()[:8], "big", signed=True)


async def _while_connected(connection: Plain, work: Coroutine[None, None, None]) -> None:
    """Raises ConnectionError when the database ends the connection, also while there is nothing to do: what a crash took
    from the tables is to be folded again at once, and the lock is gone too."""
    cut = asyncio.Event()
    connection.add_termination_listener(lambda _: cut.set())
    working, watching = asyncio.create_task(work), asyncio.create_task(cut.wait())
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ConnectionError("the database ended the connection")
        await working
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.wait((working, watching))
        if not working.cancelled():
            working.exception()  # raised above, or of no more interest than the end of the connection
