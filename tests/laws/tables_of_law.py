"""Tables of their own for the laws, in the real database; and what the tables hold, to be compared."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
from structlog.testing import capture_logs

from cluster.log.model import Record
from storage.postgres.pool import DETERMINISTIC, Plain, make_tables, prepare, settings
from storage.projector import OURS, Fold

TABLES = (
    "folded", "command", "quarantine", "domain", "account", "credential", "alias", "distribution_group", "content",
    "mail_account", "mail_partition", "mailbox", "subscription", "message", "flag", "expunged", "vanished", "mailbox_deleted",
    "queued", "queued_recipient", "salvaged", "salvage_report", "digest_at", "repeated", "touched", "command_before",
    "epoch_ended", "mailbox_right", "seen_by", "annotation",
)  # fmt: skip


class Site:
    """A schema with the tables of one site, and a connection to it."""

    def __init__(self, db: Plain, schema: str) -> None:
        self.db = db
        self.schema = schema

    async def empty(self) -> None:
        await self.db.execute(";".join(f"DELETE FROM {table}" for table in TABLES))  # noqa: S608

    async def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table."""
        return {table: await self.rows(f"SELECT * FROM {table}") for table in TABLES}  # noqa: S608

    async def rows(self, query: str, *args: Any) -> list[tuple[Any, ...]]:
        return sorted(map(tuple, await self.db.fetch(query, *args)), key=repr)


@asynccontextmanager
async def site_tables(url: str, schema: str) -> AsyncIterator[Site]:
    await prepare(url)
    db = await asyncpg.connect(url, server_settings=settings(schema))
    try:
        await db.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        async with db.transaction():
            await make_tables(db, schema)
        yield Site(db, schema)
        await db.execute(f"DROP SCHEMA {schema} CASCADE")
    finally:
        await db.close()


class Tables(Site):
    """With the loop on which the connection lives: laws are plain functions to Hypothesis."""

    def __init__(self, site: Site, url: str, runner: asyncio.Runner) -> None:
        super().__init__(site.db, site.schema)
        self.url = url
        self.runner = runner


@contextmanager
def tables(url: str, schema: str) -> Iterator[Tables]:
    with asyncio.Runner() as runner:
        made = site_tables(url, schema)
        yield Tables(runner.run(made.__aenter__()), url, runner)
        runner.run(made.__aexit__(None, None, None))


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
