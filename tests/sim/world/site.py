"""A site: its engine, its tables and blobs, and processes that come and go."""

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from cluster.log import jetstream
from cluster.log.jetstream import Backbone, JetStreamLog
from cluster.log.model import LogUnavailable, RolledBack
from cluster.position import Position
from storage.salvage import Salvage
from tests.sim.clock import Owner
from tests.sim.engine import Stream
from tests.sim.world.blobs import SimBlobs, SimWorld
from tests.sim.world.holding import Holding
from tests.sim.world.network import Network, SimConnection, as_process
from tests.sim.world.tables import Tables

if TYPE_CHECKING:
    from tests.sim.world.world import World

LOCK_POLL_S = 0.5
KEEP_EVERY_S = 5.0
SALVAGE_EVERY_S = 2.0
RETRY_S = 0.25

log = structlog.get_logger("sim.site")


class Process:
    """One node process: the real log over the simulated engine, and followers that keep the site's tables."""

    def __init__(self, site: "Site", name: str) -> None:
        self.site = site
        self.name = name
        self.owner = Owner(name)
        self.dead = False
        self.ready = False
        self.following: dict[str, asyncio.Task[None]] = {}
        chance = random.Random(site.network.chance.getrandbits(64))
        self.connection = SimConnection(site.network, site.name, self.owner)
        self.log = made_log(self.connection, site, name, chance.randbytes)
        world: Any = SimWorld(site.server.now_ns, site.network.loop.time, chance.randbytes)
        blobs: Any = site.blobs  # as much of the port as is used
        self.salvages = {name: Salvage(name, self.log, blobs, world) for name in site.holdings}
        loop = site.network.loop
        as_process(self.owner).run(loop.create_task, self._live(), name=name)

    def kill(self) -> None:
        """At once, in the middle of whatever it does: not a word leaves it any more."""
        self.dead = True
        self.ready = False
        self.connection.kill()
        for holding in self.site.holdings.values():
            if holding.folding is self:
                holding.folding = None
        self._cancel(100)

    def _cancel(self, times: int) -> None:
        self.owner.kill()
        if self.owner.living() and times:
            self.site.network.loop.call_soon(self._cancel, times - 1)

    async def _live(self) -> None:
        while True:
            try:
                await self.log.start()
                break
            except LogUnavailable:
                await asyncio.sleep(RETRY_S)
        site = self.site
        for placed in site.world.setting.partitions:
            if placed.home == site.name:
                others = tuple(other for other in site.world.sites if other != site.name)
                self.log.lead(placed.name, others, pinned=placed.pinned)
            else:
                self.log.keep(placed.name)
        self.ready = True
        for holding in site.holdings.values():
            for what, work in (("salvage", self._salvage(holding)), ("tables", self._keep_tables(holding))):
                task = asyncio.create_task(work, name=f"{what} of {holding.partition} at {self.name}")
                task.add_done_callback(self._ended)
        await asyncio.Event().wait()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.site.world.broken(f"{task.get_name()} failed", error)

    async def _keep_tables(self, holding: Holding) -> None:
        while True:
            following = asyncio.create_task(self._follow(holding), name=f"follower at {self.name}")
            self.following[holding.partition] = following
            await asyncio.wait((following,))
            if not following.cancelled() and (error := following.exception()) is not None:
                if isinstance(error, RolledBack):
                    await holding.roll_back(self, error.end)
                elif not isinstance(error, LogUnavailable):
                    self.site.world.broken(f"the follower of {holding.partition} at {self.name} failed", error)
            await asyncio.sleep(RETRY_S)

    async def _follow(self, holding: Holding) -> None:
        while holding.folding is not None:  # noqa: ASYNC110  # the database's lock, which is asked for again and again
            await asyncio.sleep(LOCK_POLL_S)
        holding.folding = self
        keeper = asyncio.create_task(self._drop_contents(holding))
        records = self.log.follow(holding.partition, Position(holding.tables.position))
        try:
            async for batch in records:
                holding.take(batch)
        finally:
            keeper.cancel()
            if holding.folding is self:
                holding.folding = None

    async def _salvage(self, holding: Holding) -> None:
        """Whatever lies in a tail here is brought into history, as often as it takes."""
        salvage = self.salvages[holding.partition]
        while True:
            await asyncio.sleep(SALVAGE_EVERY_S)
            if holding.folding is not self:
                continue
            try:
                outcome = await salvage.run(holding.tables.state.salvaged)
                if outcome.again or outcome.reported or outcome.waiting:
                    self.site.world.trace(f"{self.name}: {outcome}")
                holding.waiting = outcome.waiting
            except LogUnavailable as error:
                log.info("salvage pauses", why=str(error))

    async def _drop_contents(self, holding: Holding) -> None:
        """Contents that are on disk as blobs leave the log."""
        kept = 0
        while True:
            await asyncio.sleep(KEEP_EVERY_S)
            upto = holding.tables.position
            if upto > kept:
                try:
                    await self.log.drop_contents(holding.partition, Position(upto))
                    kept = upto
                except LogUnavailable:
                    log.debug("contents stay")


def made_log(connection: SimConnection, site: "Site", name: str, entropy: Callable[[int], bytes]) -> JetStreamLog:
    module = vars(jetstream)
    real = module["Connection"]
    module["Connection"] = lambda *_, **__: connection
    try:
        return JetStreamLog(
            "sim://engine",
            node_id=name,
            site=site.name,
            backbone=Backbone("backbone", 3),
            now_us=lambda: site.server.now_ns() // 1000,
            entropy=entropy,
        )
    finally:
        module["Connection"] = real


class Saved(NamedTuple):
    """What a backup of a site's disk holds. `events`: how many the tables of each partition had."""

    streams: dict[str, Stream]
    events: dict[str, int]
    blobs: dict[bytes, bytes]


class Site:
    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.network: Network = world.network
        self.server = world.network.servers[name]
        self.blobs = SimBlobs()
        self.holdings = {placed.name: Holding(self, placed.name) for placed in world.setting.partitions}
        self.processes: dict[int, Process] = {}
        self.lost_blobs = False  # they are fetched from other sites, which is not played here
        self.lost_at = float("-inf")
        self.saved: Saved | None = None
        self._numbers = itertools.count(1)

    def start_process(self, slot: int) -> None:
        self.processes[slot] = Process(self, f"{self.name}-{slot}-{next(self._numbers)}")

    def kill_process(self, slot: int) -> None:
        self.processes[slot].kill()

    def living(self) -> list[Process]:
        return [each for each in self.processes.values() if each.ready and not each.dead]

    def tables_back(self, events: int) -> None:
        for holding in self.holdings.values():
            holding.back(events)

    def restart(self) -> None:
        """What was on the disk is there."""

    # -- disks ---------------------------------------------------------------------------------------------------------
    def save(self) -> None:
        events = {name: len(holding.tables.events) for name, holding in self.holdings.items()}
        self.saved = Saved(self.server.streams.copy(), events, dict(self.blobs.kept))

    def restore(self) -> None:
        assert self.saved is not None
        self._become(self.saved)

    def wipe(self) -> None:
        self._become(Saved({}, {}, {}))

    def _become(self, saved: Saved) -> None:
        self.lost_blobs = True
        self.lost_at = self.network.loop.time()
        self.server.streams.put_back(saved.streams)
        self.blobs.kept = dict(saved.blobs)
        for name, holding in self.holdings.items():
            holding.tables = Tables.of(holding.tables.events[: saved.events.get(name, 0)])
            self.world.checks[name].disk_lost(holding)
