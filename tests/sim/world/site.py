"""A site: its engine, its tables and blobs, and processes that come and go."""

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from cluster.control.partitions import Partition, spans
from cluster.log import jetstream
from cluster.log.jetstream import Backbone, JetStreamLog
from cluster.log.model import LogUnavailable, Record, RolledBack
from cluster.log.wire import POSITION_HEADER
from cluster.position import Position, shown, split
from storage.salvage import Salvage
from tests.sim.clock import Owner
from tests.sim.engine import Stream
from tests.sim.world.blobs import SimBlobs, SimWorld
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
    """One node process: the real log over the simulated engine, and a follower that keeps the site's tables."""

    def __init__(self, site: "Site", name: str) -> None:
        self.site = site
        self.name = name
        self.owner = Owner(name)
        self.dead = False
        self.ready = False
        self.following: asyncio.Task[None] | None = None
        chance = random.Random(site.network.chance.getrandbits(64))
        self.connection = SimConnection(site.network, site.name, self.owner)
        self.log = made_log(self.connection, site, name, chance.randbytes)
        world: Any = SimWorld(site.server.now_ns, site.network.loop.time, chance.randbytes)
        blobs: Any = site.blobs  # as much of the port as is used
        self.salvage = Salvage(site.partition, self.log, blobs, world)
        loop = site.network.loop
        as_process(self.owner).run(loop.create_task, self._live(), name=name)

    def kill(self) -> None:
        """At once, in the middle of whatever it does: not a word leaves it any more."""
        self.dead = True
        self.ready = False
        self.connection.kill()
        if self.site.folding is self:
            self.site.folding = None
        self._cancel(100)

    def _cancel(self, times: int) -> None:
        self.owner.kill()
        if self.owner.tasks and times:
            self.site.network.loop.call_soon(self._cancel, times - 1)

    async def _live(self) -> None:
        while True:
            try:
                await self.log.start()
                break
            except LogUnavailable:
                await asyncio.sleep(RETRY_S)
        for partition in self.site.world.partitions:
            if partition.home == self.site.name:
                self.log.lead(partition.name, tuple(s for s in self.site.world.sites if s != self.site.name))
            else:
                self.log.keep(partition.name)
        self.ready = True
        salvaging = asyncio.create_task(self._salvage(), name=f"salvage at {self.name}")
        salvaging.add_done_callback(self._salvage_ended)
        while True:
            self.following = asyncio.create_task(self._follow(), name=f"follower at {self.name}")
            await asyncio.wait((self.following,))
            if not self.following.cancelled() and (error := self.following.exception()) is not None:
                if isinstance(error, RolledBack):
                    await self.site.roll_back(self, error.end)
                elif not isinstance(error, LogUnavailable):
                    self.site.world.broken(f"the follower of {self.name} failed", error)
            await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        site = self.site
        while site.folding is not None:  # noqa: ASYNC110  # the database's lock, which is asked for again and again
            await asyncio.sleep(LOCK_POLL_S)
        site.folding = self
        keeper = asyncio.create_task(self._keep())
        records = self.log.follow(site.partition, Position(site.tables.position))
        try:
            async for batch in records:
                site.take(batch)
        finally:
            keeper.cancel()
            if site.folding is self:
                site.folding = None

    async def _salvage(self) -> None:
        """Whatever lies in a tail here is brought into history, as often as it takes."""
        while True:
            await asyncio.sleep(SALVAGE_EVERY_S)
            if self.site.folding is not self:
                continue
            try:
                outcome = await self.salvage.run(self.site.tables.state.salvaged)
                if outcome.again or outcome.reported or outcome.waiting:
                    self.site.world.trace(f"{self.name}: {outcome}")
                self.site.waiting = outcome.waiting
            except LogUnavailable as error:
                log.info("salvage pauses", why=str(error))

    def _salvage_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.site.world.broken(f"salvage at {self.name} failed", error)

    async def _keep(self) -> None:
        """Contents that are on disk as blobs leave the log."""
        kept = 0
        while True:
            await asyncio.sleep(KEEP_EVERY_S)
            upto = self.site.tables.position
            if upto > kept:
                try:
                    await self.log.drop_contents(self.site.partition, Position(upto))
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


