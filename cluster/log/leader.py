"""One process's life as (candidate for) the appender of one partition: lease, past, serving, and again from the start."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import structlog

from cluster.control.bucket import Conflict
from cluster.control.lease import Lease, LeaseLost
from cluster.control.partitions import Partition, Partitions
from cluster.log import epochs
from cluster.log.admission import Admission
from cluster.log.appender import Appender
from cluster.log.connection import Arrived, Connection, Subscribed, Unreachable
from cluster.log.engine import Engine, EngineRefused
from cluster.log.marks import Marks
from cluster.log.model import LogUnavailable
from cluster.log.recent import Recent
from cluster.log.wire import Busy, Mark, decode_request, encode, messages
from cluster.log.writer import ForeignWrite, Writer
from cluster.position import position

RETRY_WAIT_S = 0.1
DRAIN_S_MAX = 5.0

log = structlog.get_logger("cluster.log.leader")


class Site(NamedTuple):
    """What all of a process's partitions share. `partitions`: the control plane's records; `known`: what this site knows
    of them when it is cut off, with the streams as they lie here (with one site the same). `now_us`: unix microseconds;
    `entropy`: random bytes."""

    connection: Connection
    engine: Engine
    partitions: Partitions
    known: Partitions
    name: str
    replicas: int
    now_us: Callable[[], int]
    entropy: Callable[[int], bytes]


class Leader:
    """`copies`: the sites that get one when the partition is made."""

    def __init__(
        self, site: Site, partition: str, lease: Lease, marks: Marks, recent: Recent, copies: tuple[str, ...] = ()
    ) -> None:
        self._copies = copies
        self._site = site
        self._partition = partition
        self._lease = lease
        self._marks = marks
        self._recent = recent
        self._appender: Appender | None = None
        self._task: asyncio.Task[None] | None = None
        self._replies: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()  # set and replaced whenever we begin to lead
        self._succession: asyncio.Future[None] | None = None
        self._clean = False
        self._interrupted = asyncio.Event()

    @property
    def appender(self) -> Appender | None:
        """Only while we lead."""
        return self._appender if self._lease.held() else None

    def start(self) -> None:
        self._task = asyncio.create_task(self._lead_for_ever(), name=f"leader of {self._partition}")

    async def leading(self) -> None:
        """Returns when this process leads."""
        while self.appender is None:
            changed = self._changed
            await changed.wait()

    async def next_epoch(self, *, clean: bool) -> None:
        """Ends the present epoch and returns when we lead in the next one. What waits is written before."""
        if self._succession is None:
            self._clean = clean
            self._succession = asyncio.get_running_loop().create_future()
            self._interrupted.set()
        await asyncio.shield(self._succession)

    async def stop(self) -> None:
        """What waits is written first; then the lease is released, so that the next one can start at once."""
        if self._appender is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_S_MAX):
                    await self._appender.drained()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._lease.release()

    async def _lead_for_ever(self) -> None:
        while True:
            await self._lease.acquire()
            log.info("leading", partition=self._partition)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._lease.renew())
                    tasks.create_task(self._serve())
            except* (LeaseLost, ForeignWrite, Unreachable, EngineRefused, Conflict) as errors:
                log.warning("no longer leading", partition=self._partition, why=[str(error) for error in errors.exceptions])
            except* Exception:
                log.exception("no longer leading", partition=self._partition)  # Our bug; a partition without appender is worse.
            finally:
                self._appender = None
            await asyncio.sleep(RETRY_WAIT_S)

    async def _serve(self) -> None:
        while True:
            appender = await self._made()
            served: list[Subscribed] = []
            try:
                for verb, handler in (("append", self._on_append), ("upload", self._on_append), ("mark", self._on_mark)):
                    served.append(await self._site.connection.subscribe(f"ap.{self._partition}.{verb}", handler))
                self._appender = appender
                self._changed.set()
                self._changed = asyncio.Event()
                await self._marks.tell(appender.mark)
                await self._until_interrupted(appender)
            finally:
                self._appender = None
                appender.close("this appender stepped down")
                for subscribed in served:
                    await subscribed.close()

    async def _until_interrupted(self, appender: Appender) -> None:
        if self._succession is not None and not self._interrupted.is_set():
            self._succession.set_result(None)
            self._succession = None
        running = asyncio.create_task(appender.run(self._lease.confirm, self._marks.tell))
        interrupted = asyncio.create_task(self._interrupted.wait())
        try:
            await asyncio.wait((running, interrupted), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await running
            appender.refuse("a new epoch begins")
            await appender.drained()
        finally:
            for task in (running, interrupted):
                task.cancel()
            await asyncio.wait((running, interrupted))
            if running.done() and not running.cancelled():
                running.exception()  # It has been raised above, or comes again with the lease that is lost.

    async def _made(self) -> Appender:
        """Reads the past. Raises Unreachable, EngineRefused, Conflict."""
        site = self._site
        partition = await epochs.ensure_partition(site.partitions, self._partition, site.name, self._copies)
        if partition.home != site.name:
            raise Conflict(f"{partition.name} is at home at {partition.home}")
        if self._interrupted.is_set():
            partition = await self._succeeded(partition, clean=self._clean)
            self._interrupted.clear()
        if epochs.present(partition).copy:
            partition = await self._succeeded(partition, clean=False)
        if site.known is not site.partitions:
            await site.known.note(partition)
        stream = epochs.present(partition)
        await site.engine.create_stream(epochs.config(stream, site.replicas))
        writer = Writer(site.engine, stream, site.entropy, self._lease.confirm, chains=site.replicas == 1)
        last = await site.engine.last_sequence(stream.name)
        if last == 0 and partition.ended:
            words = epochs.first_words(partition, site.now_us(), site.entropy(16))
            await writer.write(messages(stream, words), 0, whole=True)
            last = 1
        tail = await epochs.tail(site.engine, partition)
        admission = Admission(tail.last_event)
        for told in tail.commands:
            admission.remember(told.command, told.first, told.last)
        durable = position(stream.epoch, last) if last else tail.last_event
        return Appender(stream, writer, admission, Mark(durable, tail.last_event), last, self._recent)

    async def _succeeded(self, partition: Partition, *, clean: bool) -> Partition:
        """Ends the present epoch and begins the next, in the control plane. Under the lease only."""
        site = self._site
        found = await site.partitions.get(partition.name)
        if found is None or found[0] != partition:
            raise Conflict(partition.name)
        last = await epochs.end_of(site.engine, partition)
        following = epochs.succeeded(partition, last, clean, site.name)
        await self._lease.confirm()
        await site.partitions.change(following, found[1])
        return following

    async def _on_append(self, message: Arrived) -> None:
        task = asyncio.create_task(self._reply(message))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    async def _reply(self, message: Arrived) -> None:
        appender = self.appender
        if appender is None:
            return  # Whoever leads answers.
        try:
            answer = encode(await appender.submit(decode_request(message.data)))
        except LogUnavailable as error:
            answer = encode(Busy(str(error), again=appender.closed))
        except msgspec.MsgspecError as error:
            answer = encode(Busy(f"not an append: {error}", again=False))
        with contextlib.suppress(Unreachable):  # The worker asks again under the same command id.
            await self._site.connection.publish(message.reply, answer)

    async def _on_mark(self, message: Arrived) -> None:
        appender = self.appender
        if appender is not None:
            with contextlib.suppress(Unreachable):
                await self._site.connection.publish(message.reply, encode(appender.mark))
