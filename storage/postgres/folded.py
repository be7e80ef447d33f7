"""How far a partition has been folded, what was folded twice, what could not be: the projector's own tables."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from cluster.log.model import Record
from storage.postgres.pool import CHANNEL, Connection, Database

QUARANTINE_SHOWN_MAX = 1_000
NOTIFY_BYTES_MAX = 7_000  # the engine's limit is 8,000
EVERYONE = 0  # in place of an account that was touched: all of the partition were


class Folded(msgspec.Struct, frozen=True):
    """`digest`: 32 bytes, rolling over (position, payload, outcome). `events`: how many in all."""

    position: int
    digest: bytes
    events: int
    pruned_at: int


class News(msgspec.Struct, frozen=True, array_like=True):
    """What a notification says. `touched`: account → mailboxes (0 = the tree); None = too many to name."""

    partition: str
    position: int
    touched: dict[int, list[int]] | None


NOTHING_FOLDED = Folded(0, bytes(32), 0, 0)


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

    async def save(self, folded: Folded, touched: Mapping[int, set[int]] | None) -> None:
        """With one notification of what was touched, which goes out with the commit; None = without."""
        payload = None
        if touched is not None:
            news = News(self.partition, folded.position, {account: sorted(boxes) for account, boxes in touched.items()})
            payload = msgspec.json.encode(news)
            if EVERYONE in touched or len(payload) > NOTIFY_BYTES_MAX:
                payload = msgspec.json.encode(News(self.partition, folded.position, None))
        await self.db.execute(
            "WITH saved AS (INSERT INTO folded VALUES ($1, $2, $3, $4, $5) ON CONFLICT (partition) DO UPDATE "
            "SET position = $2, digest = $3, events = $4, pruned_at = $5) "
            "SELECT pg_notify($6, $7) WHERE $7::text IS NOT NULL",
            self.partition,
            folded.position,
            folded.digest,
            folded.events,
            folded.pruned_at,
            CHANNEL,
            payload.decode() if payload is not None else None,
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

    async def prune_commands(self, before: int) -> None:
        await self.db.execute("DELETE FROM command WHERE partition = $1 AND at < $2", self.partition, before)

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
            record.entity,
            reason[:1000],
            held,
        )
