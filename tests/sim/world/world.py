"""One seed's world, from its first event to the calm."""

import asyncio
import itertools
import json
import random
import traceback
from collections import deque
from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple

import structlog

from cluster.log.model import Stored
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
REPLIES_KEPT_MAX = 5_000


class Placed(NamedTuple):
    name: str
    home: str


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
        self.partitions = (Placed("mail", "north"),)
        self.checks = checks.Checks(self)
        self.calm = False
        self.lines: deque[str] = deque(maxlen=100_000)
        self.violations: list[Violation] = []
        self.broke = asyncio.Event()
        self._mailbox_ids = itertools.count(1000)
        self._replies: dict[str, str] = {}
        setting = self.derived()
        self.pause_s = setting.choice((0.3, 0.6, 1.5))
        self.trouble_every_s = setting.choice((1.5, 3.0, 6.0))
        self.seconds = setting.choice((12, 20, 30))
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

    def record(self, partition: str) -> dict[str, Any] | None:
        """The control plane's, as it is this moment."""
        stream = self.plane.committed.streams.get("KV_control")
        found = stream.last_on(f"$KV.control.partition.{partition}") if stream is not None else None
        return json.loads(found.data) if found is not None and found.data else None

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
        await asyncio.gather(*playing)
        while True:
            positions = {site.tables.position for site in self.sites.values()}
            if len(positions) == 1 and positions.pop() >= max(self.checks.truth.events, default=0):
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
