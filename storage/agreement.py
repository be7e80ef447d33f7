"""Whether the sites' tables and logs are the same: looked at once a minute, and thoroughly when an operator asks.

Every site keeps the digest at the same positions. Where two agree, all before is equal; where they do not, the first
differing event is found between the last two: in the log, or only in what the tables made of it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import structlog

from cluster.log.digests import (
    CHECKPOINTS_MAX,
    AskMend,
    AskPassed,
    AskStanding,
    Checkpoint,
    Mended,
    NoAnswer,
    Passed,
    Standing,
)
from cluster.log.model import LogUnavailable, Record
from cluster.position import shown
from storage.follower import lock_key
from storage.postgres.compared import Agreement, note_agreement
from storage.postgres.folded import Folded
from storage.postgres.history import HistoryStore, TooFarBack
from storage.postgres.pool import AWAY, Connection, Database, Plain
from storage.projector import Fold
from storage.rollback import Past, outcome_of, reckoned, roll_back

COMPARE_EVERY_S = 60.0
AGAIN_S = 1.0  # a difference counts when it is there twice: one side may just be taking back a tail
WHOLE_S_MAX = 900.0  # for a copy to come anew
LOOK_EVERY_S = 0.5

log = structlog.get_logger("agreement")


class Others(Protocol):
    """The other sites: cluster.log.digests.Digests."""

    site: str

    async def standing(self, site: str, partition: str, after: int) -> Standing: ...
    async def passed(self, site: str, partition: str, after: int, upto: int) -> Passed: ...
    async def mend(self, site: str, partition: str, after: int, epoch: int = 0) -> str: ...
    def events(self, site: str, partition: str, after: int, upto: int) -> AsyncIterator[Record]: ...


class Copies(Protocol):
    """This site's own copies of the log: cluster.log.jetstream."""

    async def recopy(self, partition: str, epoch: int) -> None:
        """Has the copy of that epoch made anew. Raises LogUnavailable."""
        ...

    async def whole(self, partition: str) -> int:
        """Position up to which there is all of history. Raises LogUnavailable."""
        ...


class Tables:
    """This site's side: implements cluster.log.digests.Answers."""

    def __init__(self, database: Database, source: Past, copies: Copies) -> None:
        self.database = database
        self.source = source
        self._copies = copies

    async def standing(self, ask: AskStanding) -> Standing:
        async with self.database.connection() as db, db.transaction(isolation="repeatable_read", readonly=True):
            store = HistoryStore(db, ask.partition)
            row = await db.fetchrow("SELECT position, digest, events FROM folded WHERE partition = $1", ask.partition)
            checkpoints = await store.checkpoints_after(ask.after, CHECKPOINTS_MAX)
            at = Checkpoint(*row) if row is not None else None
            return Standing(at, await store.first_checkpoint(), tuple(map(_told, checkpoints)))

    async def passed(self, ask: AskPassed) -> Passed:
        async with self.database.connection() as db:
            found = await HistoryStore(db, ask.partition).outcomes(ask.after, ask.upto)
        positions = {*found.held, *found.quarantined, *found.repeated}
        return Passed({position: outcome_of(found, position).decode() for position in positions})

    async def reckoned(self, partition: str, upto: int) -> Folded:
        """Raises TooFarBack."""
        async with self.database.connection() as db, db.transaction(isolation="repeatable_read", readonly=True):
            return await reckoned(db, self.source, partition, upto)

    async def mend(self, ask: AskMend) -> Mended:
        try:
            connection, other = await self.database.own(), await self.database.own()
            try:
                await _in_place_of_the_projector(connection, other, ask.partition)
                fold = Fold(connection, ask.partition)
                standing = (await fold.start()).position
                if ask.epoch:
                    # Nobody folds meanwhile: what is not here yet would be taken for nothing.
                    await self._copies.recopy(ask.partition, ask.epoch)
                    await self._until_whole(ask.partition, standing)
                await roll_back(fold, self.source, ask.after)
            finally:
                # The projector goes on from there.
                connection.terminate()
                other.terminate()
        except (*AWAY, LogUnavailable, TooFarBack) as error:
            return Mended(f"{type(error).__name__}: {error}")
        return Mended()

    async def _until_whole(self, partition: str, upto: int) -> None:
        async with asyncio.timeout(WHOLE_S_MAX):
            while await self._copies.whole(partition) < upto:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_EVERY_S)


