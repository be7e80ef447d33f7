"""Puts a site together in one process: log, tables, blobs, and the site that its sessions see. Decides nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog

from cluster import partitions
from cluster.control.partitions import Partition
from cluster.control.roster import Rosters
from cluster.log.jetstream import Backbone, JetStreamLog
from cluster.log.model import LogUnavailable
from cluster.world import World
from node import roster
from node.config import Config
from storage.agreement import Tables, Watchman
from storage.bearer import Issuer
from storage.blobs.disk import DiskBlobs
from storage.blobs.peers import Fetcher, OnDemand, small_source, source
from storage.credentials import Credentials
from storage.directory import Directory
from storage.executor import Executor
from storage.follower import Follower
from storage.giving_up import GivingUp
from storage.handing import Handing
from storage.ingest import Spool
from storage.inspection import Inspection, Place
from storage.level import Level
from storage.news import Hub
from storage.postgres.directory_view import DirectoryView
from storage.postgres.mail_view import MailView
from storage.postgres.outbox_view import OutboxView
from storage.postgres.pool import Database
from storage.postgres.search_view import SearchView
from storage.readmission import Readmission
from storage.salvaging import Reports, Salvaging
from storage.search.index import SearchIndex
from storage.search.indexer import Indexer
from storage.sign_in import SignIn
from storage.site import Site, Stores
from storage.throttle import SignIns
from storage.views import Views
from storage.wanted import WantedContent
from storage.whereabouts import Whereabouts
from storage.window import Window, Windows

START_S_MAX = 60.0
CATCH_UP_S_MAX = 240.0
NOTED_S_MAX = 1.0  # for the site's own bucket
ANSWER_S_MAX = 5.0  # for whoever leads or copies a partition to say how far it is
BACKBONE_DOMAIN = "backbone"
LEFTOVER_AGE_S = 3600.0
QUEUED_SPARE_S = 86_400.0  # a message that is given up may have to be looked at

log = structlog.get_logger("assembly")


class Assembly:
    """The parts, for who needs more than the site: administration, relay, metrics."""

    def __init__(self, config: Config, world: World, name: str) -> None:
        self.config = config
        self.world = world
        self.name = name
        backbone = config.backbone
        self.placed = partitions.placed(config.site, backbone.sites if backbone is not None else (config.site,))
        # A site alone takes mail as long as its one log does: a spool there would be no better off.
        self.spool_partition = partitions.spool(config.site) if backbone is not None else ""
        self.partitions = [*self.placed.homes, *self.placed.copies]  # and others, as they appear
        if self.spool_partition:
            self.partitions.append(self.spool_partition)
        self.log = JetStreamLog(
            config.nats.url,
            config.nats.user,
            config.nats.password,
            node_id=name,
            site=config.site,
            backbone=Backbone(BACKBONE_DOMAIN, backbone.replicas) if backbone is not None else None,
            version=version("angarium"),
            now_us=lambda: int(world.now() * 1_000_000),
            entropy=world.entropy,
        )
        readmission = Readmission(self.log, self.partitions, self._known)
        self.database = Database(config.database_url, admit=readmission.admit)
        self.blobs = DiskBlobs(config.blob_dir)
        self.peers = self.log.peers()
        others = () if backbone is None else tuple(site for site in backbone.sites if site != config.site)
        queued_s = config.limits.outbox_age_s_max + QUEUED_SPARE_S
        self.windows = Windows(self.database, self.blobs, self._windows, queued_s=queued_s, now=world.now)
        self.fetcher = Fetcher(self.blobs, self.peers, others, fetched=self.windows.fetched)
        self.spool = Spool(config.dir / "spool")
        self.hub = Hub(self.database)
        self.directory_view = DirectoryView(self.database)
        self.directory = Directory(self.directory_view, self.hub)
        self.mail = MailView(self.database)
        self.outbox = OutboxView(self.database)
        self.credentials = Credentials(world, config.hmac_key.encode())
        self.throttle = SignIns(
            world.monotonic,
            config.plaintext_networks,
            config.limits.sign_in_failures_max,
            config.limits.sign_in_window_s,
        )
        views = Views(self.mail, self.directory_view, self.outbox, self.directory)
        self.executor = Executor(world, config.site, self.log, self.hub, views)
        self.executor.reach.is_led = self.log.is_led
        contents = OnDemand(self.fetcher)
        self.handing = Handing(self.executor, contents, self.spool_partition)
        self.issuer = Issuer(config.oauth, world.monotonic) if config.oauth is not None else None
        self.sign_in = SignIn(self.directory, self.credentials, self.throttle, self.issuer)
        self.reports = Reports(self.log, self.hub, self.database, world)
        level = Level(self.hub, self.log, self.directory.partition_of, self.reports.view.salvaged)
        self.whereabouts = Whereabouts(
            config.site, self.log, self.hub, self.directory.partition_of, lambda name: name in self.partitions
        )
        self.index = SearchIndex(config.search_dir)
        stores = Stores(self.mail, contents, self.spool, self.hub, level, self.whereabouts, self.handing, self.index)
        self.site = Site(world, config.site, self.executor, self.directory, self.sign_in, stores)

        keyed = backbone is not None and backbone.roster is not None
        self.rosters = Rosters(self.log.control_plane()) if keyed else None
        self.digests = self.log.digests()
        self.tables = Tables(self.database, self.log, self.log)

    @property
    def kept(self) -> list[str]:
        """Those of `partitions` that are here now: a copy may have been taken away."""
        here, found = self.config.site, self.log.watch.found
        return [name for name in self.partitions if (seen := found.get(name)) is None or _has(here, seen.partition)]

    def inspection(self) -> Inspection:
        """What compares this site's tables and log with the others' now."""
        found = {name: record for name, (record, _) in self.log.watch.found.items() if name in self.partitions}
        placed = {name: Place(record.home, (record.home, *record.copies)) for name, record in found.items()}
        return Inspection(self.tables, self.digests, placed)

    def _elsewhere(self) -> dict[str, list[str]]:
        """The other sites that have what is here."""
        here = self.config.site
        return {
            name: [site for site in (record.home, *record.copies) if site != here]
            for name, (record, _) in self.log.watch.found.items()
            if name in self.partitions
        }

    def _windows(self) -> dict[str, Window | None]:
        here = self.config.site
        return {
            name: Window(record.windows.get(here, 0), record.home == here) if (record := self.log.record(name)) else None
            for name in self.partitions
        }

    def watchman(self) -> Watchman:
        return Watchman(self.tables, self.digests, self._elsewhere)

    def indexer(self) -> Indexer:
        return Indexer(self.index, SearchView(self.database), self.blobs, now=self.world.now)

    def follower(self, partition: str) -> Follower:
        wanted = WantedContent(partition, self.database, self.blobs, self.fetcher, windows=self.windows)
        return Follower(partition, self.log, self.database, self.blobs, wanted=wanted)

    def giving_up(self) -> GivingUp:
        def at_home() -> list[str]:
            here, found = self.config.site, self.log.watch.found
            return [name for name in self.partitions if name in found and found[name].partition.home == here]

        return GivingUp(self.world, self.config.site, self.database, self.executor, at_home)

    def salvaging(self, partition: str) -> Salvaging:
        return Salvaging(partition, self.log, self.database, self.blobs, self.world)

    async def take_what_appears(self, group: asyncio.TaskGroup, tasks: list[asyncio.Task[None]]) -> None:
        """For ever: partitions that this site was given while it runs are kept and followed too, and blobs are asked of
        sites that joined, and no more of those that have no copies any more."""
        before = set[str]()
        while True:
            await self.log.watch.looked()
            site, sites = self.config.site, set[str]()
            for name, (record, _) in self.log.watch.found.items():
                sites |= {record.home, *record.copies}
                if name not in self.partitions and site in (record.home, *record.copies):
                    log.info("a partition appeared", partition=name, home=record.home)
                    self.partitions.append(name)
                    self.log.keep(name)
                    tasks.append(group.create_task(self.follower(name).run(), name=f"follow {name}"))
                    tasks.append(group.create_task(self.salvaging(name).run(), name=f"salvage {name}"))
            joined, left = sites - {site, *self.fetcher.others}, before - sites
            self.fetcher.others = (*(other for other in self.fetcher.others if other not in left), *sorted(joined))
            before = sites

    async def caught_up(self) -> None:
        """Returns when the tables have reached what the log held when asked; where nobody answers for a partition, what
        this site has shown of it: a site that is cut off is read all the same. Raises LogUnavailable, TimeoutError."""
        await asyncio.gather(*(self._caught_up(partition) for partition in self.partitions))
        if partitions.DIRECTORY in self.placed.copies and not await self.hub.reached(partitions.DIRECTORY, 1, CATCH_UP_S_MAX):
            # Without one it would tell everybody that there is no such person.
            raise TimeoutError("no directory has come from its home yet")
        async with asyncio.timeout(CATCH_UP_S_MAX):
            await self.hub.readable()
        self.whereabouts.caught_up(self.partitions)

    async def _caught_up(self, partition: str) -> None:
        goal = await self._goal(partition)
        if not await self.hub.reached(partition, goal, CATCH_UP_S_MAX) and self.hub.position(partition) < goal:
            raise TimeoutError(f"the tables do not reach the end of {partition}")

    async def _goal(self, partition: str) -> int:
        try:
            return await self.log.mark(partition, ANSWER_S_MAX)
        except LogUnavailable:
            pass
        try:
            shown = await self.log.shown(partition)
        except LogUnavailable:  # Nothing of it is here yet.
            return await self.log.mark(partition, CATCH_UP_S_MAX)
        log.warning("nobody answers for it: shown as far as it was", partition=partition, position=shown)
        return shown

    async def _known(self, partition: str) -> int:
        """How far its tables are known to have come, by this process or before."""
        try:
            async with asyncio.timeout(NOTED_S_MAX):
                return max(self.hub.position(partition), await self.log.shown(partition))
        except (LogUnavailable, TimeoutError):
            return self.hub.position(partition)


def _has(site: str, record: Partition) -> bool:
    return site in (record.home, *record.copies)


@asynccontextmanager
async def assembled(config: Config, world: World, name: str) -> AsyncIterator[Assembly]:
    """A running site. Raises LogUnavailable or TimeoutError where an engine does not answer."""
    parts = Assembly(config, world, name)
    await parts.database.start(START_S_MAX)
    await parts.log.start(START_S_MAX)
    await asyncio.to_thread(parts.spool.clean, world.now() - LEFTOVER_AGE_S)
    await asyncio.to_thread(parts.blobs.disk.clean, world.now() - LEFTOVER_AGE_S)
    tasks: list[asyncio.Task[None]] = []
    others = tuple(site for site in config.backbone.sites if site != config.site) if config.backbone is not None else ()
    try:
        async with asyncio.TaskGroup() as group:
            tasks.append(group.create_task(parts.hub.run(), name="news"))
            if (rosters := parts.rosters) is not None:
                following = roster.follow(rosters, config.roster_file, config.site)
                tasks.append(group.create_task(following, name="roster"))
            tasks.append(group.create_task(parts.peers.serve(source(parts.blobs), small_source(parts.blobs)), name="blobs for other sites"))
            tasks.append(group.create_task(parts.digests.serve(parts.tables), name="digests for other sites"))
            tasks.append(group.create_task(parts.watchman().run(), name="digests of other sites"))
            tasks.append(group.create_task(parts.windows.run(), name="windows"))
            tasks.append(group.create_task(parts.indexer().run(), name="search index"))
            tasks.append(group.create_task(parts.giving_up().run(), name="giving up what was expunged"))
            for partition in parts.partitions:
                if partition in parts.placed.copies:
                    parts.log.keep(partition, wanted=True)
                elif partition == parts.spool_partition:
                    parts.log.lead(partition, pinned=True)
                else:
                    parts.log.lead(partition, others)
                tasks.append(group.create_task(parts.follower(partition).run(), name=f"follow {partition}"))
                tasks.append(group.create_task(parts.salvaging(partition).run(), name=f"salvage {partition}"))
            tasks.append(group.create_task(parts.take_what_appears(group, tasks), name="what appears"))
            try:
                await parts.caught_up()
                log.info("tables stand where the log stands", site=config.site)
                yield parts
            finally:
                for task in tasks:
                    task.cancel()
    finally:
        await parts.fetcher.close()
        await parts.log.stop()
        await parts.blobs.close()
        await parts.database.stop()
        parts.credentials.close()
        if parts.issuer is not None:
            await parts.issuer.close()
        parts.spool.close()
