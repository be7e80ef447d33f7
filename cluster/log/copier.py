"""Keeps a copy of a partition that is at home at another site.

What lies above the copy's end and not above the home's mark is read in bulk across the link, straight from the home's
engine, and written into the site's own stream `CP-<p>-<e>` in atomic batches, with the position at the origin in a header.
Of a site's processes the one that holds the site's lease does it; every batch expects the end of the stream besides.

The copy has a mark of its own, the end of what is copied, told within the site: whoever reads the copy waits for it as one
waits for the home's mark at home. Cut off, there is nobody to ask, and the site shows what it has.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from cluster.control.bucket import Conflict, Keys
from cluster.control.lease import Lease, LeaseLost
from cluster.control.partitions import Partition
from cluster.log import epochs
from cluster.log.connection import Arrived, Unreachable
from cluster.log.engine import Engine, EngineRefused, Kept, Message
from cluster.log.follow import Reader
from cluster.log.leader import Site
from cluster.log.marks import ASK_AGAIN_S, ASK_S_MAX, Marks
from cluster.log.recent import Recent
from cluster.log.wire import POSITION_HEADER, Mark, Stream, domain_of, encode, position_of, stream_of
from cluster.log.writer import ForeignWrite, Writer, WriteRefused
from cluster.position import split

RETRY_WAIT_S = 0.1
SILENCE_S_MAX = ASK_AGAIN_S + 2 * ASK_S_MAX  # the home is asked at least that often: after more it is out of reach

_OURS = "Angarium-"

log = structlog.get_logger("cluster.log.copier")


class Lag(NamedTuple):
    """How far a copy is behind what is known of its home. `messages`: events and pieces of content, those that expired
    too; `bytes`: reckoned with the mean of what was copied lately; `seconds`: since the copy was last level with its home,
    or heard from it."""

    messages: int
    bytes: int
    seconds: float


class Copier:
    """`marks`: the copy's own, for its readers in this process and in the site's others."""

    def __init__(self, site: Site, partition: str, lease: Lease, marks: Marks) -> None:
        self._site = site
        self._partition = partition
        self._lease = lease
        self._marks = marks
        self._home = Marks(site.connection, partition)
        self._writers: dict[int, tuple[Writer, int]] = {}  # by epoch, with the last sequence of its copy
        self._record: Partition | None = None  # as the control plane has it
        self._reader: Reader | None = None
        self._at = Mark(0, 0)
        self._has_some = False  # Else nothing is said of the copy before the home was heard: it is not empty, it is not here.
        self._level_at = time.monotonic()
        self._copied = (1, 0)  # messages and their bytes
        self._task: asyncio.Task[None] | None = None

    @property
    def copying(self) -> bool:
        """Whether this process is the one that keeps the copy up."""
        return self._lease.held()

    def start(self) -> None:
        self._task = asyncio.create_task(self._copy_for_ever(), name=f"copier of {self._partition}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._lease.release()

    def lag(self) -> Lag:
        now = time.monotonic()
        behind = self._home.known.durable - self._at.durable
        if behind <= 0:
            silent = now - max(self._home.heard_at, self._level_at)
            return Lag(0, 0, silent if silent > SILENCE_S_MAX else 0.0)
        home, here = split(self._home.known.durable), split(self._at.durable)
        messages = home.sequence - (here.sequence if here.epoch == home.epoch else 0)
        count, size = self._copied
        return Lag(messages, messages * size // count, now - self._level_at)

    async def _copy_for_ever(self) -> None:
        while True:
            await self._lease.acquire()
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._lease.renew())
                    tasks.create_task(self._copy())
            except* (LeaseLost, ForeignWrite, WriteRefused, Unreachable, EngineRefused, Conflict) as errors:
                log.warning("copying begins again", partition=self._partition, why=[str(error) for error in errors.exceptions])
            except* Exception:
                log.exception("copying begins again", partition=self._partition)
            await asyncio.sleep(RETRY_WAIT_S)

    async def _copy(self) -> None:
        self._writers.clear()
        self._record = None
        known = await self._site.known.get(self._partition)
        self._at = await self._end(known[0]) if known is not None else Mark(0, 0)
        log.info("copying", partition=self._partition, after=self._at.durable)
        self._has_some = known is not None
        asked = await self._site.connection.subscribe(self._marks.asked_on, self._on_asked)
        try:
            while True:
                await self._marks.tell(self._at)
                goal = await self._home.beyond(self._at.durable, contents=True)
                reader = await self._reader_up_to(goal)
                async for stream, kept in reader.stored(self._at.durable, goal, contents=True):
                    await self._store(stream, kept)
                    self._at = Mark(position_of(stream, kept[-1]), max(self._at.event, _last_event(stream, kept)))
                    await self._marks.tell(self._at)
                self._at = Mark(goal, self._at.event)
                self._level_at = time.monotonic()
        finally:
            await asked.close()

    async def _end(self, known: Partition) -> Mark:
        """Of what this site has."""
        durable = event = 0
        for stream in (epochs.present(known), *(old for old, _ in reversed(epochs.past(known)))):
            for subject in (">", stream.events):
                newest = await self._site.engine.last_on(stream.name, subject)
                if newest is not None:
                    durable = max(durable, position_of(stream, newest))
                    event = max(event, position_of(stream, newest) if subject != ">" else 0)
            if event:
                break
        return Mark(durable, event)

    async def _reader_up_to(self, goal: int) -> Reader:
        """Of the home's streams. Learns of new epochs, and makes room for them, before anything of them is shown."""
        while self._record is None or self._reader is None or self._record.epoch < split(goal).epoch:
            try:
                found = await self._site.partitions.get(self._partition)
            except Unreachable:
                found = None
            if found is None or self._site.name not in found[0].copies:
                await asyncio.sleep(RETRY_WAIT_S)
                continue
            record, copied, site = found[0], epochs.as_copied(found[0]), self._site
            for stream in (*(old for old, _ in epochs.past(copied)), epochs.present(copied)):
                await site.engine.create_stream(epochs.config(stream, site.replicas))
            await site.known.note(copied)
            engine = Engine(site.connection, domain_of(record.home))
            self._record = record
            self._reader = Reader(engine, site.partitions, self._partition, self._home, Recent())
        return self._reader

    async def _store(self, origin: Stream, kept: Sequence[Kept]) -> None:
        copy = stream_of(origin.partition, origin.epoch, copy=True)
        if origin.epoch not in self._writers:
            made = Writer(
                self._site.engine, copy, self._site.entropy, self._lease.confirm, chains=self._site.replicas == 1
            )
            self._writers[origin.epoch] = made, await self._site.engine.last_sequence(copy.name)
        writer, last = self._writers[origin.epoch]
        messages = [_copied(origin, each) for each in kept]
        await writer.write(messages, last, whole=False)
        self._writers[origin.epoch] = writer, last + len(messages)
        self._copied = len(kept), sum(len(each.data) for each in kept)

    async def _on_asked(self, message: Arrived) -> None:
        heard = self._home.heard_at > float("-inf") and self._at.durable >= self._home.known.durable
        if self._lease.held() and (self._has_some or heard):
            with contextlib.suppress(Unreachable):
                await self._site.connection.publish(message.reply, encode(self._at))


