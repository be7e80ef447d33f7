"""The site's tables, row by row: what a rebuild must give again."""

import asyncio

import asyncpg

from tests.faults.site import Site

ROWS_SHOWN_MAX = 5
QUEUED_S_MAX = 400.0
POLL_S = 0.2


async def rows(site: Site) -> dict[str, list[str]]:
    """Every table made from the log, each row as the engine writes it, sorted. The site must be quiet."""
    connection = await asyncpg.connect(site.config.database_url, server_settings={"search_path": "live"})
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'live' ORDER BY 1")
        assert tables
        found = {}
        for (table,) in tables:
            there = await connection.fetch(f"SELECT t::text AS row FROM {table} t")  # noqa: S608
            found[table] = sorted(row["row"] for row in there)
        return found
    finally:
        await connection.close()


async def nothing_is_queued(site: Site) -> None:
    """Returns when the outbox is empty: what could not reach one of several people is tried again after a minute."""
    connection = await asyncpg.connect(site.config.database_url, server_settings={"search_path": "live"})
    try:
        async with asyncio.timeout(QUEUED_S_MAX):
            while await connection.fetchval("SELECT count(*) FROM queued"):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
    finally:
        await connection.close()


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """In words; empty when they are equal."""
    wrong = [f"table {table} is on one side only" for table in before.keys() ^ after.keys()]
    for table in before.keys() & after.keys():
        lost, new = set(before[table]) - set(after[table]), set(after[table]) - set(before[table])
        if before[table] != after[table]:
            shown = [*sorted(lost)[:ROWS_SHOWN_MAX], "=>", *sorted(new)[:ROWS_SHOWN_MAX]]
            wrong.append(f"{table}: {len(lost)} rows gone, {len(new)} new: {shown}")
    return wrong
