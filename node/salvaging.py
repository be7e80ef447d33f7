"""Brings back what lost tails hold that lie at this site: after every start, and whenever an epoch ended.

Of a site's processes the one that leads the partition, or keeps its copy, does it.
"""

import asyncio

import structlog

from cluster.log.model import LogUnavailable
from node.assembly import Assembly
from storage.blobs import BlobsUnavailable
from storage.postgres.pool import AWAY
from storage.postgres.salvage_view import salvaged
from storage.salvage import Salvage

RETRY_S = 2.0

log = structlog.get_logger("salvaging")


async def run(parts: Assembly) -> None:
    """Until it is cancelled."""
    looked: dict[str, int] = {}  # partition → the epoch before which nothing is left here
    while True:
        await parts.log.watch.looked()
        for partition in list(parts.partitions):
            record = parts.log.record(partition)
            if record is None or not record.ended or looked.get(partition) == record.epoch:
                continue
            if not parts.log.keeps(partition):
                continue
            try:
                history = await parts.log.known_history(partition)
                if history[-1][0] != record.epoch:
                    continue  # It has not come to this site yet where the epoch before ended.
                done = await salvaged(parts.database, partition)
                outcome = await Salvage(partition, parts.log, parts.blobs, parts.world).run(done)
                if not outcome.waiting:
                    looked[partition] = record.epoch
            except (LogUnavailable, BlobsUnavailable, *AWAY) as error:
                log.warning("salvage waits", partition=partition, error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(RETRY_S)
            except Exception:
                log.exception("salvage failed", partition=partition)
                looked[partition] = record.epoch  # Until the next start; the tail stays where it is.
