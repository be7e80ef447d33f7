"""The administrator's door of this worker: its parts, and what it counts and checks."""

import asyncio
import contextlib
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version

import structlog

from cluster import partitions
from cluster.domain.refusal import Refusal
from cluster.log.model import LogUnavailable
from cluster.log.operations import Members
from node.assembly import Assembly
from node.backup import backup_work, rebuild_work
from node.config import Config
from node.joining import JoinDoor
from node.membership import current
from node.nodes import Processes
from node.offers import offers
from node.roster import hear_of_going
from protocols.admin.door import Door
from protocols.admin.gate import Gate
from protocols.admin.health import Health
from protocols.admin.metrics import Metrics, measure_loop
from protocols.admin.moving import Moving
from protocols.admin.session import Parts
from storage.administration import SiteAdministration
from storage.comings import Comings
from storage.mending import Mending
from storage.moving_in import MovingIn
from storage.operating import Operating
from storage.postgres.compared import read_agreements
from storage.postgres.moving_view import MovingView
from storage.postgres.pool import AWAY
from storage.postgres.wanted import counts

MARK_S_MAX = 1.5
MEASURE_TABLES_EVERY_S = 10.0
SPOOL_SHOWN_S_MAX = 5.0

log = structlog.get_logger("management")


class About:
    """What the node says of itself. `started_at`: unix seconds."""

    def __init__(self, parts: Assembly) -> None:
        self.site = parts.config.site
        self.node = parts.name
        self.version = version("angarium")
        self.started_at = parts.world.now()
        self._parts = parts

    @property
    def partitions(self) -> Mapping[str, str]:
        """Those kept here, each with its home: where it is now, as far as is known."""
        found, planned = self._parts.log.watch.found, self._parts.placed.home_of
        return {
            name: found[name].partition.home if name in found else planned.get(name, "") for name in self._parts.kept
        }


