"""One seed's world, from its first event to the calm."""

import asyncio
import itertools
import random
import traceback
from collections import deque
from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple

import structlog
from msgspec.structs import replace

from cluster.control.partitions import Partition, clip, decode, in_history, spans
from cluster.log.model import LogUnavailable, Stored
from cluster.log.wire import decode_answer
from tests.sim import clock
from tests.sim.world import checks
from tests.sim.world.clients import Client
from tests.sim.world.faults import Faults
from tests.sim.world.network import Mail, Network
from tests.sim.world.plane import Plane
from tests.sim.world.site import Site

SITES = ("north", "south", "west")
CALM_S_MAX = 90.0
HELP_AFTER_S = 15.0
REPLIES_KEPT_MAX = 5_000


class Placed(NamedTuple):
    name: str
    home: str


class Setting(NamedTuple):
    """`remote`: durability. `forces`: operators take partitions by force. `loses_disks`: sites may be wiped, or put back
    to an earlier state, one at a time."""

    remote: bool
    forces: bool
    loses_disks: bool


class Violation(Exception):
    """An invariant is broken."""

    def __init__(self, invariant: str, how: str) -> None:
        super().__init__(f"{invariant}: {how}")
        self.invariant = invariant


class World:
    def __init__(self, loop: clock.VirtualLoop, seed: int) -> None:
        self.loop = loop
        self.seed = seed
        self._chance = random.Random(seed)
        self.network = Network(loop, self.derived(), SITES)
        self.network.watch = self._seen
        self.plane = Plane(self.network, SITES)
        self.plane.committed_one = self._committed
        self.partitions = (Placed("mail", "north"),)
        self.checks = checks.Checks(self)
        self.calm = False
        self.lines: deque[str] = deque(maxlen=100_000)
        self.violations: list[Violation] = []
        self.broke = asyncio.Event()
        self._mailbox_ids = itertools.count(1000)
        self._replies: dict[str, str] = {}
        self._record: Partition | None = None
        self.told: set[tuple[str, int]] = set()  # words given to other processes: which one, and the position
        self.unbuilt: Site | None = None
        self.helped = 0  # times that an operator had to step in, in the calm
        self._local_beat = 0  # the last while words waited for nobody
        self.forcing = 0  # operators' words under way
        setting = self.derived()
        self.setting = Setting(setting.random() < 0.6, setting.random() < 0.2, setting.random() < 0.5)
        self.pause_s = setting.choice((0.3, 0.6, 1.5))
        self.trouble_every_s = setting.choice((1.5, 3.0, 6.0))
        self.seconds = setting.choice((10, 16, 24))
        for link in self.network.links.values():
            link.delay_s = setting.choice((0.001, 0.02))
        self.sites = {name: Site(self, name) for name in SITES}
        self._processes = {name: setting.choice((1, 1, 2)) for name in SITES}

    def derived(self) -> random.Random:
        return random.Random(self._chance.getrandbits(64))

    def mailbox_id(self) -> int:
        return next(self._mailbox_ids)

    def trace(self, text: str) -> None:
        self.lines.append(f"{self.loop.time():9.4f} {text}")

    def violated(self, invariant: str, how: str) -> None:
        self.trace(f"VIOLATED {invariant}: {how}")
        self.violations.append(Violation(invariant, how))
        self.broke.set()

    def broken(self, what: str, error: BaseException) -> None:
        self.trace("".join(traceback.format_exception(error)))
        self.violated(checks.OUR_BUG, f"{what}: {error!r}")

    def record(self, partition: str) -> Partition | None:
        """The control plane's, as it is this moment."""
        stream = self.plane.committed.streams.get("KV_control")
        found = stream.last_on(f"$KV.control.partition.{partition}") if stream is not None else None
        return decode(found.data) if found is not None and found.data else None

    def is_rebuilt(self) -> bool:
        """Whether the site that lost its disk last has again all that is shown anywhere."""
        site, record = self.unbuilt, self.record(self.partitions[0].name)
        if site is None or record is None:
            return True
        there = max(each.tables.position for each in self.sites.values())
        names = (site.name, *(member.site for member in record.members))
        return site.tables.position >= there > 0 and bool(site.living()) and {*names, record.home} == set(self.sites)

    def _committed(self) -> None:
        """The control plane took a write."""
        record = self.record(self.partitions[0].name)
        if record is not None and self._record is not None and record.epoch != self._record.epoch:
            self.checks.moved(self._record, record)
        if record is not None and not record.remote:
            self._local_beat = record.beat
        self._record = record

    def is_remote(self, record: Partition) -> bool:
        """Whether its home knows that words wait for members: it hears of it when it next renews its lease."""
        return record.remote and bool(record.members) and record.beat > self._local_beat

    def _seen(self, site: str, mail: Mail) -> None:
        """Words that homes give to other processes."""
        if mail.subject.startswith("ap.") and mail.subject.endswith(".append"):
            self._replies[mail.reply] = mail.subject.split(".")[1]
            if len(self._replies) > REPLIES_KEPT_MAX:
                del self._replies[next(iter(self._replies))]
        elif mail.subject in self._replies and "Status" not in mail.headers:
            answer = decode_answer(mail.data)
            if isinstance(answer, Stored):
                self.checks.word(site, self._replies[mail.subject], answer)
                self.told.add((mail.subject.split(".")[1], answer.last))

    # -- the story -----------------------------------------------------------------------------------------------------
    async def play(self) -> None:
        structlog.configure(processors=[self._logged], cache_logger_on_first_use=False)
        for site in self.sites.values():
            for slot in range(self._processes[site.name]):
                site.start_process(slot)
        clients = [Client(self, f"client{n}") for n in range(3)]
        playing = [asyncio.create_task(client.live(), name=client.name) for client in clients]
        faults = Faults(self)
        await asyncio.sleep(3)
        playing.append(asyncio.create_task(self._place(), name="operator"))
        troubles = asyncio.create_task(faults.live(), name="faults")
        await self._unless_broken(self.seconds)
        self.calm = True
        await self._unless_broken_until(asyncio.create_task(_both(troubles, faults)), 60)
        self.trace("calm")
        await self._unless_broken_until(asyncio.create_task(self._settled(playing)), CALM_S_MAX)
        if not self.violations:
            self.checks.calm()
        for site in self.sites.values():
            for slot in site.processes:
                site.kill_process(slot)

    async def _place(self) -> None:
        """The operator says how durable words must be."""
        while self.setting.remote and not self.calm:
            for process in next(iter(self.sites.values())).living():
                try:
                    await process.log.place(lambda record: replace(record, remote=True), self.partitions[0].name)
                    return
                except LogUnavailable:
                    self.trace("not placed yet")
            await asyncio.sleep(1)

    async def _unless_broken(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.broke.wait()
        except TimeoutError:
            pass

    async def _unless_broken_until(self, task: "asyncio.Task[None]", seconds: float) -> None:
        broke = asyncio.create_task(self.broke.wait())
        done, _ = await asyncio.wait((task, broke), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        broke.cancel()
        if not done:
            self.violated(checks.SETTLES, f"not within {seconds:g} s: {self._standing()}")
        elif task in done:
            await task
        task.cancel()

    async def _settled(self, playing: "list[asyncio.Task[None]]") -> None:
        helping = asyncio.create_task(self._help_out())
        try:
            await asyncio.gather(*playing)
            await self._one_story()
        finally:
            helping.cancel()

    async def _help_out(self) -> None:
        """A partition that nobody may lead any more by itself waits for its operator, who takes the copy that has most."""
        name = self.partitions[0].name
        while True:
            waited = 0.0
            while waited < HELP_AFTER_S:
                await asyncio.sleep(0.5)
                led = any(process.log.leads(name) for site in self.sites.values() for process in site.living())
                waited = 0.0 if led else waited + 0.5
            record = self.record(name)
            if record is None:
                continue
            history = spans(record)
            copies = [site for site in self.sites.values() if site.name in record.copies and site.living()]
            best = max(copies, key=lambda site: clip(history, site.tables.position), default=None)
            if best is None:
                continue
            self.trace(f"the operator forces {best.name}")
            self.helped += 1
            self.forcing += 1
            try:
                await best.living()[0].log.force(name, best.name)
            except LogUnavailable as error:
                self.trace(f"not forced: {error}")
            self.forcing -= 1

    async def _one_story(self) -> None:
        while True:
            positions = {site.tables.position for site in self.sites.values()}
            record = self.record(self.partitions[0].name)
            assert record is not None
            shown = (at for at in self.checks.truth.events if in_history(spans(record), at))
            level = len(positions) == 1 and positions.pop() >= max(shown, default=0) and record.holder is not None
            if level and not any(site.has_unsalvaged(record) for site in self.sites.values()):
                return
            await asyncio.sleep(0.5)

    def _standing(self) -> str:
        return ", ".join(f"{site.name} at {site.tables.position:x}" for site in self.sites.values())

    def _logged(self, logger: object, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        owner = clock.OWNER.get()
        what = event.pop("event", "")
        failed = event.pop("exc_info", None)
        self.trace(f"{owner.name if owner else '-'}: {what} {event}")
        if failed:
            self.trace(traceback.format_exc())
            self.violated(checks.OUR_BUG, str(what))
        raise structlog.DropEvent


async def _both(troubles: "asyncio.Task[None]", faults: Faults) -> None:
    await troubles
    await faults.healed()


def played(seed: int) -> World:
    made: list[World] = []

    async def main(loop: clock.VirtualLoop) -> None:
        made.append(World(loop, seed))
        await made[0].play()

    clock.run(main)
    return made[0]
