"""The relay in this process: it sends from every queue whose partition this process leads, those of lost sites too, and
puts into the queue what the site's spool holds."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import structlog

from cluster import partitions
from cluster.domain.actor import Actor
from cluster.domain.outbox.state import Queued
from cluster.domain.refusal import Refusal
from cluster.log.model import LogUnavailable
from node.assembly import Assembly
from node.config import Config, SmarthostConfig
from protocols.port import Done, SiteUnavailable
from protocols.smtp.client import Smarthost, Tls
from protocols.smtp.relay import NOWHERE, Relay, RelaySettings
from storage.handing import Drain, Handing
from storage.postgres.outbox_view import OutboxView
from storage.postgres.pool import AWAY

TLS = {"starttls": Tls.REQUIRED, "implicit": Tls.IMPLICIT, "none": Tls.NONE}
LOOK_EVERY_S = 0.5
STILL_AWAY_S_MIN, STILL_AWAY_S_MAX = 10.0, 600.0
MARK_S_MAX = 2.0
TOLD_EVERY_S, IDLE_S = 1.0, 30.0

log = structlog.get_logger("relay")


class Returned:
    """Which partitions can be reached again. One that was said to be and took nothing is believed less often each time.
    `is_there`: of a partition; `now`: seconds that only rise."""

    def __init__(self, is_there: Callable[[str], bool], now: Callable[[], float]) -> None:
        self._is_there = is_there
        self._now = now
        self._there: set[str] = set()
        self._back: set[str] = set()
        self._pauses: dict[str, tuple[float, float]] = {}  # how long, and until when

    def look(self, names: Sequence[str]) -> bool:
        """Whether some have come back since the last look."""
        now = self._now()
        there = {name for name in names if self._is_there(name) and self._pauses.get(name, (0.0, 0.0))[1] <= now}
        self._back |= there - self._there
        self._there = there
        return bool(self._back)

    def take(self) -> list[str]:
        back, self._back = sorted(self._back), set()
        return back

    def still_away(self, name: str) -> None:
        now = self._now()
        before, until = self._pauses.get(name, (0.0, 0.0))
        again = now < until + STILL_AWAY_S_MAX
        pause = min(max(2 * before, STILL_AWAY_S_MIN), STILL_AWAY_S_MAX) if again else STILL_AWAY_S_MIN
        self._pauses[name] = pause, now + pause
        self._there.discard(name)


class Queues:
    """The queues that this process leads. One is sent from when the tables have come to what its log held when the lead was
    taken: what another process did with it before must be seen."""

    def __init__(self, parts: Assembly, changed: Callable[[], None]) -> None:
        self._parts = parts
        self._changed = changed
        self._watched: set[str] = set()
        self._goals: dict[str, int] = {}

    def led(self) -> list[str]:
        there = [name for name in self._parts.partitions if partitions.is_queue(name)]
        for name in set(there) - self._watched:
            self._parts.hub.on_change(name, self._changed)
            self._watched.add(name)
        return [name for name in there if self._parts.log.leads(name)]

    async def level(self) -> list[str]:
        led = self.led()
        for name in set(self._goals) - set(led):
            del self._goals[name]
        for name in led:
            if name not in self._goals:
                try:
                    self._goals[name] = await self._parts.log.mark(name, MARK_S_MAX)
                except LogUnavailable:
                    continue
        hub = self._parts.hub
        return [name for name in led if name in self._goals and hub.position(name) >= self._goals[name]]


class Outbox:
    """The view of the tables, as the relay asks it, and the way to other queues."""

    def __init__(self, view: OutboxView, queues: Queues, handing: Handing, returned: Returned) -> None:
        self._view = view
        self._queues = queues
        self._handing = handing
        self._returned = returned

    async def due(self, now: int, limit: int) -> list[tuple[Queued, int]]:
        try:
            return await self._view.due(await self._queues.level(), now, limit)
        except AWAY as failure:
            raise _unread(failure) from failure

    async def waiting(self, text: str, limit: int) -> list[tuple[Queued, int]]:
        try:
            return await self._view.waiting(await self._queues.level(), text, limit)
        except AWAY as failure:
            raise _unread(failure) from failure

    async def queue_of(self, message: Queued) -> str | None:
        try:
            return await self._view.partition_of(message.queued)
        except AWAY as failure:
            raise _unread(failure) from failure

    def returned(self) -> list[str]:
        return self._returned.take()

    def still_away(self, partition: str) -> None:
        self._returned.still_away(partition)

    async def hand_over(
        self, actor: Actor, message: Queued, taken_at: int, recipients: Sequence[str], target: str
    ) -> Done | Refusal:
        return await self._handing.hand_over(actor, message, taken_at, recipients, target)


def _unread(failure: BaseException) -> SiteUnavailable:
    return SiteUnavailable(f"the outbox cannot be read: {failure}")


def smarthost(config: SmarthostConfig | None) -> Smarthost | None:
    if config is None:
        return None
    return Smarthost(config.host, config.port, TLS[config.tls], config.user, config.password)


def settings(config: Config) -> RelaySettings:
    through = partitions.queue(config.relay.through) if config.relay.through else ""
    return RelaySettings(config.hostname, smarthost(config.smarthost), config.limits.outbox_age_s_max, through)


async def run(parts: Assembly) -> None:
    """Until it is cancelled. Every worker runs it."""
    changed, spooled, counted = asyncio.Event(), asyncio.Event(), asyncio.Event()
    queues = Queues(parts, changed.set)
    returned = Returned(lambda name: _is_there(parts, name), parts.world.monotonic)

    async def wait(event: asyncio.Event, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return
        event.clear()

    async def look() -> None:
        while True:
            if returned.look([NOWHERE, *parts.log.watch.found]):
                changed.set()
            await asyncio.sleep(LOOK_EVERY_S)

    async def tell() -> None:
        """Others see how much is in the spool."""
        own = parts.spool_partition
        while True:
            there = 1
            with contextlib.suppress(*AWAY):
                there = (await parts.outbox.counts()).get(own, (0, 0))[0] if parts.log.leads(own) else 0
                parts.log.spooled = there
            await wait(counted, TOLD_EVERY_S if there else IDLE_S)

    if not parts.config.routes_elsewhere:
        log.warning("no smarthost is configured: mail for other domains is refused, and what is queued stays")
    outbox = Outbox(parts.outbox, queues, parts.handing, returned)
    relay = Relay(
        parts.site,
        outbox,
        settings(parts.config),
        lambda: bool(queues.led()),
        lambda timeout_s: wait(changed, timeout_s),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(relay.run(), name="relay")
        group.create_task(look(), name="what returned")
        if parts.spool_partition:
            parts.hub.on_change(parts.spool_partition, spooled.set)
            parts.hub.on_change(parts.spool_partition, counted.set)
            group.create_task(tell(), name="size of the spool")
            drain = Drain(
                parts.executor, parts.handing, parts.outbox, parts.log, lambda: parts.log.leads(parts.spool_partition)
            )
            group.create_task(drain.run(lambda timeout_s: wait(spooled, timeout_s)), name="spool")


def _is_there(parts: Assembly, name: str) -> bool:
    if name == NOWHERE:
        return bool(parts.log.watch.found)
    return parts.log.is_led(name) and not parts.executor.reach.is_away(name)