class Management:
    def __init__(self, parts: Assembly) -> None:
        self._assembly = parts
        config = parts.config
        about = About(parts)
        self.metrics = Metrics(config.site, parts.name)
        parts.executor.observer = self.metrics
        parts.executor.quotas.crossed = self.metrics.quota_reached
        parts.sign_in.observer = self.metrics
        self.administration = SiteAdministration(
            about,
            parts.log,
            parts.database,
            parts.directory_view,
            rebuild_work(parts),
            backup_work(parts, about.version),
        )
        self.health = Health({"log": self._log_answers, "tables": self._tables_answer})
        members = Members(partial(_sites, config), partial(_voters, config), self._removed, self._holds)
        operations = parts.log.operations(members)
        agreements = partial(read_agreements, parts.database)
        joining = JoinDoor(parts, parts.rosters) if parts.rosters is not None else None
        comings = Comings(
            operations,
            joining,
            Processes(config),
            parts.world.monotonic,
            node=parts.name,
            sites_by_hand=config.backbone is not None,
        )
        self.operating = Operating(operations, parts.site.execute, agreements, parts.world.monotonic, comings)
        self._going = asyncio.Event()  # told that this site goes for good
        self._mending = mending = Mending(parts.reports, parts.log, lambda: parts.partitions, parts.inspection, parts.world.now)
        door = Door(
            parts.site,
            self.administration,
            parts.credentials,
            self.operating,
            partial(offers, config),
            joining=joining,
            mending=mending,
            moving=Moving(
                parts.site, MovingIn(parts.executor, MovingView(parts.database)), config.limits.message_bytes_max
            ),
        )
        gate = Gate(config.api_token, config.plaintext_networks, config.site, parts.name)
        self.parts = Parts(door, gate, self.metrics, self.health, about.version)

    async def run(self) -> None:
        """Measures for ever: how late the loop is, how far the tables are behind."""
        async with asyncio.TaskGroup() as group:
            group.create_task(measure_loop(self.metrics, self._assembly.world.monotonic))
            group.create_task(self._measure_tables())
            group.create_task(self.operating.serve())
            if (rosters := self._assembly.rosters) is not None:
                await self._going.wait()
                config = self._assembly.config
                await hear_of_going(rosters, config.roster_file, config.site)

    async def _removed(self, by: str) -> int:
        """This site goes for good, and leads nothing any more. What is in its spool still."""
        log.error("this site is removed from the organisation, and is to be stopped", by=by, others="shut it out now")
        self._going.set()
        parts, own = self._assembly, self._assembly.spool_partition
        if not own:
            return 0
        with contextlib.suppress(LogUnavailable):  # Nothing of it was ever here.
            await parts.hub.reached(own, await parts.log.shown(own), SPOOL_SHOWN_S_MAX)
        count, _ = (await parts.outbox.counts()).get(own, (0, 0))
        return count

    async def _holds(self) -> str:
        """Tails that lie here and are not in history yet: whoever has this site removed would lose them."""
        found = await self._mending.salvaged(settled=False)
        if isinstance(found, Refusal):
            return f"{self._assembly.config.site} cannot say whether it has tails to be salvaged: {found.text}"
        if names := sorted({tail.partition for tail in found.waiting} | {*found.unread} & {*self._assembly.kept}):
            site = self._assembly.config.site
            return f"{site} has tails of lost homes that are not salvaged yet, of {', '.join(names)}: see `cluster salvage list` there"
        return ""

    async def _measure_tables(self) -> None:
        while True:
            state = await self.administration.state()
            if not isinstance(state, Refusal):
                for partition in state.partitions:
                    self.metrics.projection_lag_events.labels(partition.name).set(partition.lag_events)
                    waits = any(waiting.partition == partition.name for waiting in state.waiting)
                    self.metrics.waiting_for_release.labels(partition.name).set(waits)
                for agreed in state.agreed:
                    self.metrics.digest_agrees.labels(agreed.partition, agreed.site).set(agreed.differs is None)
                self.metrics.quarantined_events.set(len(state.quarantine))
                self.metrics.search_indexed_messages.set(state.search.indexed)
                self.metrics.search_waiting_messages.set(state.search.waiting)
                self.metrics.search_bytes.set(state.search.size_bytes)
            await self._measure_blobs()
            await self._measure_queues()
            for name, lag in self._assembly.log.lags().items():
                self.metrics.replication_lag_messages.labels(name).set(lag.messages)
                self.metrics.replication_lag_bytes.labels(name).set(lag.bytes)
                self.metrics.replication_lag_seconds.labels(name).set(lag.seconds)
            await asyncio.sleep(MEASURE_TABLES_EVERY_S)

    async def _measure_queues(self) -> None:
        """As this site's tables have them, its copies of other sites' queues too."""
        with contextlib.suppress(*AWAY):
            found, now = await self._assembly.outbox.counts(), self._assembly.world.now()
            for name in self._assembly.partitions:
                if partitions.is_queue(name) or partitions.is_spool(name):
                    count, oldest = found.get(name, (0, now))
                    self.metrics.outbox_messages.labels(name).set(count)
                    self.metrics.outbox_oldest_seconds.labels(name).set(max(0.0, now - oldest))

    async def _measure_blobs(self) -> None:
        fetcher = self._assembly.fetcher
        self.metrics.blobs_fetched.set(fetcher.fetched)
        self.metrics.blobs_fetched_bytes.set(fetcher.fetched_bytes)
        with contextlib.suppress(*AWAY):
            wanted = await counts(self._assembly.database)
            self.metrics.blobs_wanted.set(wanted.wanted)
            self.metrics.blobs_lost.set(wanted.lost)

    async def _log_answers(self) -> str:
        try:
            for partition in self._assembly.kept:
                await self._assembly.log.mark(partition, MARK_S_MAX)
        except LogUnavailable as error:
            return str(error) or "the log does not answer"
        return ""

    async def _tables_answer(self) -> str:
        try:
            await self._assembly.database.row("SELECT 1")
        except AWAY as error:
            return f"the database does not answer: {type(error).__name__}"
        return ""


def _sites(config: Config) -> tuple[str, ...]:
    """Those that keep mail, as it is now."""
    backbone = current(config).backbone
    return (config.site,) if backbone is None else backbone.sites


def _voters(config: Config) -> int:
    """How many keep the control plane now."""
    backbone = current(config).backbone
    return 1 if backbone is None else len(backbone.formed)
