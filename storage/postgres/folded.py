"""How far a partition has been folded, what was folded twice, what could not be: the projector's own tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from cluster.log.model import Record
from storage.postgres.pool import CHANNEL, Connection, Database

QUARANTINE_SHOWN_MAX = 1_000
NOTIFY_BYTES_MAX = 7_000  # the engine's limit is 8,000
CHECKPOINTS_EVENTS_MAX = 1 << 20  # so far back the tables can be taken without a rebuild
EVERYONE = 0  # in place of an account that was touched: all of the partition were


class Folded(msgspec.Struct, frozen=True):
    """`digest`: 32 bytes, rolling over (position, payload, outcome). `events`: how many in all."""

    position: int
    digest: bytes
    events: int
    pruned_at: int


class News(msgspec.Struct, frozen=True, array_like=True):
    """What a notification says. `touched`: account → mailboxes (0 = the tree); None = too many to name. `times`:
    the tables were taken back for so many times now, from `was` to `position`, 0 = they were not; `lost`: whose mail was,
    None = anybody's."""

    partition: str
    position: int
    touched: dict[int, list[int]] | None
    times: int = 0
    was: int = 0
    lost: list[int] | None = None


NOTHING_FOLDED = Folded(0, bytes(32), 0, 0)


WHOLE = ("", "")  # in place of (noun, entity): all accounts of the partition


class QuarantineRow(NamedTuple):
    partition: str
    position: int
    noun: str
    entity: str
    reason: str


async def read_folded(database: Database) -> dict[str, Folded]:
    """Where each partition's tables stand."""
    rows = await database.fetch("SELECT partition, position, digest, events, pruned_at FROM folded")
    return {row["partition"]: Folded(*row[1:]) for row in rows}


async def read_quarantine(database: Database) -> list[QuarantineRow]:
    rows = await database.fetch(
        "SELECT partition, position, noun, entity, reason FROM quarantine ORDER BY partition, position LIMIT $1",
        QUARANTINE_SHOWN_MAX,
    )
    return [QuarantineRow(*row) for row in rows]


class Waiting(NamedTuple):
    """A partition that goes on only with a later release. `position`: of the event that needs it."""

    partition: str
    position: int
    event: str


async def read_waiting(database: Database) -> list[Waiting]:
    rows = await database.fetch(
        "SELECT w.partition, w.position, w.event FROM waits_for_release w JOIN folded f USING (partition) "
        "WHERE w.position > f.position ORDER BY w.partition"
    )
    return [Waiting(*row) for row in rows]


async def note_waiting(database: Database, waiting: Waiting) -> None:
    await database.run(
        "INSERT INTO waits_for_release AS w VALUES ($1, $2, $3, now()) ON CONFLICT (partition) DO UPDATE "
        "SET position = $2, event = $3, at = CASE WHEN w.position = $2 THEN w.at ELSE now() END",
        *waiting,
    )


@dataclass(slots=True)
class Notes:
    """What a batch leaves beside its rows, so that it can be taken back: checkpoints, positions of repeated events, the
    last position of every entity, and (position, id, events, was_position, at) of commands forgotten or written over."""

    checkpoints: list[Folded] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    touched: dict[tuple[str, str], int] = field(default_factory=dict)
    forgotten: list[tuple[int, bytes, int, int, int]] = field(default_factory=list)


