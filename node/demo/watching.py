"""What the control plane says, as one of the sites that stay sees it, and what changed when."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from cluster import partitions
from cluster.control.partitions import Partition
from cluster.control.topology import Move
from cluster.log.jetstream import Backbone, JetStreamLog, Tail
from cluster.log.model import LogUnavailable
from cluster.log.operations import Members, Operations, View
from node.assembly import BACKBONE_DOMAIN
from node.config import REPLICAS
from node.demo.place import NAMES, DemoFailed, DemoSite

LOOK_EVERY_S = 0.5
SETTLE_S_MAX = 120.0
NODE = "demo"

Say = Callable[[str], None]
Is = Callable[[Partition], bool]


def joined(site: DemoSite) -> JetStreamLog:
    """A client of a site's log, with no part in any partition."""
    nats = site.config.nats
    backbone = Backbone(BACKBONE_DOMAIN, REPLICAS)
    return JetStreamLog(nats.url, nats.user, nats.password, node_id=NODE, site=site.name, backbone=backbone)


class Watcher:
    """`records`: of all partitions, as they were last told; `view`: what an operator sees. `killed_at`: on `now`'s clock,
    from when on takeovers are told with the seconds since then."""

    def __init__(self, site: DemoSite, say: Say, now: Callable[[], float]) -> None:
        self._say = say
        self._now = now
        self._log = joined(site)
        self._operations: Operations | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.view: View | None = None
        self.killed_at: float | None = None

    @property
    def records(self) -> Mapping[str, Partition]:
        """Of what has copies: a spool is its site's own."""
        found = self._log.watch.found.items()
        return {name: each.partition for name, each in found if not partitions.is_spool(name)}

    async def start(self) -> None:
        """Raises LogUnavailable."""
        await self._log.start()
        self._operations = self._log.operations(Members(lambda: NAMES, lambda: len(NAMES)))
        self._tasks = [
            asyncio.create_task(work, name="watcher") for work in (self._follow(), self._look(self._operations))
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            await self._log.stop()

    def homes_at(self, site: str) -> tuple[str, ...]:
        return tuple(sorted(name for name, record in self.records.items() if record.home == site))

    async def promise(self, partitions: Iterable[str], *, remote: bool) -> None:
        """Their durability: with `remote` an acknowledgement waits for the copies. Raises LogUnavailable."""
        for name in partitions:
            await self._log.place(lambda record: msgspec.structs.replace(record, remote=remote), name)

    async def until(self, what: str, partitions: Iterable[str], is_so: Is) -> None:
        """Of all of them. Raises DemoFailed."""
        names = tuple(partitions)
        try:
            async with asyncio.timeout(SETTLE_S_MAX):
                while not all((record := self._log.record(name)) is not None and is_so(record) for name in names):
                    await self._log.watch.looked()
        except TimeoutError:
            behind = [str(record) for name in names if (record := self._log.record(name)) is None or not is_so(record)]
            raise DemoFailed(f"{what}: not after {SETTLE_S_MAX:.0f} s: {'; '.join(behind)}") from None

    async def move(self, partition: str, site: str) -> None:
        """Raises LogUnavailable."""
        assert self._operations is not None
        async for _ in self._operations.do(Move(partition, site)):
            pass

    async def _follow(self) -> None:
        before = self.records
        while True:
            now = self.records
            for line in changes(before, now, self._since_the_kill()):
                self._say(line)
            before = now
            await self._log.watch.looked()

    def _since_the_kill(self) -> float | None:
        return None if self.killed_at is None else self._now() - self.killed_at

    async def _look(self, operations: Operations) -> None:
        had = False  # the quorum: at the beginning it is not there yet
        lost_at: float | None = None
        while True:
            self.view = await operations.look()
            if had and not self.view.quorum:
                lost_at = self._now()
                self._say("the control plane takes no writes: it lost the member that led it, and elects another one")
            elif lost_at is not None and self.view.quorum:
                self._say(f"the control plane takes writes again, {self._now() - lost_at:.1f} s later")
                lost_at = None
            had = self.view.quorum
            await asyncio.sleep(LOOK_EVERY_S)


def led(record: Partition) -> bool:
    return record.begun and record.holder is not None


def changes(before: Mapping[str, Partition], after: Mapping[str, Partition], since_s: float | None) -> Iterator[str]:
    """In words, where it is of interest to who watches a failover; the same of several partitions in one line."""
    said: dict[str, list[str]] = {}
    when = "" if since_s is None else f" after {since_s:.1f} s"
    for name, record in sorted(after.items()):
        old = before.get(name)
        if old is None:
            continue
        if record.home != old.home:
            verb = "took over" if since_s is not None else "is the new home"
            said.setdefault(f"{record.home} {verb}{when} (epoch {record.epoch})", []).append(name)
        if record.epoch != old.epoch:
            continue  # with a new home copies are recognised anew, which is nothing to tell
        now, then = ({member.site for member in each.members} for each in (record, old))
        for site in sorted(now ^ then):
            text = f"{site}'s copy is level" if site in now else f"{record.home} goes on without {site}"
            said.setdefault(text, []).append(name)
    for text, names in said.items():
        yield f"{', '.join(names)}: {text}"


async def tails_at(site: DemoSite, partitions: Iterable[str]) -> dict[str, tuple[Tail, ...]]:
    """What lies in that site's own streams, of epochs that ended before it; empty where the site does not say."""
    log, found = joined(site), dict[str, tuple[Tail, ...]]()
    try:
        await log.start()
    except LogUnavailable:
        return found
    try:
        for name in partitions:
            with contextlib.suppress(LogUnavailable):
                if tails := await log.tails(name):
                    found[name] = tails
    finally:
        await log.stop()
    return found
