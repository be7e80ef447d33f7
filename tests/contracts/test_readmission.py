"""A database that came back standing where it once was serves nobody before it stands where it stood."""

import os

import pytest

from cluster.log.memory import MemoryLog
from cluster.log.model import Append, NewEvent, Stored
from node.config import Config
from storage.postgres.pool import Behind, Database
from storage.readmission import Readmission
from tests.laws.tables_of_law import site_tables

PARTITION = "mail-test-1"


async def nothing_known(_: str) -> int:
    return 0


async def test_who_lags_behind_the_log_is_not_read(engines: Config) -> None:
    log = MemoryLog()
    async with site_tables(engines.database_url, "readmission") as site:
        admit = Readmission(log, [PARTITION], nothing_known).admit
        database = Database(engines.database_url, schema="readmission", admit=admit)
        await database.start()
        try:
            shown = await log.append(Append(PARTITION, os.urandom(16), (NewEvent("mailbox", "7", b"event"),)))
            assert isinstance(shown, Stored)
            with pytest.raises(Behind):
                await database.fetch("SELECT 1")
            # What comes later need not be waited for: the goal is what was there when the database came back.
            await log.append(Append(PARTITION, os.urandom(16), (NewEvent("mailbox", "7", b"later"),)))
            await site.db.execute("INSERT INTO folded VALUES ($1, $2, $3)", PARTITION, shown.last, bytes(32))
            await admit(site.db)
            # Who was let in stays in, also when the tables are made anew.
            await site.db.execute("DELETE FROM folded")
            await admit(site.db)
        finally:
            await database.stop()
