"""The relay in this process: it sends from every queue whose partition this process leads, those of lost sites too."""

import asyncio
from collections.abc import Callable

import structlog

from cluster import partitions
from cluster.domain.outbox.state import Queued
from node.assembly import Assembly
from node.config import Config, SmarthostConfig
from protocols.port import SiteUnavailable
from protocols.smtp.client import Smarthost, Tls
from protocols.smtp.relay import Relay, RelaySettings
from storage.postgres.outbox_view import OutboxView
from storage.postgres.pool import AWAY

TLS = {"starttls": Tls.REQUIRED, "implicit": Tls.IMPLICIT, "none": Tls.NONE}

log = structlog.get_logger("relay")


class Outbox:
    """The view of the tables, as the relay asks it. `queues`: the partitions to send from now."""

    def __init__(self, view: OutboxView, queues: Callable[[], list[str]]) -> None:
        self._view = view
        self._queues = queues

    async def due(self, now: int, limit: int) -> list[tuple[Queued, int]]:
        try:
            return await self._view.due(self._queues(), now, limit)
        except AWAY as failure:
            raise SiteUnavailable(f"the outbox cannot be read: {failure}") from failure


def smarthost(config: SmarthostConfig | None) -> Smarthost | None:
    if config is None:
        return None
    return Smarthost(config.host, config.port, TLS[config.tls], config.user, config.password)


def settings(config: Config) -> RelaySettings:
    return RelaySettings(config.hostname, smarthost(config.smarthost), config.limits.outbox_age_s_max)


async def run(parts: Assembly) -> None:
    """Until it is cancelled. Every worker runs it."""
    changed = asyncio.Event()
    watched: set[str] = set()

    def queues() -> list[str]:
        there = [name for name in parts.partitions if partitions.is_queue(name)]
        for name in set(there) - watched:
            parts.hub.on_change(name, changed.set)
            watched.add(name)
        return [name for name in there if parts.log.leads(name)]

    async def wait(timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await changed.wait()
        except TimeoutError:
            return
        changed.clear()

    if parts.config.smarthost is None:
        log.warning("no smarthost is configured: mail for other domains is refused, and what is queued stays")
    relay = Relay(parts.site, Outbox(parts.outbox, queues), settings(parts.config), lambda: bool(queues()), wait)
    await relay.run()
