"""The roster on this machine: the control plane's, as the running site last saw it, in a file that a site reads when it
starts, whoever is out of reach.
"""

import asyncio
import contextlib
import os
from pathlib import Path

import msgspec
import structlog

from cluster.control.roster import Roster, Rosters
from cluster.log.connection import Unreachable
from node.backbone import read_roster

LOOK_EVERY_S = 1.0
GOING_LOOK_EVERY_S = 0.1
GOING_S_MAX = 60.0

log = structlog.get_logger("roster")


def note(path: Path, roster: Roster) -> None:
    """Whole or not at all, whoever writes at the same time."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(roster)))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


async def follow(rosters: Rosters, path: Path, site: str) -> None:
    """For ever: what is agreed is noted here. The first site founds the agreement with what it was made with."""
    while True:
        try:
            await _look(rosters, path, site)
        except Unreachable as error:
            log.debug("the control plane does not answer", why=str(error))
        await asyncio.sleep(LOOK_EVERY_S)


async def hear_of_going(rosters: Rosters, path: Path, site: str) -> None:
    """Looks often, for a site that was told that it goes: so it hears, before the others shut it out, that it did."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GOING_S_MAX):
            while (noted := read_roster(path)) is None or noted.find(site) is not None:
                with contextlib.suppress(Unreachable):
                    await _look(rosters, path, site)
                await asyncio.sleep(GOING_LOOK_EVERY_S)


async def _look(rosters: Rosters, path: Path, site: str) -> None:
    agreed, noted = await rosters.read(), read_roster(path)
    if agreed is None:
        if noted is not None and noted.authority == site:
            await rosters.write(noted)
    elif noted is None or agreed.number > noted.number:
        note(path, agreed)
        log.info("the roster changed", number=agreed.number, members=[member.site for member in agreed.members])
