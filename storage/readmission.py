"""After a restart the database may stand where it once was: commits do not wait for its disk, and what is lost is folded
again from the log. Nobody reads it before that is done, for no client may see a UID, a flag or a MODSEQ go back.

What was ever shown lay below the log's mark, so the tables may be read again when they have reached the mark that was
there after the restart; where the log cannot be asked, what this site is known to have shown.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from cluster.log.model import Log, LogUnavailable
from storage.postgres.pool import Behind, Connection

ASK_S_MAX = 2.0

# Which run of the database this is. When the machine kills one of its processes (for want of memory, say) all others go
# too, commits are lost and everything begins anew, but for the postmaster and its start time. Who may not see other
# people's processes has the latter only.
RUN = """
SELECT pg_postmaster_start_time(), (SELECT max(backend_start) FROM pg_stat_activity WHERE backend_type = 'checkpointer')
"""


class Readmission:
    """Looks at new connections to the database: `admit` returns where they may be used. `known`: how far a
    partition's tables are known to have come, without asking anybody outside of the site."""

    def __init__(self, source: Log, partitions: Sequence[str], known: Callable[[str], Awaitable[int]]) -> None:
        self._source = source
        self._partitions = partitions
        self._known = known
        self._began: object = None  # when the database that may be read was started
        self._goals: tuple[object, dict[str, int]] = (None, {})  # for the one started then: what it must reach
        self._one = asyncio.Lock()  # once it may be read, nobody's later goals close it again

    async def admit(self, connection: Connection) -> None:
        """Raises Behind, TimeoutError and what the database raises."""
        row = await connection.fetchrow(RUN, timeout=ASK_S_MAX)
        began = tuple(row) if row is not None else ()
        async with self._one:
            if began != self._began:
                await self._look(connection, began)

    async def _look(self, connection: Connection, began: object) -> None:
        if began != self._goals[0]:
            wanted = tuple(self._partitions)  # More may appear while they are asked.
            marks = await asyncio.gather(*(self._mark(partition) for partition in wanted))
            self._goals = began, dict(zip(wanted, marks, strict=True))
        rows = await connection.fetch("SELECT partition, position FROM folded", timeout=ASK_S_MAX)
        folded = {row["partition"]: row["position"] for row in rows}
        for partition, goal in self._goals[1].items():
            if folded.get(partition, 0) < goal:
                raise Behind(f"{partition} is folded up to {folded.get(partition, 0)} of {goal}")
        self._began = began

    async def _mark(self, partition: str) -> int:
        try:
            async with asyncio.timeout(ASK_S_MAX):
                return await self._source.mark(partition)
        except (LogUnavailable, TimeoutError):
            return await self._known(partition)
