"""What the tables know of lost tails: how far each is salvaged."""

from storage.postgres.pool import Database


async def salvaged(database: Database, partition: str) -> dict[int, int]:
    """Epoch → sequence up to which its tail is salvaged."""
    rows = await database.fetch("SELECT epoch, upto FROM salvaged WHERE partition = $1", partition)
    return {row["epoch"]: row["upto"] for row in rows}
