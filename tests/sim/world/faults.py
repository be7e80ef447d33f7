"""What goes wrong, drawn from the seed, one after the other and over each other."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cluster.control.partitions import Partition
from cluster.log.model import LogUnavailable
from tests.sim.world.site import Process, Site

if TYPE_CHECKING:
    from tests.sim.world.world import World

TWO_HOURS_NS = 7_200_000_000_000


class Faults:
    def __init__(self, world: "World") -> None:
        self.world = world
        self.chance = world.derived()
        self._under_way: set[asyncio.Task[None]] = set()

    async def live(self) -> None:
        kinds: list[tuple[float, Callable[[], Coroutine[None, None, None]]]] = [
            (4, self.cut_pair), (2, self.isolate), (5, self.kill_process), (3, self.crash_engine), (1, self.power_cut),
            (2, self.member_down), (2, self.tables_crash), (2, self.step_clock), (2, self.slow_disk), (2, self.slow_link),
            (2, self.lose_disk), (2, self.switchover), (0.5, self.force),
            (1, self.copy_then_home), (1, self.hurried_switchover), (1, self.home_after_home), (1, self.home_just_away),
            (1, self.without_a_copy), (1, self.otherwise_durable), (2.5, self.recopy),
        ]  # fmt: skip
        if any(placed.pinned for placed in self.world.setting.partitions):
            kinds.append((3, self.alone_and_started_again))
        wanted = self.world.stress.faults
        kinds = [(weight, kind) for weight, kind in kinds if not wanted or kind.__name__ in wanted]
        while True:
            if not await self.world.while_wild(self.chance.expovariate(1 / self.world.setting.trouble_every_s)):
                return
            fault = self.chance.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])[0]
            task = asyncio.create_task(fault())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def healed(self) -> None:
        """Whatever is under way ends as it must; then everything is whole."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        world = self.world
        world.network.late = world.network.doubles = 0.0
        for link in world.network.links:
            world.network.heal(*link)
        for site in world.sites.values():
            site.server.disk_s = 0.0005
            site.server.start()
            for slot, process in site.processes.items():
                if process.dead:
                    site.start_process(slot)
        for member in world.plane.members:
            world.plane.member_up(member)
        world.plane.changed()

    def _site(self) -> Site:
        return self.chance.choice(list(self.world.sites.values()))

    async def _while(self, low: float, high: float) -> None:
        await self.world.while_wild(self.chance.uniform(low, high))

    async def cut_pair(self) -> None:
        a, b = self.chance.sample(list(self.world.sites), 2)
        ways = [(a, b), (b, a)] if self.chance.random() < 0.7 else [(a, b)]
        await self._cut(ways)

    async def isolate(self) -> None:
        site = self._site().name
        others = [other for other in self.world.sites if other != site]
        await self._cut([way for other in others for way in ((site, other), (other, site))])

    async def _cut(self, ways: list[tuple[str, str]], low: float = 0.3, high: float = 15) -> None:
        loses = self.chance.random() < 0.5
        self.world.trace(f"cut {ways}")
        for way in ways:
            self.world.network.cut(*way, loses=loses)
        self.world.plane.changed()
        await self._while(low, high)
        self.world.trace(f"heal {ways}")
        for way in ways:
            self.world.network.heal(*way)
        self.world.plane.healed()

    async def kill_process(self) -> None:
        site = self._site()
        living = [slot for slot, process in site.processes.items() if not process.dead]
        if living:
            await self._killed(site, [self.chance.choice(living)], 0.2, 5)

    async def _killed(self, site: Site, slots: list[int], low: float, high: float) -> None:
        for slot in slots:
            self.world.trace(f"kill process {site.processes[slot].name}")
            site.kill_process(slot)
        await self._while(low, high)
        for slot in slots:
            if site.processes[slot].dead:
                site.start_process(slot)

    async def crash_engine(self) -> None:
        site = self._site()
        if not site.server.up:
            return
        self.world.trace(f"engine of {site.name} crashes")
        site.server.crash(self.chance.random())
        await self._while(0.3, 6)
        self.world.trace(f"engine of {site.name} starts")
        site.server.start()

    async def power_cut(self) -> None:
        site = self._site()
        await self._down(site, Site.restart)
        site.tables_back(self.chance.randrange(20))

    async def lose_disk(self) -> None:
        """A site's disk is gone, or put back as it was earlier. The next is lost only when it has all again."""
        site = self._site()
        if not self.world.setting.loses_disks or not self.world.is_rebuilt():
            return
        self.world.unbuilt = site
        if self.chance.random() < 0.5:
            await self._down(site, Site.wipe)
        else:
            site.save()
            await self._while(1, 8)
            await self._down(site, Site.restore)

    async def _down(self, site: Site, meanwhile: Callable[[Site], None], low: float = 0.5, high: float = 8) -> None:
        if not site.server.up or not self.world.plane.is_up[site.name]:
            return
        self.world.trace(f"{site.name} goes down, {meanwhile.__name__}")
        site.server.crash(self.chance.random())
        self.world.plane.member_down(site.name)
        slots = [slot for slot, process in site.processes.items() if not process.dead]
        for slot in slots:
            site.kill_process(slot)
        await self._while(low, high)
        meanwhile(site)
        self.world.trace(f"{site.name} comes up")
        site.server.start()
        self.world.plane.member_up(site.name)
        for slot in slots:
            if site.processes[slot].dead:
                site.start_process(slot)

    async def switchover(self, of: str = "") -> None:
        process, to, name = self._somebody(), self._site(), of or self._partition()
        if process is not None:
            self.world.trace(f"{process.name} asks for a switchover of {name} to {to.name}")
            try:
                await process.log.switchover(name, to.name)
                self.world.trace(f"switched over to {to.name}")
            except LogUnavailable as error:
                self.world.trace(f"no switchover: {error}")

    # -- what an operator changes ------------------------------------------------------------------------------------------
    async def without_a_copy(self) -> None:
        """A copy is taken off the record, and put on it again."""
        site, name = self._site().name, self._partition()
        self.world.sites[site].lost_blobs = True  # Contents need not wait for it meanwhile.
        await self._placed(name, lambda now: replace(now, copies=tuple(each for each in now.copies if each != site)))
        await self._while(1, 8)
        await self._placed(name, lambda now: now if site in (now.home, *now.copies) else _with_copy(now, site))

    async def otherwise_durable(self) -> None:
        name = self._partition()
        await self._placed(name, lambda now: replace(now, remote=not now.remote, strict=False, windows={}))
        await self._while(1, 8)
        await self._placed(name, self.world.checks[name].placed.wanted)

    async def _placed(self, name: str, change: Callable[[Partition], Partition]) -> None:
        """As often as it takes."""
        while True:
            process = self._somebody()
            if process is not None and self.world.record(name) is not None:
                try:
                    record = await process.log.place(change, name)
                    self.world.trace(f"{name}: copies {record.copies}, remote {record.remote}, strict {record.strict}")
                    return
                except LogUnavailable as error:
                    self.world.trace(f"not placed: {error}")
            await asyncio.sleep(1)

    async def recopy(self) -> None:
        """What is at a site of one epoch is thrown away, to be copied anew. For what was promised on it that is a lost disk."""
        site, name = self._site(), self._partition()
        record, living = self.world.record(name), site.living()
        epochs = sorted({epoch for epoch, _ in site.holdings[name].streams()})
        if not (self.world.setting.loses_disks and self.world.is_rebuilt() and epochs and living and record):
            return
        self.world.unbuilt = site
        epoch = self.chance.choice((*epochs, epochs[-1], epochs[-1]))
        self.world.trace(f"epoch {epoch} of {name} is copied anew at {site.name}")
        try:
            await living[0].log.recopy(name, epoch)
        except LogUnavailable as error:
            self.world.trace(f"not copied anew: {error}")
        site.lost_at = self.world.loop.time()
        self.world.checks[name].lies_less()
        home = self._home(name)
        if home is not None and home is not site and self.chance.random() < 0.5:
            # Just then nobody else is there who could follow the home.
            (third,) = (each for each in self.world.sites.values() if each not in (home, site))
            slots = [slot for slot, process in third.processes.items() if not process.dead]
            await self._while(0, 0.1)
            await asyncio.gather(self._down(home, Site.restart, 6, 9), self._killed(third, slots, 6, 9))

    # -- what must come together for something to go wrong -----------------------------------------------------------------
    def _partition(self) -> str:
        return self.chance.choice(self.world.setting.partitions).name

    def _home(self, of: str) -> Site | None:
        record = self.world.record(of)
        return self.world.sites[record.home] if record is not None else None

    async def copy_then_home(self) -> None:
        """A copy is started again, perhaps with an earlier disk, and just then the home is lost."""
        home = self._home(self._partition())
        copy = self._site()
        if home is None or copy is home:
            return
        if self.world.setting.loses_disks and self.world.is_rebuilt():
            self.world.unbuilt = copy
            copy.save()
            await self._while(1, 4)
            await self._down(copy, Site.restore, 0.3, 2)
        else:
            await self._down(copy, Site.restart, 0.3, 2)
        await self._while(0, 2)
        await self._down(home, Site.restart, 6, 9)

    async def home_just_away(self) -> None:
        """For about as long as those wait who would follow it; and their disks may be slow when they begin to."""
        home = self._home(self._partition())
        if home is not None:
            others = [other for other in self.world.sites.values() if other is not home]
            slow = self.chance.choice((0.0005, 0.6))
            for each in others:
                each.server.disk_s = slow
            ways = [way for other in others for way in ((home.name, other.name), (other.name, home.name))]
            await self._cut(ways, 2.5, 4.5)
            for each in others:
                each.server.disk_s = 0.0005

    async def alone_and_started_again(self) -> None:
        """A pinned home is cut off, and goes on in a process that knows nothing but what lies there."""
        placed = self.chance.choice([each for each in self.world.setting.partitions if each.pinned])
        home = self._home(placed.name)
        if home is None:
            return
        others = [other for other in self.world.sites if other != home.name]
        ways = [way for other in others for way in ((home.name, other), (other, home.name))]
        cut = asyncio.create_task(self._cut(ways, 8, 15))
        await self._while(0, 4)
        await self._killed(home, [slot for slot, process in home.processes.items() if not process.dead], 0.2, 1)
        await asyncio.wait((cut,))

    async def hurried_switchover(self) -> None:
        """With slow lines, and the home cut off just when it hands over."""
        name = self._partition()
        home = self._home(name)
        if home is None:
            return
        self.world.network.late = self.chance.choice((0.0, 0.3))
        asked = asyncio.create_task(self.switchover(name))
        await self._while(0, 0.5)
        if self.chance.random() < 0.5:
            others = [other for other in self.world.sites if other != home.name]
            await self._cut([(home.name, other) for other in others])
        await asyncio.wait((asked,))
        self.world.network.late = 0.0

    async def home_after_home(self) -> None:
        """The home is lost, and whoever follows it too, as soon as it does."""
        name = self._partition()
        home = self._home(name)
        if home is None:
            return
        losing = asyncio.create_task(self._down(home, Site.restart, 4, 12))
        for _ in range(100):
            await asyncio.sleep(0.1)
            following = self._home(name)
            if following is not None and following is not home:
                await self._while(0, 0.3)
                await self._down(following, Site.restart, 4, 12)
                break
        await asyncio.wait((losing,))

    async def force(self) -> None:
        process, to, name = self._somebody(), self._site(), self._partition()
        record = self.world.record(name)
        if process is None or record is None or not self.world.setting.forces or to.name == record.home:
            return
        self.world.trace(f"{process.name} forces {name} to {to.name}")
        await self.world.force(process, name, to.name)

    def _somebody(self) -> Process | None:
        living = [process for site in self.world.sites.values() for process in site.living()]
        return self.chance.choice(living) if living else None

    async def member_down(self) -> None:
        member = self.chance.choice(self.world.plane.members)
        if not self.world.plane.is_up[member]:
            return
        self.world.trace(f"backbone member {member} down")
        self.world.plane.member_down(member)
        await self._while(0.5, 10)
        self.world.plane.member_up(member)

    async def tables_crash(self) -> None:
        site = self._site()
        self.world.trace(f"database of {site.name} crashes")
        site.tables_back(self.chance.randrange(20))

    async def step_clock(self) -> None:
        site = self._site()
        step = self.chance.randrange(-TWO_HOURS_NS, TWO_HOURS_NS)
        self.world.trace(f"clock of {site.name} steps by {step / 1e9:.0f} s")
        site.server.clock_step_ns += step

    async def slow_disk(self) -> None:
        site = self._site()
        site.server.disk_s = self.chance.choice((0.02, 0.2, 1.0))
        await self._while(1, 6)
        site.server.disk_s = 0.0005

    async def slow_link(self) -> None:
        self.world.network.late = self.chance.choice((0.01, 0.1))
        self.world.network.doubles = self.chance.choice((0.0, 0.05))
        await self._while(1, 8)
        self.world.network.late = self.world.network.doubles = 0.0


def _with_copy(record: Partition, site: str) -> Partition:
    return replace(record, copies=(*record.copies, site))
