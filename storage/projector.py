"""Folds a partition's log into this site's tables: rows and position in one transaction.

One projector a partition at a site, held by an advisory lock; the others follow its notifications. The tables can always
be made again, so the transaction does not wait for the disk (synchronous_commit=off); the position goes back with its rows.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import structlog

from cluster import codec
from cluster.log.model import Record
from storage.postgres.directory_fold import DirectoryFold
from storage.postgres.folded import Folded, FoldedStore
from storage.postgres.mail_fold import MailFold, Unappliable
from storage.postgres.outbox_fold import OutboxFold
from storage.postgres.pool import DETERMINISTIC, Connection

COMMANDS_KEPT_S = 48 * 3600
PRUNE_EVERY_S = 3600
# Kinds of error that are this release's own, not the database's: the entity waits, the others go on.
OURS = (ArithmeticError, LookupError, TypeError, ValueError, AssertionError, AttributeError)
APPLIED, REPEATED, QUARANTINED, HELD = b"a", b"r", b"q", b"h"

log = structlog.get_logger("projector")


class Fold:
    """One partition's fold over one connection. Used by the living projector and by a rebuild alike."""

    def __init__(self, db: Connection, partition: str) -> None:
        self.db = db
        self.partition = partition
        self.mail = MailFold(partition)
        self.directory = DirectoryFold(partition)
        self.outbox = OutboxFold(partition)
        self.store = FoldedStore(db, partition)
        self.folded: Folded | None = None

    async def start(self) -> Folded:
        """Where the tables stand."""
        self.folded = await self.store.load()
        self.mail.forget()
        return self.folded

    async def batch(self, records: Sequence[Record], *, notify: bool = True) -> None:
        """Folds events, in order, in one transaction; all or none. Raises what the database raises."""
        assert self.folded is not None
        before = self.folded
        try:
            async with self.db.transaction():
                await self.db.execute("SET LOCAL synchronous_commit = off")
                after = await self._fold(before, records)
                await self.mail.finish(self.db)
                await self.store.save(after)
                if notify:
                    await self.store.tell(after, self.mail.touched)
        except BaseException:
            self.mail.forget()
            raise
        self.mail.touched = {}
        self.folded = after

    async def _fold(self, folded: Folded, records: Sequence[Record]) -> Folded:
        decoded = [_decoded(record) for record in records]
        seen = await self.store.commands([envelope.id for envelope, _ in decoded if envelope is not None])
        for record, (envelope, event) in zip(records, decoded, strict=True):
            if record.position <= folded.position:
                continue
            outcome = await self._one(record, envelope, event, seen)
            folded = _advanced(folded, record, outcome)
            if envelope is not None:
                folded = await self._prune(folded, envelope.at // 1_000_000)
        await self.store.save_commands(seen)
        return folded

    async def _one(
        self, record: Record, envelope: codec.Envelope | None, event: Any, seen: dict[bytes, list[int]]
    ) -> bytes:
        if envelope is None:
            await self._quarantine(record, str(event), held=False)
            return QUARANTINED
        command = seen.setdefault(envelope.id, [0, 0, 0])
        if envelope.n < command[0]:
            return REPEATED
        command[:] = [envelope.n + 1, record.position, envelope.at // 1_000_000]
        if await self.store.is_held(record.noun, record.entity):
            await self._quarantine(record, "the entity is held since an earlier event", held=True)
            return HELD
        return await self._apply(record, envelope, event)

    async def _apply(self, record: Record, envelope: codec.Envelope, event: Any) -> bytes:
        at = envelope.at // 1_000_000
        try:
            match envelope.noun:
                case "mailbox":
                    await self.mail.apply(self.db, record.entity, event, record.position, at)
                case "directory":
                    async with self.db.transaction():
                        await self.directory.apply(self.db, event, record.position)
                case "outbox":
                    async with self.db.transaction():
                        await self.outbox.apply(self.db, event, record.position, at)
        except Unappliable as error:
            await self._quarantine(record, str(error), held=False)
            return QUARANTINED
        return APPLIED

    async def _quarantine(self, record: Record, reason: str, *, held: bool) -> None:
        log.error(
            "event quarantined",
            partition=self.partition,
            position=record.position,
            entity=record.entity,
            reason=reason,
            held=held,
        )
        await self.store.quarantine(record, reason, held)

    async def _prune(self, folded: Folded, at: int) -> Folded:
        """By the events' own time, so that every site forgets the same commands at the same position."""
        if at < folded.pruned_at + PRUNE_EVERY_S:
            return folded
        await self.store.prune_commands(at - COMMANDS_KEPT_S)
        return Folded(folded.position, folded.digest, folded.events, at)

    async def batch_around_faults(self, records: Sequence[Record]) -> None:
        """After `batch` failed for a cause that the event itself may carry: one by one, so that the bad one stops nobody
        else. What fails for bad data is quarantined; what fails for another cause holds its entity until a mended release
        rebuilds."""
        for record in records:
            assert self.folded is not None
            try:
                await self.batch([record])
            except Exception as error:
                if not isinstance(error, (*DETERMINISTIC, *OURS)):
                    raise
                held = not isinstance(error, DETERMINISTIC)
                log.exception("event could not be folded", partition=self.partition, position=record.position)
                await self._set_aside(record, f"{type(error).__name__}: {error}", held)

    async def _set_aside(self, record: Record, reason: str, held: bool) -> None:
        assert self.folded is not None
        after = _advanced(self.folded, record, HELD if held else QUARANTINED)
        async with self.db.transaction():
            await self.store.quarantine(record, reason, held)
            await self.store.save(after)
            await self.store.tell(after, {})
        self.folded = after


def _advanced(folded: Folded, record: Record, outcome: bytes) -> Folded:
    digest = hashlib.blake2b(folded.digest, digest_size=32)
    digest.update(record.position.to_bytes(8, "big") + record.payload + outcome)
    return Folded(record.position, digest.digest(), folded.events + 1, folded.pruned_at)


def _decoded(record: Record) -> tuple[codec.Envelope | None, Any]:
    try:
        return codec.decode(record.payload)
    except codec.Undecodable as error:
        return None, error
