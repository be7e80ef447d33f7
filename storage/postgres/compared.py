"""How far this site's tables were found equal to other sites', of late."""

from typing import NamedTuple

from storage.postgres.pool import Database


class Agreement(NamedTuple):
    """`agreed`: up to this position at least; `differs`: the first position that was seen to differ."""

    partition: str
    site: str
    agreed: int
    differs: int | None


async def read_agreements(database: Database) -> list[Agreement]:
    rows = await database.fetch("SELECT partition, site, agreed, differs FROM digest_compared ORDER BY partition, site")
    return [Agreement(*row) for row in rows]


async def note_agreement(database: Database, agreement: Agreement) -> None:
    await database.run(
        "INSERT INTO digest_compared VALUES ($1, $2, $3, $4, now()) ON CONFLICT (partition, site) DO UPDATE "
        "SET agreed = $3, differs = $4, at = now()",
        *agreement,
    )
