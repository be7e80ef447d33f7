"""The log on NATS JetStream: the port `Log`, and what the node does with it.

    log = JetStreamLog("nats://127.0.0.1:24222", user, password, node_id="n1", site="north")
    await log.start()             # waits for the engine; LogUnavailable after timeout_s
    log.lead("m1")                # makes the partition, at home here, if it is not there; keeps our part in it
    log.keep("m2")                # our part in a partition: candidate for its appender at its home, else for its copy
    await log.leading("m1")       # if one wants to wait until this process is the appender
    …append, upload, follow, read, mark, drop_contents…   # from any process, leading or not
    await log.stop()              # writes what waits, releases the leases

Appends go to the appender directly when it lives in this process, else by request over the engine.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

import structlog

from cluster.control.bucket import Bucket, Conflict, Keys
from cluster.control.hold import Hold
from cluster.control.holder import this_process
from cluster.control.lease import LEASE_S, Lease, boot_clock
from cluster.control.partitions import Ended, Known, KnownPartitions, Partition, Partitions, Spans, sound, spans
from cluster.control.watch import CopySaid, Node, Pulse, Watch
from cluster.log import epochs, wire
from cluster.log.appender import Appender
from cluster.log.blobs import Peers
from cluster.log.connection import Connection, NobodyThere, Unreachable
from cluster.log.copier import SILENCE_S_MAX, Copier, Lag, confirm_kept, kept_by_all
from cluster.log.digests import Digests
from cluster.log.engine import Engine, EngineRefused
from cluster.log.follow import READ_BYTES_MAX, READ_RECORDS_MAX, Reader, unpacked
from cluster.log.keeper import Keeper
from cluster.log.leader import Leader, Site
from cluster.log.marks import ASK_S_MAX, Marks
from cluster.log.model import (
    APPEND_S_MAX,
    Append,
    Blob,
    LogRefuses,
    LogUnavailable,
    NoRoom,
    Record,
    Stale,
    Stored,
    measured,
)
from cluster.log.operations import Members, Operations
from cluster.log.recent import Recent
from cluster.log.restoring import restored
from cluster.log.shown import Shown
from cluster.position import Position, position, split

ATTEMPT_S_MAX = 3.0  # an unanswered request is sent again after this, under the same command id
RETRY_WAIT_S = 0.03
PLACED_LOOK_S = 0.05
START_S_MAX = 30.0
MOVE_S_MAX = 20.0
TAKEN_UP_S_MAX = 4.0


log = structlog.get_logger("cluster.log.jetstream")


class Tail(NamedTuple):
    """What lies in this site's stream of an epoch beyond its end in history: positions above `after`, up to `last`."""

    epoch: int
    after: int
    last: int


class Backbone(NamedTuple):
    """`replicas`: of the control plane, 1 or 3."""

    domain: str
    replicas: int


def _now_us() -> int:
    return time.time_ns() // 1000


