"""`angarium rebuild`: the site's tables anew from the log, while the living ones serve; exchanged at the end.

The new tables are folded up to where the living ones stand, again and again until little is left. Then the living
projectors wait for a moment, the rest is folded, and the tables change places in one transaction. Who cancels it, or
kills it, leaves the living tables as they were.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Protocol

import structlog

from cluster.log.model import LogUnavailable, Record
from cluster.position import Position, shown
from storage.overview import Progress
from storage.postgres import exchange
from storage.postgres.exchange import Occupied, Standing
from storage.postgres.history import times_rolled_back, told_rolled_back
from storage.postgres.pool import AWAY, DETERMINISTIC, Database, Plain
from storage.projector import OURS, Fold, WaitsForRelease

BATCH_EVENTS_MAX = 2_000
BATCH_BYTES_MAX = 16 << 20
LITTLE_EVENTS = 500  # so few are folded while the living projectors wait
ROUNDS_MAX = 50  # that bring the new tables nearer to the living ones; then the projectors wait for what is left
EXCHANGE_TRIES_MAX = 60
EXCHANGE_PAUSE_S = 0.5

log = structlog.get_logger("rebuild")


class RebuildFailed(Exception):
    """The living tables are as they were; the text says why and what to do."""


class RebuildRefused(RebuildFailed):
    """Another one is under way."""


class Source(Protocol):
    """The log, as far as a rebuild needs it: cluster.log.jetstream, cluster.log.memory."""

    def read(
        self, partition: str, after: int, upto: int, *, contents: bool = False
    ) -> AsyncIterator[tuple[Record, ...]]: ...

    async def mark(self, partition: str) -> Position: ...


async def rebuild(database: Database, source: Source, partitions: Sequence[str]) -> AsyncGenerator[Progress, None]:
    """Raises RebuildFailed. Closed before its end, it stops and cleans up."""
    try:
        async with exchange.connected(database, "site") as keeper, exchange.connected(database, "next") as writer:
            if not await exchange.alone(keeper):
                raise RebuildRefused("a rebuild of this site's tables is under way already: wait for its end")
            try:
                await exchange.begin_next(keeper)
                async with aclosing(_Rebuild(keeper, writer, source, partitions).run()) as steps:
                    async for step in steps:
                        yield step
                await exchange.drop_quietly(keeper, "old")
            finally:
                await exchange.drop_quietly(keeper, "next")
    except WaitsForRelease as error:
        raise RebuildFailed(f"the tables stay as they were: {error}") from error
    except (*AWAY, LogUnavailable) as error:
        raise RebuildFailed(f"the tables stay as they were: {type(error).__name__}: {error}; try again") from error


async def fold_range(fold: Fold, source: Source, after: int, upto: int) -> AsyncGenerator[int, None]:
    """Folds a partition's events above `after` and not above `upto`, in big batches, telling nobody; yields how many
    each held. What cannot be folded is put aside, as the living projector does."""
    waiting: list[Record] = []
    size = 0
    async for records in source.read(fold.partition, after, upto):
        waiting.extend(records)
        size += sum(len(record.payload) for record in records)
        if len(waiting) >= BATCH_EVENTS_MAX or size >= BATCH_BYTES_MAX:
            yield await _folded(fold, waiting)
            waiting, size = [], 0
    if waiting:
        yield await _folded(fold, waiting)


async def _folded(fold: Fold, records: Sequence[Record]) -> int:
    try:
        await fold.batch(records, notify=False)
    except (*DETERMINISTIC, *OURS):
        await fold.batch_around_faults(records, notify=False)
    return len(records)


class _Rebuild:
    """`keeper` holds the lock and makes the exchange, `writer` fills `next`."""

    def __init__(self, keeper: Plain, writer: Plain, source: Source, partitions: Sequence[str]) -> None:
        self._keeper = keeper
        self._source = source
        self._folds = {name: Fold(writer, name) for name in partitions}
        self._rolled_back: dict[str, int] = {}
        self._done = 0

    async def run(self) -> AsyncGenerator[Progress, None]:
        self._rolled_back = await times_rolled_back(self._keeper)
        for fold in self._folds.values():
            await fold.start()
        living = await self._goals()
        for _ in range(ROUNDS_MAX):
            before = self._done
            async with aclosing(self._towards(living)) as steps:
                async for _ in steps:
                    yield Progress("tables", self._done, max(self._done, _events(living)), "events")
            living = await self._goals()
            if self._done - before <= LITTLE_EVENTS:
                break
        yield Progress("statistics", 0, 1, "schemas")
        await exchange.analyze(self._keeper, "next")
        yield Progress("statistics", 1, 1, "schemas")
        yield Progress("exchange", 0, 1, "schemas")
        differing = await self._exchanged()
        yield Progress("tables", self._done, self._done, "events")
        yield Progress("exchange", 1, 1, "schemas")
        if differing:
            yield Progress("tables that were not as the log has them", len(differing), 0, "partitions", warning=True)

    async def _towards(self, goals: dict[str, Standing]) -> AsyncGenerator[int, None]:
        for name, fold in self._folds.items():
            assert fold.folded is not None
            goal = goals[name].position
            if fold.folded.position < goal:
                async with aclosing(fold_range(fold, self._source, fold.folded.position, goal)) as counts:
                    async for count in counts:
                        self._done += count
                        yield count

    async def _goals(self) -> dict[str, Standing]:
        """Where the living tables stand; where they do not know a partition, the end of its log."""
        living = await exchange.standings(self._keeper, "live")
        return {name: living.get(name) or Standing(await self._source.mark(name), b"", 0) for name in self._folds}

    async def _exchanged(self) -> list[str]:
        """Partitions whose new tables are not what the living ones were."""
        for _ in range(EXCHANGE_TRIES_MAX):
            try:
                async with exchange.exchanging(self._keeper) as moment:
                    living = await moment.standings()
                    if await times_rolled_back(self._keeper) != self._rolled_back:
                        raise RebuildFailed(
                            "the living tables were taken back to an end of history meanwhile; try again"
                        )
                    async for _ in self._towards({**await self._goals(), **living}):
                        pass
                    positions = {name: fold.folded.position for name, fold in self._folds.items() if fold.folded}
                    await moment.commit(positions)
                    for name, position in positions.items():
                        if name in living and living[name].position > position:
                            await told_rolled_back(self._keeper, name, living[name].position, position, None)
                return self._compared(living)
            except Occupied as error:
                log.info("exchange is tried again", why=str(error))
                await asyncio.sleep(EXCHANGE_PAUSE_S)
        raise RebuildFailed("somebody reads the tables without a pause: the exchange could not be made; try again")

    def _compared(self, living: dict[str, Standing]) -> list[str]:
        differing = []
        for name, fold in self._folds.items():
            was, now = living.get(name), fold.folded
            assert now is not None
            if was is None or was.position != now.position:
                log.info("tables rebuilt", partition=name, position=shown(now.position), compared=False)
            elif (was.digest, was.events) == (now.digest, now.events):
                log.info("tables rebuilt", partition=name, position=shown(now.position), equal=True)
            else:
                differing.append(name)
                log.error("the living tables were not what the log says", partition=name, position=shown(now.position))
        return differing


def _events(standings: dict[str, Standing]) -> int:
    return sum(standing.events for standing in standings.values())
