"""Writes the noun outbox into the tables."""

import msgspec

from cluster.domain.outbox import events as e
from storage.postgres.pool import Connection

PENDING_OUTCOMES = ("deferred",)


class OutboxFold:
    def __init__(self, partition: str) -> None:
        self.partition = partition

    async def apply(self, db: Connection, event: e.AnyEvent, at: int) -> None:
        """`at`: unix seconds of the event."""
        match event:
            case e.MessageQueued():
                await self._queued(db, event, at)
            case e.DeliveryAttempted():
                await self._attempted(db, event)

    async def _queued(self, db: Connection, event: e.MessageQueued, at: int) -> None:
        content = event.content
        await db.execute(
            "INSERT INTO content (hash, size, sent, segments, description) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            content.hash,
            content.size,
            content.sent,
            msgspec.msgpack.encode(content.segments),
            content.description,
        )
        await db.execute(
            "INSERT INTO queued (queued, partition, sender, account, content, body_8bit, smtputf8, queued_at, next_at) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
            event.queued,
            self.partition,
            event.sender,
            event.account,
            content.hash,
            event.body_8bit,
            event.smtputf8,
            at,
        )
        await db.execute(
            "INSERT INTO queued_recipient (queued, recipient) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING",
            event.queued,
            list(event.recipients),
        )

    async def _attempted(self, db: Connection, event: e.DeliveryAttempted) -> None:
        done = [a.recipient for a in event.attempts if a.outcome not in PENDING_OUTCOMES]
        await db.execute(
            "DELETE FROM queued_recipient WHERE queued = $1 AND recipient = ANY ($2::text[])", event.queued, done
        )
        for attempt in event.attempts:
            if attempt.outcome in PENDING_OUTCOMES:
                await db.execute(
                    "UPDATE queued_recipient SET code = $3, text = $4 WHERE queued = $1 AND recipient = $2",
                    event.queued,
                    attempt.recipient,
                    attempt.code,
                    attempt.text,
                )
        await db.execute(
            "UPDATE queued SET attempts = attempts + 1, next_at = greatest($2, next_at) WHERE queued = $1",
            event.queued,
            event.next_at,
        )
        await db.execute(
            "DELETE FROM queued q WHERE queued = $1 AND NOT EXISTS (SELECT 1 FROM queued_recipient r WHERE r.queued = q.queued)",
            event.queued,
        )
