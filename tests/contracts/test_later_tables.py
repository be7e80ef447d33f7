"""Tables that an earlier release made get what this one reads, whoever starts first."""

import asyncio

from storage.postgres.outbox_view import OutboxView
from storage.postgres.pool import prepare
from tests.live import Live


async def test_a_column_that_came_later_is_added_once(live_site: Live) -> None:
    database, url = live_site.parts.database, live_site.parts.config.database_url
    await database.run("ALTER TABLE live.queued DROP COLUMN handed")
    await asyncio.gather(prepare(url), prepare(url), prepare(url))
    row = await database.row(
        "SELECT column_default, is_nullable FROM information_schema.columns "
        "WHERE table_schema = 'live' AND table_name = 'queued' AND column_name = 'handed'"
    )
    assert row is not None and (row["column_default"], row["is_nullable"]) == ("0", "NO")
    assert await OutboxView(database).due(["queue-test"], 0, 1) == []
