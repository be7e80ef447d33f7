"""`angarium restore`: a site from a backup, in a folder that has no data yet.

All is made in the folder `restoring` inside it, by engines that serve nobody else, and moved into place when it is
whole: until then the folder is a site without data. What is restored begins a new epoch in every partition.
"""

import asyncio
import math
import os
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import structlog

from cluster.control.partitions import Ended
from cluster.domain.mailbox.events import UID_GAP
from cluster.log.jetstream import Backbone, JetStreamLog
from cluster.log.model import LogUnavailable, Record
from node.assembly import BACKBONE_DOMAIN
from node.backup import config_files
from node.child import Child, ChildFailed, end_leftovers
from node.config import Config, ConfigRefused, load, remove_short_sockets
from node.engines import nats, postgres
from node.supervisor import StartFailed, engine_parts, keeps_alone, lock
from node.world import SystemWorld
from storage import archive
from storage.archive import BackupFailed, Manifest, Part
from storage.blobs import BlobsUnavailable
from storage.blobs.disk import DiskBlobs
from storage.overview import Progress
from storage.postgres import exchange
from storage.postgres.pool import AWAY, Database
from storage.projector import Fold
from storage.rebuild import fold_range
from storage.verification import verify

DATA = ("postgres", "blobs", "backbone", "nats")  # in the order in which they are moved into place: the log, which is the truth, last
STAGING = "restoring"
RESTORED = "restored"  # in the backup's folder: a line for each time that it was restored
DAY_S = 86_400.0
LOST_EPOCHS_MAX = 3_650
ENGINES_S_MAX = 60.0

T = TypeVar("T")
log = structlog.get_logger("restore")
Show = Callable[[Progress], None]


class RestoreRefused(ConfigRefused):
    """Nothing was restored; the text is one line that says why and what to do. To a caller it is like a configuration
    that cannot be used: told in that line, without a trace."""


class _Job(NamedTuple):
    target: Path
    manifest: Manifest
    show: Show


async def restore(target: Path, directory: Path, progress: Show) -> None:
    """Raises RestoreRefused, ConfigRefused, OSError; then `directory` has no data, as before."""
    try:
        async for step in verify(target):
            progress(step)
        manifest = await asyncio.to_thread(archive.read_manifest, target)
        await asyncio.to_thread(_refuse_unfit, directory, manifest)
        fresh = not (directory / "angarium.toml").exists()
        (directory / "run").mkdir(parents=True, exist_ok=True, mode=0o700)
        with lock(directory / "run"):
            await _restored(_Job(target, manifest, progress), directory, fresh)
    except (StartFailed, ChildFailed, BackupFailed, LogUnavailable, BlobsUnavailable, *AWAY) as error:
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):
            raise
        raise RestoreRefused(str(error) or f"an engine does not answer: {type(error).__name__}") from error


def _refuse_unfit(directory: Path, manifest: Manifest) -> None:
    if (directory / "angarium.toml").exists():
        site = load(directory).site
        if site != manifest.site:
            raise RestoreRefused(f"{directory} is of site {site}, the backup of site {manifest.site}: use another folder")
    elif directory.exists() and any(entry.name not in ("run", STAGING) for entry in directory.iterdir()):
        raise RestoreRefused(f"{directory} is no site and not empty: use a new folder")
    for name in DATA:
        if (directory / name).is_dir() and any((directory / name).iterdir()):
            raise RestoreRefused(
                f"{directory / name} has data, which is never touched: restore into a new folder, or move it away"
            )


async def _restored(job: _Job, directory: Path, fresh: bool) -> None:
    staging = directory / STAGING
    await asyncio.to_thread(_clear, staging)
    try:
        config = await asyncio.to_thread(_staged, job, directory, staging, fresh)
        _refuse_one_of_several(config, directory, fresh)
        await _filled(job, config)
        await asyncio.to_thread(_in_place, directory, staging, config, fresh)
    finally:
        await asyncio.to_thread(_clear, staging)


