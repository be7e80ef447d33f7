"""A command's way: load the small state it needs, decide, append, and wait until the tables show it.

What was decided on a state that changed meanwhile is refused by the log as stale; then all is done again, a few times.
A retry for want of an answer goes with the same command id, so it can never happen twice.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import msgspec
import structlog

from cluster import codec, partitions
from cluster.domain.actor import Actor
from cluster.domain.decision import Decision
from cluster.domain.directory import decide as directory
from cluster.domain.directory.commands import AnyCommand as DirectoryCommand
from cluster.domain.directory.commands import Command as DirectoryBase
from cluster.domain.directory.state import Slice
from cluster.domain.mailbox import decide as mailbox
from cluster.domain.mailbox import names, ranges, sharing
from cluster.domain.mailbox.commands import AnyCommand as MailboxCommand
from cluster.domain.mailbox.commands import (
    AppendMessage,
    ChangeFlags,
    CopyMessages,
    Deliver,
    Expunge,
    ReplaceMessage,
    RestoreMessages,
    Subscribe,
)
from cluster.domain.mailbox.commands import Command as MailboxBase
from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.state import MessagesState, Tree
from cluster.domain.outbox import decide as outbox
from cluster.domain.outbox.commands import AnyCommand as OutboxCommand
from cluster.domain.outbox.commands import QueueMessage
from cluster.domain.refusal import Reason, Refusal
from cluster.log.model import (
    APPEND_S_MAX,
    EVENT_BYTES_MAX,
    INLINE_BYTES_MAX,
    Append,
    Blob,
    Log,
    LogRefuses,
    LogUnavailable,
    NewEvent,
    Stored,
)
from cluster.world import World
from storage import command_ids
from storage.answers import UNAVAILABLE
from storage.command_ids import COMMAND_ID_BYTES
from storage.news import Hub, shown_s_max
from storage.postgres.pool import AWAY
from storage.quotas import Quotas, Taken
from storage.reach import Reach, out_of_reach
from storage.shapes import Done
from storage.sharing import asks_for_another
from storage.told import new_event
from storage.views import Views as Views

TRIES_MAX = 5  # decisions on a state that turned out stale
CATCH_UP_S_MAX = 5.0  # for the tables to reach what made a decision stale
DELIVER_S_MAX = 6.0  # for an append of mail: longer than most homes are away before another follows; then it is queued
QUEUE_S_MAX = 4.0  # for an append to the queue: then it goes to the spool; with the above, a client waits ten seconds
DELIVERIES_PER_APPEND_MAX = 250  # each at most two events, beside their content, within the log's batch
EVENT_OVERHEAD_BYTES_MAX = 4096  # of a delivery's events, beside what describes the message
SEGMENT_BYTES_MAX = 48  # that a segment's name and size take in an event
TREES_KEPT_MAX = 50_000
LOOK_UPS_MAX = 50  # rounds; the domain's own bounds on nesting end it sooner

NO_SUCH_ACCOUNT = Refusal(Reason.NO_SUCH_ACCOUNT, "There is no such account.")
CONFLICT = Refusal(Reason.CONFLICT, "Others changed the same thing at the same time; try again.")
NOT_SHOWN_YET = Refusal(Reason.NOT_SHOWN_YET, "It is safe in the log, but this site cannot show it yet.")

AnyOf = MailboxCommand | DirectoryCommand | OutboxCommand
T = TypeVar("T")

log = structlog.get_logger("executor")


class Carried(Protocol):
    """A message that commands name: storage.ingest.SpooledMessage."""

    content: Content
    inline_bytes: int

    def blobs(self) -> AsyncIterator[Blob]: ...
    async def inline(self) -> tuple[Blob, ...] | None: ...


class Observer(Protocol):
    """Hears of every command: for metrics."""

    def commanded(self, protocol: str, word: str, outcome: str, seconds: float) -> None:
        """`outcome`: ok, refused (by the domain) or failed (the log or the tables are away)."""
        ...

    def accepted(self, protocol: str, size: int) -> None:
        """A message of `size` bytes is durable in the log."""
        ...


class Outcome(msgspec.Struct, frozen=True):
    """`stored` None = nothing had to change."""

    stored: Stored | None
    partition: str
    decisions: tuple[Decision | Refusal, ...]


class OutOfReach(LogUnavailable):
    """Nobody took the append in the time that mail waits; it may be in the log all the same."""

    def __init__(self, partition: str, why: str) -> None:
        super().__init__(why)
        self.partition = partition


class Executor:
    def __init__(self, world: World, site: str, source: Log, hub: Hub, views: Views) -> None:
        self.world = world
        self.site = site
        self.source = source
        self.hub = hub
        self.views = views
        self.observer: Observer | None = None
        self.reach = Reach(world.monotonic)
        self.quotas = Quotas(views.mail, views.accounts, world.monotonic)
        # An account's standard mailboxes with the position they were read at: the log refuses what rests on an old one.
        self._trees: OrderedDict[int, tuple[Tree, int]] = OrderedDict()

    async def execute(self, actor: Actor, command: AnyOf, contents: Sequence[Carried]) -> Done | Refusal:
        """Decided, in the log and in the tables."""
        command_id = self.world.entropy(COMMAND_ID_BYTES)
        for _ in range(TRIES_MAX):
            outcome = await self.decided(actor, [command], contents, command_id)
            if isinstance(outcome, Refusal):
                return outcome
            decision = outcome.decisions[0]
            if isinstance(decision, Refusal):
                return decision
            if outcome.stored is None:
                return Done(0, modified=decision.modified)
            if await self.hub.reached(outcome.partition, outcome.stored.last, shown_s_max(command)):
                break
            if not await self.hub.is_lost(outcome.partition, outcome.stored.last):
                return NOT_SHOWN_YET
            # It was in a tail that history left behind: asked again under the same id, it is there or comes anew.
        else:
            return NOT_SHOWN_YET
        try:
            return await self._done(command, decision, outcome.stored)
        except AWAY:
            return NOT_SHOWN_YET

    async def deliver(
        self, actor: Actor, deliveries: Sequence[Deliver], contents: Sequence[Carried], transaction: int = 0
    ) -> list[Done | Refusal]:
        """In the log when it returns. Few appends for each partition; with a `transaction` their command ids are made of
        it and of whom they are for, so that the same deliveries given twice arrive once. What nobody takes now is
        refused as storage.reach has it."""
        answers: list[Done | Refusal] = [NO_SUCH_ACCOUNT] * len(deliveries)

        async def deliver(numbers: list[int], limited: bool) -> None:
            shares = [deliveries[n] for n in numbers]
            ids = self._ids(transaction, shares, limited=limited)
            outcome = await self._observed(
                actor, shares[0], contents, self._decided(actor, shares, contents, ids, DELIVER_S_MAX)
            )
            for k, n in enumerate(numbers):
                if isinstance(outcome, Refusal):
                    answers[n] = outcome
                else:
                    decision = outcome.decisions[k]
                    position = outcome.stored.last if outcome.stored else 0
                    answers[n] = decision if isinstance(decision, Refusal) else Done(position)

        # One that nobody takes now keeps no other waiting.
        await asyncio.gather(*(deliver(*group) for group in await self._groups(deliveries)))
        return answers

    def _ids(self, transaction: int, shares: Sequence[Deliver], *, limited: bool) -> Sequence[bytes]:
        """Who has a quota may be refused now and not later: then the same people asked again are not the same command, and
        each has one of his own."""
        if transaction and limited:
            return [command_ids.of_deliveries(transaction, (share,)) for share in shares]
        return [command_ids.of_deliveries(transaction, shares) if transaction else self.world.entropy(COMMAND_ID_BYTES)] * len(shares)

    async def _groups(self, deliveries: Sequence[Deliver]) -> list[tuple[list[int], bool]]:
        """What goes into one append: of one partition, in the order of accounts, bounded; those who have a quota (True) apart
        from others. Not those for nobody."""
        of_partition: dict[tuple[str, bool], list[int]] = {}
        for n, delivery in enumerate(deliveries):
            partition = await self.views.accounts.partition_of(delivery.account)
            if partition is not None:
                limited = await self.views.accounts.quota_of(delivery.account) is not None
                of_partition.setdefault((partition, limited), []).append(n)
        groups: list[tuple[list[int], bool]] = []
        for (_, limited), found in of_partition.items():
            room = 0
            for n in sorted(found, key=lambda n: deliveries[n].account):
                content = deliveries[n].content
                size = len(content.description) + SEGMENT_BYTES_MAX * len(content.segments) + EVENT_OVERHEAD_BYTES_MAX
                if size > room or len(groups[-1][0]) == DELIVERIES_PER_APPEND_MAX:
                    groups.append(([], limited))
                    room = EVENT_BYTES_MAX
                groups[-1][0].append(n)
                room -= size
        return groups

    async def decided(
        self,
        actor: Actor,
        commands: Sequence[AnyOf],
        contents: Sequence[Carried],
        command_id: bytes = b"",
        patience_s: float = APPEND_S_MAX,
    ) -> Outcome | Refusal:
        """Commands of one partition, decided and appended together. Refused as a whole only for the outside's sake; at
        once where nobody took an append just now, if `patience_s` is less than usual."""
        ids = [command_id or self.world.entropy(COMMAND_ID_BYTES)] * len(commands)
        return await self._observed(
            actor, commands[0], contents, self._decided(actor, commands, contents, ids, patience_s)
        )

    async def queued(
        self, actor: Actor, partition: str, command: QueueMessage, contents: Sequence[Carried], command_id: bytes
    ) -> Outcome | Refusal:
        """A message with an id and a command id of its own, into a queue of which nothing need be here. Durable in the log
        when it returns; given twice it is there once. Refused as `deliver` is."""
        return await self._observed(
            actor, command, contents, self._queued(actor, partition, command, contents, command_id)
        )

    async def _observed(
        self, actor: Actor, command: AnyOf, contents: Sequence[Carried], work: Awaitable[Outcome | Refusal]
    ) -> Outcome | Refusal:
        began = self.world.monotonic()
        try:
            answer = await work
        except AWAY as error:
            log.warning("database away", error=f"{type(error).__name__}: {error}")
            answer = UNAVAILABLE
        except OutOfReach as error:
            log.warning("out of reach", partition=error.partition, error=str(error))
            answer = out_of_reach(error.partition)
        except (LogUnavailable, OSError) as error:
            log.warning("log away", error=f"{type(error).__name__}: {error}")
            answer = UNAVAILABLE
        self._observe(actor.protocol, command, contents, answer, self.world.monotonic() - began)
        return answer

    async def _queued(
        self, actor: Actor, partition: str, command: QueueMessage, contents: Sequence[Carried], command_id: bytes
    ) -> Outcome | Refusal:
        if self.reach.is_away(partition):
            return out_of_reach(partition)
        decision = outbox.decide(None, command)
        if isinstance(decision, Refusal):
            return Outcome(None, partition, (decision,))
        events = self._encoded(actor, [(command_id, decision)])
        patience_s = QUEUE_S_MAX
        carried = await self._asked(
            partition, patience_s, self._carry(partition, events[0].entity, contents, patience_s)
        )
        append = Append(partition, command_id, events, (), 0, *carried)
        answer = await self._asked(partition, patience_s, self.source.append(append, patience_s))
        assert isinstance(answer, Stored)  # It depends on nothing.
        return Outcome(answer, partition, (decision,))

    async def _decided(
        self,
        actor: Actor,
        commands: Sequence[AnyOf],
        contents: Sequence[Carried],
        ids: Sequence[bytes],
        patience_s: float,
    ) -> Outcome | Refusal:
        """`ids`: of each command the id that the fold knows it by; those of one id are one command."""
        carried: tuple[tuple[Blob, ...], tuple[bytes, ...]] | None = None
        partition = await self._partition(commands[0])
        if partition is None:
            return NO_SUCH_ACCOUNT
        if patience_s < APPEND_S_MAX and self.reach.is_away(partition):
            return out_of_reach(partition)
        for attempt in range(TRIES_MAX):
            asked = _Asked(actor, commands, ids, partition, [])
            decisions, read_at = await self._decide(asked, self.hub.position(partition), fresh=attempt > 0)
            made = [(id, one) for id, one in zip(ids, decisions, strict=True) if isinstance(one, Decision)]
            events = self._encoded(actor, made)
            if not events:
                return Outcome(None, partition, tuple(decisions))
            if carried is None:
                carrying = self._carry(partition, events[0].entity, contents, patience_s)
                carried = await self._asked(partition, patience_s, carrying)
            depends = tuple(dict.fromkeys(key for _, decision in made for key in decision.depends))
            append = Append(partition, command_ids.together([id for id, _ in made]), events, depends, read_at, *carried)
            answer = await self._asked(partition, patience_s, self.source.append(append, patience_s))
            if isinstance(answer, Stored):
                if asked.taken and not answer.repeated:
                    self.quotas.stored(asked.taken, answer.last)
                return Outcome(answer, partition, tuple(decisions))
            if not await self.hub.reached(partition, answer.changed_at, CATCH_UP_S_MAX):
                return out_of_reach(partition) if patience_s < APPEND_S_MAX else UNAVAILABLE
        return CONFLICT

    def _observe(
        self,
        protocol: str,
        command: AnyOf,
        contents: Sequence[Carried],
        answer: Outcome | Refusal,
        seconds: float,
    ) -> None:
        if self.observer is None:
            return
        if isinstance(answer, Refusal):
            outcome = "failed" if answer.reason is Reason.UNAVAILABLE else "refused"
        else:
            outcome = "refused" if isinstance(answer.decisions[0], Refusal) else "ok"
        self.observer.commanded(protocol, type(command).__name__, outcome, seconds)
        if outcome == "ok":
            for content in contents:
                self.observer.accepted(protocol, content.content.size)

    # -- state and decision -------------------------------------------------------------------------------------------

    async def _decide(
        self, asked: "_Asked", read_at: int, *, fresh: bool
    ) -> tuple[list[Decision | Refusal], int]:
        """The decisions, and the oldest position that they rest on."""
        decisions: list[Decision | Refusal] = []
        for command, id in zip(asked.commands, asked.ids, strict=True):
            match command:
                case Deliver() if not command.sent:
                    tree, at = await self._delivery_tree(command, read_at, fresh=fresh)
                    read_at = min(read_at, at)
                    decisions.append(await self.quotas.decide(tree, command, asked.partition, id, asked.taken))
                case MailboxBase():
                    decisions.append(await self._on_mail(asked, command, id))
                case DirectoryBase():
                    decisions.append(directory.decide(await self._directory_state(command), command))
                case _:
                    decisions.append(outbox.decide(await self.views.outbox.message(command.queued), command))
        return decisions, read_at

    async def _on_mail(self, asked: "_Asked", command: MailboxCommand, id: bytes) -> Decision | Refusal:
        if not asks_for_another(asked.actor, command):
            reader, decides = 0, mailbox.decide
        else:
            reader = asked.actor.account
            granted = await self.views.shared.granted(reader, command.account)
            decides = partial(sharing.decide, reader=sharing.Reader(reader, granted))
        state = await self._mail_state(command, reader)
        if isinstance(state, Tree):
            return await self.quotas.decide(state, command, asked.partition, id, asked.taken, decides)
        return decides(state, command)

    async def _delivery_tree(self, command: Deliver, read_at: int, *, fresh: bool) -> tuple[Tree, int]:
        kept = None if fresh else self._trees.get(command.account)
        if kept is None or (command.mailbox != "INBOX" and command.mailbox not in kept[0].entries):
            needs = mailbox.tree_needs(command)
            kept = await self.views.mail.tree(command.account, needs, (), subscriptions=False), read_at
            self._trees[command.account] = kept
            while len(self._trees) > TREES_KEPT_MAX:
                self._trees.popitem(last=False)
        if "INBOX" not in kept[0].entries:
            # About to be opened: what is kept would be stale at once.
            self._trees.pop(command.account, None)
        return kept

    async def _mail_state(self, command: MailboxCommand, reader: int = 0) -> Tree | MessagesState:
        if not isinstance(command, ChangeFlags | Expunge):
            tree = await self.views.mail.tree(
                command.account,
                mailbox.tree_needs(command),
                mailbox.tree_ids(command),
                subscriptions=isinstance(command, Subscribe),
                rights=mailbox.reads_rights(command),
            )
            if (reads := mailbox.tree_reads(command)) is not None:
                messages = await self.views.mail.messages_state(command.account, *reads, modseqs=True)
                tree = msgspec.structs.replace(tree, messages=messages)
            if (name := mailbox.annotates(command)) is not None:
                tree = msgspec.structs.replace(tree, annotated=await self.views.mail.annotated(command.account, name))
            if (sent := mailbox.sent_again(tree, command)) is not None:
                tree = msgspec.structs.replace(tree, alike=await self.views.mail.alike(*sent))
            if (restores := mailbox.tree_restores(command)) is not None:
                places = await self.views.expunged.restorable(command.account, *restores)
                tree = msgspec.structs.replace(tree, restorable=places)
            return tree
        return await self.views.mail.messages_state(
            command.account, command.mailbox, command.uids, modseqs=mailbox.reads_modseqs(command), reader=reader
        )

    async def _directory_state(self, command: DirectoryCommand) -> Slice:
        known = Slice()
        for _ in range(LOOK_UPS_MAX):
            missing = directory.needs(known, command)
            if not missing:
                return known
            known = await self.views.directory.look_up(missing, known)
        raise RuntimeError("a directory command never had enough")

    def _encoded(self, actor: Actor, made: Sequence[tuple[bytes, Decision]]) -> tuple[NewEvent, ...]:
        at_us = int(self.world.now() * 1_000_000)
        events: list[NewEvent] = []
        counted: dict[bytes, int] = {}
        for id, decision in made:
            for entity, event in decision.events:
                n = counted[id] = counted.get(id, -1) + 1
                payload = codec.encode(event, at_us=at_us, by=actor, command=id, n=n)
                events.append(new_event(entity, event, payload))
        return tuple(events)

    async def _asked(self, partition: str, patience_s: float, work: Awaitable[T]) -> T:
        """Notes whether the partition can be written. Raises LogUnavailable; OutOfReach to who is impatient."""
        try:
            answer = await work
        except LogRefuses:
            raise
        except LogUnavailable as error:
            self.reach.failed(partition)
            if patience_s < APPEND_S_MAX:
                raise OutOfReach(partition, str(error)) from error
            raise
        self.reach.answered(partition)
        return answer

    async def _carry(
        self, partition: str, entity: str, contents: Sequence[Carried], patience_s: float
    ) -> tuple[tuple[Blob, ...], tuple[bytes, ...]]:
        """What rides in the append, and what was sent ahead of it."""
        inline: list[Blob] = []
        uploaded: list[bytes] = []
        room = INLINE_BYTES_MAX
        for content in contents:
            blobs = await content.inline() if content.inline_bytes <= room else None
            if blobs is not None:
                inline.extend(blobs)
                room -= content.inline_bytes
            else:
                uploaded.extend(await self.source.upload(partition, entity, content.blobs(), patience_s))
        return tuple(inline), tuple(uploaded)

    async def _partition(self, command: AnyOf) -> str | None:
        match command:
            case MailboxBase():
                return await self.views.accounts.partition_of(command.account)
            case DirectoryBase():
                return partitions.DIRECTORY
            case QueueMessage():
                return partitions.queue(self.site)
            case _:
                # A queue whose site was lost is served by its successor.
                return await self.views.outbox.partition_of(command.queued) or partitions.queue(self.site)

    # -- what was made ------------------------------------------------------------------------------------------------

    async def _done(self, command: AnyOf, decision: Decision, stored: Stored) -> Done:
        match command:
            case AppendMessage():
                name, expected = command.mailbox, len(command.messages)
            case ReplaceMessage():
                name, expected = command.mailbox, 1
            case CopyMessages():
                name, expected = command.target, ranges.count(command.uids)
            case RestoreMessages():
                name, expected = names.wanted(command.target), ranges.count(command.places)
            case _:
                return Done(stored.last, modified=decision.modified)
        canonical = names.canonical(name)
        uidvalidity, uids, sources = await self.views.mail.made(
            command.account, canonical, stored.first, stored.last, expected
        )
        return Done(stored.last, uidvalidity, tuple(uids), tuple(sources))


class _Asked(NamedTuple):
    """Commands of one partition, each with its id, and what of them is `taken` by accounts that have a quota."""

    actor: Actor
    commands: Sequence[AnyOf]
    ids: Sequence[bytes]
    partition: str
    taken: list[Taken]