async def _in_place_of_the_projector(connection: Plain, other: Connection, partition: str) -> None:
    """Its lock is ours when this returns: whoever holds it is sent away while we are the next in line."""
    key = lock_key(partition)
    locked = asyncio.create_task(connection.execute("SELECT pg_advisory_lock($1)", key))
    try:
        while not locked.done():
            await other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
                "AND classid::bigint << 32 | objid::bigint = $1 AND pid <> $2",
                key,
                connection.get_server_pid(),
            )
            await asyncio.wait((locked,), timeout=LOOK_EVERY_S)
        await locked
    finally:
        locked.cancel()


class Compared(NamedTuple):
    """`agreed`: the last position at which both have the same digest; `differs`: the first checkpoint after it that they do
    not share. `ours`, `theirs`: where the tables stand, 0 = nowhere."""

    agreed: int
    differs: int | None
    ours: int
    theirs: int


async def compare(tables: Tables, others: Others, partition: str, site: str, after: int = 0) -> Compared:
    """Digests above `after`, which is known to agree. Raises NoAnswer, one of AWAY, LogUnavailable."""
    found = await _compare(tables, others, partition, site, after)
    if found.differs is not None:
        await asyncio.sleep(AGAIN_S)
        found = await _compare(tables, others, partition, site, 0)
    return found


async def _compare(tables: Tables, others: Others, partition: str, site: str, after: int) -> Compared:
    agreed = after
    while True:
        ours = await tables.standing(AskStanding(partition, agreed))
        theirs = await others.standing(site, partition, agreed)
        here, there = _position(ours.at), _position(theirs.at)
        pages = [page[-1].position for page in (ours.checkpoints, theirs.checkpoints) if len(page) == CHECKPOINTS_MAX]
        bound = min(here, there, *pages)
        floor = max(ours.first, theirs.first)  # below that, one of them has forgotten
        mine = {at.position: at for at in ours.checkpoints if floor <= at.position <= bound}
        its = {at.position: at for at in theirs.checkpoints if floor <= at.position <= bound}
        for position in sorted({*mine, *its}):
            if mine.get(position) != its.get(position):
                return Compared(agreed, position, here, there)
            agreed = position
        if not pages or bound >= min(here, there):
            break
        agreed = max(agreed, bound)
    if theirs.at is None or there > here or there <= agreed:
        return Compared(agreed, None, here, there)
    try:
        known = await tables.reckoned(partition, there)
    except TooFarBack:
        return Compared(agreed, None, here, there)
    if (known.position, known.digest, known.events) != (there, theirs.at.digest, theirs.at.events):
        return Compared(agreed, there, here, there)
    return Compared(there, None, here, there)


class Watchman:
    """Compares with each other site once a minute, and notes what it finds. `placed`: partition → other sites that have
    it, as it is now. `agree`: hears (partition, site, whether they agree)."""

    def __init__(
        self,
        tables: Tables,
        others: Others,
        placed: Callable[[], Mapping[str, Sequence[str]]],
        *,
        every_s: float = COMPARE_EVERY_S,
    ) -> None:
        self._tables = tables
        self._others = others
        self._placed = placed
        self._every_s = every_s
        self.found: dict[tuple[str, str], Agreement] = {}

    async def run(self) -> None:
        while True:
            for partition, sites in self._placed().items():
                for site in sites:
                    await self._look(partition, site)
            await asyncio.sleep(self._every_s)

    async def _look(self, partition: str, site: str) -> None:
        known = self.found.get((partition, site))
        after = known.agreed if known is not None and known.differs is None else 0
        try:
            compared = await compare(self._tables, self._others, partition, site, after)
            agreement = Agreement(partition, site, compared.agreed, compared.differs)
            await note_agreement(self._tables.database, agreement)
        except (NoAnswer, LogUnavailable, *AWAY) as error:
            log.debug("not compared", partition=partition, site=site, error=f"{type(error).__name__}: {error}")
            return
        if agreement.differs is not None and (known is None or known.differs != agreement.differs):
            log.error("tables differ", partition=partition, site=site, at=shown(agreement.differs))
        self.found[partition, site] = agreement


def _told(folded: Folded) -> Checkpoint:
    return Checkpoint(folded.position, folded.digest, folded.events)


def _position(at: Checkpoint | None) -> int:
    return at.position if at is not None else 0