def _refuse_one_of_several(config: Config, directory: Path, fresh: bool) -> None:
    """Records of partitions are what several sites keep together: what a backup brings back is a site alone."""
    if config.backbone is None or keeps_alone(config):
        return
    sites = ", ".join(config.backbone.sites)
    whose = "the backup is of one of several sites" if fresh else f"{directory} is one of several sites"
    raise RestoreRefused(
        f"{whose} ({sites}): while another one lives, start an empty site, which fetches everything from it; if all are "
        f"lost, make a site alone with `angarium init NEW --site {config.site} …` and restore into that folder"
    )


def _staged(job: _Job, directory: Path, staging: Path, fresh: bool) -> Config:
    """The folder in which engines run meanwhile, with the configuration that the site will have."""
    staging.mkdir(mode=0o700)
    for name in ("run", "log"):
        (staging / name).mkdir(mode=0o700)
    if fresh:
        kept = {file.name.removeprefix("config/"): file for file in job.manifest.config}
        files = {name: (archive.config_of(job.target, file), file.mode) for name, file in kept.items()}
    else:
        own = config_files(load(directory))
        files = {name: (path.read_bytes(), path.stat().st_mode & 0o777) for name, path in own.items()}
    for name, (data, mode) in files.items():
        _write(staging / name, data, mode)
    return load(staging)


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _in_place(directory: Path, staging: Path, config: Config, fresh: bool) -> None:
    """The configuration's own file comes last: with it the folder is a site."""
    for name in DATA:
        if (staging / name).exists():
            (staging / name).rename(directory / name)
    if fresh:
        for name, path in sorted(config_files(config).items(), key=lambda item: item[0] == "angarium.toml"):
            (directory / name).parent.mkdir(mode=0o700, exist_ok=True)
            path.rename(directory / name)
    archive.sync_folder(directory)


def _clear(staging: Path) -> None:
    """Of this restore or of one that was killed, with the engines that it left."""
    if staging.exists():
        if (staging / "run").exists():
            end_leftovers(staging / "run", {nats.NAME: nats.DEATH_SIGNAL, postgres.NAME: postgres.DEATH_SIGNAL})
        remove_short_sockets(staging)
        shutil.rmtree(staging)


# -- filling --------------------------------------------------------------------------------------------------------------


async def _filled(job: _Job, config: Config) -> None:
    world = SystemWorld()
    times = await asyncio.to_thread(_note_restored, job.target, config)
    lost = lost_epochs(world.now() - job.manifest.made_at, times)
    async with _engines(config), _stores(config) as (source, database, blobs):
        if await _holds_data(database):
            raise RestoreRefused(f"{config.database_url} holds the tables of a site: name an empty database")
        await _contents(job, blobs)
        done = 0
        for part in job.manifest.partitions:
            try:
                await source.restore(part.name, with_lost(part.history, lost), _events(job, part, done))
            except ValueError as error:
                raise RestoreRefused(f"{config.nats.url}: {error}: name an engine without data") from error
            done += part.events
        for part in job.manifest.partitions:
            await source.start_epoch(part.name, ended_clean=False)
        await _tables(job, source, database)


def lost_epochs(age_s: float, times: int) -> int:
    """How many epochs that nobody knows of may have followed the backup: those of sites that were restored from it, or
    from others near it, on a later day or earlier on this one. Their numbers, and the UIDs given in them, are not used
    again. `times`: how often this very backup was restored before."""
    return min(LOST_EPOCHS_MAX, max(0, math.floor(age_s / DAY_S)) + times)


def with_lost(history: tuple[Ended, ...], lost: int) -> tuple[Ended, ...]:
    """With `lost` empty epochs at its end, none of them clean: each raises UIDNEXT."""
    last = history[-1].epoch
    return (*history, *(Ended(last + number, 0, UID_GAP, history[-1].home) for number in range(1, lost + 1)))


