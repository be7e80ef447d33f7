"""What was expunged longer ago than its domain says is given up: an event of its account, so that at every site, and after
every failover, the same can be restored (ops/decisions/undelete.md). Done by the partition's home, once an hour.

An account is looked after at most once a day, so that who deletes all day long makes one such event of it.
"""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from cluster import partitions
from cluster.domain.actor import Actor
from cluster.domain.mailbox.commands import GiveUpExpunged
from cluster.domain.refusal import Refusal
from cluster.world import World
from storage.executor import Executor
from storage.postgres.expunged_view import ExpungedView
from storage.postgres.pool import AWAY, Database

LOOK_EVERY_S = 3600.0
RETRY_S = 60.0
LOCK = 4_245  # advisory: one process of the site sees to it

log = structlog.get_logger("undelete")


class GivingUp:
    """`at_home`: the partitions that are at home at this site."""

    def __init__(
        self, world: World, site: str, database: Database, executor: Executor, at_home: Callable[[], Iterable[str]]
    ) -> None:
        self._world = world
        self._actor = Actor(name="system", site=site)
        self._database = database
        self._view = ExpungedView(database)
        self._executor = executor
        self._at_home = at_home

    async def run(self) -> None:
        """For ever."""
        while True:
            done = False
            try:
                done = await self._alone()
            except AWAY as error:
                log.warning("giving up waits", error=f"{type(error).__name__}: {error}")
            except Exception:
                log.exception("giving up what was expunged failed")
            await asyncio.sleep(LOOK_EVERY_S if done else RETRY_S)

    async def _alone(self) -> bool:
        """False where another process of the site is at it, or something was refused."""
        connection = await self._database.own()
        try:
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
                return False
            return await self.look()
        finally:
            connection.terminate()

    async def look(self) -> bool:
        """Once over all partitions at home here: whether all was done. Raises one of AWAY."""
        done = True
        for partition in [name for name in self._at_home() if partitions.is_mail(name)]:
            for account, upto in await self._view.due(partition, int(self._world.now())):
                answer = await self._executor.execute(self._actor, GiveUpExpunged(account, upto), ())
                if isinstance(answer, Refusal):
                    log.info("not given up yet", account=account, why=answer.text)
                    done = False
        return done