class JetStreamLog:
    """`backbone`: where the control plane lies when there are several sites, None = at this one. `replicas`: of the
    site's streams, 1 or 3. `now_us` (unix microseconds) and `entropy` (random bytes) go into EpochStarted and ids."""

    def __init__(
        self,
        url: str,
        user: str = "",
        password: str = "",
        *,
        node_id: str,
        site: str,
        backbone: Backbone | None = None,
        replicas: int = 1,
        version: str = "",
        now_us: Callable[[], int] = _now_us,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._connection = Connection(url, user, password, name=f"angarium {node_id}", inbox=wire.token(site))
        self._engine = Engine(self._connection)
        self._near = self._bucket = Bucket(self._connection, replicas=replicas)
        if backbone is not None:
            self._bucket = Bucket(self._connection, domain=backbone.domain, replicas=backbone.replicas)
        self._me = this_process(entropy(12).hex(), node_id)
        self._version = version
        self.spooled = 0  # told of us: cluster.control.watch.Node
        self._pulse = Pulse(self._bucket, self._said, boot_clock)
        partitions, known = Partitions(self._bucket), KnownPartitions(self._near)
        self.watch = Watch(self._connection, partitions, self._pulse, boot_clock)
        self._site = Site(
            self._connection, self._engine, partitions, self._near, known, self.watch, site,
            replicas=replicas, now_us=now_us, entropy=entropy,
        )  # fmt: skip
        self._tasks: list[asyncio.Task[None]] = []
        self._keepers: dict[str, Keeper] = {}
        self._marks: dict[str, Marks] = {}
        self._homes: dict[str, Marks] = {}
        self._shown: dict[str, Shown] = {}
        self._kept: set[str] = set()  # whose home is heard, and what is shown of them noted
        self._readers: dict[str, Reader] = {}
        self._dropped: dict[str, int] = {}
        self._recent: dict[str, Recent] = {}

    async def start(self, timeout_s: float = START_S_MAX) -> None:
        """Raises LogUnavailable."""
        try:
            await self._connection.start(timeout_s)
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        await self._near.ensure()
                        break
                    except Unreachable:
                        await asyncio.sleep(RETRY_WAIT_S)
        except (Unreachable, TimeoutError) as error:
            await self._connection.stop()
            raise LogUnavailable(str(error) or "the engine's JetStream does not answer") from error
        if self._bucket is not self._near:
            # Not waited for: cut off from the backbone, a site shows what it has.
            self._tasks.append(asyncio.create_task(_ensured(self._bucket), name="control plane"))
        self._tasks += [
            asyncio.create_task(self._pulse.run(), name="pulse"),
            asyncio.create_task(self.watch.run(), name="watch"),
        ]

    async def stop(self) -> None:
        await asyncio.gather(*(shown.note() for shown in self._shown.values()))
        await asyncio.gather(*(keeper.stop() for keeper in self._keepers.values()))
        self._keepers.clear()
        for task in self._tasks:
            task.cancel()
        await self._pulse.part()
        await self._connection.stop()

    def lead(self, partition: str, copies: tuple[str, ...] = (), *, pinned: bool = False) -> None:
        """Makes the partition, at home here and with copies at those sites, if it is not there; and keeps our part."""
        self._keeper_of(partition).make(copies, pinned=pinned)
        self.keep(partition)

    def keep(self, partition: str, *, wanted: bool = False) -> None:
        """From now on, until `stop`, a candidate for the partition's appender while it is at home here, and for keeping the
        copy while one is here. `wanted`: if there never was a copy here, there shall be one."""
        keeper = self._keeper_of(partition)
        keeper.wanted = wanted
        keeper.start()
        if partition not in self._kept:
            self._kept.add(partition)
            for work in (self._shown_of(partition).keep(), self._home_of(partition).hear()):
                self._tasks.append(asyncio.create_task(work, name=f"beside {partition}"))

    def peers(self) -> Peers:
        """The way to the other sites' blobs, and theirs to ours, over this log's connection."""
        return Peers(self._connection, self._site.name)

    def control_plane(self) -> Keys:
        return self._bucket

    def operations(self, members: Members) -> Operations:
        """What an operator sees and does."""
        return Operations(self, self._site, self._pulse, self._keepers, self._said, members)

    def digests(self) -> Digests:
        """The way to the other sites' word on their tables, and theirs to ours."""
        return Digests(self._connection, self._site.name)

    async def recopy(self, partition: str, epoch: int) -> None:
        """Has this site's copy of that epoch made anew. Raises LogUnavailable."""
        await self._told(f"rc.{self._site.name}.{wire.named(partition)}", str(epoch).encode(), MOVE_S_MAX)

    async def whole(self, partition: str) -> int:
        """Position up to which all of history is here. Raises LogUnavailable."""
        try:
            return (await epochs.whole(self._engine, await self._known(partition)))[0]
        except (Unreachable, EngineRefused) as error:
            raise LogUnavailable(str(error)) from error

    def lags(self) -> dict[str, Lag]:
        """Of the copies that this process keeps up."""
        return {name: keeper.copier.lag() for name, keeper in self._keepers.items() if keeper.copier.copying}

    def leads(self, partition: str) -> bool:
        keeper = self._keepers.get(partition)
        return keeper is not None and keeper.appender is not None

    def is_led(self, partition: str) -> bool:
        """Whether somebody gives his word for the partition, as far as is heard here: its lease was renewed, or its home
        told of itself, a moment ago."""
        unchanged_s = self.watch.unchanged_s(wire.named(partition))
        renewed = unchanged_s is not None and unchanged_s < LEASE_S
        return renewed or self.leads(partition) or time.monotonic() - self._home_of(partition).heard_at < SILENCE_S_MAX

    def keeps(self, partition: str) -> bool:
        """Whether of this site's processes it is this one that leads the partition or keeps its copy."""
        keeper = self._keepers.get(partition)
        return keeper is not None and (keeper.appender is not None or keeper.copier.copying)

    async def leading(self, partition: str) -> None:
        """Returns when this process is the partition's appender. `lead` first."""
        await self._keepers[partition].leader.leading()

    def record(self, partition: str) -> Partition | None:
        """As the control plane last told it."""
        found = self.watch.found.get(partition)
        return found.partition if found is not None else None

    async def switchover(self, partition: str, site: str, timeout_s: float = MOVE_S_MAX) -> None:
        """Moves a partition's home without loss. Raises LogUnavailable with the reason."""
        await self._told(f"ap.{wire.named(partition)}.move", site.encode(), timeout_s)

    async def force(self, partition: str, site: str, timeout_s: float = MOVE_S_MAX) -> None:
        """Has that site's copy take the partition over, whatever it has and whoever is home. Raises LogUnavailable."""
        await self._told(f"fc.{site}.{wire.named(partition)}", b"", timeout_s)

    async def place(self, change: Callable[[Partition], Partition], partition: str) -> Partition:
        """Changes a partition's record (copies, durability, pinned), not its home or epochs. Returns when its home goes by
        it, if there is one. Raises LogUnavailable."""
        try:
            async with asyncio.timeout(MOVE_S_MAX):
                while True:
                    found = await self._site.partitions.get(wire.named(partition))
                    if found is None:
                        raise LogUnavailable(f"there is no partition {partition}")
                    wanted = sound(found.partition, change(found.partition))
                    try:
                        await self._site.partitions.change(wanted, found.revision)
                    except Conflict:
                        continue
                    await self.watch.say_changed()
                    await self._taken_up(wire.named(partition), wanted)
                    return wanted
        except (Unreachable, TimeoutError) as error:
            raise LogUnavailable(f"the control plane does not answer: {error}") from error

    async def _taken_up(self, name: str, changed: Partition) -> None:
        """Returns when its home has renewed its lease on the changed record; a home that does not is lost, or reads it
        first thing when it is back."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAKEN_UP_S_MAX):
                while (now := self.record(name)) is None or (now.epoch, now.beat) <= (changed.epoch, changed.beat):
                    await self.watch.looked()

    async def _told(self, subject: str, data: bytes, timeout_s: float) -> None:
        try:
            answer = await self._connection.request(subject, data, timeout_s=timeout_s)
        except NobodyThere:
            raise LogUnavailable("nobody who could do it is there: is the site up, and its log?") from None
        except Unreachable as error:
            raise LogUnavailable(str(error)) from error
        if answer.data:
            raise LogUnavailable(answer.data.decode())

    def _said(self, beat: int = 0) -> Node:
        site, at = self._site, self._site.now_us() / 1_000_000
        leads = tuple(name for name, keeper in self._keepers.items() if keeper.appender is not None)
        copiers = {name: keeper.copier for name, keeper in self._keepers.items() if keeper.copier.copying}
        copies = tuple(CopySaid(name, copier.at, *copier.lag()) for name, copier in copiers.items())
        life = self._connection.life
        return Node(site.name, self._me.node, self._version, life, at, beat, leads, copies, self.spooled)

    async def append(self, append: Append, timeout_s: float = APPEND_S_MAX) -> Stored | Stale:
        """Raises LogUnavailable; ValueError for what no log takes (no events, too large, too many)."""
        measured(append)
        entity = append.events[0].entity
        chunks = [await wire.chunk(blob, index) for blob in append.contents for index in range(wire.count_of(blob))]
        request = wire.Request(append.command, entity, append.events, append.depends, append.read_at, tuple(chunks))
        return await self._submit(wire.named(append.partition), "append", request, timeout_s)

    async def upload(
        self, partition: str, entity: str, blobs: AsyncIterator[Blob], timeout_s: float = APPEND_S_MAX
    ) -> tuple[bytes, ...]:
        hashes: list[bytes] = []
        async for blob in blobs:
            hashes.append(blob.hash)
            for index in range(wire.count_of(blob)):
                chunk = await wire.chunk(blob, index)
                request = wire.Request(self._site.entropy(16), entity, chunks=(chunk,))
                await self._submit(wire.named(partition), "upload", request, timeout_s)
        return tuple(hashes)

    def follow(
        self, partition: str, after: Position, *, contents: bool = True, standing: int = 0
    ) -> AsyncIterator[tuple[Record, ...]]:
        return self._reader_of(partition).follow(after, contents=contents, standing=standing)

    def read(self, partition: str, after: int, upto: int, *, contents: bool = False) -> AsyncIterator[tuple[Record, ...]]:
        """Everything above `after` and not above `upto`, then ends. `upto` must not lie above the mark. Waits for the
        engine as long as it takes."""
        return self._reader_of(partition).read(after, upto, contents=contents)

    def read_of(
        self, partition: str, upto: int, noun: str, entity: str | None = None
    ) -> AsyncIterator[tuple[Record, ...]]:
        """Events of one entity (None = of all) of a noun, in history and not above `upto`, then ends. Waits as `read`."""
        return self._reader_of(partition).read_of(upto, noun, entity)

    async def mark(self, partition: str, timeout_s: float = APPEND_S_MAX) -> Position:
        """Position of the last event, 0 = there is none yet. Raises LogUnavailable."""
        keeper = self._keepers.get(partition)
        if keeper is not None and (appender := keeper.appender) is not None and appender.mark.written:
            return Position(appender.mark.event)
        return Position((await self._marks_of(partition).asked(timeout_s)).event)

    async def shown(self, partition: str) -> Position:
        """How far this site surely may show the partition, whoever is out of reach. Raises LogUnavailable, also where
        nothing of it lies here."""
        at = await self._shown_of(partition).recall()
        if at is None:
            raise LogUnavailable(f"nothing of {partition} lies here")
        return at

    def home_mark(self, partition: str) -> Position | None:
        """Of a copy: how far the home says that the partition is shown. None = it was not heard lately, or is here."""
        record, home = self.record(partition), self._home_of(partition)
        if (record is not None and record.home == self._site.name) or time.monotonic() - home.heard_at > SILENCE_S_MAX:
            return None
        return Position(home.known.event)

    async def home_end(self, partition: str) -> Position:
        """Position of the last event that the home tells of. Raises LogUnavailable."""
        return Position((await self._home_of(partition).asked(APPEND_S_MAX)).event)

    async def home_asked(self, partition: str) -> Position | None:
        """What the home says now, None = nobody answers for it."""
        try:
            return Position((await self._home_of(partition).ask(ASK_S_MAX)).durable)
        except Unreachable:
            return None

    async def drop_contents(self, partition: str, upto: Position) -> Position:
        """At the home: of what this names, as much as the copies have confirmed too. At a copy: confirms it. Raises
        LogUnavailable."""
        self._recent_of(partition).forget(split(upto).sequence)
        try:
            known = await self._site.known.get(partition)
            if known is None:
                return Position(0)
            record = known.partition
            if record.home != self._site.name:
                await confirm_kept(self._bucket, partition, self._site.name, upto)
            elif copies := (self.record(partition) or record).copies:
                upto = Position(min(upto, await kept_by_all(self._bucket, partition, copies)))
            if upto <= self._dropped.get(partition, 0):
                return upto
            for stream, end in epochs.segments(known):
                if stream.epoch <= split(upto).epoch:
                    await self._reader_of(partition).drop_contents(stream, end, upto)
            self._dropped[partition] = upto
            return upto
        except (Unreachable, EngineRefused, Conflict) as error:
            raise LogUnavailable(str(error)) from error

    async def known_history(self, partition: str) -> Spans:
        """(epoch, its last sequence in history) of all epochs, as this site knows them. Raises LogUnavailable."""
        reader, record = self._reader_of(partition), self.record(partition)
        if not reader.history and await reader.known() is None and record is None:
            raise LogUnavailable(f"nothing is known of {partition} here")
        # Where another process of the site follows, this one reads nothing, and hears of new epochs by the record.
        if record is not None and (not reader.history or record.epoch > reader.history[-1][0]):
            return spans(record)
        return reader.history

    async def tails(self, partition: str) -> tuple[Tail, ...]:
        """What lies in this site's streams beyond the ends of their epochs. Raises LogUnavailable."""
        known, found = await self._known(partition), list[Tail]()
        try:
            for stream, last in epochs.segments(known):
                end = await epochs.end_of(self._engine, stream) if stream.epoch < known.partition.epoch else 0
                if split(end).epoch == stream.epoch and split(end).sequence > last:
                    found.append(Tail(stream.epoch, position(stream.epoch, last), end))
        except (Unreachable, EngineRefused) as error:
            raise LogUnavailable(str(error)) from error
        return tuple(found)

    async def read_tail(self, partition: str, tail: Tail) -> AsyncIterator[tuple[Record, ...]]:
        """Its records, contents too. Raises LogUnavailable."""
        known = await self._known(partition)
        stream = next(stream for stream, _ in epochs.segments(known) if stream.epoch == tail.epoch)
        try:
            sequence = await self._reader_of(partition).sequence_after(stream, tail.after)
            while kept := (await self._engine.read(stream.name, sequence, READ_RECORDS_MAX, ">", READ_BYTES_MAX)).messages:
                for batch in unpacked(stream, kept):
                    yield batch
                sequence = kept[-1].sequence + 1
        except (Unreachable, EngineRefused) as error:
            raise LogUnavailable(str(error)) from error

    async def history(self, partition: str) -> tuple[Ended, ...]:
        """Every epoch of the partition, the present one as if it ended at the mark: what a backup keeps beside the
        records. Raises LogUnavailable."""
        mark = split(await self.mark(partition))
        record = (await self._known(partition)).partition
        last = mark.sequence if mark.epoch == record.epoch else 0
        return (*record.ended, Ended(record.epoch, last, record.gap_forced, record.home))

    async def restore(self, partition: str, history: Sequence[Ended], records: AsyncIterator[tuple[Record, ...]]) -> None:
        """Writes a partition that is not here as copies: `records` (events of all its epochs, in order, as `read` gave
        them). Whoever leads it then begins a new epoch. Raises LogUnavailable; ValueError if it is here already."""
        try:
            await restored(self._site, wire.named(partition), history, records)
        except (Unreachable, EngineRefused) as error:
            raise LogUnavailable(str(error)) from error

    async def start_epoch(self, partition: str, ended_clean: bool, timeout_s: float = START_S_MAX) -> None:
        """Ends the present epoch and begins the next with EpochStarted, under the lease: ours if we lead, else taken
        for this. Raises LogUnavailable."""
        mine = partition not in self._keepers
        self.keep(partition)
        try:
            async with asyncio.timeout(timeout_s):
                await self._keepers[partition].leader.next_epoch(clean=ended_clean)
        except TimeoutError:
            raise LogUnavailable(f"the lease of {partition} cannot be had") from None
        finally:
            if mine:
                await self._keepers.pop(partition).stop()

    async def _submit(self, partition: str, verb: str, request: wire.Request, timeout_s: float) -> Stored | Stale:
        try:
            async with asyncio.timeout(timeout_s):
                data = b""
                while True:
                    keeper = self._keepers.get(partition)
                    if keeper is not None and (appender := keeper.appender) is not None:
                        answer: wire.Answer = await _answer(appender.submit(request), appender)
                    else:
                        data = data or wire.encode(request)
                        answer = await self._asked(partition, verb, data)
                    if not isinstance(answer, wire.Busy):
                        return answer
                    if not answer.again:
                        raise LogRefuses(answer.why)
                    await asyncio.sleep(RETRY_WAIT_S)
        except TimeoutError:
            raise LogUnavailable(f"no answer from the appender of {partition} within {timeout_s:g} s") from None

    async def _asked(self, partition: str, verb: str, data: bytes) -> wire.Answer:
        """Waits no longer for a home that another one has followed (who is cut off does not say so), and asks again when
        that one begins: before, nobody who could answer may have heard it."""
        asked = asyncio.create_task(self._connection.request(f"ap.{partition}.{verb}", data, timeout_s=ATTEMPT_S_MAX))
        placed = self._placed(partition)
        try:
            while not (await asyncio.wait((asked,), timeout=PLACED_LOOK_S))[0]:
                if self._placed(partition) != placed:
                    return wire.Busy("another home follows", again=True)
            return wire.decode_answer(asked.result().data)
        except NobodyThere:
            return wire.Busy("there is no appender", again=True)
        except Unreachable as error:
            return wire.Busy(str(error), again=True)
        finally:
            asked.cancel()

    def _placed(self, partition: str) -> tuple[str, int, int]:
        """Which home there is by the record, its epoch, and the one of which its mark was heard."""
        record, begun = self.record(partition), split(self._home_of(partition).known.written).epoch
        return (record.home, record.epoch, begun) if record is not None else ("", 0, begun)

    async def _known(self, partition: str) -> Known:
        try:
            found = await self._site.known.get(partition)
        except Unreachable as error:
            raise LogUnavailable(str(error)) from error
        if found is None:
            raise LogUnavailable(f"nothing is known of {partition} here")
        return found

    def _keeper_of(self, partition: str) -> Keeper:
        if partition not in self._keepers:
            name, site = wire.named(partition), self._site
            hold = Hold(self._bucket, name, self._me, Lease(self._near, f"pinned.{name}", self._me))
            lease = Lease(self._near, f"copier.{name}", self._me)
            marks, home = self._marks_of(name), self._home_of(name)
            recent = self._recent_of(name)
            leader = Leader(site, hold, marks, home, recent)
            copier = Copier(site, name, lease, hold, marks, home, recent)
            self._keepers[name] = Keeper(site, name, hold, leader, copier)
        return self._keepers[partition]

    def _marks_of(self, partition: str) -> Marks:
        if partition not in self._marks:
            self._marks[partition] = Marks(self._connection, wire.named(partition), self._site.name)
        return self._marks[partition]

    def _home_of(self, partition: str) -> Marks:
        if partition not in self._homes:
            self._homes[partition] = Marks(self._connection, wire.named(partition))
        return self._homes[partition]

    def _shown_of(self, partition: str) -> Shown:
        if partition not in self._shown:
            marks, known = self._marks_of(partition), self._site.known
            self._shown[partition] = Shown(
                self._engine, self._near, known, partition, marks, lambda: self.keeps(partition)
            )
        return self._shown[partition]

    def _recent_of(self, partition: str) -> Recent:
        return self._recent.setdefault(partition, Recent())

    def _reader_of(self, partition: str) -> Reader:
        if partition not in self._readers:
            self._readers[partition] = Reader(
                self._engine, self._site.known, partition, self._marks_of(partition), self._recent_of(partition)
            )
        return self._readers[partition]


async def _ensured(bucket: Bucket) -> None:
    """Makes it, as soon as there is a quorum, and room on as many members as it has replicas."""
    while True:
        try:
            return await bucket.ensure()
        except (Unreachable, EngineRefused) as error:
            log.debug("no bucket yet", why=str(error))
            await asyncio.sleep(RETRY_WAIT_S)


async def _answer(future: asyncio.Future[Stored | Stale], appender: Appender) -> wire.Answer:
    try:
        await asyncio.wait((future,))
        return future.result()
    except LogUnavailable as error:
        return wire.Busy(str(error), again=appender.closed or isinstance(error, NoRoom))
