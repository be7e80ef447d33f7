"""One seed's world, from its first event to the calm."""

import asyncio
import itertools
import random
import traceback
from collections import Counter, deque
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from cluster.control.partitions import Partition, clip, decode, in_history, spans, windowed
from cluster.log.model import LogUnavailable, Stored
from cluster.log.wire import decode_answer
from cluster.position import shown
from tests.sim import clock
from tests.sim.world import checks
from tests.sim.world.clients import Client
from tests.sim.world.faults import Faults
from tests.sim.world.network import Mail, Network
from tests.sim.world.plane import Plane
from tests.sim.world.setting import SITES, UNSTRESSED, Placed, Stress, drawn
from tests.sim.world.site import Process, Site

START_S = 2.0  # before anything goes wrong
CALM_S_MAX = 90.0
HELP_AFTER_S = 15.0
FORCED_S_MAX = 10.0  # after its answer an operator's word may still be under way
REPLIES_KEPT_MAX = 5_000
CLIENTS = 3
RECORDS = "$KV.control.partition."


class Violation(Exception):
    """An invariant is broken."""

    def __init__(self, invariant: str, how: str) -> None:
        super().__init__(f"{invariant}: {how}")
        self.invariant = invariant


class World:
    def __init__(self, loop: clock.VirtualLoop, seed: int, stress: Stress = UNSTRESSED) -> None:
        self.loop = loop
        self.seed = seed
        self._chance = random.Random(seed)
        self.network = Network(loop, self.derived(), SITES)
        self.network.watch = self._seen
        self.stress = stress
        self.setting = stress.under(drawn(self.derived(), len(self.network.links)))
        for link, delay_s in zip(self.network.links.values(), self.setting.delays_s, strict=True):
            link.delay_s = delay_s
        self.plane = Plane(self.network, SITES)
        self.plane.committed_one = self._committed
        self.checks = {placed.name: checks.Checks(self, placed) for placed in self.setting.partitions}
        self.calming = asyncio.Event()
        self.lines: deque[str] = deque(maxlen=100_000)
        self.violations: list[Violation] = []
        self.broke = asyncio.Event()
        self._mailbox_ids = itertools.count(1000)
        self._replies: dict[str, str] = {}  # where an answer goes to, and of which partition it is
        self._records: dict[str, Partition] = {}
        self.told: set[tuple[str, str, int]] = set()  # words given to other processes: which one, of what, the position
        self.unbuilt: Site | None = None
        self.helped = 0  # times that an operator had to step in, in the calm
        self.forcing = Counter[str]()  # operators' words under way, by partition
        self.sites = {name: Site(self, name) for name in SITES}

    def derived(self) -> random.Random:
        return random.Random(self._chance.getrandbits(64))

    @property
    def calm(self) -> bool:
        """Nobody begins anything any more, and what is broken is mended."""
        return self.calming.is_set()

    @property
    def acknowledged(self) -> int:
        return sum(len(each.truth.acknowledged) for each in self.checks.values())

    async def while_wild(self, seconds: float) -> bool:
        """Sleeps so long, or until the calm; whether that is not yet."""
        try:
            async with asyncio.timeout(seconds):
                await self.calming.wait()
        except TimeoutError:
            pass
        return not self.calm

    def mailbox_id(self) -> int:
        return next(self._mailbox_ids)

    def account(self, partition: str, which: int) -> int:
        """Of one partition each."""
        return 100 * list(self.checks).index(partition) + which

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
        return self._records.get(partition)

    def is_rebuilt(self) -> bool:
        """Whether the site that lost its disk last has again all that is shown anywhere."""
        site = self.unbuilt
        return site is None or (bool(site.living()) and all(self._is_rebuilt(site, name) for name in self.checks))

    def _is_rebuilt(self, site: Site, partition: str) -> bool:
        record = self.record(partition)
        if record is None:
            return True
        there = max(each.holdings[partition].tables.position for each in self.sites.values())
        names = {site.name, record.home, *(member.site for member in record.members), *record.windows}
        return site.holdings[partition].tables.position >= there > 0 and names == set(self.sites)

    def _committed(self, subject: str) -> None:
        """The control plane took a write."""
        name = subject.removeprefix(RECORDS)
        found = self.plane.committed.streams["KV_control"].last_on(subject) if name in self.checks else None
        if found is not None and found.data:
            before, after = self._records.get(name), decode(found.data)
            self._records[name] = after
            self.checks[name].recorded(before, after)

    def _seen(self, site: str, mail: Mail) -> None:
        """Words that homes give to other processes."""
        if mail.subject.startswith("ap.") and mail.subject.endswith(".append"):
            self._replies[mail.reply] = mail.subject.split(".")[1]
            if len(self._replies) > REPLIES_KEPT_MAX:
                del self._replies[next(iter(self._replies))]
        elif mail.subject in self._replies and "Status" not in mail.headers:
            answer, partition = decode_answer(mail.data), self._replies[mail.subject]
            if isinstance(answer, Stored):
                self.checks[partition].word(site, answer)
                self.told.add((mail.subject.split(".")[1], partition, answer.last))

    # -- the story -----------------------------------------------------------------------------------------------------
    async def play(self) -> None:
        self.loop.failed = lambda error: self.broken("something that the world does failed", error)
        structlog.configure(processors=[self._logged], cache_logger_on_first_use=False)
        for site, count in zip(self.sites.values(), self.setting.processes, strict=True):
            for slot in range(count):
                site.start_process(slot)
        clients = [Client(self, f"client{n}") for n in range(CLIENTS)]
        playing = [asyncio.create_task(client.live(), name=client.name) for client in clients]
        faults = Faults(self)
        await asyncio.sleep(START_S)
        playing += [asyncio.create_task(self._place(each), name="operator") for each in self.setting.partitions]
        troubles = asyncio.create_task(faults.live(), name="faults")
        await self._unless_broken(self.setting.seconds)
        self.calming.set()
        await self._unless_broken_until(asyncio.create_task(_both(troubles, faults)), 60)
        self.trace("calm")
        await self._unless_broken_until(asyncio.create_task(self._settled(playing)), CALM_S_MAX)
        for each in self.checks.values():
            if not self.violations:
                each.calm()
        for site in self.sites.values():
            for slot in site.processes:
                site.kill_process(slot)

    async def _place(self, placed: Placed) -> None:
        """The operator says how durable words must be, and what a copy keeps."""
        while (placed.remote or placed.window) and not self.calm:
            for process in next(iter(self.sites.values())).living():
                try:
                    await process.log.place(placed.wanted, placed.name)
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
        helping = [asyncio.create_task(self._help_out(name)) for name in self.checks]
        try:
            await asyncio.gather(*playing)
            for name in self.checks:
                await self._one_story(name)
        finally:
            for each in helping:
                each.cancel()

    async def force(self, process: Process, partition: str, site: str) -> None:
        self.forcing[partition] += 1
        try:
            await process.log.force(partition, site)
            self.trace(f"{partition} is forced to {site}")
        except LogUnavailable as error:
            self.trace(f"not forced: {error}")
        self.loop.call_later(FORCED_S_MAX, self.forcing.subtract, (partition,))

    async def _help_out(self, name: str) -> None:
        """A partition that nobody may lead any more by itself waits for its operator, who takes the copy that has most."""
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
            whole = [site for site in copies if not windowed(record, site.name)]
            best = max(
                whole or copies, key=lambda site: clip(history, site.holdings[name].tables.position), default=None
            )
            if best is None:
                continue
            self.trace(f"the operator forces {best.name}")
            self.helped += 1
            await self.force(best.living()[0], name, best.name)

    async def _one_story(self, name: str) -> None:
        holdings = [site.holdings[name] for site in self.sites.values()]
        while True:
            positions = {holding.tables.position for holding in holdings}
            record = self.record(name)
            assert record is not None
            seen = (at for at in self.checks[name].truth.events if in_history(spans(record), at))
            level = len(positions) == 1 and positions.pop() >= max(seen, default=0) and record.holder is not None
            if level and not any(holding.has_unsalvaged(record) for holding in holdings):
                return
            await asyncio.sleep(0.5)

    def _standing(self) -> str:
        holdings = (holding for site in self.sites.values() for holding in site.holdings.values())
        return ", ".join(f"{each.name} has {each.partition} up to {shown(each.tables.position)}" for each in holdings)

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


def played(seed: int, stress: Stress = UNSTRESSED) -> World:
    made: list[World] = []

    async def main(loop: clock.VirtualLoop) -> None:
        made.append(World(loop, seed, stress))
        await made[0].play()

    clock.run(main)
    return made[0]
