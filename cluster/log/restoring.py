"""Puts a partition back from a backup: its epochs as copies, its record without anybody who leads it."""

from collections.abc import AsyncIterator, Sequence

from cluster import partitions
from cluster.control.bucket import Conflict
from cluster.control.partitions import Ended, Partition
from cluster.log import epochs, wire
from cluster.log.leader import Site
from cluster.log.model import Record
from cluster.position import split

RESTORE_BATCH_MAX = 500


async def restored(
    site: Site, name: str, history: Sequence[Ended], records: AsyncIterator[tuple[Record, ...]]
) -> None:
    """Writes `records` (events of all its epochs, in order) as copies. Raises Unreachable, EngineRefused; ValueError if
    the partition, or what an earlier restore left of it, is here already."""
    if await site.partitions.get(name) is not None:
        raise ValueError(f"partition {name} is here already")
    streams = {ended.epoch: wire.stream_of(name, ended.epoch, copy=True) for ended in history}
    for stream in streams.values():
        await site.engine.create_stream(epochs.config(stream, site.replicas))
    ends = {stream.epoch: await site.engine.last_sequence(stream.name) for stream in streams.values()}
    if any(ends.values()):
        raise ValueError(f"an earlier restore of {name} left its streams behind")
    async for batch in records:
        for epoch in sorted({split(record.position).epoch for record in batch}):
            stream = streams[epoch]
            messages = [wire.copied_message(stream, record) for record in batch if split(record.position).epoch == epoch]
            for first in range(0, len(messages), RESTORE_BATCH_MAX):
                part = messages[first : first + RESTORE_BATCH_MAX]
                await site.engine.write_batch(part, ends[epoch], site.entropy(12).hex())
                ends[epoch] += len(part)
    *past, present = history
    pinned = partitions.is_spool(name)
    record = Partition(name, site.name, present.epoch, ended=tuple(past), gap_forced=present.gap, pinned=pinned)
    try:
        await site.known.note(record, {epoch: stream.name for epoch, stream in streams.items()})
        await site.partitions.create(record)
    except Conflict:
        raise ValueError(f"partition {name} is here already") from None
