"""Keeps tails that lie at this site on their way into history, and the reports of what could not be salvaged."""

import asyncio
import hashlib
from typing import Protocol

import structlog

from cluster import codec
from cluster.domain.actor import Actor
from cluster.domain.mailbox.events import PARTITION_ENTITY, SalvageSettled, TailDestroyed, report_key
from cluster.domain.refusal import Reason, Refusal
from cluster.log.model import APPEND_S_MAX, Append, LogUnavailable, NewEvent, Stale, Stored
from cluster.position import SEQUENCE_MAX, split
from cluster.world import World
from storage.answers import UNAVAILABLE
from storage.blobs import Blobs, BlobsUnavailable
from storage.news import Hub
from storage.postgres.pool import AWAY, Database
from storage.postgres.salvage_view import SalvageView
from storage.salvage import Salvage, Source

LOOK_EVERY_S = 2.0  # while something is left, or history went on
LOOK_AGAIN_S = 15.0  # where all was done
SETTLED_S_MAX = 10.0  # for the tables to show it
TRIES_MAX = 5  # to settle what somebody else may be settling
COMMAND_ID_BYTES = 16

NO_SUCH_REPORT = Refusal(Reason.NO_SUCH_ENTRY, "There is no open report at this position.")

log = structlog.get_logger("salvage")


class Salvaging:
    """Of one partition, for as long as the process lives; of a site's processes one at a time."""

    def __init__(self, partition: str, source: Source, database: Database, blobs: Blobs, world: World) -> None:
        self.partition = partition
        self._source = source
        self._database = database
        self._view = SalvageView(database)
        self._salvage = Salvage(partition, source, blobs, world)
        self._done_with: tuple[tuple[int, int], ...] = ()

    async def run(self) -> None:
        while True:
            try:
                await asyncio.sleep(LOOK_EVERY_S)
                await self.look()
                await self._news()
            except (*AWAY, LogUnavailable, BlobsUnavailable) as error:
                log.info("salvage waits", partition=self.partition, error=f"{type(error).__name__}: {error}")
            except Exception:
                log.exception("salvage failed", partition=self.partition)

    async def look(self) -> bool:
        """Whether nothing is left of the tails that lie here. Raises one of AWAY, LogUnavailable, BlobsUnavailable."""
        history = await self._source.known_history(self.partition)
        done = await self._view.salvaged(self.partition)
        tails = await self._source.tails(self.partition)
        if any(split(tail.last).sequence > done.get(tail.epoch, 0) for tail in tails):
            if not await self._locked():
                return False
            done = await self._view.salvaged(self.partition)
        self._done_with = history
        return all(split(tail.last).sequence <= done.get(tail.epoch, 0) for tail in tails)

    async def _locked(self) -> bool:
        """Salvages, unless another process does."""
        key = int.from_bytes(hashlib.sha256(b"salvage/" + self.partition.encode()).digest()[:8], "big", signed=True)
        connection = await self._database.own()
        try:
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", key):
                return False
            await self._salvage.run(await self._view.salvaged(self.partition))
            return True
        finally:
            connection.terminate()

    async def _news(self) -> None:
        """Returns when history went on, or after a while."""
        waited = 0.0
        while waited < LOOK_AGAIN_S and await self._source.known_history(self.partition) == self._done_with:
            await asyncio.sleep(LOOK_EVERY_S)
            waited += LOOK_EVERY_S


class Settling(Protocol):
    async def append(self, append: Append, timeout_s: float = APPEND_S_MAX) -> Stored | Stale: ...


class Reports:
    """What could not be salvaged, for operators."""

    def __init__(self, source: Settling, hub: Hub, database: Database, world: World) -> None:
        self._source = source
        self._hub = hub
        self._world = world
        self.view = SalvageView(database)

    async def settle(self, actor: Actor, partition: str, position: int, *, applied: bool) -> int | Refusal:
        """The operator did what it says, or does not want it. The position of the fact."""
        command = self._world.entropy(COMMAND_ID_BYTES)
        key = report_key(position)
        new = self._encoded(actor, command, SalvageSettled(position, applied), (key,))
        try:
            for _ in range(TRIES_MAX):
                read_at = self._hub.position(partition)
                report = await self.view.report(partition, position)
                if report is None or report.state != "open":
                    return NO_SUCH_REPORT
                stored = await self._source.append(Append(partition, command, (new,), (key,), read_at))
                if isinstance(stored, Stored):
                    await self._hub.reached(partition, stored.last, SETTLED_S_MAX)
                    return stored.last
                await self._hub.reached(partition, stored.changed_at, SETTLED_S_MAX)
        except (*AWAY, LogUnavailable):
            pass
        return UNAVAILABLE

    async def give_up(self, actor: Actor, partition: str, epoch: int) -> int | Refusal:
        """The operator says that nobody will bring what is left of the epoch's tail: clients' tokens from there may be
        clamped after it. The position of the fact."""
        command = self._world.entropy(COMMAND_ID_BYTES)
        try:
            if (await self.view.salvaged(partition)).get(epoch, 0) >= SEQUENCE_MAX:
                return Refusal(Reason.CONFLICT, "This tail was given up already.")
            new = self._encoded(actor, command, TailDestroyed(epoch))
            stored = await self._source.append(Append(partition, command, (new,), (), self._hub.position(partition)))
        except (*AWAY, LogUnavailable):
            return UNAVAILABLE
        if isinstance(stored, Stale):
            return UNAVAILABLE
        await self._hub.reached(partition, stored.last, SETTLED_S_MAX)
        return stored.last

    def _encoded(
        self, actor: Actor, command: bytes, event: SalvageSettled | TailDestroyed, changes: tuple[str, ...] = ()
    ) -> NewEvent:
        at_us = int(self._world.now() * 1_000_000)
        payload = codec.encode(event, at_us=at_us, by=actor, command=command)
        return NewEvent("mailbox", PARTITION_ENTITY, payload, changes)
