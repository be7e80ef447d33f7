"""Mail into queues: the site's own, its spool where that takes nothing, and those of other sites.

Whatever goes into a queue has an id and a command id that are made of what it is (cluster.domain.outbox.handing), so it may
be given twice by anybody and is there once.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Protocol

import msgspec
import structlog

from cluster import partitions
from cluster.domain.actor import Actor
from cluster.domain.mailbox.content import Content
from cluster.domain.outbox import handing
from cluster.domain.outbox.commands import QueueMessage, RecordAttempt
from cluster.domain.outbox.decide import entity
from cluster.domain.outbox.state import Queued
from cluster.domain.refusal import Reason, Refusal
from cluster.log.model import INLINE_BYTES_MAX, Blob, LogUnavailable, Record
from cluster.position import Position
from storage.answers import UNAVAILABLE
from storage.blobs import BlobCorrupt, BlobMissing, BlobsUnavailable, Contents
from storage.executor import Carried, Executor
from storage.postgres.outbox_view import OutboxView
from storage.postgres.pool import AWAY
from storage.reach import is_out_of_reach
from storage.shapes import Done

BATCH_MESSAGES_MAX = 100
LANES_MAX = 16  # messages that are drained at once
REMEMBERED_S = 24 * 3600  # commands are known to every fold for longer than this
HISTORY_S_MAX = 30.0  # for the queue's log to say whether it has a message
FOR_EVER = (1 << 63) - 1  # unix seconds
SPOOL_WAIT_S = 2.0  # between tries, while something is in the spool
IDLE_WAIT_S = 10.0

log = structlog.get_logger("handing")


class History(Protocol):
    """The log of a queue, as far as the drain looks back: cluster.log.jetstream."""

    async def mark(self, partition: str) -> Position: ...

    def read_of(
        self, partition: str, upto: int, noun: str, entity: str | None = None
    ) -> AsyncIterator[tuple[Record, ...]]: ...


class Kept:
    """A message whose content this site has, as commands carry it (storage.executor.Carried). Reading raises the errors of
    storage.blobs."""

    def __init__(self, content: Content, blobs: Contents) -> None:
        self.content = content
        self._segments = tuple(dict.fromkeys(content.segments))
        self._blobs = blobs
        self.inline_bytes = sum(segment.size for segment in self._segments)

    async def blobs(self) -> AsyncIterator[Blob]:
        for segment in self._segments:
            pieces = [piece async for piece in self._blobs.read((segment,))]
            yield Blob(segment.hash, pieces[0] if len(pieces) == 1 else b"".join(pieces))

    async def inline(self) -> tuple[Blob, ...] | None:
        if self.inline_bytes > INLINE_BYTES_MAX:
            return None
        return tuple([blob async for blob in self.blobs()])


class Handing:
    """`spool`: the site's, empty = it has none."""

    def __init__(self, executor: Executor, blobs: Contents, spool: str) -> None:
        self._executor = executor
        self._blobs = blobs
        self.spool = spool
        self.queue = partitions.queue(executor.site)

    async def take_in(self, actor: Actor, command: QueueMessage, contents: Sequence[Carried]) -> Done | Refusal:
        """Into the site's queue, or into its spool where nobody takes it there. Durable when it returns."""
        done = await self._into(actor, self.queue, command, contents)
        if not self.spool or not isinstance(done, Refusal) or not is_out_of_reach(done):
            return done
        # Nobody knows whether the queue has it: the drain says the same once more.
        log.info("spooled", queued=f"{command.queued:x}", why=done.text)
        spooled = msgspec.structs.replace(command, queued=handing.spooled(command.queued))
        return await self._into(actor, self.spool, spooled, contents)

    async def hand_over(
        self, actor: Actor, message: Queued, taken_at: int, recipients: Sequence[str], target: str
    ) -> Done | Refusal:
        """These recipients of a queued message into another site's queue. Durable there when it returns."""
        return await self.put(actor, target, handing.handed(message, recipients, target, taken_at))

    async def put(self, actor: Actor, target: str, command: QueueMessage) -> Done | Refusal:
        """A message whose content is here."""
        try:
            return await self._into(actor, target, command, (Kept(command.content, self._blobs),))
        except (BlobMissing, BlobCorrupt, BlobsUnavailable) as error:
            log.warning(
                "content cannot be read", queued=f"{command.queued:x}", error=f"{type(error).__name__}: {error}"
            )
            return UNAVAILABLE

    async def _into(
        self, actor: Actor, partition: str, command: QueueMessage, contents: Sequence[Carried]
    ) -> Done | Refusal:
        command_id = handing.command_of(command.queued)
        outcome = await self._executor.queued(actor, partition, command, contents, command_id)
        if isinstance(outcome, Refusal):
            return outcome
        decision = outcome.decisions[0]
        if isinstance(decision, Refusal):
            return decision
        return Done(outcome.stored.last if outcome.stored else 0)


