"""The blobs that a partition's events name and that this site does not have."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cluster.domain.mailbox.content import Segment
from storage.postgres.pool import Connection, Database


class Wanted(NamedTuple):
    """`denied_s`: for how long every other site has answered that it has none, None = not every one has."""

    segment: Segment
    tries: int
    denied_s: float | None
    lost: bool


class Counts(NamedTuple):
    """`wanted`: not here yet; `lost`: of these, those that no other site has had for long."""

    wanted: int
    lost: int


class WantedStore:
    """Every method raises one of AWAY."""

    def __init__(self, database: Database, partition: str) -> None:
        self._database = database
        self._partition = partition

    async def note(self, db: Connection, named: Sequence[tuple[Segment, int]]) -> None:
        """With the position of the event that names each. On the projector's connection, which serves while the pool
        does not; outside of its transactions, so that it is on disk before the event is folded."""
        await db.execute(
            "INSERT INTO wanted_blob AS w (partition, hash, size, position) "
            "SELECT $1, hash, max(size), min(position) FROM unnest($2::bytea[], $3::bigint[], $4::bigint[]) "
            "AS n(hash, size, position) GROUP BY hash ON CONFLICT (partition, hash) DO UPDATE "
            "SET position = least(w.position, excluded.position), next_at = now()",
            self._partition,
            [segment.hash for segment, _ in named],
            [segment.size for segment, _ in named],
            [position for _, position in named],
        )

    async def first(self) -> int | None:
        """The position of the first event whose content is wanted and not given up."""
        row = await self._database.row(
            "SELECT min(position) FROM wanted_blob WHERE partition = $1 AND NOT lost", self._partition
        )
        return row[0] if row is not None else None

    async def due(self, limit: int) -> list[Wanted]:
        """Those to be asked for now, the longest due first."""
        rows = await self._database.fetch(
            "SELECT hash, size, tries, extract(epoch FROM now() - denied_at)::float8, lost FROM wanted_blob "
            "WHERE partition = $1 AND next_at <= now() ORDER BY next_at LIMIT $2",
            self._partition,
            limit,
        )
        return [Wanted(Segment(row[0], row[1]), *row[2:]) for row in rows]

    async def due_in_s(self) -> float | None:
        """When the next one is to be asked for; None = nothing is wanted."""
        row = await self._database.row(
            "SELECT extract(epoch FROM min(next_at) - now())::float8 FROM wanted_blob WHERE partition = $1",
            self._partition,
        )
        return row[0] if row is not None else None

    async def found(self, hashes: Iterable[bytes]) -> None:
        """They are here, and on disk."""
        await self._database.run(
            "DELETE FROM wanted_blob WHERE partition = $1 AND hash = ANY ($2::bytea[])", self._partition, list(hashes)
        )

    async def failed(self, hash: bytes, again_in_s: float, *, denied: bool, lost: bool) -> None:
        """`denied`: every other site answered, and has none."""
        await self._database.run(
            "UPDATE wanted_blob SET tries = tries + 1, next_at = now() + make_interval(secs => $3), lost = $5, "
            "denied_at = CASE WHEN $4 THEN coalesce(denied_at, now()) END WHERE partition = $1 AND hash = $2",
            self._partition,
            hash,
            again_in_s,
            denied,
            lost,
        )


async def counts(database: Database) -> Counts:
    """Of all partitions; a blob that two of them want counts once. Raises one of AWAY."""
    row = await database.row("SELECT count(DISTINCT hash), count(DISTINCT hash) FILTER (WHERE lost) FROM wanted_blob")
    return Counts(row[0], row[1]) if row is not None else Counts(0, 0)
