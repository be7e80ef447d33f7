"""Until when the blobs of a site that keeps a window of some partitions stay: `site.blob_until` and `site.windowed`."""

from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from cluster.domain.mailbox.content import Segment
from storage.postgres.mail_view import segments_of
from storage.postgres.pool import Connection, Database

PAGE_CONTENTS = 500

# Expunged ones too: sessions may still hold their UIDs.
_NAMED = """
    SELECT c.segments, max(n.saved_at), min(n.position) FROM (
        SELECT m.mailbox, m.content, m.saved_at, m.position FROM message m
        UNION ALL SELECT e.mailbox, e.content, e.saved_at, e.modseq FROM expunged e
    ) n JOIN mailbox b ON b.id = n.mailbox JOIN mail_account a ON a.account = b.account JOIN content c ON c.hash = n.content
    WHERE a.partition = $1 GROUP BY c.hash, c.segments"""


class Naming(NamedTuple):
    """`at`: Unix seconds of the latest event that names it. `position`: of the first."""

    segment: Segment
    at: float
    position: int


class WindowStore:
    """Every method raises one of AWAY."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def settled(self) -> dict[str, int]:
        """By which window, in days, the rows of each partition were made; 0 = all is kept."""
        rows = await self._database.fetch("SELECT partition, days FROM windowed")
        return {row[0]: row[1] for row in rows}

    async def settle(self, partition: str, days: int) -> None:
        await self._database.run(
            "INSERT INTO windowed VALUES ($1, $2) ON CONFLICT (partition) DO UPDATE SET days = $2", partition, days
        )

    async def forget(self) -> None:
        """This site keeps everything."""
        await self._database.run("TRUNCATE windowed, blob_until")

    async def named(self, partition: str) -> AsyncIterator[list[Naming]]:
        """What the mail of a partition names, in portions."""
        connection = await self._database.own()
        try:
            async with connection.transaction(readonly=True):
                cursor = await connection.cursor(_NAMED, partition)
                while rows := await cursor.fetch(PAGE_CONTENTS):
                    yield [Naming(segment, row[1], row[2]) for row in rows for segment in segments_of(row[0])]
        finally:
            connection.terminate()

    async def note(self, until: Mapping[bytes, float], db: Connection | None = None) -> None:
        """Blobs stay until then, Unix seconds, if nothing keeps them longer."""
        if db is None:
            async with self._database.connection() as pooled:
                return await self.note(until, pooled)
        # Sorted: two who note the same ones must not wait for each other in a ring.
        hashes = sorted(until)
        await db.execute(
            "INSERT INTO blob_until AS b SELECT hash, to_timestamp(until) FROM unnest($1::bytea[], $2::float8[]) "
            "AS n(hash, until) ON CONFLICT (hash) DO UPDATE SET until = excluded.until WHERE b.until < excluded.until",
            hashes,
            [until[hash] for hash in hashes],
        )
        return None

    async def outdated(self, now: float, limit: int) -> list[bytes]:
        """Takes the rows of some whose time is over. `now`: Unix seconds."""
        rows = await self._database.fetch(
            "DELETE FROM blob_until WHERE hash IN "
            "(SELECT hash FROM blob_until WHERE until < to_timestamp($1) LIMIT $2) RETURNING hash",
            now,
            limit,
        )
        return [row[0] for row in rows]
