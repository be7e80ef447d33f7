"""Beginning a partition and its epochs, and what an appender must know of the past before it takes the first word."""

import contextlib
from collections.abc import MutableSequence, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from cluster import codec
from cluster.control.bucket import Conflict
from cluster.control.partitions import Known, Partition, Partitions, spans, unannounced
from cluster.domain.actor import SYSTEM
from cluster.domain.mailbox.events import EpochStarted
from cluster.log.connection import Unreachable
from cluster.log.engine import Engine, Kept
from cluster.log.model import NewEvent
from cluster.log.wire import COMMAND_HEADER, Request, Stream, is_copy, position_of, stream_of
from cluster.position import position, split

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
    """`commands`: the most recent ones, oldest first. `last_event`: position, 0 = there is none; `before`: that of the last
    one of an earlier command."""

    commands: list[Told]
    last_event: int
    before: int = 0


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


async def ensure_partition(partitions: Partitions, made: Partition) -> None:
    """Epoch 1 is begun if there is no record of this name. Raises Unreachable."""
    if await partitions.get(made.name) is None:
        with contextlib.suppress(Conflict):
            await partitions.create(made)


def segments(known: Known) -> list[tuple[Stream, int]]:
    """History as it lies at a site: streams with the last sequence of each in history, ascending."""
    name = known.partition.name
    return [
        (stream_of(name, epoch, copy=is_copy(known.streams[epoch])), last)
        for epoch, last in spans(known.partition)
        if epoch in known.streams
    ]


async def lying_here(engine: Engine, partition: Partition, known: Known | None, replicas: int) -> dict[int, str]:
    """The stream of each epoch here, those that are not here yet made as copies. The present one of a home is not made.
    Raises Unreachable, EngineRefused."""
    streams = dict(known.streams) if known is not None else {}
    for epoch, end in spans(partition):
        own = stream_of(partition.name, epoch)
        if streams.get(epoch, own.name) != own.name:
            continue
        if await engine.exists(own.name):
            if epoch == partition.epoch or await engine.last_sequence(own.name) >= end:
                streams[epoch] = own.name
                continue
            # Our disk was put back to an earlier state, and what history has beyond it must be written again: elsewhere.
        copy = stream_of(partition.name, epoch, copy=True)
        await engine.create_stream(config(copy, replicas))
        streams[epoch] = copy.name
    return streams


async def end_of(engine: Engine, stream: Stream) -> int:
    """Position of the last message in there, 0 = there is none. Raises Unreachable, EngineRefused."""
    newest = await engine.last_on(stream.name, ">")
    if newest is not None:
        return position_of(stream, newest)
    # All of it may have been dropped: a stream of our own still knows how far it came.
    last = 0 if stream.copy else await engine.last_sequence(stream.name)
    return position(stream.epoch, last) if last else 0


async def whole(engine: Engine, known: Known) -> tuple[int, int]:
    """Up to where there is history at a site without a hole, and the last event of that; positions. Raises Unreachable,
    EngineRefused."""
    at = event = 0
    for stream, last in segments(known):
        have = min(split(await end_of(engine, stream)).sequence, last)
        if have:
            at = position(stream.epoch, have)
            newest = await engine.last_on(stream.name, stream.events)
            event = min(at, position_of(stream, newest)) if newest is not None else event
        if have < last:
            break
    return at, event


async def retire(engine: Engine, stream: Stream) -> None:
    """From here on the engine refuses whoever still writes there. Raises Unreachable, EngineRefused."""
    if not stream.copy:
        await engine.update_stream(stream.name, subjects=[f"retired.{stream.partition}.{stream.epoch}"])


def first_words(partition: Partition, at_us: int, command: bytes) -> Request:
    """The EpochStarted of the present epoch."""
    payload = codec.encode(EpochStarted(unannounced(partition)), at_us=at_us, by=SYSTEM, command=command)
    return Request(command, EPOCH_ENTITY, (NewEvent(EPOCH_NOUN, EPOCH_ENTITY, payload),))


async def tail(engine: Engine, known: Known, came: Sequence[Told] | None = None) -> Tail:
    """What the newest epochs hold, until TAIL_EVENTS_MAX commands are known, none older than TAIL_AGE_MAX before its
    epoch's last. `came`: that of all epochs before the present one, if it is known. Raises Unreachable."""
    commands: list[Told] = []
    last_event = 0
    for stream, end in reversed(segments(known)):
        if len(commands) >= TAIL_EVENTS_MAX:
            break
        ended = came is not None and stream.epoch < known.partition.epoch
        told = list(came or ()) if ended else await _told(engine, stream, end)
        commands = told + commands
        last_event = last_event or (told[-1].last if told else 0)
        if ended:
            break
    return Tail(commands[-TAIL_EVENTS_MAX:], last_event, commands[-2].last if len(commands) > 1 else 0)


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
            note(told, command_of(event), at)
        if not part.messages:
            raise Unreachable(f"a replica of {stream.name} lags")
        sequence = part.messages[-1].sequence + 1
    return told


def note(told: MutableSequence[Told], command: bytes, at: int) -> bool:
    """The next event, of `command`, is at `at`. Whether the command is a new one."""
    if told and told[-1].command == command:
        told[-1] = told[-1]._replace(last=at)
        return False
    told.append(Told(command, at, at))
    return True


async def _tail_begins(engine: Engine, stream: Stream, newest: Kept) -> int:
    """Sequence from which on to look."""
    # The engine's own stamps are compared with each other, so that nobody's clock matters but its.
    last = datetime.fromisoformat(newest.headers["Nats-Time-Stamp"][:19])
    since = await engine.first_since(stream.name, stream.events, f"{(last - TAIL_AGE_MAX).isoformat()}Z")
    return max(1, since, newest.sequence - 2 * TAIL_EVENTS_MAX + 1)


def command_of(event: Kept) -> bytes:
    header = event.headers.get(COMMAND_HEADER)
    return bytes.fromhex(header) if header is not None else _only_id(event.data).id
