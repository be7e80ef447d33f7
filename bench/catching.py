"""How fast a site catches up that was away, or whose disks are new."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import asyncpg

from bench import machine
from bench.figures import Value, source
from bench.place import PARTITION, Place, three, until
from cluster.log.connection import Connection, Unreachable
from cluster.log.engine import Engine, EngineRefused
from cluster.log.wire import position_of, stream_of
from cluster.position import split
from tests.faults.site import Site

MESSAGES, PEOPLE, CONNECTIONS = 6000, 4, 4
LOOK_EVERY_S = 0.03
FOLDED = "SELECT position FROM folded WHERE partition = $1"
WANTED_NONE = "SELECT count(*) = 0 FROM site.wanted_blob"
KEPT = ("angarium.toml", "secrets.toml", "tls", "up.log")  # of a site whose disks are new


class Behind(NamedTuple):
    """Seconds from the start of a site until its tables had the first event that they lacked; until its copy of the log,
    its tables, and its content were level with the home's. `cpu`: while its tables caught up."""

    begun: float
    copied: float
    folded: float
    whole: float
    cpu: str


async def catching_up(folder: Path) -> list[Value]:
    """Until a site's tables are level with the home's, not its copy of the log alone; and until it has all content."""
    async with three(folder) as place:
        people = await place.people(*(f"p{n}" for n in range(PEOPLE)))
        await place.dr.stop()
        began = time.perf_counter()
        await asyncio.gather(*(source(place.pune, each, CONNECTIONS, MESSAGES // PEOPLE) for each in people))
        rate = MESSAGES / (time.perf_counter() - began)
        away = await _level(place)
        await _content_has_left(place, people[0])
        await place.dr.stop()
        _wipe(place.dr)
        new = await _level(place)
    return [
        *_values("a site that was away: content from the log", away, f"written at {rate:.0f}/s meanwhile"),
        *_values("a site with new disks: content from other sites", new, ""),
    ]


def _values(name: str, behind: Behind, notes: str) -> list[Value]:
    """A message is an event and its content, 10 KB."""
    began = f"{behind.begun:.1f} s after `up` the first; copy of the log level after {behind.copied:.1f} s"
    notes = "; ".join(filter(None, (began, notes, behind.cpu)))
    tables, whole = (MESSAGES / (end - behind.begun) for end in (behind.folded, behind.whole))
    return [
        Value(f"{name}, until its tables are level", tables, "messages/s", "≥ 2,000", notes),
        Value("  until it has all content too", whole, "messages/s", "≥ 2,000", f"after {behind.whole:.1f} s"),
    ]


async def _level(place: Place) -> Behind:
    """Starts dr."""
    site, goal = place.dr, await _position(place.pune)
    began = time.perf_counter()
    starting = asyncio.create_task(site.start())
    copying = asyncio.create_task(_copied(site, goal))
    database = await _database(site)
    try:
        before = await database.fetchval(FOLDED, PARTITION)

        async def folded(is_enough: Callable[[int], bool]) -> bool:
            at = await database.fetchval(FOLDED, PARTITION)
            return is_enough(at or 0)

        begun = await until("it begins", lambda: folded(lambda at: at > (before or 0)), LOOK_EVERY_S)
        cpu = machine.cpu(site.config.run_dir)
        level = await until("its tables are level", lambda: folded(lambda at: at >= goal), LOOK_EVERY_S)
        cpu = machine.cpu(site.config.run_dir).since(cpu)
        await starting
        whole = await until("it has all content", lambda: database.fetchval(WANTED_NONE), LOOK_EVERY_S)
        return Behind(begun - began, await copying - began, level - began, whole - began, cpu.ms_each(MESSAGES))
    finally:
        await database.close()


async def _copied(site: Site, goal: int) -> float:
    """When the site's copy of the log has come so far."""
    stream = stream_of(PARTITION, split(goal).epoch, copy=True)
    async with _log(site) as engine:

        async def is_so() -> bool:
            with contextlib.suppress(Unreachable, EngineRefused, TimeoutError):
                newest = await engine.last_on(stream.name, stream.events)
                return newest is not None and position_of(stream, newest) >= goal
            return False

        return await until("its copy is level", is_so)


async def _content_has_left(place: Place, somebody: str) -> None:
    """The home's log, since every site has it on disk; it looks again whenever there is more mail."""
    written = await _position(place.pune)
    stream = stream_of(PARTITION, split(written).epoch)
    async with _log(place.pune) as engine:

        async def is_so() -> bool:
            await source(place.pune, somebody, 1, 1)
            first = await engine.next_on(stream.name, stream.contents, 1)
            return first is None or position_of(stream, first) > written

        await until("content has left the log", is_so, 1.0)


@contextlib.asynccontextmanager
async def _log(site: Site) -> AsyncIterator[Engine]:
    """The site's, as soon as it answers."""
    connection = Connection(site.config.nats.url, site.config.nats.user, site.config.nats.password)
    await connection.start()
    try:
        yield Engine(connection)
    finally:
        await connection.stop()


def _wipe(site: Site) -> None:
    for part in site.config.dir.iterdir():
        if part.name not in KEPT:
            shutil.rmtree(part) if part.is_dir() else part.unlink()


async def _position(site: Site) -> int:
    """Up to where the site's tables have everything."""
    database = await _database(site)
    try:
        return int(await database.fetchval(FOLDED, PARTITION))
    finally:
        await database.close()


async def _database(site: Site) -> "asyncpg.Connection[asyncpg.Record]":
    """As soon as it answers and has tables."""
    while True:
        try:
            made = await asyncpg.connect(site.config.database_url, server_settings={"search_path": "live"})
            if await made.fetchval(
                "SELECT to_regclass('live.folded') IS NOT NULL AND to_regclass('site.wanted_blob') IS NOT NULL"
            ):
                return made
            await made.close()
        except (OSError, asyncpg.PostgresError):
            pass
        await asyncio.sleep(LOOK_EVERY_S)