class Drain:
    """Puts what is in the spool into the queue, oldest first. In the spool it is settled only when the queue has it.
    `leads`: this process holds the spool's lease, so nobody else drains."""

    def __init__(
        self, executor: Executor, own: Handing, view: OutboxView, history: History, leads: Callable[[], bool]
    ) -> None:
        self._executor = executor
        self._own = own
        self._view = view
        self._history = history
        self._leads = leads
        self._actor = Actor(name="spool", site=executor.site, protocol="smtp")

    async def run(self, wait: Callable[[float], Awaitable[object]]) -> None:
        """For ever. `wait(seconds)` returns when the spool changed, or after that time."""
        while True:
            done = False
            try:
                done = await self.once()
            except* (*AWAY, LogUnavailable) as errors:
                log.warning("the drain waits", errors=[f"{type(error).__name__}: {error}" for error in errors.exceptions])
            except* Exception:
                log.exception("the drain failed")
            if done:
                await wait(IDLE_WAIT_S)
            else:
                await asyncio.sleep(SPOOL_WAIT_S)

    async def once(self) -> bool:
        """True when nothing is left, or somebody else drains. Raises the database's AWAY, LogUnavailable, and groups of
        them."""
        while self._leads():
            waiting = await self._view.due([self._own.spool], FOR_EVER, BATCH_MESSAGES_MAX)
            if not waiting:
                break
            each, refusals = iter(waiting), list[Refusal]()
            async with asyncio.TaskGroup() as lanes:
                for _ in range(min(LANES_MAX, len(waiting))):
                    lanes.create_task(self._lane(each, refusals))
            if refusals:
                return False
        return True

    async def _lane(self, waiting: Iterator[tuple[Queued, int]], refusals: list[Refusal]) -> None:
        for message, taken_at in waiting:
            if not self._leads() or any(is_out_of_reach(refusal) for refusal in refusals):
                return
            if (refusal := await self._drained(message, taken_at)) is not None:
                refusals.append(refusal)

    async def _drained(self, message: Queued, taken_at: int) -> Refusal | None:
        command = handing.drained(message, taken_at)
        if not await self._is_queued(command, taken_at):
            done = await self._own.put(self._actor, self._own.queue, command)
            if isinstance(done, Refusal):
                if done.reason is not Reason.UNAVAILABLE:
                    log.error("the queue will not have it", queued=f"{command.queued:x}", reason=done.reason.value)
                return done
        settled = handing.settled(command.recipients, self._own.queue)
        recorded = await self._executor.execute(self._actor, RecordAttempt(message.queued, settled), ())
        if isinstance(recorded, Refusal):
            log.warning("drained, and not recorded yet", queued=f"{command.queued:x}", reason=recorded.reason.value)
            return recorded
        log.info("drained", queued=f"{command.queued:x}", recipients=len(command.recipients))
        return None

    async def _is_queued(self, command: QueueMessage, taken_at: int) -> bool:
        """Of one so old that the folds may have forgotten its command: whether the queue's history has it already. Raises
        LogUnavailable."""
        if self._executor.world.now() - taken_at < REMEMBERED_S:
            return False
        try:
            async with asyncio.timeout(HISTORY_S_MAX):
                upto = await self._history.mark(self._own.queue)
                async for _ in self._history.read_of(self._own.queue, upto, "outbox", entity(command.queued)):
                    return True
        except TimeoutError:
            raise LogUnavailable(f"{self._own.queue} does not tell its history") from None
        return False