class Site:
    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.network: Network = world.network
        self.server = world.network.servers[name]
        self.partition = world.partitions[0].name
        self.tables = Tables()
        self.blobs = SimBlobs()
        self.rolled_back = 0
        self.waiting: tuple[int, ...] = ()  # epochs whose tail rests on one that is not here
        self.folding: Process | None = None
        self.moved = asyncio.Event()
        self.processes: dict[int, Process] = {}
        self.lost_blobs = False  # they are fetched from other sites, which is not played here
        self.lost_at = float("-inf")
        self.saved: tuple[dict[str, Stream], int, dict[bytes, bytes]] | None = None  # what a backup of the disk holds
        self._numbers = itertools.count(1)

    def start_process(self, slot: int) -> None:
        self.processes[slot] = Process(self, f"{self.name}-{slot}-{next(self._numbers)}")

    def kill_process(self, slot: int) -> None:
        self.processes[slot].kill()

    def living(self) -> list[Process]:
        return [each for each in self.processes.values() if each.ready and not each.dead]

    # -- tables --------------------------------------------------------------------------------------------------------
    def take(self, batch: tuple[Record, ...]) -> None:
        for record in batch:
            if not record.noun:
                self.blobs.take(record)
            elif record.position > self.tables.position:
                self.world.checks.before_fold(self, record)
                event = self.tables.fold(record)
                self.world.checks.folded(self, record, event)
        self._news()

    def _news(self) -> None:
        self.moved.set()
        self.moved = asyncio.Event()

    async def reached(self, position: int, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                while self.tables.position < position:
                    await self.moved.wait()
        except TimeoutError:
            return False
        return True

    def tables_back(self, events: int) -> None:
        """The database crashed: its last commits were not on the disk yet."""
        self.tables = Tables.of(self.tables.events[: max(0, len(self.tables.events) - events)])
        self.world.checks.went_back(self)
        if self.folding is not None and self.folding.following is not None:
            self.folding.following.cancel()  # it noticed that the database ended the connection

    async def roll_back(self, process: Process, end: int) -> None:
        """History goes on from `end`: the tables are made again up to there, and put in the place of the old ones."""
        self.world.trace(f"{self.name} rolls back to {shown(end)}")
        made = Tables()
        if end:
            async for batch in process.log.read(self.partition, 0, end):
                for record in batch:
                    if record.noun:
                        made.fold(record)
        if process.dead:
            return
        self.tables = made
        self.rolled_back += 1
        self.world.checks.rolled_back(self)
        self._news()

    def restart(self) -> None:
        """What was on the disk is there."""

    def has_unsalvaged(self, record: Partition) -> bool:
        """Whether a tail lies here that its salvage is not through with, nor waits for another one."""
        ends = dict(spans(record))
        for stream in self.server.streams.streams.values():
            kind, _, rest = str(stream.config["name"]).partition(f"-{self.partition}-")
            if not rest or not stream.messages:
                continue
            epoch, newest = int(rest), stream.messages[-1]
            last = newest.sequence if kind == "EV" else split(int(newest.headers[POSITION_HEADER])).sequence
            done = max(ends.get(epoch, 0), self.tables.state.salvaged.get(epoch, 0))
            if epoch < record.epoch and last > done and epoch not in self.waiting:
                return True
        return False

    # -- disks ---------------------------------------------------------------------------------------------------------
    def save(self) -> None:
        self.saved = self.server.streams.copy(), len(self.tables.events), dict(self.blobs.kept)

    def restore(self) -> None:
        assert self.saved is not None
        streams, events, blobs = self.saved
        self._losing()
        self.server.streams.streams = {name: stream.copy() for name, stream in streams.items()}
        self.tables = Tables.of(self.tables.events[:events])
        self.blobs.kept = dict(blobs)
        self.world.checks.disk_lost(self)

    def wipe(self) -> None:
        self._losing()
        self.server.streams.streams = {}
        self.tables = Tables()
        self.blobs.kept = {}
        self.world.checks.disk_lost(self)

    def _losing(self) -> None:
        self.lost_blobs = True
        self.lost_at = self.network.loop.time()
