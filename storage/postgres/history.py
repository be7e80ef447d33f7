"""Takes a partition's tables back to an earlier position: which entities lie beyond it, and what of them goes.

All of it within the caller's transaction, on the connection of who folds the partition: everybody else reads the tables as
they were until it commits. The rows that are deleted here are folded again by storage/rollback.py.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from storage.postgres.folded import NOTHING_FOLDED, Folded, News
from storage.postgres.pool import CHANNEL, Connection

SEQUENCES_MAX = (1 << 63) - 1
ACCOUNTS_NOTIFIED_MAX = 300  # in one notification: 20 digits each, the engine's limit is 8,000 bytes
OF_PARTITION = ("mail_partition", "salvaged", "salvage_report", "epoch_ended")
DIRECTORY = ("domain", "account", "credential", "alias", "distribution_group")


class TooFarBack(Exception):
    """The tables no longer know how to come there: they must be made anew."""


class Outcomes(NamedTuple):
    """Of events that did not go into the tables; all others did."""

    held: frozenset[int]
    quarantined: frozenset[int]
    repeated: frozenset[int]

    def applied(self, position: int) -> bool:
        return position not in self.held and position not in self.quarantined and position not in self.repeated


class HistoryStore:
    def __init__(self, db: Connection, partition: str) -> None:
        self.db = db
        self.partition = partition

    async def checkpoint(self, upto: int) -> Folded:
        """The last one that is not above `upto`. Raises TooFarBack where that was forgotten."""
        row = await self.db.fetchrow(
            "SELECT position, digest, events, pruned_at FROM digest_at WHERE partition = $1 AND position <= $2 "
            "ORDER BY position DESC LIMIT 1",
            self.partition,
            upto,
        )
        if row is not None:
            return Folded(*row)
        first = await self.db.fetchval(
            "SELECT events FROM digest_at WHERE partition = $1 ORDER BY position LIMIT 1", self.partition
        )
        if first != 1:  # the first event of all has one, while all are kept
            raise TooFarBack(f"nothing is known of {self.partition} at {upto}")
        return NOTHING_FOLDED

    async def first_checkpoint(self) -> int:
        """Position of the oldest that is kept, 0 = there is none."""
        first = await self.db.fetchval("SELECT min(position) FROM digest_at WHERE partition = $1", self.partition)
        return first or 0

    async def checkpoints_after(self, after: int, limit: int) -> list[Folded]:
        rows = await self.db.fetch(
            "SELECT position, digest, events, pruned_at FROM digest_at WHERE partition = $1 AND position > $2 "
            "ORDER BY position LIMIT $3",
            self.partition,
            after,
            limit,
        )
        return [Folded(*row) for row in rows]

    async def checkpoints(self, after: int, upto: int) -> dict[int, bytes]:
        """Position → digest."""
        rows = await self.db.fetch(
            "SELECT position, digest FROM digest_at WHERE partition = $1 AND position > $2 AND position <= $3",
            self.partition,
            after,
            upto,
        )
        return {row["position"]: row["digest"] for row in rows}

    async def outcomes(self, after: int = 0, upto: int = SEQUENCES_MAX) -> Outcomes:
        """Of events above `after` and not above `upto`."""
        put_aside = await self.db.fetch(
            "SELECT position, held FROM quarantine WHERE partition = $1 AND position > $2 AND position <= $3",
            self.partition,
            after,
            upto,
        )
        repeated = await self.db.fetch(
            "SELECT position FROM repeated WHERE partition = $1 AND position > $2 AND position <= $3",
            self.partition,
            after,
            upto,
        )
        return Outcomes(
            frozenset(row["position"] for row in put_aside if row["held"]),
            frozenset(row["position"] for row in put_aside if not row["held"]),
            frozenset(row["position"] for row in repeated),
        )

    async def touched(self, after: int) -> list[tuple[str, str]]:
        """(noun, entity) of every event above `after`."""
        rows = await self.db.fetch(
            "SELECT noun, entity FROM touched WHERE partition = $1 AND position > $2", self.partition, after
        )
        return [(row["noun"], row["entity"]) for row in rows]

    async def accounts(self) -> list[int]:
        """All of the partition that have mailboxes."""
        rows = await self.db.fetch("SELECT account FROM mail_account WHERE partition = $1", self.partition)
        return [row["account"] for row in rows]

    async def forget_beyond(self, end: int) -> list[bytes]:
        """All notes above `end`; the ids of commands that had events there."""
        for table in ("quarantine", "repeated", "digest_at", "touched"):
            await self.db.execute(
                f"DELETE FROM {table} WHERE partition = $1 AND position > $2",  # noqa: S608
                self.partition,
                end,
            )
        rows = await self.db.fetch(
            "DELETE FROM command WHERE partition = $1 AND position > $2 RETURNING id", self.partition, end
        )
        # What was forgotten beyond may itself have been told beyond, and before that too.
        forgotten = await self.db.fetch(
            "WITH known AS (DELETE FROM command_before WHERE partition = $1 AND position > $2 RETURNING *), "
            "again AS (INSERT INTO command SELECT partition, id, events, was_position, at FROM known "
            "WHERE was_position <= $2) SELECT id FROM known WHERE was_position > $2",
            self.partition,
            end,
        )
        return [row["id"] for row in (*rows, *forgotten)]

    async def note_touched(self, last: Mapping[tuple[str, str], int]) -> None:
        await self.db.execute(
            "INSERT INTO touched SELECT $1, t.* FROM unnest($2::text[], $3::text[], $4::bigint[]) t "
            "ON CONFLICT (partition, noun, entity) DO UPDATE SET position = excluded.position",
            self.partition,
            [noun for noun, _ in last],
            [entity for _, entity in last],
            list(last.values()),
        )

    async def drop_mail(self, accounts: Sequence[int]) -> None:
        """Everything that these people have, and what is told of the partition. What describes a content stays: it says
        the same wherever it is named."""
        for table in ("message", "flag", "expunged", "vanished", "mailbox_right", "seen_by"):
            await self.db.execute(
                f"DELETE FROM {table} WHERE mailbox IN (SELECT id FROM mailbox WHERE account = ANY ($1::bigint[]) "  # noqa: S608
                "UNION ALL SELECT id FROM mailbox_deleted WHERE account = ANY ($1::bigint[]))",
                accounts,
            )
        for table in ("mailbox", "mailbox_deleted", "subscription", "annotation", "mail_account"):
            await self.db.execute(
                f"DELETE FROM {table} WHERE account = ANY ($1::bigint[])",  # noqa: S608
                accounts,
            )
        for table in OF_PARTITION:
            await self.db.execute(f"DELETE FROM {table} WHERE partition = $1", self.partition)  # noqa: S608

    async def take_in(self, made: str) -> None:
        """What was folded under the name `made` is this partition's."""
        for table in ("mail_account", *OF_PARTITION):
            await self.db.execute(
                f"UPDATE {table} SET partition = $1 WHERE partition = $2",  # noqa: S608
                self.partition,
                made,
            )

    async def drop_directory(self) -> None:
        for table in DIRECTORY:
            await self.db.execute(f"DELETE FROM {table}")  # noqa: S608

    async def drop_queued_beyond(self, end: int) -> None:
        await self._drop_queued("SELECT queued FROM queued WHERE partition = $1 AND position > $2", self.partition, end)

    async def drop_queued(self, queued: Sequence[int]) -> None:
        await self._drop_queued("SELECT unnest($1::bigint[])", queued)

    async def _drop_queued(self, which: str, *args: object) -> None:
        for table in ("queued_recipient", "queued"):
            await self.db.execute(f"DELETE FROM {table} WHERE queued IN ({which})", *args)  # noqa: S608

    async def drop_nothing(self) -> None:
        """Tables in which nothing is folded do not know the partition."""
        await self.db.execute("DELETE FROM folded WHERE partition = $1 AND events = 0", self.partition)

    async def let_go_beyond(self, end: int) -> None:
        """What this site noted of contents beyond: nobody names them there any more."""
        await self.db.execute("DELETE FROM wanted_blob WHERE partition = $1 AND position > $2", self.partition, end)
        await self.db.execute(
            "UPDATE blobs_kept SET position = least(position, $2) WHERE partition = $1", self.partition, end
        )

    async def tell(self, was: int, position: int, accounts: Collection[int] | None) -> None:
        await told_rolled_back(self.db, self.partition, was, position, accounts)


async def told_rolled_back(
    db: Connection, partition: str, was: int, position: int, accounts: Collection[int] | None
) -> None:
    """Says to everybody, with the commit, that a partition's tables were taken back; who was not listening finds it."""
    times = await db.fetchval(
        "INSERT INTO site.rolled_back AS r VALUES ($1, 1, $2, $3, $4, now()) ON CONFLICT (partition) DO UPDATE "
        "SET times = r.times + 1, was = $2, position = $3, accounts = $4, at = now() RETURNING times",
        partition,
        was,
        position,
        None if accounts is None else sorted(accounts),
    )
    listed: list[list[int] | None] = [None]
    if accounts is not None:
        every = sorted(accounts)
        listed = [every[n : n + ACCOUNTS_NOTIFIED_MAX] for n in range(0, max(1, len(every)), ACCOUNTS_NOTIFIED_MAX)]
    for lost in listed:
        news = msgspec.json.encode(News(partition, position, None, times, was, lost)).decode()
        await db.execute("SELECT pg_notify($1, $2)", CHANNEL, news)


async def times_rolled_back(db: Connection) -> dict[str, int]:
    rows = await db.fetch("SELECT partition, times FROM site.rolled_back")
    return {row["partition"]: row["times"] for row in rows}
