"""Writes the noun outbox into the tables."""

import msgspec

from cluster.domain.outbox import events as e
from cluster.domain.outbox.state import attempted
from storage.postgres.mail_fold import Unappliable
from storage.postgres.outbox_view import load
from storage.postgres.pool import Connection


class OutboxFold:
    def __init__(self, partition: str) -> None:
        self.partition = partition

    async def apply(self, db: Connection, event: e.AnyEvent, position: int, at: int) -> None:
        """Raises Unappliable, having written nothing of the event. `at`: unix seconds of the event."""
        match event:
            case e.MessageQueued():
                await self._queued(db, event, position, at)
            case e.DeliveryAttempted():
                await self._attempted(db, event)

    async def _queued(self, db: Connection, event: e.MessageQueued, position: int, at: int) -> None:
        content = event.content
        if await db.fetchval("SELECT 1 FROM queued WHERE queued = $1", event.queued) is not None:
            raise Unappliable(f"message {event.queued:x} is queued already")
        if not event.recipients:
            return
        await db.execute(
            "INSERT INTO content (hash, size, sent, segments, description) VALUES ($1, $2, $3, $4, $5) "
            "ON CONFLICT DO NOTHING",
            content.hash,
            content.size,
            content.sent,
            msgspec.msgpack.encode(content.segments),
            content.description,
        )
        await db.execute(
            "INSERT INTO queued (queued, partition, position, sender, account, content, body_8bit, smtputf8, queued_at, "
            "next_at, attempts, handed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, $10)",
            event.queued,
            self.partition,
            position,
            event.sender,
            event.account,
            content.hash,
            event.body_8bit,
            event.smtputf8,
            event.taken_at or at,
            event.handed,
        )
        await db.execute(
            "INSERT INTO queued_recipient SELECT $1, n, recipient, 0, 0, '' "
            "FROM unnest($2::text[]) WITH ORDINALITY r(recipient, n)",
            event.queued,
            list(dict.fromkeys(event.recipients)),
        )

    async def _attempted(self, db: Connection, event: e.DeliveryAttempted) -> None:
        message = await load(db, event.queued)
        if message is None:
            return
        after = attempted(message, event)
        await db.execute("DELETE FROM queued_recipient WHERE queued = $1", event.queued)
        if not after.pending:
            await db.execute("DELETE FROM queued WHERE queued = $1", event.queued)
            return
        await db.execute(
            "UPDATE queued SET attempts = $2, next_at = $3 WHERE queued = $1",
            event.queued,
            after.attempts,
            after.next_at,
        )
        await db.executemany(
            "INSERT INTO queued_recipient VALUES ($1, $2, $3, $4, $5, $6)",
            [
                (
                    event.queued,
                    n,
                    one.recipient,
                    one.attempts,
                    one.last.code if one.last else 0,
                    one.last.text if one.last else "",
                )
                for n, one in enumerate(after.pending, 1)
            ],
        )
