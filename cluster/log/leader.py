"""One process's time as the appender of one partition, at its home: the past, serving, the end."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import NamedTuple

import msgspec
import structlog

from cluster.control.bucket import Conflict, Keys
from cluster.control.hold import Hold
from cluster.control.lease import LeaseLost
from cluster.control.partitions import (
    Known,
    KnownPartitions,
    Partition,
    Partitions,
    clip,
    spans,
    switchover,
    takeover,
    unannounced,
    windowed,
)
from cluster.control.watch import Watch
from cluster.domain.mailbox.events import UIDVALIDITY_FRESH
from cluster.log import epochs
from cluster.log.admission import Admission
from cluster.log.appender import Appender
from cluster.log.connection import Arrived, Connection, Handler, Subscribed, Unreachable
from cluster.log.engine import Engine
from cluster.log.marks import Marks
from cluster.log.members import Members
from cluster.log.model import LogUnavailable, NoRoom
from cluster.log.recent import Recent
from cluster.log.wire import (
    Busy,
    Confirmed,
    Mark,
    Stream,
    decode_confirmed,
    decode_request,
    encode,
    is_copy,
    messages,
    stream_of,
)
from cluster.log.writer import Writer
from cluster.position import position, shown, split

DRAIN_S_MAX = 5.0
HAND_OVER_S_MAX = 8.0  # for the next home to have all
HAND_OVER_BEHIND_MAX = 5_000  # messages that it may still lack when writers begin to wait
HEARD_S_MAX = 3.0  # for it to be heard for the first time
HEAR_S_MAX = 0.5  # for another copy to say how far it is

log = structlog.get_logger("cluster.log.leader")


class Site(NamedTuple):
    """What all of a process's partitions share. `partitions`: the control plane's records; `near`: the site's own bucket;
    `known`: what is noted there. `now_us`: unix microseconds; `entropy`: random bytes."""

    connection: Connection
    engine: Engine
    partitions: Partitions
    near: Keys
    known: KnownPartitions
    watch: Watch
    name: str
    replicas: int
    now_us: Callable[[], int]
    entropy: Callable[[int], bytes]


class HomeLost(Exception):
    """The partition cannot go on here; the text says why and what to do."""


class Leader:
    """`marks`: what this site may show; the home's word to others goes out beside it."""

    def __init__(self, site: Site, hold: Hold, marks: Marks, home: Marks, recent: Recent) -> None:
        self._site = site
        self._hold = hold
        self._marks = marks
        self._home = home
        self._recent = recent
        self._appender: Appender | None = None
        self._members: Members | None = None
        self._replies: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()  # set and replaced whenever we begin to serve
        self._again = asyncio.Event()  # a new epoch is wanted
        self.came: Callable[[Partition], Sequence[epochs.Told] | None] = _not_known
        self._clean = False

    @property
    def appender(self) -> Appender | None:
        """Only while we lead."""
        return self._appender if self._hold.held() else None

    async def leading(self) -> None:
        """Returns when this process leads."""
        while self.appender is None:
            changed = self._changed
            await changed.wait()

    async def next_epoch(self, *, clean: bool) -> None:
        """Ends the present epoch and returns when we lead in the next one. What waits is written before."""
        self._clean = clean
        self._again.set()
        while self._again.is_set() or self.appender is None:
            changed = self._changed
            await changed.wait()

    async def drain(self) -> int | None:
        """For an orderly end: what waits is written. The stream's last sequence; None if we were not serving."""
        appender = self.appender
        if appender is None:
            return None
        appender.refuse("this site stops")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S_MAX):
                await appender.drained()
                return appender.last
        return None

    async def serve(self) -> None:
        """While the record is held: its renewal runs beside. Raises LeaseLost, ForeignWrite, Unreachable, EngineRefused,
        Conflict, HomeLost."""
        while True:
            self._members = Members(self._hold)
            appender = await self._made()
            served: list[Subscribed] = []
            try:
                for subject, handler in self._doors():
                    served.append(await self._site.connection.subscribe(subject, handler))
                self._members.serve(appender)
                self._appender = appender
                # Told even if nothing may be shown yet: copies, on whom the first word waits, would not know that it is there.
                if self._hold.held():
                    await self._tell(appender.mark)
                await appender.advance(self._tell)
                log.info("leading", partition=self._hold.record.name, epoch=appender.stream.epoch, after=appender.last)
                self._changed.set()
                self._changed = asyncio.Event()
                await self._until_another_epoch(appender)
            finally:
                self._appender = None
                appender.close("this appender stepped down")
                for subscribed in served:
                    await subscribed.close()

    def _doors(self) -> list[tuple[str, Handler]]:
        name = self._hold.record.name
        return [
            (f"ap.{name}.append", self._on_append),
            (f"ap.{name}.upload", self._on_append),
            (f"ap.{name}.mark", self._on_mark),
            (self._marks.asked_on, self._on_mark),
            (f"ap.{name}.move", self._on_move),
            (f"cf.{name}", self._on_confirmed),
        ]

    async def _until_another_epoch(self, appender: Appender) -> None:
        assert self._members is not None
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(appender.run(self._tell)), tasks.create_task(self._members.keep(self._tell))]
            await self._again.wait()
            appender.refuse("a new epoch begins")
            await appender.drained()
            for task in running:
                task.cancel()

    async def _tell(self, mark: Mark) -> None:
        await self._marks.tell(mark)
        await self._home.tell(mark)

    # ── the past ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _made(self) -> Appender:
        """Reads the past, and begins an epoch where one must begin."""
        site, name = self._site, self._hold.record.name
        known = await site.known.get(name)
        await self._begun(known)
        record = self._hold.record
        own = stream_of(name, record.epoch)
        stream = own if known is None else _kept(known, record, own)
        await site.engine.create_stream(epochs.config(stream, site.replicas))
        streams = await epochs.lying_here(site.engine, record, known, site.replicas)
        known = await site.known.note(record, {**streams, record.epoch: stream.name})
        writer = Writer(site.engine, stream, site.entropy, self._hold.confirm, chains=site.replicas == 1)
        last = await site.engine.last_sequence(stream.name)
        if last == 0 and (record.ended or record.copies):
            # A copy without a word of the epoch could not follow us.
            words = epochs.first_words(record, site.now_us(), site.entropy(16))
            await writer.write(messages(stream, words), 0, whole=True)
            last = 1
        await site.watch.say_changed()
        tail = await epochs.tail(site.engine, known, self.came(record))
        # That an epoch ended clean changes nothing, so whoever waits need not have heard of it.
        floor = tail.before if last == 1 and not any(gap for _, _, gap in unannounced(record)) else tail.last_event
        admission = Admission(floor, history=spans(record))
        for told in tail.commands:
            admission.remember(told.command, told.first, told.last)
        mark = Mark(0, 0, position(stream.epoch, last) if last else tail.last_event)
        given = 0 if last <= 1 else record.gap_forced  # Not known any more: at most so many.
        members = self._members
        assert members is not None
        return Appender(stream, writer, admission, mark, self._recent, members, given, tail.last_event)

    async def _begun(self, known: Known | None) -> None:
        """The record says afterwards in which epoch we go on, and that it was begun with this life of the engine."""
        if not self._site.connection.life:
            raise Unreachable("the engine went away")
        if self._hold.detached:
            return  # Nobody can be told now: it goes on as it was.
        record, life = self._hold.record, self._site.connection.life
        here = await self._position(known)
        restored = known is not None and is_copy(known.streams.get(record.epoch, ""))
        if self._again.is_set():
            await self._succeed(here, 0 if self._clean else record.gap_forced)
            self._again.clear()
        elif not record.begun:
            await self._begin_clean(here)
        elif record.life == life or _as_left(record, here):
            self._must_have_all_before(here)  # The same stream.
        elif restored or record.copies:
            await self._begin_anew(known, here, restored)
        if (self._hold.record.life, self._hold.record.closed) != (life, -1):
            await self._hold.change(lambda now: msgspec.structs.replace(now, life=life, closed=-1))

    async def _position(self, known: Known | None) -> int:
        """Up to where we have history."""
        record = self._hold.record
        if known is None:
            return 0
        for stream, _ in reversed(epochs.segments(known)):
            if await self._site.engine.exists(stream.name) and (end := await epochs.end_of(self._site.engine, stream)):
                return clip(spans(record), end)
        return 0

    async def _begin_clean(self, here: int) -> None:
        """After a switchover: the old home made sure that we have all."""
        self._must_have_all_before(here)
        await self._hold.change(lambda now: msgspec.structs.replace(now, begun=True))

    def _must_have_all_before(self, here: int) -> None:
        end = max((position(old.epoch, old.last) for old in self._hold.record.ended if old.last), default=0)
        if here < end:
            raise HomeLost(f"this site has its log up to {shown(here)} only, and was made home at {shown(end)}")

    async def _begin_anew(self, known: Known | None, here: int, restored: bool) -> None:
        """We know nothing of what we may have said before this start: the disk may have been put back to an earlier state.
        So no position is used that could have been used before."""
        record = self._hold.record
        heard = await asked_positions(self._site, record, recognised=False)
        ahead = [said.site for said in heard if clip(spans(record), said.position) > here]
        if record.remote and record.members and not heard:
            raise HomeLost("none of the copies that promises were made on answers: nobody knows whether this one has all")
        if ahead:
            raise HomeLost(
                f"{' and '.join(ahead)} have more of it than this site, which gives way; if nothing happens: "
                f"angarium cluster failover {record.name} --to {ahead[0]} --force"
            )
        if not record.life and not restored:
            return  # Nobody ever led it.
        if known is None:
            raise HomeLost("its log is not here any more: let a site with a copy take over by force")
        await self._succeed(here, record.gap_forced if split(here).epoch == record.epoch else UIDVALIDITY_FRESH)

    async def _succeed(self, here: int, gap: int) -> None:
        site, record = self._site, self._hold.record
        known = await site.known.get(record.name)
        if known is not None and record.epoch in known.streams:
            await epochs.retire(site.engine, _kept(known, record, stream_of(record.name, record.epoch)))
            here = await self._position(known)
        life = site.connection.life
        await self._hold.change(
            lambda now: msgspec.structs.replace(takeover(now, site.name, here, gap), life=life)
        )
        log.info("a new epoch begins", partition=record.name, after=shown(here), gap=gap)

    # ── what others ask ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _on_append(self, message: Arrived) -> None:
        self._in_background(self._reply(message))

    async def _on_move(self, message: Arrived) -> None:
        self._in_background(self._move(message))

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    async def _reply(self, message: Arrived) -> None:
        appender = self.appender
        try:
            if appender is None:
                # Whoever leads answers; a home that ended its time says no outcome, but lets nobody wait for it either.
                raise LogUnavailable("it is led elsewhere now")
            answer = encode(await appender.submit(decode_request(message.data)))
        except LogUnavailable as error:
            answer = encode(Busy(str(error), again=appender is None or appender.closed or isinstance(error, NoRoom)))
        except msgspec.MsgspecError as error:
            answer = encode(Busy(f"not an append: {error}", again=False))
        with contextlib.suppress(Unreachable):  # The worker asks again under the same command id.
            await self._site.connection.publish(message.reply, answer)

    async def _on_mark(self, message: Arrived) -> None:
        appender = self.appender
        if appender is not None and appender.mark.written:
            with contextlib.suppress(Unreachable):
                await self._site.connection.publish(message.reply, encode(appender.mark))

    async def _on_confirmed(self, message: Arrived) -> None:
        appender, members = self.appender, self._members
        if appender is not None and members is not None:
            members.heard(decode_confirmed(message.data))
            await appender.advance(self._tell)

    # ── planned switchover ───────────────────────────────────────────────────────────────────────────────────────────

    async def _move(self, message: Arrived) -> None:
        target = message.data.decode()
        appender, members = self.appender, self._members
        if appender is None or members is None:
            return
        try:
            why = await self._moved(target, appender, members)
        except TimeoutError:
            why = f"{target} does not come up to the end"
            appender.refuse("")
        except LeaseLost:
            why = f"whether {target} is home now is not known: look at the partition"
        with contextlib.suppress(Unreachable):
            await self._site.connection.publish(message.reply, why.encode())

    async def _moved(self, target: str, appender: Appender, members: Members) -> str:
        """Why not; empty when it was done."""
        if target not in self._hold.record.copies:
            return f"{target} has no copy of {self._hold.record.name}"
        if windowed(self._hold.record, target):
            return f"{target} keeps a window of {self._hold.record.name} only"
        epoch = appender.stream.epoch
        try:
            async with asyncio.timeout(HEARD_S_MAX):
                await members.reached(target, position(epoch, min(1, appender.last)))
        except TimeoutError:
            return f"{target} does not say how far its copy is"
        if members.confirmed(target) < position(epoch, max(0, appender.last - HAND_OVER_BEHIND_MAX)):
            return f"{target} is too far behind"
        appender.refuse("the partition moves")
        async with asyncio.timeout(HAND_OVER_S_MAX):
            await appender.drained()
            await members.reached(target, position(epoch, appender.last))
        last = appender.last
        try:
            await self._hold.hand_over(lambda now: switchover(now, target, last))
        except Conflict:
            appender.refuse("")
            return "the control plane did not take it; nothing has changed"
        await self._site.watch.say_changed()
        return ""


def _not_known(record: Partition) -> None:
    """The commands of its epochs must be read."""


def _as_left(record: Partition, here: int) -> bool:
    """Whether the stream ends where an orderly end left it; a disk that is empty now does not."""
    at = split(here)
    return record.closed >= 0 and (at.sequence if at.epoch == record.epoch else 0) == record.closed


def _kept(known: Known, record: Partition, own: Stream) -> Stream:
    """The present epoch's stream as it lies here: ours, or after a restore a copy."""
    there = known.streams.get(record.epoch)
    return stream_of(record.name, record.epoch, copy=True) if there and is_copy(there) else own


async def asked_positions(site: Site, record: Partition, *, recognised: bool = True) -> list[Confirmed]:
    """What the members say they have, of those that answer at once. `recognised`: only those that were not started since."""

    async def asked(of: str, life: str) -> Confirmed | None:
        try:
            answer = await site.connection.request(f"cq.{of}.{record.name}", timeout_s=HEAR_S_MAX)
        except Unreachable:
            return None
        said = decode_confirmed(answer.data)
        return said if said.life == life or not recognised else None

    others = [member for member in record.members if member.site != site.name]
    answers = await asyncio.gather(*(asked(member.site, member.life) for member in others))
    return [said for said in answers if said is not None]
