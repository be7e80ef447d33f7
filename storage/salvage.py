"""Brings into history what a lost tail holds: every command of it is decided again, under its own id, or reported.

Runs wherever a tail lies, at any site, any number of times: what was done is in history, and so is how far it came
(TailSalvaged, in one append with what was decided again). State comes from the log alone, never from tables, so it does
not matter where those stand. What it touched is reaffirmed, for clients may have been shown it: ops/decisions/salvage.md.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import structlog

from cluster import codec
from cluster.domain.actor import SYSTEM, Actor
from cluster.domain.decision import Decision
from cluster.domain.directory import salvage as directory
from cluster.domain.mailbox import salvage as mailbox
from cluster.domain.mailbox.events import (
    PARTITION_ENTITY,
    MessageAppended,
    MessagesExpunged,
    SalvageReported,
    TailSalvaged,
    messages_key,
)
from cluster.domain.mailbox.line import Thing
from cluster.domain.mailbox.names import FILED
from cluster.domain.mailbox.salvage import Conflict, Told
from cluster.domain.outbox import salvage as outbox
from cluster.domain.outbox.events import MessageQueued
from cluster.log.model import (
    APPEND_S_MAX,
    BATCH_MESSAGES_MAX,
    EVENT_BYTES_MAX,
    INLINE_BYTES_MAX,
    Append,
    Blob,
    LogUnavailable,
    NewEvent,
    NoRoom,
    Record,
    Stale,
    Stored,
)
from cluster.position import Position, shown, split
from cluster.world import World
from storage.arrived import Arrived
from storage.blobs import Blobs
from storage.lines import Fact, Known, Stretch, began_after, holding
from storage.told import new_event

TRIES_MAX = 20  # decisions on a history that went on meanwhile
CATCH_UP_S_MAX = 30.0
POLL_S = 0.02
NO_ROOM_WAIT_S = 0.2
NO_ROOM_TRIES_MAX = 100
EVENTS_MAX = BATCH_MESSAGES_MAX // 2  # in one append; the rest goes in further ones
PENDING_MAX = 200  # facts whose reaffirmation waits for the next append
REPORTED_BYTES_MAX = 64 * 1024  # of an event that its report carries
COMMAND_ID_BYTES = 16

log = structlog.get_logger("salvage")


class Source(Protocol):
    """The log, as far as salvage needs it: cluster.log.jetstream."""

    async def tails(self, partition: str) -> Sequence[Stretch]: ...
    def read_tail(self, partition: str, tail: Any) -> AsyncIterator[tuple[Record, ...]]: ...
    def read(
        self, partition: str, after: int, upto: int, *, contents: bool = False
    ) -> AsyncIterator[tuple[Record, ...]]: ...
    async def known_history(self, partition: str) -> tuple[tuple[int, int], ...]: ...
    async def mark(self, partition: str) -> Position: ...
    async def home_end(self, partition: str) -> Position: ...
    async def append(self, append: Append, timeout_s: float = APPEND_S_MAX) -> Stored | Stale: ...
    async def upload(
        self, partition: str, entity: str, blobs: AsyncIterator[Blob], timeout_s: float = APPEND_S_MAX
    ) -> tuple[bytes, ...]: ...


@dataclass(slots=True)
class Salvaged:
    """Commands of tails: decided again, in history already, of which something was reported. `waiting`: epochs whose tail
    rests on another one that is not here."""

    again: int = 0
    known: int = 0
    reported: int = 0
    waiting: tuple[int, ...] = ()


class Salvage:
    """Of one partition, at this site. `salvaged`: epoch → sequence up to which the tables say that it is done, to spare
    reading the log where nothing is left."""

    def __init__(self, partition: str, source: Source, blobs: Blobs, world: World) -> None:
        self.partition = partition
        self.source = source
        self.blobs = blobs
        self.world = world

    async def run(self, salvaged: Mapping[int, int] | None = None) -> Salvaged:
        """Returns when all tails that lie here are salvaged. Raises LogUnavailable, BlobsUnavailable: run it again."""
        done, outcome = salvaged or {}, Salvaged()
        tails = sorted(await self.source.tails(self.partition), key=lambda tail: tail.epoch)
        for tail in tails:
            if split(tail.last).sequence <= done.get(tail.epoch, 0):
                continue
            chain = await self._chain(tail, tails)
            if chain is None:
                outcome.waiting = (*outcome.waiting, tail.epoch)
                log.warning("tail rests on one that is not here", partition=self.partition, epoch=tail.epoch)
                continue
            log.info("salvage begins", partition=self.partition, after=shown(tail.after), last=shown(tail.last))
            await _Tail(self, tail, outcome).run(chain)
            log.info(
                "salvage ends", partition=self.partition, last=shown(tail.last), again=outcome.again,
                known=outcome.known, reported=outcome.reported,
            )  # fmt: skip
        return outcome

    async def _chain(self, tail: Stretch, tails: Sequence[Stretch]) -> list[tuple[Stretch | None, int]] | None:
        """What the tail's line is made of before it, in order: history (None) or another tail, each up to a position.
        None: not all of it is here."""
        history = await self.source.known_history(self.partition)
        before = tail.after if split(tail.after).sequence else await self._began_after(tail)
        chain: list[tuple[Stretch | None, int]] = []
        while not _in_history(history, before):
            earlier = holding(tails, before)
            if earlier is None:
                return None
            chain.append((earlier, before))
            before = earlier.after if split(earlier.after).sequence else await self._began_after(earlier)
        return [(None, before), *reversed(chain)]

    async def _began_after(self, tail: Stretch) -> int:
        async for records in self.source.read_tail(self.partition, tail):
            for record in records:
                if record.noun:
                    return began_after(Known(()).tell(record).event)
        return 0


class _Tail:
    """One tail on its way into history."""

    def __init__(self, salvage: Salvage, tail: Stretch, outcome: Salvaged) -> None:
        self._partition = salvage.partition
        self._source = salvage.source
        self._blobs = salvage.blobs
        self._world = salvage.world
        self._tail = tail
        self._outcome = outcome
        self._then = self._now = Known(())
        self._settled: outbox.Settled = {}
        self._same: dict[Thing, Thing] = {}  # messages of the tail that came in otherwise meanwhile
        self._arrived = Arrived(self._blobs)
        self._pending: list[Told] = []
        self._upto = 0  # sequence in the tail that the facts told so far have reached
        self._ahead = 0  # of what we appended and have not read yet
        self._bound = False  # by what we appended: the next decision must know it

    async def run(self, chain: Sequence[tuple[Stretch | None, int]]) -> None:
        accounts = await self._look()
        fork = min((upto for _, upto in chain), default=0)
        self._then, self._now = Known(accounts), Known(accounts, fork)
        if fork:
            async for records in self._source.read(self._partition, 0, fork):
                for record in records:
                    self._then.tell(record)
                    self._now.tell(record)
        for earlier, upto in chain[1:]:
            async for record in self._events(earlier, upto):
                self._then.tell(record)
        self._now.position = fork
        await self._catch_up(await self._source.home_end(self._partition))
        await self._is_history(self._tail.after)
        group: list[Fact] = []
        async for record in self._events(self._tail, self._tail.last):
            before = self._then.directory
            fact = self._then.tell(record)
            if group and fact.command != group[-1].command:
                await self._command(group)
                group = []
            if fact.envelope is not None and fact.envelope.noun == "directory":
                fact = fact._replace(event=(before, fact.event))
            group.append(fact)
        if group:
            await self._command(group)
        # Content without an event may come last.
        self._upto = split(self._tail.last).sequence
        if self._upto > self._salvaged:
            await self._reaffirm()

    @property
    def _salvaged(self) -> int:
        return self._now.mail.salvaged.get(self._tail.epoch, 0)

    async def _look(self) -> frozenset[int]:
        """Whose mail the tail is about; its contents go into the store of blobs, from where they are carried."""
        accounts: set[int] = set()
        queue: list[Any] = []
        intake, reader = self._blobs.intake(), Known(())
        try:
            async for records in self._source.read_tail(self._partition, self._tail):
                await intake.take(records)
                for record in records:
                    if record.noun == "mailbox" and record.entity.isascii() and record.entity.isdigit():
                        accounts.add(int(record.entity))
                    elif record.noun == "outbox":
                        queue.append(reader.tell(record).event)
        finally:
            intake.close()
        self._settled = outbox.settled(queue)
        return frozenset(accounts - {0})

    async def _events(self, tail: Stretch | None, upto: int) -> AsyncIterator[Record]:
        async for records in self._source.read_tail(self._partition, tail):
            for record in records:
                if record.noun and record.position <= upto:
                    yield record

    async def _catch_up(self, goal: int = 0) -> None:
        """Reads history to its end, which must be at `goal` at least."""
        end = self._world.monotonic() + CATCH_UP_S_MAX
        while True:
            mark = await self._source.mark(self._partition)
            if mark > self._now.position:
                async for records in self._source.read(self._partition, self._now.position, mark):
                    for record in records:
                        self._now.tell(record)
                self._now.position = mark
            if self._now.position >= goal:
                break
            if self._world.monotonic() > end:
                raise LogUnavailable(f"{self._partition} has not come here up to {shown(goal)} in time")
            await asyncio.sleep(POLL_S)
        self._ahead, self._bound = 0, False

    async def _is_history(self, at: int) -> None:
        """Raises LogUnavailable when another home goes on from before that: all must be looked at anew."""
        history = await self._source.known_history(self._partition)
        epoch, sequence = split(at)
        if not _in_history(history, at) and (epoch, sequence) not in history:
            raise LogUnavailable(f"history of {self._partition} goes on without {shown(at)}")

    # -- one command --------------------------------------------------------------------------------------------------

    async def _command(self, facts: Sequence[Fact]) -> None:
        """The facts of one command, or one that cannot be read."""
        told = [
            Told(int(fact.record.entity), fact.event, fact.effect, n)
            for n, fact in enumerate(facts)
            if fact.envelope is not None and fact.envelope.noun == "mailbox" and fact.record.entity.isdigit()
        ]
        only_appends = all(isinstance(fact.event, MessageAppended) for fact in facts)
        if self._bound or (self._ahead and not only_appends):
            await self._catch_up(self._ahead)
        self._upto = split(facts[-1].record.position).sequence
        for _ in range(TRIES_MAX):
            if facts[0].command and self._now.has(facts[0].command):
                break
            again = await self._again(facts, told)
            if self._upto <= self._salvaged:
                break
            if not (again.events or again.others or again.conflicts):
                break
            if await self._done(facts, told, again):
                self._known_copies(facts, told)
                return
        else:
            raise LogUnavailable(f"{self._partition}: history goes on too fast for what lies in a tail")
        self._known_copies(facts, told)
        if self._upto > self._salvaged:
            self._outcome.known += bool(facts[0].command) and self._now.has(facts[0].command)
            self._pending.extend(told)
            if len(self._pending) >= PENDING_MAX:
                await self._reaffirm()

    def _known_copies(self, facts: Sequence[Fact], told: Sequence[Told]) -> None:
        self._same |= mailbox.same_copies(told, facts[0].command, self._same)

    async def _again(self, facts: Sequence[Fact], told: Sequence[Told]) -> mailbox.Again:
        now, then, filed = self._now.mail, self._then.mail, list[tuple[int, Thing]]()
        for one in told:
            if not isinstance(one.event, MessageAppended) or not one.effect.things or one.effect.things[0] in self._same:
                continue
            thing = one.effect.things[0]
            if one.event.delivered:
                found = await self._arrived.meanwhile(one, now, then)
                if found is not None:
                    self._same[thing] = found
            elif came := self._arrived.sent_again(one, now, then):
                if FILED in one.event.keywords:
                    self._same[thing] = came[0][0]
                else:
                    filed += [(one.account, other) for other, was_filed in came if was_filed]
        again = mailbox.decided_again(now, told, self._same, self._world.new_id)
        for account, other in filed:
            # What the client brought takes the place of what was filed for it, in this order too.
            place = now.places[other]
            gone = MessagesExpunged(place.mailbox, ((place.uid, place.uid),), only_deleted=False)
            again.events.append((account, gone))
            again.depends[messages_key(account, place.mailbox)] = None
        for n, fact in enumerate(facts):
            if fact.envelope is None:
                again.conflicts.append(Conflict(n, "An event that this release cannot read", fact.why))
            elif fact.envelope.noun == "directory":
                answer = directory.decided_again(fact.event[0], self._now.directory, fact.event[1])
                if isinstance(answer, Decision):
                    again.others.extend(answer.events)
                    again.depends |= dict.fromkeys(answer.depends)
                else:
                    again.conflicts.append(Conflict(n, *answer))
            elif fact.envelope.noun == "outbox":
                event = outbox.decided_again(self._now.outbox, fact.event, self._settled)
                if event is not None:
                    again.others.append((fact.record.entity, event))
        return again

    async def _done(self, facts: Sequence[Fact], told: Sequence[Told], again: mailbox.Again) -> bool:
        """Whether it is in history now; else history went on, and it must be decided once more."""
        events = [*((str(account), event) for account, event in again.events), *again.others]
        reports = [(PARTITION_ENTITY, _report(facts[conflict.n], conflict)) for conflict in again.conflicts]
        rest = [*reports, *self._reaffirmations(told)]
        if not events:
            # A report is no outcome: the command's own id stays free for who tries it again.
            await self._told(rest)
            self._outcome.reported += 1
            return True
        envelope = facts[0].envelope
        assert envelope is not None
        command, by = facts[0].command, envelope.by
        together = len(events) + len(rest) <= EVENTS_MAX
        carried = await self._carried(events)
        new = self._encoded(
            command, [(by, event) for event in events] + [(SYSTEM, event) for event in rest if together]
        )
        if sum(len(event.payload) for event in new) > EVENT_BYTES_MAX and together:
            together, new = False, new[: len(events)]
        append = Append(self._partition, command, new, tuple(again.depends), self._now.position, *carried)
        stored = await self._append(append)
        if isinstance(stored, Stale) or stored.repeated:
            await self._is_history(self._now.position)
            await self._catch_up(stored.changed_at if isinstance(stored, Stale) else stored.last)
            return False
        self._ahead = stored.last
        self._bound = any(not isinstance(event, MessageAppended) for _, event in events)
        self._now.add(command)
        self._outcome.again += 1
        self._outcome.reported += bool(reports)
        if together:
            self._pending = []
        else:
            await self._told(rest)
        return True

    # -- what is told -------------------------------------------------------------------------------------------------

    def _reaffirmations(self, told: Sequence[Told]) -> list[tuple[str, Any]]:
        """Of these facts and of those that wait, and that all up to here is salvaged."""
        epoch = self._tail.epoch
        found = mailbox.reaffirmed(self._now.mail, [*self._pending, *told], epoch, self._upto)
        last = (PARTITION_ENTITY, TailSalvaged(epoch, self._upto))
        return [*((str(account), event) for account, event in found), last]

    async def _reaffirm(self) -> None:
        await self._told(self._reaffirmations(()))

    async def _told(self, events: Sequence[tuple[str, Any]]) -> None:
        """Under an id that is made of what is told, so that who tells it twice tells it once. TailSalvaged comes last."""
        for first in range(0, len(events), EVENTS_MAX):
            part = events[first : first + EVENTS_MAX]
            command = hashlib.sha256(b"salvage/" + msgspec.msgpack.encode(part)).digest()[:COMMAND_ID_BYTES]
            new = self._encoded(command, [(SYSTEM, event) for event in part])
            stored = await self._append(Append(self._partition, command, new, (), self._now.position))
            if isinstance(stored, Stale):
                raise LogUnavailable(f"{self._partition}: history changed under salvage")
            self._ahead = max(self._ahead, stored.last)
        self._pending = []

    async def _append(self, append: Append) -> Stored | Stale:
        for _ in range(NO_ROOM_TRIES_MAX):
            try:
                return await self._source.append(append)
            except NoRoom:
                await asyncio.sleep(NO_ROOM_WAIT_S)
        raise LogUnavailable(f"{self._partition}: no UIDs may be given")

    def _encoded(self, command: bytes, events: Iterable[tuple[Actor, tuple[str, Any]]]) -> tuple[NewEvent, ...]:
        at_us = int(self._world.now() * 1_000_000)
        new: list[NewEvent] = []
        for by, (entity, event) in events:
            payload = codec.encode(event, at_us=at_us, by=by, command=command, n=len(new))
            new.append(new_event(entity, event, payload))
        return tuple(new)

    async def _carried(self, events: Sequence[tuple[str, Any]]) -> tuple[tuple[Blob, ...], tuple[bytes, ...]]:
        """Contents that ride in the append, and those sent ahead of it. What is not even here is fetched from other
        sites by whoever folds the event."""
        contents = [event.content for _, event in events if isinstance(event, MessageAppended | MessageQueued)]
        sizes = {segment.hash: segment.size for content in contents for segment in content.segments}
        if not sizes:
            return (), ()
        if sum(sizes.values()) <= INLINE_BYTES_MAX:
            found = zip(sizes, await self._blobs.get_many(list(sizes)), strict=True)
            return tuple(Blob(hash, data) for hash, data in found if data is not None), ()
        return (), await self._source.upload(self._partition, events[0][0], self._pieces(sizes))

    async def _pieces(self, hashes: Iterable[bytes]) -> AsyncIterator[Blob]:
        for hash in hashes:
            (data,) = await self._blobs.get_many([hash])
            if data is not None:
                yield Blob(hash, data)


def _in_history(history: Iterable[tuple[int, int]], at: int) -> bool:
    epoch, sequence = split(at)
    return at == 0 or any(each == epoch and sequence <= last for each, last in history)


def _report(fact: Fact, conflict: Conflict) -> SalvageReported:
    record = fact.record
    kept = record.payload if len(record.payload) <= REPORTED_BYTES_MAX else b""
    return SalvageReported(record.position, record.noun, record.entity, conflict.what, conflict.why, kept)
