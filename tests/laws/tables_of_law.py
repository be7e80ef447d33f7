"""Tables of their own for the laws, in the real database; and what the tables hold, to be compared."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg
from structlog.testing import capture_logs

from cluster.log.model import Record
from storage.postgres.pool import DETERMINISTIC, Plain, make_tables, prepare, settings
from storage.projector import OURS, Fold

TABLES = (
    "folded", "command", "quarantine", "domain", "account", "credential", "alias", "distribution_group", "content",
    "mail_account", "mail_partition", "mailbox", "subscription", "message", "flag", "expunged", "mailbox_deleted",
    "queued", "queued_recipient",
)  # fmt: skip


class Tables:
    """A schema, and the loop on which its connection lives: laws are plain functions to Hypothesis."""

    def __init__(self, url: str, schema: str) -> None:
        self.url = url
        self.schema = schema
        self.runner = asyncio.Runner()
        self.db: Plain = self.runner.run(self._connect())

    async def _connect(self) -> Plain:
        await prepare(self.url)
        db = await asyncpg.connect(self.url, server_settings=settings(self.schema))
        await db.execute(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")
        async with db.transaction():
            await make_tables(db, self.schema)
        return db

    async def empty(self) -> None:
        await self.db.execute(";".join(f"DELETE FROM {table}" for table in TABLES))  # noqa: S608

    async def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table."""
        return {
            table: sorted(map(tuple, await self.db.fetch(f"SELECT * FROM {table}")), key=repr)  # noqa: S608
            for table in TABLES
        }

    async def rows(self, query: str, *args: Any) -> list[tuple[Any, ...]]:
        return sorted(map(tuple, await self.db.fetch(query, *args)), key=repr)

    async def close(self) -> None:
        await self.db.execute(f"DROP SCHEMA {self.schema} CASCADE")
        await self.db.close()


@contextmanager
def tables(url: str, schema: str) -> Iterator[Tables]:
    made = Tables(url, schema)
    try:
        yield made
        made.runner.run(made.close())
    finally:
        made.runner.close()


async def folded(fold: Fold, records: Sequence[Record], cuts: Sequence[int]) -> None:
    """The records in batches that end at `cuts`, as a follower hands them over."""
    ends = sorted({cut for cut in cuts if 0 < cut < len(records)} | {len(records)})
    for start, end in zip([0, *ends], ends, strict=False):
        batch = records[start:end]
        if not batch:
            continue
        # What is put aside is put aside on purpose here, and drawing its trace takes longer than all else.
        with capture_logs():
            try:
                await fold.batch(batch)
            except (*DETERMINISTIC, *OURS):
                await fold.batch_around_faults(batch)