class FoldedStore:
    def __init__(self, db: Connection, partition: str) -> None:
        self.db = db
        self.partition = partition
        self._held: set[tuple[str, str]] = set()

    async def load(self) -> Folded:
        held = await self.db.fetch(
            "SELECT DISTINCT noun, entity FROM quarantine WHERE partition = $1 AND held", self.partition
        )
        self._held = {(row["noun"], row["entity"]) for row in held}
        row = await self.db.fetchrow(
            "SELECT position, digest, events, pruned_at FROM folded WHERE partition = $1", self.partition
        )
        return NOTHING_FOLDED if row is None else Folded(*row)

    async def begin(self) -> tuple[int, int]:
        """The first words of a transaction: (which tables these are, how far they are folded). The first number changes
        when a rebuild exchanged them; until the transaction ends it cannot, for we hold a lock on `folded`."""
        row = await self.db.fetchrow(
            "SELECT set_config('synchronous_commit', 'off', true), to_regclass('folded')::oid::bigint AS tables, "
            "coalesce((SELECT position FROM folded WHERE partition = $1), 0) AS position",
            self.partition,
        )
        assert row is not None
        return row["tables"], row["position"]

    async def save(self, folded: Folded, touched: Mapping[int, set[int]] | None, notes: Notes) -> None:
        """With one notification of what was touched, which goes out with the commit; None = without."""
        payload = None
        if touched is not None:
            news = News(self.partition, folded.position, {account: sorted(boxes) for account, boxes in touched.items()})
            payload = msgspec.json.encode(news)
            if EVERYONE in touched or len(payload) > NOTIFY_BYTES_MAX:
                payload = msgspec.json.encode(News(self.partition, folded.position, None))
        await self.db.execute(
            SAVE,
            self.partition,
            folded.position,
            folded.digest,
            folded.events,
            folded.pruned_at,
            CHANNEL,
            payload.decode() if payload is not None else None,
            [noun for noun, _ in notes.touched],
            [entity for _, entity in notes.touched],
            list(notes.touched.values()),
        )
        if notes.checkpoints:
            await self.db.executemany(
                "INSERT INTO digest_at VALUES ($1, $2, $3, $4, $5)",
                [(self.partition, at.position, at.digest, at.events, at.pruned_at) for at in notes.checkpoints],
            )
            await self._forget_old(folded.events - CHECKPOINTS_EVENTS_MAX)
        if notes.repeated:
            await self.db.execute(
                "INSERT INTO repeated SELECT $1, unnest($2::bigint[])", self.partition, notes.repeated
            )
        if notes.forgotten:
            await self.db.executemany(
                "INSERT INTO command_before VALUES ($1, $2, $3, $4, $5, $6)",
                [(self.partition, *each) for each in notes.forgotten],
            )

    async def _forget_old(self, before: int) -> None:
        """What would take the tables back further than they can be."""
        if before > 0:
            first = await self.db.fetchval(
                "WITH gone AS (DELETE FROM digest_at WHERE partition = $1 AND events < $2 RETURNING position) "
                "SELECT max(position) FROM gone",
                self.partition,
                before,
            )
            if first is not None:
                await self.db.execute(
                    "DELETE FROM command_before WHERE partition = $1 AND position <= $2", self.partition, first
                )

    async def commands(self, ids: Sequence[bytes]) -> dict[bytes, list[int]]:
        """Of those, the ones folded before: id → [events, position, at]."""
        rows = await self.db.fetch(
            "SELECT id, events, position, at FROM command WHERE partition = $1 AND id = ANY ($2::bytea[])",
            self.partition,
            list(set(ids)),
        )
        return {row["id"]: [row["events"], row["position"], row["at"]] for row in rows}

    async def save_commands(self, seen: Mapping[bytes, list[int]]) -> None:
        await self.db.execute(
            "INSERT INTO command SELECT $1, c.* FROM unnest($2::bytea[], $3::smallint[], $4::bigint[], $5::bigint[]) c "
            "ON CONFLICT (partition, id) DO UPDATE "
            "SET events = excluded.events, position = excluded.position, at = excluded.at",
            self.partition,
            list(seen),
            [events for events, _, _ in seen.values()],
            [position for _, position, _ in seen.values()],
            [at for _, _, at in seen.values()],
        )

    async def prune_commands(self, before: int, position: int, apart: Sequence[bytes]) -> None:
        """Forgets those told before that time (unix seconds), but for `apart`; with a note of it, as of `position`."""
        await self.db.execute(
            "WITH gone AS (DELETE FROM command WHERE partition = $1 AND at < $2 AND id <> ALL ($4::bytea[]) RETURNING *) "
            "INSERT INTO command_before SELECT partition, $3, id, events, position, at FROM gone",
            self.partition,
            before,
            position,
            apart,
        )

    async def ended(self, epochs: Sequence[tuple[int, int, int]]) -> None:
        """As EpochStarted says it: (epoch, its last sequence in history, gap)."""
        await self.db.executemany(
            "INSERT INTO epoch_ended VALUES ($1, $2, $3) ON CONFLICT (partition, epoch) DO UPDATE SET last = $3",
            [(self.partition, epoch, last) for epoch, last, _ in epochs],
        )

    async def drop_commands(self, ids: Sequence[bytes]) -> None:
        await self.db.execute(
            "DELETE FROM command WHERE partition = $1 AND id = ANY ($2::bytea[])", self.partition, ids
        )

    async def is_held(self, noun: str, entity: str) -> bool:
        return (noun, entity) in self._held

    async def quarantine(self, record: Record, reason: str, held: bool) -> None:
        if held:
            self._held.add((record.noun, record.entity))
        await self.db.execute(
            "INSERT INTO quarantine VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            self.partition,
            record.position,
            record.noun,
            record.entity.replace("\0", ""),  # which the tables' text cannot hold
            reason[:1000],
            held,
        )


SAVE = """
WITH saved AS (
    INSERT INTO folded VALUES ($1, $2, $3, $4, $5) ON CONFLICT (partition) DO UPDATE
    SET position = $2, digest = $3, events = $4, pruned_at = $5
), touching AS (
    INSERT INTO touched SELECT $1, t.* FROM unnest($8::text[], $9::text[], $10::bigint[]) t
    ON CONFLICT (partition, noun, entity) DO UPDATE SET position = excluded.position
)
SELECT pg_notify($6, $7) WHERE $7::text IS NOT NULL
"""
