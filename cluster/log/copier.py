"""Keeps a copy of a partition that is at home at another site, and takes the partition over when its home is lost.

What lies above the copy's end and not above what its home has written is read in bulk across the link, straight from the
home's engine, and written into the site's own stream `CP-<p>-<e>` in atomic batches, with the position at the origin in a
header. Of a site's processes the one that holds the site's lease does it; every batch expects the end of the stream
besides. The home hears how far the copy is on disk.

The copy has a mark of its own, told within the site: as much as its home promised, of what is here. Cut off, there is
nobody to ask, and the site shows what it has.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import structlog

from cluster.control.bucket import Bucket, Conflict, Keys
from cluster.control.hold import Hold
from cluster.control.lease import LOOK_EVERY_S, Lease
from cluster.control.partitions import (
    Found,
    Known,
    KnownPartitions,
    Partition,
    Spans,
    clip,
    gap_of,
    may_follow,
    spans,
    takeover,
)
from cluster.log import epochs
from cluster.log.came import Came
from cluster.log.connection import Arrived, Handler, Unreachable
from cluster.log.engine import Engine, EngineRefused, Kept, Message
from cluster.log.epochs import Told
from cluster.log.follow import Reader
from cluster.log.leader import Site, asked_positions
from cluster.log.marks import ASK_AGAIN_S, ASK_S_MAX, Marks
from cluster.log.recent import Recent
from cluster.log.wire import (
    POSITION_HEADER,
    Confirmed,
    Mark,
    Stream,
    domain_of,
    encode,
    is_copy,
    position_of,
    stream_of,
)
from cluster.log.writer import Writer
from cluster.position import position, shown, split

RETRY_WAIT_S = 0.1
CONFIRM_EVERY_S = 0.8
WAIT_FOR_BETTER_S = 3.0  # for a copy that has more to take over; then this one does
FORCE_TRIES_MAX = 20
AHEAD_MAX = 4  # portions asked for and not stored yet; each of at most 8 MiB
SILENCE_S_MAX = ASK_AGAIN_S + 2 * ASK_S_MAX  # the home is asked at least that often: after more it is out of reach

_OURS = "Angarium-"

log = structlog.get_logger("cluster.log.copier")


class _Asked(NamedTuple):
    """What the home said, and what is read of it. `upto`: position up to which all is asked for then. `read`: the first
    portion of what was not asked for before; None = there is nothing more."""

    mark: Mark
    upto: int
    read: "asyncio.Task[tuple[Stream, Sequence[Kept]] | None] | None"


class Lag(NamedTuple):
    """How far a copy is behind what is known of its home. `messages`: events and pieces of content, those that expired
    too; `bytes`: reckoned with the mean of what was copied lately; `seconds`: since the copy was last level with its home,
    or heard from it."""

    messages: int
    bytes: int
    seconds: float


class Copier:
    """`marks`: the copy's own, for its readers in this process and in the site's others; `recent`: what those in this
    process need not ask the engine for."""

    def __init__(
        self, site: Site, partition: str, lease: Lease, hold: Hold, marks: Marks, home: Marks, recent: Recent
    ) -> None:
        self._site = site
        self._partition = partition
        self._lease = lease
        self._hold = hold
        self._marks = marks
        self._home = home
        self._recent = recent
        self._writers: dict[int, tuple[Writer, int, int]] = {}  # by epoch, with its copy's last sequence and position
        self._source: Known | None = None  # what the home said that it has
        self._reader: Reader | None = None
        self._started = ""  # the engine's life when we looked at what is here
        self._life = ""  # as the home hears it
        self._at = 0  # all of history up to here is on disk
        self._event = 0  # the last event of that
        self._storing = asyncio.Lock()  # nothing is stored while we stand for home
        self._frozen = 0  # the revision of the record at which we stood: nothing is confirmed until it has moved on
        self._moved = asyncio.Event()
        self._anew = False  # something that was here is copied once more
        self._has_some = False  # Else nothing is said of the copy before the home was heard: it is not empty, it is not here.
        self._level_at = time.monotonic()
        self._level = asyncio.Event()  # it was, since it was looked at
        self._came = Came(time.monotonic)
        self._copied = (1, 0)  # messages and their bytes

    @property
    def copying(self) -> bool:
        """Whether this process is the one that keeps the copy up."""
        return self._lease.held()

    @property
    def at(self) -> int:
        """The position up to which the copy has all."""
        return self._at

    def came(self, record: Partition) -> list[Told] | None:
        """The newest commands of all epochs before the record's, if they came by here."""
        end = max((position(old.epoch, old.last) for old in record.ended if old.last), default=0)
        return self._came.all(spans(record)) if self._at >= end else None

    async def release(self) -> None:
        await self._lease.release()

    def lag(self) -> Lag:
        now = time.monotonic()
        behind = self._home.known.written - self._at
        if behind <= 0:
            silent = now - max(self._home.heard_at, self._level_at)
            return Lag(0, 0, silent if silent > SILENCE_S_MAX else 0.0)
        there, here = split(self._home.known.written), split(self._at)
        messages = behind if there.epoch == here.epoch else there.sequence
        mean = self._copied[1] / self._copied[0]
        return Lag(messages, round(messages * mean), now - self._level_at)

    async def copy(self) -> None:
        """For ever. Raises what stops it; whoever keeps the partition begins again."""
        await self._lease.acquire()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._lease.renew())
            tasks.create_task(self._copy())

    async def _copy(self) -> None:
        await self._look()
        doors: list[tuple[str, Handler]] = [
            (self._marks.asked_on, self._on_asked),
            (f"cq.{self._site.name}.{self._partition}", self._on_position_asked),
            (f"fc.{self._site.name}.{self._partition}", self._on_forced),
            (f"rc.{self._site.name}.{self._partition}", self._on_recopy),
        ]
        served = [await self._site.connection.subscribe(subject, handler) for subject, handler in doors]
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._fetch_for_ever())
                tasks.create_task(self._confirm_for_ever())
                tasks.create_task(self._while_the_home_stays())
                tasks.create_task(self._stand_when_it_is_time())
                tasks.create_task(self._read_what_lay_here())
        finally:
            for each in served:
                await each.close()

    async def _look(self) -> None:
        """At what is here."""
        self._writers.clear()
        self._recent.clear()
        self._came.forget()
        self._level.clear()
        self._source, self._anew = None, False
        self._started = self._site.connection.life
        again = await self._site.near.get(f"recopied.{self._partition}")
        # A copy that was made anew lacks what it had confirmed: as one whose disk was put back, it must be recognised anew.
        self._life = f"{self._started}~{again.value.decode()}" if again.revision and self._started else self._started
        frozen = await self._site.near.get(f"frozen.{self._partition}")
        self._frozen = int(frozen.value or 0)
        known = await self._site.known.get(self._partition)
        self._has_some = known is not None
        self._at, self._event = await epochs.whole(self._site.engine, known) if known is not None else (0, 0)
        log.info("copying", partition=self._partition, after=shown(self._at))

    async def _read_what_lay_here(self) -> None:
        """When there is time: what comes by is remembered meanwhile."""
        await self._level.wait()
        known = await self._site.known.get(self._partition)
        if known is not None:
            self._came.lay_here((await epochs.tail(self._site.engine, known)).commands)

    # ── copying ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _fetch_for_ever(self) -> None:
        """Over a long way answers take longer than marks take to come: what each tells of is asked for at once, and all is
        stored in order."""
        asked: asyncio.Queue[_Asked] = asyncio.Queue(AHEAD_MAX)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ask_ahead(asked, tasks))
            tasks.create_task(self._store_in_order(asked))

    async def _ask_ahead(self, asked: "asyncio.Queue[_Asked]", tasks: asyncio.TaskGroup) -> None:
        mark, upto = Mark(0, 0, 0), 0
        while True:
            mark = await self._home.differing(mark)
            read = None
            if mark.written > max(upto, self._at):
                if self._source is None or self._source.partition.epoch < split(mark.written).epoch:
                    await asked.join()  # What is here is looked at anew.
                reader = await self._reader_up_to(mark.written)
                after, upto = max(upto, self._at), self._of_history(mark).written
                read = tasks.create_task(_first_of(reader, after, upto))
            await asked.put(_Asked(mark, upto, read))

    async def _store_in_order(self, asked: "asyncio.Queue[_Asked]") -> None:
        while True:
            mark, upto, read = await asked.get()
            if read is not None:
                assert self._reader is not None
                first = await read
                if first is not None:
                    await self._take(*first)
                    if self._at < upto:
                        async for stream, kept in self._reader.stored(self._at, upto, contents=True):
                            await self._take(stream, kept)
                self._at = max(self._at, upto)
                self._moved.set()
            if self._at >= self._home.known.written:
                self._level_at = time.monotonic()
                self._level.set()
            await self._tell(mark)
            asked.task_done()

    async def _take(self, stream: Stream, kept: Sequence[Kept]) -> None:
        async with self._storing:
            await self._store(stream, kept)
        if events := [each for each in kept if _place(stream, each)[0] == "ev"]:
            self._event = max(self._event, position_of(stream, events[-1]))
            self._came.add(stream, events)
        self._at = position_of(stream, kept[-1])
        self._moved.set()
        await self._tell(self._home.known)

    async def _while_the_home_stays(self) -> None:
        """Whoever waits for a home that was lost would wait for ever."""
        while True:
            await self._site.watch.looked()
            record = self._record()
            self._refuse_if_anew()
            if self._source is not None and record is not None and record.epoch > self._source.partition.epoch:
                raise Unreachable(f"the partition is at home at {record.home} now")

    def _refuse_if_anew(self) -> None:
        if self._anew:
            raise Unreachable("an epoch is copied once more")

    async def _tell(self, mark: Mark) -> None:
        """What is here and promised may be shown."""
        said, mark = mark, self._of_history(mark)
        if mark.durable and (self._at or self._has_some):
            # The home names the last event of all that it shows; of less than that, only we know it.
            event = mark.event if mark.durable <= self._at and mark.event == said.event else self._event
            await self._marks.tell(Mark(min(mark.durable, self._at), event, self._at))

    def _of_history(self, mark: Mark) -> Mark:
        return within(spans(self._source.partition), mark) if self._source is not None else mark

    async def _reader_up_to(self, goal: int) -> Reader:
        """Of the home's streams. Learns of new epochs, and makes room for them, before anything of them is shown."""
        while self._source is None or self._reader is None or self._source.partition.epoch < split(goal).epoch:
            record = self._record()
            if record is None or self._site.name not in record.copies:
                await self._site.watch.looked()
                continue
            domain = domain_of(record.home)
            there = KnownPartitions(Bucket(self._site.connection, domain=domain))
            try:
                source = await there.get(self._partition)
            except Unreachable:
                source = None
            # What we know of the home may be old: the one asked must itself say that it is.
            if source is None or source.partition.epoch < split(goal).epoch or source.partition.home != record.home:
                await self._site.watch.looked()
                continue
            engine, site = self._site.engine, self._site
            known = await site.known.get(self._partition)
            streams = await epochs.lying_here(engine, source.partition, known, site.replicas)
            self._at, self._event = await epochs.whole(engine, await site.known.note(source.partition, streams))
            self._source = source
            self._reader = Reader(Engine(site.connection, domain), there, self._partition, self._home, Recent())
        return self._reader

    async def _store(self, origin: Stream, kept: Sequence[Kept]) -> None:
        self._refuse_if_anew()  # What was read goes on where there is nothing any more.
        copy = stream_of(origin.partition, origin.epoch, copy=True)
        if origin.epoch not in self._writers:
            made = Writer(
                self._site.engine, copy, self._site.entropy, self._lease.confirm, chains=self._site.replicas == 1
            )
            end = await epochs.end_of(self._site.engine, copy)
            self._writers[origin.epoch] = made, await self._site.engine.last_sequence(copy.name), end
        writer, last, end = self._writers[origin.epoch]
        # What is here already comes once more after a hole before it.
        messages = [_copied(origin, each) for each in kept if position_of(origin, each) > end]
        if messages:
            await writer.write(messages, last, whole=False)
            self._recent.add(copy.name, last + 1, messages)
        self._writers[origin.epoch] = writer, last + len(messages), max(end, position_of(origin, kept[-1]))
        self._copied = len(kept), sum(len(each.data) for each in kept)

    async def _on_recopy(self, message: Arrived) -> None:
        why = ""
        try:
            await self._recopy(int(message.data))
        except (Conflict, EngineRefused, Unreachable, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
        with contextlib.suppress(Unreachable):
            await self._site.connection.publish(message.reply, why.encode())

    async def _recopy(self, epoch: int) -> None:
        """Throws away what is here of an epoch; what the home has of it comes once more, into its place. Not while the home
        does not show that it has it: readers would soon take what does not come for what was dropped."""
        site = self._site
        await self._refuse_unless_the_home_has(epoch)
        async with self._storing:
            if self._hold.held():
                raise Unreachable("this site is home now")  # It took over while we waited.
            known = await site.known.get(self._partition)
            if known is None or epoch not in known.streams:
                raise ValueError(f"nothing of epoch {epoch} is here")
            log.warning("an epoch is copied once more", partition=self._partition, stream=known.streams[epoch])
            again = await site.near.get(f"recopied.{self._partition}")
            await site.near.put(f"recopied.{self._partition}", str(again.written).encode(), again.written)
            self._life, self._anew = "", True  # Not a word, and no candidate, from here on until we have looked again.
            await site.engine.delete_stream(known.streams[epoch])
            streams = {other: name for other, name in known.streams.items() if other != epoch}
            rest = msgspec.structs.replace(known, streams=streams)
            await site.known.note(
                known.partition, await epochs.lying_here(site.engine, known.partition, rest, site.replicas)
            )

    async def _refuse_unless_the_home_has(self, epoch: int) -> None:
        record = self._record()
        if record is None or record.home == self._site.name:
            raise Unreachable("its home is not known")
        domain = domain_of(record.home)
        there = await KnownPartitions(Bucket(self._site.connection, domain=domain)).get(self._partition)
        known = await self._site.known.get(self._partition)
        if there is None or known is None or epoch not in there.streams or epoch not in known.streams:
            raise ValueError(f"epoch {epoch} is not both here and at {record.home}")
        ours = stream_of(self._partition, epoch, copy=is_copy(known.streams[epoch]))
        theirs = stream_of(self._partition, epoch, copy=is_copy(there.streams[epoch]))
        end = clip(spans(record), await epochs.end_of(Engine(self._site.connection, domain), theirs))
        if end < clip(spans(record), await epochs.end_of(self._site.engine, ours)):
            raise ValueError(f"{record.home} has epoch {epoch} up to {shown(end)} only, less than is here")

    # ── what the home and others hear ────────────────────────────────────────────────────────────────────────────────

    async def _confirm_for_ever(self) -> None:
        while True:
            self._moved.clear()
            if self._started != self._site.connection.life and self._site.connection.life:
                raise Unreachable("the engine was started again")  # Its disk may have been put back.
            found = self._found()
            if found is not None and found.revision > self._frozen and self._at and self._life:
                with contextlib.suppress(Unreachable):
                    await self._site.connection.publish(f"cf.{self._partition}", encode(self._said()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CONFIRM_EVERY_S):
                    await self._moved.wait()

    def _said(self) -> Confirmed:
        return Confirmed(self._site.name, self._life, self._at)

    async def _on_position_asked(self, message: Arrived) -> None:
        if self._lease.held():
            with contextlib.suppress(Unreachable):
                await self._site.connection.publish(message.reply, encode(self._said()))

    async def _on_asked(self, message: Arrived) -> None:
        told = self._marks.known
        heard = self._home.heard_at > float("-inf") and told.durable >= self._home.known.durable
        if self._lease.held() and (self._has_some or heard):
            with contextlib.suppress(Unreachable):
                await self._site.connection.publish(message.reply, encode(told))

    # ── standing for home ────────────────────────────────────────────────────────────────────────────────────────────

    def _found(self) -> Found | None:
        return self._site.watch.found.get(self._partition)

    def _record(self) -> Partition | None:
        found = self._found()
        return found.partition if found is not None else None

    async def _stand_when_it_is_time(self) -> None:
        since: float | None = None
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            found = self._found()
            if found is None or not self._site.watch.is_over(self._partition):
                since = None
                continue
            here = clip(spans(found.partition), self._at)
            if not may_follow(found.partition, self._site.name, self._life, here):
                continue
            since = since if since is not None else time.monotonic()
            try:
                if await self._stand(found, patient=time.monotonic() - since < WAIT_FOR_BETTER_S):
                    return
            except (Conflict, Unreachable) as error:
                log.info("did not take over", partition=self._partition, why=str(error))

    async def _stand(self, found: Found, *, patient: bool) -> bool:
        """Takes over on the very record that was seen. Raises Conflict, Unreachable."""
        record, site = found.partition, self._site
        async with self._storing:
            self._refuse_if_anew()
            await self._freeze(found.revision)
            here = clip(spans(record), self._at)
            better = [said for said in await asked_positions(site, record) if said.position > here]
            if better and patient:
                log.info("others have more", partition=self._partition, sites=[said.site for said in better])
                return False
            gap = gap_of(record, site.name, self._life, here)
            following = msgspec.structs.replace(takeover(record, site.name, here, gap), life=self._started)
            await self._hold.take(found, following)
        log.warning("taken over", partition=self._partition, epoch=following.epoch, after=shown(here), gap=gap)
        await site.watch.say_changed()
        return True

    async def _freeze(self, revision: int) -> None:
        """Nothing more is confirmed of the old epoch, also after a crash, until the record has moved on."""
        self._frozen = max(self._frozen, revision)  # A replica that lags may tell of an earlier one after a later one.
        entry = await self._site.near.get(f"frozen.{self._partition}")
        await self._site.near.put(f"frozen.{self._partition}", str(self._frozen).encode(), entry.written)

    async def _on_forced(self, message: Arrived) -> None:
        why = "the record changed all the time; try again"
        for _ in range(FORCE_TRIES_MAX):
            await self._site.watch.looked()
            found = self._found()
            if found is None or self._site.name not in found.partition.copies:
                why = f"{self._site.name} has no copy of {self._partition}, or the control plane does not answer"
                break
            try:
                await self._stand(found, patient=False)
                why = ""
                break
            except (Conflict, Unreachable) as error:
                why = str(error)
        with contextlib.suppress(Unreachable):
            await self._site.connection.publish(message.reply, why.encode())


async def _first_of(reader: Reader, after: int, upto: int) -> tuple[Stream, Sequence[Kept]] | None:
    async with contextlib.aclosing(reader.stored(after, upto, contents=True)) as portions:
        async for portion in portions:
            return portion
    return None


def within(history: Spans, mark: Mark) -> Mark:
    """What a home said before it was lost may lie beyond where its epoch ended: nobody has that, and nobody may wait for
    it. The last event then is not known, only that it is no later."""
    return Mark(clip(history, mark.durable), clip(history, mark.event), clip(history, mark.written))


async def confirm_kept(keys: Keys, partition: str, site: str, upto: int) -> None:
    """Says to the home that this site has the contents up to there as blobs on disk. Raises Unreachable, Conflict."""
    entry = await keys.get(f"kept.{partition}.{site}")
    if upto > int(entry.value or 0):
        await keys.put(f"kept.{partition}.{site}", str(upto).encode(), entry.written)


async def kept_by_all(keys: Keys, partition: str, copies: Sequence[str]) -> int:
    """Up to where every copy has said so. Raises Unreachable."""
    return min([int((await keys.get(f"kept.{partition}.{site}")).value or 0) for site in copies])


def _copied(origin: Stream, kept: Kept) -> Message:
    headers = {name: value for name, value in kept.headers.items() if name.startswith(_OURS)}
    headers[POSITION_HEADER] = str(position_of(origin, kept))
    kind, rest = _place(origin, kept)
    return Message(f"cp.{origin.partition}.{origin.epoch}.{kind}.{rest}", headers, kept.data)


def _place(origin: Stream, kept: Kept) -> tuple[str, str]:
    """`ev` or `ct`, and what follows the epoch in the subject."""
    parts = kept.subject.split(".", 4 if origin.copy else 3)
    return (parts[3], parts[4]) if origin.copy else (parts[0], parts[3])
