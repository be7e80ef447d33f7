"""Copies that keep a window: all events, and the content of so many days (ops/decisions/windows.md).

At a site with such a copy every blob that an event names gets a time until which it stays; what a partition names that is
kept whole stays for ever. When the time is over the blob goes, and who reads it fetches it from a site that has it.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import structlog

from cluster import partitions
from storage.blobs import Blobs, BlobsUnavailable
from storage.postgres.pool import AWAY, Connection, Database
from storage.postgres.wanted import WantedStore
from storage.postgres.window import Naming, WindowStore

DAY_S = 86_400.0
FETCHED_STAYS_S = DAY_S  # what somebody opened may be opened again
LOOK_EVERY_S = 5.0
DROP_EVERY_S = 600.0
DROPPED_AT_ONCE_MAX = 500
LOCK = 4_243  # advisory: one process of the site sees to it

log = structlog.get_logger("window")


class Window(NamedTuple):
    """`days`: how long content stays here, 0 = for ever. `home`: the partition is at home here."""

    days: int
    home: bool


class Windows:
    """A site's. `here`: of each partition here; None = not known at present. `queued_s`: as long as a message may be in a
    queue. `now`: Unix seconds."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        here: Callable[[], Mapping[str, Window | None]],
        *,
        queued_s: float,
        now: Callable[[], float],
        look_every_s: float = LOOK_EVERY_S,
        drop_every_s: float = DROP_EVERY_S,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._here = here
        self._queued_s = queued_s
        self._now = now
        self._look_every_s = look_every_s
        self._drop_every_s = drop_every_s
        self._store = WindowStore(database)
        self._settled: dict[str, int] = {}
        self.on_wanted: dict[str, Callable[[], None]] = {}  # partition → who fetches, to be told
        self.dropped = 0  # blobs, since the start

    # ── what is named, as a follower meets it ────────────────────────────────────────────────────────────────────────

    async def named(self, db: Connection, partition: str, namings: Sequence[Naming]) -> None:
        """After the events are folded, so that who reads the tables and forgets what was noted before misses none; on the
        projector's connection. Raises one of AWAY."""
        days = self._days()
        if any(days.values()):
            await self._store.note(self._until(partition, days.get(partition, 0), namings), db)

    def since(self, partition: str) -> float:
        """Unix seconds: what an event of then or later names belongs here."""
        days = self._days().get(partition, 0)
        return self._now() - days * DAY_S if days else float("-inf")

    async def fetched(self, hash: bytes) -> None:
        """It came because somebody opened it."""
        if any(self._days().values()):
            with contextlib.suppress(*AWAY):  # Then it stays for good.
                await self._store.note({hash: self._now() + FETCHED_STAYS_S})

    def _days(self) -> dict[str, int]:
        return {
            name: self._settled.get(name, 0) if window is None else window.days
            for name, window in self._here().items()
            if partitions.is_mail(name)
        }

    def _until(self, partition: str, days: int, namings: Iterable[Naming]) -> dict[bytes, float]:
        stays_s = days * DAY_S if days else float("inf")
        if not partitions.is_mail(partition):
            stays_s = self._queued_s
        until: dict[bytes, float] = {}
        for naming in namings:
            hash = naming.segment.hash
            until[hash] = max(until.get(hash, 0.0), naming.at + stays_s)
        return until

    # ── keeping to it ────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                connection = await self._database.own()
            except AWAY:
                await asyncio.sleep(self._look_every_s)
                continue
            try:
                while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):  # noqa: ASYNC110
                    await asyncio.sleep(self._look_every_s)
                await self._keep_to_it(connection)
            except (*AWAY, BlobsUnavailable) as error:
                log.warning("the window waits", error=f"{type(error).__name__}: {error}")
            except Exception:
                log.exception("keeping a window failed")
            finally:
                connection.terminate()
            await asyncio.sleep(self._look_every_s)

    async def _keep_to_it(self, lock: Connection) -> None:
        self._settled = await self._store.settled()
        dropped_at = float("-inf")
        while True:
            await lock.fetchval("SELECT 1")  # Whoever lost the lock must not go on.
            here = self._here()
            if all(window is not None for window in here.values()):
                wanted = self._days()
                if wanted != self._settled and (any(wanted.values()) or self._settled):
                    await self._settle(wanted)
                may_drop = not any(window is not None and window.days and window.home for window in here.values())
                # A home keeps what only it may have; what it took in goes when it is a copy again.
                if any(wanted.values()) and may_drop and time.monotonic() - dropped_at >= self._drop_every_s:
                    await self._drop()
                    dropped_at = time.monotonic()
            await asyncio.sleep(self._look_every_s)

    async def _settle(self, days: dict[str, int]) -> None:
        """Begins anew from what the tables name. Where more is kept than before, what is missing of it is wanted."""
        log.info("windows", days={name: each for name, each in days.items() if each})
        before, anywhere = self._settled, any(days.values())
        await self._store.forget()
        for name, each in days.items():
            more = before.get(name, 0) and (not each or each > before[name])
            async for namings in self._store.named(name):
                if anywhere:
                    await self._store.note(self._until(name, each, namings))
                if more:
                    await self._want(name, namings)
            if anywhere:
                await self._store.settle(name, each)
        self._settled = days if anywhere else {}

    async def _want(self, partition: str, namings: Sequence[Naming]) -> None:
        since = self.since(partition)
        belonging = [naming for naming in namings if naming.at >= since]
        missing = set(await self._blobs.missing([naming.segment.hash for naming in belonging]))
        named = [(each.segment, each.position) for each in belonging if each.segment.hash in missing]
        if named:
            async with self._database.connection() as connection:
                await WantedStore(self._database, partition).note(connection, named)
            if (tell := self.on_wanted.get(partition)) is not None:
                tell()

    async def _drop(self) -> None:
        """What was named again while it went comes once more when it is read."""
        count = 0
        while outdated := await self._store.outdated(self._now(), DROPPED_AT_ONCE_MAX):
            for hash in outdated:
                count += await self._blobs.delete(hash)
        if count:
            self.dropped += count
            log.info("content beyond the window is not kept", blobs=count)
