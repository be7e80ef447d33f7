"""Tables made beside the living ones (`next`), and their exchange: `next` becomes `live`, what was `live` goes.

The exchange renames schemas, so that it is one moment for everybody. It first takes a lock on every living table that
readers conflict with: nobody is amid a transaction that read the old ones and goes on with the new. It waits for them
only as long as nobody else notices, and is tried again.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec

from storage.postgres.folded import News
from storage.postgres.pool import AWAY, CHANNEL, CONNECT_S_MAX, Connection, Database, Plain, make_tables, settings

CLOSE_S_MAX = 5.0
PROJECTORS_WAIT_MS_MAX = 5_000  # for a batch of the living projectors to end
READERS_WAIT_MS_MAX = 400  # below the engine's deadlock_timeout (1 s): a reader never pays for it
DROP_S_MAX = 600.0
REBUILD_KEY = int.from_bytes(b"angarium"[:8], "big") >> 1  # of the advisory lock


class Occupied(Exception):
    """Somebody reads or writes for so long that the tables could not be locked; try again."""


class Standing(msgspec.Struct, frozen=True):
    """Where a partition's tables stand. `digest`: storage.postgres.folded.Folded."""

    position: int
    digest: bytes
    events: int


@asynccontextmanager
async def connected(database: Database, schema: str) -> AsyncIterator[Plain]:
    """A connection of one's own without a limit on a statement's time; closed in the end, whatever happened, so that
    its locks are gone. Raises one of AWAY."""
    connection: Plain = await asyncpg.connect(
        database.url,
        timeout=CONNECT_S_MAX,
        server_settings={**settings(schema), "statement_timeout": "0", "application_name": f"angarium {schema}"},
    )
    try:
        yield connection
    finally:
        try:
            await connection.close(timeout=CLOSE_S_MAX)
        except (*AWAY, asyncpg.PostgresError):
            connection.terminate()


async def alone(connection: Connection) -> bool:
    """Whether this connection may rebuild: one at a time, until it closes."""
    return bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", REBUILD_KEY))


async def begin_next(connection: Connection) -> None:
    """Empty tables beside the living ones. What an earlier rebuild left is dropped."""
    for schema in ("old", "next"):
        await drop(connection, schema)
    async with connection.transaction():
        await make_tables(connection, "next")


async def drop(connection: Connection, schema: str) -> None:
    assert schema != "live"
    await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE", timeout=DROP_S_MAX)


async def analyze(connection: Connection, schema: str) -> None:
    """Statistics for the planner: tables that nobody has looked at yet are read by the wrong way."""
    names = await _tables(connection, schema)
    await connection.execute("ANALYZE " + ", ".join(f"{schema}.{name}" for name in names), timeout=DROP_S_MAX)


async def standings(connection: Connection, schema: str) -> dict[str, Standing]:
    """By partition; empty where the schema has no such table."""
    if not await connection.fetchval(f"SELECT to_regclass('{schema}.folded') IS NOT NULL"):
        return {}
    rows = await connection.fetch(f"SELECT partition, position, digest, events FROM {schema}.folded")
    return {row["partition"]: Standing(row["position"], row["digest"], row["events"]) for row in rows}


class Exchange:
    """Held open by `exchanging`: the living projectors wait."""

    def __init__(self, connection: Plain) -> None:
        self._connection = connection

    async def standings(self) -> dict[str, Standing]:
        return await standings(self._connection, "live")

    async def commit(self, positions: Mapping[str, int]) -> None:
        """`next` is `live` when this and the transaction around it have ended; every session that watches wakes, for
        what it saw may not be what there is. Raises Occupied."""
        db = self._connection
        living = await _tables(db, "live")
        if living:
            await db.execute(f"SET LOCAL statement_timeout = {READERS_WAIT_MS_MAX}")
            names = ", ".join(f"live.{name}" for name in living)
            await db.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
            await db.execute("SET LOCAL statement_timeout = 0")
        await db.execute("ALTER SCHEMA live RENAME TO old")
        await db.execute("ALTER SCHEMA next RENAME TO live")
        for partition, position in positions.items():
            news = msgspec.json.encode(News(partition, position, None)).decode()
            await db.execute("SELECT pg_notify($1, $2)", CHANNEL, news)


@asynccontextmanager
async def exchanging(connection: Plain) -> AsyncIterator[Exchange]:
    """One transaction in which the living projectors wait. Raises Occupied, and then nothing has changed."""
    try:
        async with connection.transaction():
            if await connection.fetchval("SELECT to_regclass('live.folded') IS NOT NULL"):
                await connection.execute(f"SET LOCAL lock_timeout = {PROJECTORS_WAIT_MS_MAX}")
                # Every transaction of a projector looks at this table first (storage/postgres/folded.py).
                await connection.execute("LOCK TABLE live.folded IN ACCESS EXCLUSIVE MODE")
            yield Exchange(connection)
    except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, asyncpg.DeadlockDetectedError) as error:
        raise Occupied(str(error)) from error


async def _tables(connection: Connection, schema: str) -> Sequence[str]:
    rows: list[Any] = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY 1", schema)
    return [row["tablename"] for row in rows]


async def drop_quietly(connection: Connection, schema: str) -> None:
    """After a failure: what cannot be dropped now is dropped by the next rebuild."""
    with contextlib.suppress(*AWAY, asyncpg.PostgresError):
        await drop(connection, schema)
