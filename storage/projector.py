"""Folds a partition's log into this site's tables: rows and position in one transaction.

One projector a partition at a site, held by an advisory lock; the others follow its notifications. The tables can always
be made again, so the transaction does not wait for the disk (synchronous_commit=off); the position goes back with its rows.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import structlog

from cluster import codec
from cluster.domain.mailbox.events import EpochStarted, TailDestroyed
from cluster.log.model import BATCH_MESSAGES_MAX, Record
from cluster.position import shown
from storage.postgres.directory_fold import DirectoryFold
from storage.postgres.folded import WHOLE, Folded, FoldedStore, Notes
from storage.postgres.mail_fold import MailFold, Unappliable
from storage.postgres.outbox_fold import OutboxFold
from storage.postgres.pool import DETERMINISTIC, Connection

COMMANDS_KEPT_S = 48 * 3600
PRUNE_EVERY_S = 3600
CHECKPOINT_POSITIONS = 256
# Kinds of error that are this release's own, not the database's: the entity waits, the others go on.
OURS = (ArithmeticError, LookupError, TypeError, ValueError, AssertionError, AttributeError)
APPLIED, REPEATED, QUARANTINED, HELD = b"a", b"r", b"q", b"h"

Read = tuple[codec.Envelope | None, Any]  # the event, or why it is none

log = structlog.get_logger("projector")


class TablesWentBack(Exception):
    """The tables stand before where this fold left them: whoever feeds it must begin anew from where they stand."""


class WaitsForRelease(Exception):
    """The next event is of a later release than this."""

    def __init__(self, partition: str, position: int, event: str) -> None:
        super().__init__(f"{partition} waits at {shown(position)} for a newer release: event {event}")
        self.position = position
        self.event = event


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
        self._tables = 0  # which ones these are: a rebuild puts others in their place

    async def start(self) -> Folded:
        """Where the tables stand."""
        async with self.db.transaction():
            self._tables, _ = await self.store.begin()
            self.folded = await self.store.load()
        self.mail.forget()
        return self.folded

    async def standing(self) -> Folded:
        """Where the tables stand, as the first thing in a transaction. What is in memory of them holds only while they
        are the same tables: after a rebuild it is read anew. Raises TablesWentBack."""
        assert self.folded is not None
        tables, position = await self.store.begin()
        if (tables, position) != (self._tables, self.folded.position):
            log.info("the tables were exchanged", partition=self.partition, position=position)
            if position < self.folded.position:
                raise TablesWentBack(f"{self.partition} stands at {position}, not at {self.folded.position}")
            self.mail.forget()
            self.folded = await self.store.load()
            self._tables = tables
        return self.folded

    async def batch(self, records: Sequence[Record], *, notify: bool = True) -> None:
        """Folds events, in order, in one transaction; all or none. Raises what the database raises; WaitsForRelease
        at an event that this release does not know, when those before it are folded."""
        assert self.folded is not None
        read = [decoded(record) for record in records]
        for n, (record, (_, event)) in enumerate(zip(records, read, strict=True)):
            if isinstance(event, codec.Newer) and record.position > self.folded.position:
                await self._batch(records[:n], read[:n], notify)
                raise WaitsForRelease(self.partition, record.position, event.event)
        await self._batch(records, read, notify)

    async def _batch(self, records: Sequence[Record], read: Sequence[Read], notify: bool) -> None:
        if not records:
            return
        notes = Notes()
        try:
            async with self.db.transaction():
                after = await self._fold(await self.standing(), records, read, notes)
                await self.mail.finish(self.db)
                await self.store.save(after, self.mail.touched if notify else None, notes)
        except BaseException:
            self.mail.forget()
            raise
        self.mail.touched = {}
        self.folded = after

    async def _fold(self, folded: Folded, records: Sequence[Record], read: Sequence[Read], notes: Notes) -> Folded:
        seen = await self.store.commands([envelope.id for envelope, _ in read if envelope is not None])
        for record, (envelope, event) in zip(records, read, strict=True):
            if record.position <= folded.position:
                continue
            outcome = await self._one(record, envelope, event, seen, notes)
            folded = await self._counted(folded, record, outcome, envelope, seen, notes)
        await self.store.save_commands(seen)
        return folded

    async def _counted(
        self, folded: Folded, record: Record, outcome: bytes, envelope: codec.Envelope | None,
        seen: dict[bytes, list[int]], notes: Notes,
    ) -> Folded:  # fmt: skip
        after = advanced(folded, record, outcome)
        if envelope is not None:
            after = await self._prune(after, envelope.at // 1_000_000, seen, notes)
        notes.touched[record.noun, record.entity.replace("\0", "")] = record.position
        if outcome == REPEATED:
            notes.repeated.append(record.position)
        if is_checkpoint(folded.position, record.position):
            notes.checkpoints.append(after)
        return after

    async def _one(
        self, record: Record, envelope: codec.Envelope | None, event: Any, seen: dict[bytes, list[int]], notes: Notes
    ) -> bytes:
        if envelope is None:
            await self._quarantine(record, str(event), held=False)
            return QUARANTINED
        command = seen.setdefault(envelope.id, [0, 0, 0])
        if envelope.n < command[0]:
            return REPEATED
        _told(record, envelope, command, notes)
        if await self.store.is_held(record.noun, record.entity):
            await self._quarantine(record, "the entity is held since an earlier event", held=True)
            return HELD
        outcome = await self._apply(record, envelope, event)
        if outcome == APPLIED and is_of_all(event):
            notes.touched[WHOLE] = record.position
        return outcome

    async def _apply(self, record: Record, envelope: codec.Envelope, event: Any) -> bytes:
        at = envelope.at // 1_000_000
        try:
            match envelope.noun:
                case "mailbox":
                    await self.mail.apply(self.db, record.entity, event, record.position, at)
                    if isinstance(event, EpochStarted):
                        await self.store.ended(event.ended)
                case "directory":
                    await self.directory.apply(self.db, event, record.position)
                case "outbox":
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

    async def _prune(self, folded: Folded, at: int, seen: dict[bytes, list[int]], notes: Notes) -> Folded:
        """By the events' own time, so that every site forgets the same commands at the same position, however the events
        were cut into batches: what this batch has not written yet is forgotten too."""
        pruned_at = prunes_at(folded.pruned_at, at)
        if pruned_at == folded.pruned_at:
            return folded
        before = at - COMMANDS_KEPT_S
        gone = {id: told for id, told in seen.items() if told[2] < before}
        for id, (events, position, told_at) in gone.items():
            notes.forgotten.append((folded.position, id, events, position, told_at))
            del seen[id]
        await self.store.prune_commands(before, folded.position, [*seen, *gone])
        await self.store.drop_commands(list(gone))
        return Folded(folded.position, folded.digest, folded.events, pruned_at)

    async def batch_around_faults(self, records: Sequence[Record], *, notify: bool = True) -> None:
        """After `batch` failed for a cause that the event itself may carry: one by one, so that the bad one stops nobody
        else. What fails for bad data is quarantined; what fails for another cause holds its entity until a mended release
        rebuilds."""
        for record in records:
            try:
                await self.batch([record], notify=notify)
            except Exception as error:
                if not isinstance(error, (*DETERMINISTIC, *OURS)):
                    raise
                held = not isinstance(error, DETERMINISTIC)
                log.exception("event could not be folded", partition=self.partition, position=record.position)
                await self.set_aside(record, f"{type(error).__name__}: {error}", held=held, notify=notify)

    async def set_aside(self, record: Record, reason: str, *, held: bool, notify: bool = True) -> None:
        notes = Notes()
        async with self.db.transaction():
            before = await self.standing()
            if record.position <= before.position:
                return
            seen: dict[bytes, list[int]] = {}
            envelope, _ = decoded(record)
            if envelope is not None:
                # Its command counts as folded, as with any event that was put aside: a repeat changes nothing.
                seen = await self.store.commands([envelope.id])
                _told(record, envelope, seen.setdefault(envelope.id, [0, 0, 0]), notes)
            after = await self._counted(before, record, HELD if held else QUARANTINED, envelope, seen, notes)
            await self.store.save_commands(seen)
            await self.store.quarantine(record, reason, held)
            await self.store.save(after, {} if notify else None, notes)
        self.folded = after


def advanced(folded: Folded, record: Record, outcome: bytes) -> Folded:
    digest = hashlib.blake2b(folded.digest, digest_size=32)
    digest.update(record.position.to_bytes(8, "big") + record.payload + outcome)
    return Folded(record.position, digest.digest(), folded.events + 1, folded.pruned_at)


def is_checkpoint(before: int, position: int) -> bool:
    """Whether the digest after the event at `position` is kept, `before` being that of the event before it: for the first
    event in every block of positions, so that it does not hang on where content lies between events."""
    return before // CHECKPOINT_POSITIONS != position // CHECKPOINT_POSITIONS


def is_of_all(event: Any) -> bool:
    """Whether it changes mailboxes of every account of the partition."""
    return isinstance(event, TailDestroyed) or isinstance(event, EpochStarted) and any(gap for _, _, gap in event.ended)


def prunes_at(pruned_at: int, at: int) -> int:
    """When commands were last forgotten, after an event of `at` (unix seconds)."""
    return pruned_at if at < pruned_at + PRUNE_EVERY_S else at


def _told(record: Record, envelope: codec.Envelope, command: list[int], notes: Notes) -> None:
    """The command was folded up to this event."""
    events, position, at = command
    if position and record.position - position > BATCH_MESSAGES_MAX:
        # Nearer ones are found in the log itself when the tables are taken back.
        notes.forgotten.append((record.position, envelope.id, events, position, at))
    command[:] = [envelope.n + 1, record.position, envelope.at // 1_000_000]


def decoded(record: Record) -> Read:
    try:
        envelope, event = codec.decode(record.payload)
        if not 0 <= envelope.n < BATCH_MESSAGES_MAX:
            raise codec.Undecodable(f"no command has an event number {envelope.n}")
        return envelope, event
    except codec.Undecodable as error:
        return None, error
