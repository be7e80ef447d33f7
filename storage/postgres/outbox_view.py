"""Reads the noun outbox from the tables."""

from collections.abc import Sequence
from typing import Any

from cluster.domain.mailbox.content import Content
from cluster.domain.outbox.events import Attempt
from cluster.domain.outbox.state import DEFERRED, Pending, Queued
from storage.postgres.mail_view import segments_of
from storage.postgres.pool import Connection, Database

MESSAGE = """
SELECT q.queued, q.sender, q.content, q.position, q.account, q.body_8bit, q.smtputf8, q.attempts, q.next_at, q.handed,
    q.queued_at, c.size, c.segments, c.description, c.sent
FROM queued q JOIN content c ON c.hash = q.content
"""


class OutboxView:
    def __init__(self, database: Database) -> None:
        self.database = database

    async def message(self, queued: int) -> Queued | None:
        async with self.database.connection() as db:
            return await load(db, queued)

    async def partition_of(self, queued: int) -> str | None:
        row = await self.database.row("SELECT partition FROM queued WHERE queued = $1", queued)
        return None if row is None else row["partition"]

    async def due(self, partitions: Sequence[str], now: int, limit: int) -> list[tuple[Queued, int]]:
        """Of those queues: messages whose next try is not after `now`, oldest first, each with when it was queued (unix seconds)."""
        async with self.database.connection() as db:
            rows = await db.fetch(
                f"{MESSAGE} WHERE q.partition = ANY ($1::text[]) AND q.next_at <= $2 ORDER BY q.next_at, q.position LIMIT $3",
                list(partitions),
                now,
                limit,
            )
            return [(await _message(db, row), row["queued_at"]) for row in rows]

    async def waiting(self, partitions: Sequence[str], text: str, limit: int) -> list[tuple[Queued, int]]:
        """Of those queues, as `due` gives them: messages with a recipient of whom the last attempt said so, oldest first."""
        async with self.database.connection() as db:
            rows = await db.fetch(
                f"{MESSAGE} WHERE q.partition = ANY ($1::text[]) AND EXISTS (SELECT FROM queued_recipient r "
                "WHERE r.queued = q.queued AND r.attempts > 0 AND r.code = 0 AND r.text = $2) ORDER BY q.position LIMIT $3",
                list(partitions),
                text,
                limit,
            )
            return [(await _message(db, row), row["queued_at"]) for row in rows]

    async def counts(self) -> dict[str, tuple[int, int]]:
        """Of each partition that has some: messages, and when the oldest was taken in (unix seconds)."""
        rows = await self.database.fetch(
            "SELECT partition, count(*) AS messages, min(queued_at) AS oldest FROM queued GROUP BY partition"
        )
        return {row["partition"]: (row["messages"], row["oldest"]) for row in rows}

    async def next_at(self, partition: str) -> int | None:
        """When the next try is due (unix seconds; 0 = at once); None = nothing is queued."""
        row = await self.database.row("SELECT min(next_at) FROM queued WHERE partition = $1", partition)
        return None if row is None else row[0]


async def load(db: Connection, queued: int) -> Queued | None:
    row = await db.fetchrow(f"{MESSAGE} WHERE q.queued = $1", queued)
    return None if row is None else await _message(db, row)


async def _message(db: Connection, row: Any) -> Queued:
    recipients = await db.fetch(
        "SELECT recipient, attempts, code, text FROM queued_recipient WHERE queued = $1 ORDER BY n", row["queued"]
    )
    pending = tuple(
        Pending(
            r["recipient"],
            r["attempts"],
            Attempt(r["recipient"], DEFERRED, r["code"], r["text"]) if r["attempts"] else None,
        )
        for r in recipients
    )
    segments = segments_of(row["segments"])
    content = Content(row["content"], row["size"], segments, row["description"], row["sent"])
    return Queued(
        row["queued"], row["sender"], content, row["position"], pending, row["account"], row["body_8bit"], row["smtputf8"],
        row["attempts"], row["next_at"], row["handed"],
    )  # fmt: skip