def _note_restored(target: Path, config: Config) -> int:
    """Before the first event is written, so that no life of the site is forgotten."""
    path = target / RESTORED
    times = len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {config.dir.parent}\n")
    except OSError as error:
        log.warning("the backup cannot note that it was restored", error=str(error))
    return times


@asynccontextmanager
async def _engines(config: Config) -> AsyncIterator[None]:
    """Those that are ours, until the block ends. Raises ChildFailed."""
    running: list[Child] = []
    try:
        for part in engine_parts(config):
            child = await Child.start(await part.prepare(), config.run_dir)
            running.append(child)
            try:
                await child.until_ready()
            except ChildFailed as error:
                words = child.last_words.splitlines()[-1:]
                raise ChildFailed(f"{part.name} {error}: {' '.join(words)}") from error
        yield
    finally:
        for child in reversed(running):
            await child.stop()


@asynccontextmanager
async def _stores(config: Config) -> AsyncIterator[tuple[JetStreamLog, Database, DiskBlobs]]:
    there = config.nats
    own = config.backbone if keeps_alone(config) else None
    source = JetStreamLog(
        there.url,
        there.user,
        there.password,
        node_id="restore",
        site=config.site,
        backbone=Backbone(BACKBONE_DOMAIN, own.replicas) if own is not None else None,
    )
    database = Database(config.database_url)
    blobs = await asyncio.to_thread(DiskBlobs, config.blob_dir)
    try:
        await source.start(ENGINES_S_MAX)
        await database.start(ENGINES_S_MAX)
        yield source, database, blobs
    finally:
        await source.stop()
        await database.stop()
        await blobs.close()


async def _holds_data(database: Database) -> bool:
    async with exchange.connected(database, "live") as connection:
        return bool(await exchange.standings(connection, "live"))


async def _contents(job: _Job, blobs: DiskBlobs) -> None:
    intake = blobs.intake()
    done = 0
    try:
        for pack in job.manifest.packs:
            async for pieces in _threaded(archive.pieces_of(job.target, pack)):
                taken = await intake.take([archive.content_of(piece) for piece in pieces])
                if taken.corrupt:
                    raise BackupFailed(f"{job.target / pack.name}: content {taken.corrupt[0].hex()} is damaged")
                done += len(taken.complete)
                job.show(Progress("restoring contents", done, job.manifest.blobs, "blobs"))
        await blobs.sync()
    finally:
        intake.close()


async def _events(job: _Job, part: Part, done: int) -> AsyncGenerator[tuple[Record, ...], None]:
    total = sum(each.events for each in job.manifest.partitions)
    async for events in _threaded(archive.events_of(job.target, part)):
        yield tuple(archive.record_of(event) for event in events)
        done += len(events)
        job.show(Progress("restoring events", done, total, "events"))


async def _tables(job: _Job, source: JetStreamLog, database: Database) -> None:
    """Folded here, with progress, so that the site serves as soon as it is started."""
    total = sum(part.events for part in job.manifest.partitions) + len(job.manifest.partitions)
    done = 0
    async with exchange.connected(database, "live") as connection:
        for part in job.manifest.partitions:
            source.lead(part.name)
            await source.leading(part.name)
            upto = await source.mark(part.name)
            fold = Fold(connection, part.name)
            after = (await fold.start()).position
            async for count in fold_range(fold, source, after, upto):
                done += count
                job.show(Progress("tables", done, max(done, total), "events"))
            # Every content is a blob on disk: the follower need not read the log again for them.
            await connection.execute("INSERT INTO site.blobs_kept VALUES ($1, $2)", part.name, upto)
        await exchange.analyze(connection, "live")


async def _threaded(items: Iterator[T]) -> AsyncGenerator[T, None]:
    while (item := await asyncio.to_thread(next, items, None)) is not None:
        yield item
