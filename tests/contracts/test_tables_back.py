"""A database that crashed has lost its last commits (synchronous_commit=off): nobody may read the tables older than he
knew them, and no command be decided on what they were."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from node.config import Config
from storage.news import Hub
from storage.postgres.mail_view import MailView
from storage.postgres.pool import AWAY, Database
from storage.readmission import Readmission
from tests.contracts.test_follower import ANNA, CREATED, Place
from tests.contracts.test_readmission import nothing_known
from tests.laws.tables_of_law import Site, site_tables
from tests.live import eventually

SCHEMA = "went_back"


class Lazy:
    """A database whose commits do not get to the disk, so that a crash surely takes them: its WAL writer stands still."""

    def __init__(self, config: Config, site: Site) -> None:
        self.url = config.database_url
        self._pid_file = config.run_dir / "postgres.pid"
        self._site = site
        self._writer = 0

    def go_on(self) -> None:
        if self._writer:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._writer, signal.SIGCONT)
            self._writer = 0

    async def begin(self) -> None:
        self._writer = await self._site.db.fetchval("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
        os.kill(self._writer, signal.SIGSTOP)

    async def crash(self, whole: bool) -> None:
        """Returns when it answers again. Not `whole`: one of its processes is killed, as a machine short of memory does;
        then it drops everybody, and starts over by itself."""
        gone = self._site.db
        if whole:
            os.kill(int(self._pid_file.read_text().split()[0]), signal.SIGKILL)
        os.kill(self._writer, signal.SIGKILL)
        self._writer = 0

        async def again() -> bool:
            try:
                self._site.db = await asyncpg.connect(self.url, server_settings={"search_path": f"{SCHEMA},site"})
            except AWAY:
                return False
            return True

        await eventually(lambda: _closed(gone))
        await eventually(again, 30.0)


async def _closed(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    return connection.is_closed()


@pytest.fixture
async def crashing(engines: Config, tmp_path: Path) -> AsyncIterator[tuple[Place, Lazy]]:
    making = site_tables(engines.database_url, SCHEMA)
    site = await making.__aenter__()
    # The place needs its database, the database the place's log.
    place = Place(site, Database(engines.database_url), tmp_path / "blobs")
    admit = Readmission(place.log, (place.partition,), nothing_known).admit
    place.database = database = Database(engines.database_url, schema=SCHEMA, admit=admit)
    await database.start()
    lazy = Lazy(engines, site)
    try:
        yield place, lazy
    finally:
        lazy.go_on()
        await database.stop()
        await site.db.execute(f"DROP SCHEMA {SCHEMA} CASCADE")
        await site.db.close()


@pytest.mark.parametrize("whole", [True, False])
async def test_after_a_crash_the_tables_are_not_read_before_they_are_what_they_were(
    crashing: tuple[Place, Lazy], whole: bool
) -> None:
    place, lazy = crashing
    hub, mail = Hub(place.database), MailView(place.database)
    listening = asyncio.create_task(hub.run())
    async with place.follower():
        await place.put(CREATED)
        assert await hub.reached(place.partition, place.last, 10.0)
        await asyncio.wait_for(hub.readable(), 10.0)
        await lazy.begin()
        await place.append(b"seen, and not on the database's disk")
        assert await hub.reached(place.partition, place.last, 10.0)
        selected = await mail.select(ANNA, "INBOX", recent=False)
        assert selected is not None and list(selected.uids) == [1]
        place.log.flowing.clear()
        await lazy.crash(whole)
        assert await place.site.rows("SELECT count(*) FROM message") == [(0,)], "nothing was lost: the test is void"
        # The follower does not get on: nobody is told that the message is gone.
        with pytest.raises(AWAY):
            await mail.select(ANNA, "INBOX", recent=False)
        place.log.flowing.set()
        await asyncio.wait_for(hub.readable(), 10.0)
        selected = await mail.select(ANNA, "INBOX", recent=False)
        assert selected is not None and list(selected.uids) == [1]
        assert await place.messages() == 1
    listening.cancel()
    await asyncio.wait([listening])