async def confirm_kept(keys: Keys, partition: str, site: str, upto: int) -> None:
    """Says to the home that this site has the contents up to there as blobs on disk. Raises Unreachable, Conflict."""
    entry = await keys.get(f"kept.{partition}.{site}")
    if upto > int(entry.value or 0):
        await keys.put(f"kept.{partition}.{site}", str(upto).encode(), entry.written)


async def kept_by_all(keys: Keys, partition: Partition) -> int:
    """Up to where every copy has said so. Raises Unreachable."""
    return min([int((await keys.get(f"kept.{partition.name}.{site}")).value or 0) for site in partition.copies])


def _copied(origin: Stream, kept: Kept) -> Message:
    headers = {name: value for name, value in kept.headers.items() if name.startswith(_OURS)}
    headers[POSITION_HEADER] = str(position_of(origin, kept))
    kind, rest = _place(origin, kept)
    return Message(f"cp.{origin.partition}.{origin.epoch}.{kind}.{rest}", headers, kept.data)


def _last_event(origin: Stream, kept: Sequence[Kept]) -> int:
    """Position of the last event in there, 0 = there is none."""
    return next((position_of(origin, each) for each in reversed(kept) if _place(origin, each)[0] == "ev"), 0)


def _place(origin: Stream, kept: Kept) -> tuple[str, str]:
    """`ev` or `ct`, and what follows the epoch in the subject."""
    parts = kept.subject.split(".", 4 if origin.copy else 3)
    return (parts[3], parts[4]) if origin.copy else (parts[0], parts[3])
