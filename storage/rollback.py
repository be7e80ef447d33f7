"""Takes a partition's tables back to an end of history, as if they had never seen what lies beyond.

Every entity that had an event there is made anew from its own events up to the end; everybody else's rows stay as they
are. All in one transaction: others read the tables as they were, then as they are. The digest is reckoned on from the last
checkpoint before the end, for the outcome of every event is known.
"""

import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import AsyncExitStack, aclosing
from typing import Any, Protocol

import structlog

from cluster.domain.mailbox.events import PARTITION_ENTITY, EpochStarted
from cluster.domain.outbox.events import MessageQueued
from cluster.log.model import BATCH_MESSAGES_MAX, Log, Record
from cluster.position import shown
from storage.postgres.folded import WHOLE, Folded, FoldedStore, Notes
from storage.postgres.history import HistoryStore, Outcomes, TooFarBack
from storage.postgres.mail_fold import MailFold, Unappliable
from storage.postgres.pool import DETERMINISTIC, Connection
from storage.projector import (
    APPLIED,
    COMMANDS_KEPT_S,
    HELD,
    OURS,
    QUARANTINED,
    REPEATED,
    Fold,
    advanced,
    decoded,
    is_of_all,
    prunes_at,
)

ENTITIES_READ_APART_MAX = 32  # more are picked out of all events of their noun
FLUSH_EVENTS = 2_000

log = structlog.get_logger("rollback")


class Past(Protocol):
    """The log, as far as it is needed to make tables from it: cluster.log.jetstream, cluster.log.memory."""

    def read(
        self, partition: str, after: int, upto: int, *, contents: bool = False
    ) -> AsyncIterator[tuple[Record, ...]]: ...

    def read_of(
        self, partition: str, upto: int, noun: str, entity: str | None = None
    ) -> AsyncIterator[tuple[Record, ...]]: ...


class History(Past, Log, Protocol):
    """What a follower needs."""


async def roll_back(fold: Fold, source: Past, end: int) -> None:
    """`fold` stands at the end of history afterwards. Raises TooFarBack, what the log and the database raise; then nothing
    has changed."""
    try:
        async with fold.db.transaction():
            was = await fold.standing()
            if was.position > end:
                await _RollBack(fold, source, end).run(was)
    except (Unappliable, *DETERMINISTIC, *OURS) as error:
        raise TooFarBack(f"what was folded once cannot be again: {type(error).__name__}: {error}") from error
    finally:
        fold.mail.forget()
    await fold.start()


