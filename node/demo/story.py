"""What happens, in order: three sites start, mail flows, one is killed, another follows it, it comes back, and is home again.

Times are told since the beginning; those of the failover since the kill.
"""

import asyncio
from collections.abc import Callable, Sequence

from cluster.log.model import LogUnavailable
from cluster.position import split
from node.demo.clients import GONE, Refused
from node.demo.page import Page, Scene
from node.demo.place import NAMES, DemoFailed, DemoSite, Sites
from node.demo.readers import Readers
from node.demo.traffic import Traffic
from node.demo.verdict import Salvage, Times, Verdict, judged
from node.demo.watching import Watcher, led, tails_at

KILL_AT, RETURN_AT = 0.3, 0.6  # of the messages that are to be acknowledged
ALONE_S = 1.0  # less than a home believes in its lease without renewing it
SIGNED_IN_S_MAX = 60.0
WRITTEN_S_MAX = 60.0  # after a kill
LOOK_EVERY_S = 0.05

Now = Callable[[], float]


class Story:
    """One showing, of sites that are down. Whoever runs it stops the sites."""

    def __init__(self, sites: Sites, page: Page, messages: int, durability: str, now: Now) -> None:
        self._sites = sites
        self._page = page
        self._say = page.say
        self._goal = messages
        self._at_kill: set[int] = set()
        self._remote = durability == "remote"
        self._durability = durability
        self._now = now
        self._victim, self._witness = sites.all[0], sites.all[1]
        self._traffic = Traffic(sites.all, sites.people, now)
        self._readers = Readers(sites.all, sites.people, now)
        self._watcher = Watcher(self._witness, page.say, now)
        page.scene = Scene(sites.all, self._traffic.tally, self._readers, self._watcher, messages)

    async def run(self) -> Verdict:
        """Raises DemoFailed."""
        try:
            await self._begin()
            homes = self._watcher.homes_at(self._victim.name)
            to_home, to_write = await self._lose(homes)
            level_s, salvage = await self._return(homes)
            waited_s = await self._go_home(homes)
            await self._enough(self._goal)
            await self._traffic.stop()
            self._page.step("every mailbox is read at every site")
            boxes = await self._readers.boxes(self._traffic.tally.acknowledged)
        except (*GONE, Refused, LogUnavailable) as error:
            raise DemoFailed(f"{self._page.doing}: {type(error).__name__}: {error}") from error
        finally:
            await self._traffic.stop()
            await self._readers.stop()
            await self._watcher.stop()
        times = Times(round(to_home, 3), round(to_write, 3), round(level_s, 3), round(waited_s, 3))
        changed = self._readers.uidvalidity_changes
        return judged(self._traffic.tally, boxes, changed, times, salvage, self._durability)

    async def _begin(self) -> None:
        self._page.step("three sites start; the first time this makes their databases")
        await started(self._sites.all)
        for site in self._sites.all:
            self._say(f"{site.name} is up")
        await self._watcher.start()
        self._page.step("copies are made at the other sites")
        await self._watcher.until("there are partitions", ("directory",), led)
        await self._whole()
        homes = self._watcher.homes_at(self._victim.name)
        if not homes:
            raise DemoFailed(f"nothing is at home at {self._victim.name}")
        await self._watcher.promise(homes, remote=self._remote)
        await self._watcher.until("durability", homes, lambda record: record.remote == self._remote)
        self._say(f"{', '.join(homes)}: at home at {self._victim.name}, durability {self._durability}")
        await self._whole()
        self._readers.start()
        pairs = len(self._sites.all) * len(self._sites.people)
        try:
            async with asyncio.timeout(SIGNED_IN_S_MAX):
                while len(self._readers.seen) < pairs:  # noqa: ASYNC110 (sessions that come up, each in its time)
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError:
            raise DemoFailed(f"not all could sign in at all sites: {sorted(self._readers.seen)}") from None
        people = " and ".join(person.address for person in self._sites.people)
        self._say(f"{people} are at home at {self._victim.name}, and signed in at all three sites")
        self._traffic.start()

    async def _whole(self) -> None:
        """Every partition has copies at both other sites that are level."""
        looked = self._watcher
        await looked.until("every partition is there", (f"mail-{name}-1" for name in NAMES), led)
        await looked.until(
            "copies are level", tuple(looked.records), lambda record: led(record) and len(record.members) == 2
        )

    async def _lose(self, homes: Sequence[str]) -> tuple[float, float]:
        """Seconds to the new home of the mail, and to the first write."""
        tally, victim = self._traffic.tally, self._victim
        self._page.step("mail is delivered at all three sites and read at all three")
        await self._enough(int(self._goal * KILL_AT))
        if not self._remote:
            await self._cut_off(victim)
        self._page.step(f"{victim.name} is killed; another site takes over")
        killed_at = self._now()
        written = tally.first_after(killed_at)
        count = await victim.kill()
        self._watcher.killed_at = killed_at
        self._at_kill = set(tally.acknowledged)
        self._say(
            f"{victim.name} killed: {count} processes at once, by SIGKILL, {len(self._at_kill)} messages acknowledged"
        )
        await self._watcher.until("the mail has a new home", homes, lambda record: record.home != victim.name)
        to_home = self._now() - killed_at
        async with asyncio.timeout(WRITTEN_S_MAX):
            to_write = await written - killed_at
        self._say(f"first acknowledged write {to_write:.1f} s after the kill")
        await self._watcher.until("its homes are led", homes, lambda record: record.home != victim.name and led(record))
        self._watcher.killed_at = None
        self._page.step(f"mail flows at two sites, {victim.name} is down")
        await self._enough(int(self._goal * RETURN_AT))
        return to_home, to_write

    async def _cut_off(self, victim: DemoSite) -> None:
        """So that it takes mail that only it has."""
        self._page.step(f"{victim.name} is cut off from the others, and takes mail on its own for {ALONE_S:g} s")
        victim.cut_off()
        self._say(f"{victim.name} is cut off from the other sites")
        await asyncio.sleep(ALONE_S)

    async def _return(self, homes: Sequence[str]) -> tuple[float, Salvage]:
        """Seconds from the start to its copies being level, and what came back with it."""
        victim = self._victim
        missing = self._at_kill - await self._readers.numbers_at(self._witness)
        if missing:
            self._say(f"{len(missing)} acknowledged messages are known at {victim.name} alone")
        self._page.step(f"{victim.name} is started again, as if nothing had been")
        began = self._now()
        await started([victim])
        self._say(f"{victim.name} is up again after {self._now() - began:.1f} s; it finds that it is no longer home")
        self._page.step(f"{victim.name} catches up")
        copied = lambda record: any(member.site == victim.name for member in record.members)  # noqa: E731
        await self._watcher.until(f"{victim.name} is level", homes, copied)
        level_s = self._now() - began
        self._say(f"{victim.name} is level, {level_s:.1f} s after its start")
        tails = await tails_at(victim, homes)
        events = sum(split(tail.last).sequence - split(tail.after).sequence for each in tails.values() for tail in each)
        back = await self._readers.until_there(self._witness, missing)
        again, known, reported = victim.salvaged()
        if not events:
            self._say(f"salvage: nothing lay at {victim.name} alone, all had been copied when it was killed")
        else:
            done = f"{again} commands done again, {known} known, {reported} reported"
            returned = f"; {len(back)} of {len(missing)} acknowledged messages are back" if missing else ""
            self._say(f"salvage: {events} events lay at {victim.name} alone: {done}{returned}")
        return level_s, Salvage(events, len(back), again, known, reported)

    async def _go_home(self, homes: Sequence[str]) -> float:
        """The longest time that senders waited."""
        victim, tally = self._victim, self._traffic.tally
        self._page.step(f"planned switchover: {victim.name} is home again, while mail flows")
        tally.begin_window()
        for name in homes:
            began = self._now()
            await self._watcher.move(name, victim.name)
            self._say(f"{name}: moved back to {victim.name} in {self._now() - began:.1f} s, nothing lost")
        await self._enough(min(self._goal, len(tally.acknowledged) + 10))
        waited_s = tally.window_s
        self._say(f"at the switchover nobody waited longer than {waited_s:.2f} s for an acknowledgement")
        self._page.step("mail flows at all three sites")
        return waited_s

    async def _enough(self, goal: int) -> None:
        try:
            await self._traffic.tally.until(goal)
        except TimeoutError:
            raise DemoFailed(f"mail does not get through: {len(self._traffic.tally.acknowledged)} of {goal}") from None


async def started(sites: Sequence[DemoSite]) -> None:
    """Raises DemoFailed."""
    try:
        async with asyncio.TaskGroup() as group:
            for site in sites:
                group.create_task(site.start())
    except* DemoFailed as failed:
        raise DemoFailed(str(failed.exceptions[0])) from None
