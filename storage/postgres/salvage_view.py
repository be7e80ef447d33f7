"""Reads what became of tails that were lost."""

from typing import NamedTuple

from storage.postgres.pool import Database

REPORTS_SHOWN_MAX = 1_000


class ReportRow(NamedTuple):
    """What of a tail could not be decided again. `position`: in the tail; with the partition it names the report.
    `reported`: position of the report; `at`: unix seconds of it. `event`: the envelope as it was, empty if it was large.
    `state`: open, applied, dismissed."""

    partition: str
    position: int
    reported: int
    noun: str
    entity: str
    what: str
    why: str
    event: bytes
    at: int
    state: str


class SalvageView:
    def __init__(self, database: Database) -> None:
        self.database = database

    async def salvaged(self, partition: str) -> dict[int, int]:
        """Epoch → sequence up to which its tail is salvaged."""
        rows = await self.database.fetch("SELECT epoch, upto FROM salvaged WHERE partition = $1", partition)
        return {row["epoch"]: row["upto"] for row in rows}

    async def addresses(self, accounts: list[int]) -> dict[int, str]:
        """Of those that are still there."""
        rows = await self.database.fetch("SELECT id, address FROM account WHERE id = ANY ($1::bigint[])", accounts)
        return {row["id"]: row["address"] for row in rows}

    async def reports(self, *, only_open: bool = True) -> list[ReportRow]:
        """In the order of the tails, REPORTS_SHOWN_MAX at most."""
        rows = await self.database.fetch(
            "SELECT partition, position, reported, noun, entity, what, why, event, at, state FROM salvage_report "
            "WHERE state = 'open' OR NOT $1 ORDER BY partition, position LIMIT $2",
            only_open,
            REPORTS_SHOWN_MAX,
        )
        return [ReportRow(*row) for row in rows]

    async def report(self, partition: str, position: int) -> ReportRow | None:
        row = await self.database.row(
            "SELECT partition, position, reported, noun, entity, what, why, event, at, state FROM salvage_report "
            "WHERE partition = $1 AND position = $2",
            partition,
            position,
        )
        return ReportRow(*row) if row is not None else None