class _RollBack:
    def __init__(self, fold: Fold, source: Past, end: int) -> None:
        self.fold = fold
        self.db = fold.db
        self.source = source
        self.end = end
        self.store = HistoryStore(fold.db, fold.partition)
        self.last: dict[tuple[str, str], int] = {}  # entity → its last event in history

    async def run(self, was: Folded) -> None:
        outcomes = await self.store.outcomes()
        folded, commands = await self._counted(outcomes)
        touched = await self.store.touched(self.end)
        ids = await self.store.forget_beyond(self.end)
        await self.fold.store.save_commands({id: commands[id] for id in ids if id in commands})
        accounts = await self._anew(touched, outcomes)
        await self.store.note_touched({one: at for one, at in self.last.items() if one in set(touched)})
        await self.fold.store.save(folded, None, Notes())
        await self.store.drop_nothing()
        await self.store.let_go_beyond(self.end)
        await self.store.tell(was.position, folded.position, accounts)
        log.warning(
            "rolled back",
            partition=self.fold.partition,
            was=shown(was.position),
            to=shown(folded.position),
            accounts=len(accounts),
        )

    async def _counted(self, outcomes: Outcomes) -> tuple[Folded, dict[bytes, list[int]]]:
        """Digest and count at the end; and what the last events before it say of their commands."""
        folded = await self.store.checkpoint(max(0, self.end - BATCH_MESSAGES_MAX))
        known = await self.store.checkpoints(folded.position, self.end)
        commands: dict[bytes, list[int]] = {}
        async for records in self.source.read(self.fold.partition, folded.position, self.end):
            for record in records:
                outcome = outcome_of(outcomes, record.position)
                folded = advanced(folded, record, outcome)
                envelope, _ = decoded(record)
                if envelope is not None:
                    at = envelope.at // 1_000_000
                    if outcome != REPEATED:
                        commands[envelope.id] = [envelope.n + 1, record.position, at]
                    if (pruned_at := prunes_at(folded.pruned_at, at)) != folded.pruned_at:
                        folded = Folded(folded.position, folded.digest, folded.events, pruned_at)
                        commands = {id: told for id, told in commands.items() if told[2] >= at - COMMANDS_KEPT_S}
                if known.get(record.position, folded.digest) != folded.digest:
                    raise TooFarBack(f"the tables are not what the log says at {shown(record.position)}")
        return folded, commands

    async def _anew(self, touched: Collection[tuple[str, str]], outcomes: Outcomes) -> Collection[int]:
        """Makes the entities anew; the accounts among them."""
        accounts: Collection[int] = ()
        for noun in sorted({noun or "mailbox" for noun, _ in touched}):
            entities = {entity for of, entity in touched if of == noun}
            match noun:
                case "mailbox":
                    accounts = await self._mail(entities, outcomes, whole=WHOLE in touched)
                case "directory":
                    await self._directory(outcomes)
                case "outbox":
                    await self._outbox(entities, outcomes)
                case _:
                    async for record in self._events(noun, entities):
                        self._met(record)
        return accounts

    async def _mail(self, entities: set[str], outcomes: Outcomes, *, whole: bool) -> Collection[int]:
        """Under a name that is no partition's, so that what is of the whole partition changes these accounts alone."""
        accounts = {int(entity) for entity in entities if entity.isascii() and entity.isdigit()} - {
            int(PARTITION_ENTITY)
        }
        if whole:
            accounts |= set(await self.store.accounts())
        await self.store.drop_mail(sorted(accounts))
        apart = f"{self.fold.partition}/anew"
        mail, told, count = MailFold(apart), FoldedStore(self.db, apart), 0
        wanted = {*entities, *map(str, accounts), PARTITION_ENTITY}
        async for record in self._events("mailbox", wanted):
            self._met(record)
            if not outcomes.applied(record.position):
                continue
            at, event = _event(record)
            await mail.apply(self.db, record.entity, event, record.position, at)
            if isinstance(event, EpochStarted):
                await told.ended(event.ended)
            if is_of_all(event):
                self.last[WHOLE] = record.position
            count += 1
            if count % FLUSH_EVENTS == 0:
                await mail.finish(self.db)
        await mail.finish(self.db)
        await self.store.take_in(apart)
        return accounts

    async def _directory(self, outcomes: Outcomes) -> None:
        """Whole, for addresses of one entry decide what became of another."""
        await self.store.drop_directory()
        async for record in self._events("directory", None):
            self._met(record)
            if outcomes.applied(record.position):
                await self.fold.directory.apply(self.db, _event(record)[1], record.position)

    async def _outbox(self, entities: set[str], outcomes: Outcomes) -> None:
        await self.store.drop_queued_beyond(self.end)
        async for record in self._events("outbox", entities):
            self._met(record)
            if not outcomes.applied(record.position):
                continue
            at, event = _event(record)
            if isinstance(event, MessageQueued):
                await self.store.drop_queued([event.queued])
            await self.fold.outbox.apply(self.db, event, record.position, at)

    def _met(self, record: Record) -> None:
        self.last[record.noun, record.entity] = record.position

    async def _events(self, noun: str, entities: set[str] | None) -> AsyncIterator[Record]:
        """Of these entities (None = all), up to the end, in order."""
        partition = self.fold.partition
        if entities is None or len(entities) > ENTITIES_READ_APART_MAX:
            async for records in self.source.read_of(partition, self.end, noun):
                for record in records:
                    if entities is None or record.entity in entities:
                        yield record
            return
        async for record in merged([self.source.read_of(partition, self.end, noun, each) for each in sorted(entities)]):
            yield record


async def merged(sources: Collection[AsyncIterator[tuple[Record, ...]]]) -> AsyncIterator[Record]:
    """Records of several streams, each in order, as one in order."""
    async with AsyncExitStack() as stack:
        heads: list[tuple[int, int, Record, AsyncGenerator[Record, None]]] = []
        for number, source in enumerate(sources):
            each = _each(source)
            await stack.enter_async_context(aclosing(each))
            if (first := await anext(each, None)) is not None:
                heads.append((first.position, number, first, each))
        heapq.heapify(heads)
        while heads:
            _, number, record, each = heads[0]
            yield record
            if (following := await anext(each, None)) is not None:
                heapq.heapreplace(heads, (following.position, number, following, each))
            else:
                heapq.heappop(heads)


async def _each(source: AsyncIterator[tuple[Record, ...]]) -> AsyncGenerator[Record, None]:
    async for records in source:
        for record in records:
            yield record


async def reckoned(db: Connection, source: Past, partition: str, upto: int) -> Folded:
    """Digest and count of the living tables as they were at `upto`. Raises TooFarBack."""
    store = HistoryStore(db, partition)
    folded = await store.checkpoint(upto)
    outcomes = await store.outcomes(folded.position, upto)
    async for records in source.read(partition, folded.position, upto):
        for record in records:
            folded = advanced(folded, record, outcome_of(outcomes, record.position))
    return folded


def outcome_of(outcomes: Outcomes, position: int) -> bytes:
    if position in outcomes.held:
        return HELD
    if position in outcomes.quarantined:
        return QUARANTINED
    return REPEATED if position in outcomes.repeated else APPLIED


def _event(record: Record) -> tuple[int, Any]:
    """(unix seconds, event) of what was folded once. Raises Unappliable."""
    envelope, event = decoded(record)
    if envelope is None:
        raise Unappliable(str(event))
    return envelope.at // 1_000_000, event
