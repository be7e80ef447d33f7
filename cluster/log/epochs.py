"""Beginning a partition and its epochs, and what an appender must know of the past before it takes the first word."""

from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from cluster import codec
from cluster.control.bucket import Conflict
from cluster.control.partitions import Ended, Partition, Partitions, unannounced
from cluster.domain.actor import SYSTEM
from cluster.domain.mailbox.events import EpochStarted
from cluster.log.connection import Unreachable
from cluster.log.engine import Engine, Kept
from cluster.log.model import NewEvent
from cluster.log.wire import COMMAND_HEADER, Request, Stream, position_of, stream_of
from cluster.position import SEQUENCE_MAX, split

TAIL_EVENTS_MAX = 20_000
TAIL_READ_MAX = 1_000
TAIL_AGE_MAX = timedelta(minutes=15)  # of commands before the last one: nobody repeats older ones

EPOCH_NOUN, EPOCH_ENTITY = "mailbox", "0"


class Told(NamedTuple):
    """One command that is in the log: positions of its first and last event."""

    command: bytes
    first: int
    last: int


class Tail(NamedTuple):
    """`commands`: the most recent ones, oldest first. `last_event`: position, 0 = there is none."""

    commands: list[Told]
    last_event: int


class _OnlyId(msgspec.Struct):
    id: bytes


_only_id = msgspec.msgpack.Decoder(_OnlyId).decode


def config(stream: Stream, replicas: int) -> dict[str, object]:
    return {
        "name": stream.name,
        "subjects": stream.subjects,
        "storage": "file",
        "num_replicas": replicas,
        "discard": "new",
        "allow_direct": True,
        "allow_atomic": True,
        # Command ids are remembered by the appender; the engine's own window of ids is not used.
        "duplicate_window": 100_000_000,
    }


async def ensure_partition(partitions: Partitions, name: str, home: str, copies: tuple[str, ...] = ()) -> Partition:
    """The partition's record; epoch 1 is begun, with `copies` at those sites, if there is none. Raises Unreachable."""
    while True:
        found = await partitions.get(name)
        if found is not None:
            return found[0]
        try:
            await partitions.create(Partition(name, home, 1, stream_of(name, 1).name, copies=copies))
        except Conflict:
            continue


def present(partition: Partition) -> Stream:
    return stream_of(partition.name, partition.epoch, copy=_is_copy(partition.stream))


def past(partition: Partition) -> list[tuple[Stream, Ended]]:
    return [(stream_of(partition.name, old.epoch, copy=_is_copy(old.stream)), old) for old in partition.ended]


async def end_of(engine: Engine, partition: Partition) -> int:
    """The last sequence of the present epoch, once the engine refuses whoever still writes its stream. Raises
    Unreachable, EngineRefused."""
    stream = present(partition)
    if stream.copy:
        newest = await engine.last_on(stream.name, ">")
        return split(position_of(stream, newest)).sequence if newest is not None else 0
    await engine.update_stream(stream.name, subjects=[f"retired.{partition.name}.{partition.epoch}"])
    return await engine.last_sequence(stream.name)


def succeeded(partition: Partition, last: int, clean: bool, home: str) -> Partition:
    """The record once the present epoch has ended at sequence `last`."""
    ended = (*partition.ended, Ended(partition.epoch, last, clean, partition.stream))
    epoch = partition.epoch + 1
    return Partition(partition.name, home, epoch, stream_of(partition.name, epoch).name, ended, partition.copies)


def as_copied(partition: Partition) -> Partition:
    """The record as it holds at a site that has copies: where every epoch lies there."""
    ended = tuple(
        msgspec.structs.replace(old, stream=stream_of(partition.name, old.epoch, copy=True).name)
        for old in partition.ended
    )
    stream = stream_of(partition.name, partition.epoch, copy=True).name
    return msgspec.structs.replace(partition, stream=stream, ended=ended)


def first_words(partition: Partition, at_us: int, command: bytes) -> Request:
    """The EpochStarted of the present epoch."""
    payload = codec.encode(EpochStarted(unannounced(partition)), at_us=at_us, by=SYSTEM, command=command)
    return Request(command, EPOCH_ENTITY, (NewEvent(EPOCH_NOUN, EPOCH_ENTITY, payload),))


async def tail(engine: Engine, partition: Partition) -> Tail:
    """What the newest epochs hold, until TAIL_EVENTS_MAX commands are known, none older than TAIL_AGE_MAX before its
    epoch's last. Raises Unreachable."""
    commands: list[Told] = []
    last_event = 0
    epochs: list[tuple[Stream, int]] = [(stream, old.last) for stream, old in past(partition)]
    for stream, end in reversed([*epochs, (present(partition), SEQUENCE_MAX)]):
        if len(commands) >= TAIL_EVENTS_MAX:
            break
        told = await _told(engine, stream, end)
        commands = told + commands
        last_event = last_event or (told[-1].last if told else 0)
    return Tail(commands[-TAIL_EVENTS_MAX:], last_event)


async def _told(engine: Engine, stream: Stream, end: int) -> list[Told]:
    """The last commands of a stream, up to the position with sequence `end`."""
    told: list[Told] = []
    newest = await engine.last_on(stream.name, stream.events)
    sequence = await _tail_begins(engine, stream, newest) if newest is not None else 0
    while newest is not None and sequence <= newest.sequence:
        part = await engine.read(stream.name, sequence, TAIL_READ_MAX, stream.events)
        for event in part.messages:
            at = position_of(stream, event)
            if split(at).sequence > end:
                return told
            command = _command_of(event)
            if told and told[-1].command == command:
                told[-1] = told[-1]._replace(last=at)
            else:
                told.append(Told(command, at, at))
        if not part.messages:
            raise Unreachable(f"a replica of {stream.name} lags")
        sequence = part.messages[-1].sequence + 1
    return told


async def _tail_begins(engine: Engine, stream: Stream, newest: Kept) -> int:
    """Sequence from which on to look."""
    # The engine's own stamps are compared with each other, so that nobody's clock matters but its.
    last = datetime.fromisoformat(newest.headers["Nats-Time-Stamp"][:19])
    since = await engine.first_since(stream.name, stream.events, f"{(last - TAIL_AGE_MAX).isoformat()}Z")
    return max(1, since, newest.sequence - 2 * TAIL_EVENTS_MAX + 1)


def _command_of(event: Kept) -> bytes:
    header = event.headers.get(COMMAND_HEADER)
    return bytes.fromhex(header) if header is not None else _only_id(event.data).id


def _is_copy(stream: str) -> bool:
    return stream.startswith("CP-")
