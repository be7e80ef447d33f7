"""The shapes of the log and its port."""

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from cluster.position import Position, shown

CHUNK_BYTES_MAX = 1 << 20  # of clear content in one content message
INLINE_BYTES_MAX = 1 << 20  # content that rides in an append itself; more is uploaded first
BATCH_MESSAGES_MAX = 1000  # the engine's limit on an atomic batch
EVENT_BYTES_MAX = 4 << 20
APPEND_S_MAX = 10.0


class NewEvent(msgspec.Struct, frozen=True, array_like=True):
    """`payload`: the envelope in MessagePack (cluster/codec). `changes`: keys that this event changes. `uids`: so many
    the fold will give for it at most."""

    noun: str
    entity: str
    payload: bytes
    changes: tuple[str, ...] = ()
    uids: int = 0


class Blob(msgspec.Struct, frozen=True, array_like=True):
    """Content carried along. `hash`: SHA-256 of `data`, the clear bytes."""

    hash: bytes
    data: bytes


class Append(msgspec.Struct, frozen=True, array_like=True):
    """One command's events, all or none. Refused as stale if one of `depends` changed after `read_at`.

    `command`: 16 random bytes; a repeated one is answered with its first outcome. `entity` of the contents' subject is
    that of the first event. `uploaded`: hashes sent before by `upload`, that the events name.
    """

    partition: str
    command: bytes
    events: tuple[NewEvent, ...]
    depends: tuple[str, ...] = ()
    read_at: int = 0
    contents: tuple[Blob, ...] = ()
    uploaded: tuple[bytes, ...] = ()


class Stored(msgspec.Struct, frozen=True, array_like=True, tag="stored"):
    """Durable as promised. `first` and `last`: positions of the command's first and last event."""

    first: int
    last: int
    repeated: bool = False


class Stale(msgspec.Struct, frozen=True, array_like=True, tag="stale"):
    """Decided on a state older than `changed_at`: wait for the tables to reach it, load, decide and try again."""

    changed_at: int


class LogUnavailable(Exception):
    """No answer in time. The append may or may not be in the log: retry with the same command id."""


class LogRefuses(LogUnavailable):
    """Whoever leads the partition is there and takes nothing now: too much waits already, or its disk is full."""


class NoRoom(LogUnavailable):
    """So many UIDs may not be given yet; it is being seen to, and the same append may be sent again at once."""


class RolledBack(Exception):
    """History goes on without what was shown: the partition's tables stand beyond `end`, the last position in history
    that is not beyond them. They must be taken back there and follow again."""

    def __init__(self, partition: str, end: int) -> None:
        super().__init__(f"{partition} goes on from {shown(end)}")
        self.partition = partition
        self.end = Position(end)


class Record(msgspec.Struct, frozen=True):
    """One message of the log, as a follower meets it. `noun` is empty for a chunk of content: then `hash`, `chunk`
    (0-based), `chunks` say which, and `payload` is its clear bytes."""

    position: int
    noun: str
    entity: str
    payload: bytes
    hash: bytes = b""
    chunk: int = 0
    chunks: int = 1


def measured(append: Append) -> None:
    """Raises ValueError for what no log takes: no events, a command id of another size, too large, too many."""
    if not append.events or len(append.command) != 16:
        raise ValueError("an append has events, and a command id of 16 bytes")
    if sum(len(event.payload) for event in append.events) > EVENT_BYTES_MAX:
        raise ValueError(f"events of more than {EVENT_BYTES_MAX} bytes in one append")
    if sum(len(blob.data) for blob in append.contents) > INLINE_BYTES_MAX:
        raise ValueError(f"content of more than {INLINE_BYTES_MAX} bytes in one append: upload it first")
    if len(append.events) + len(append.contents) > BATCH_MESSAGES_MAX:
        raise ValueError(f"more than {BATCH_MESSAGES_MAX} messages in one append")


class Log(Protocol):
    async def append(self, append: Append, timeout_s: float = APPEND_S_MAX) -> Stored | Stale:
        """Raises LogUnavailable."""
        ...

    async def upload(
        self, partition: str, entity: str, blobs: AsyncIterator[Blob], timeout_s: float = APPEND_S_MAX
    ) -> tuple[bytes, ...]:
        """Puts content in the log ahead of the event that will name it; `timeout_s` for each. A blob larger than
        CHUNK_BYTES_MAX goes as several chunks. Returns the hashes. Raises LogUnavailable."""
        ...

    def follow(
        self, partition: str, after: Position, *, contents: bool = True, standing: int = 0
    ) -> AsyncIterator[tuple[Record, ...]]:
        """Records above `after` and not above the mark, in order, for ever, as they become durable; batches of what is
        there, never empty. Survives the engine's restarts. Ends when closed. `standing`: where the tables stand, if that
        is beyond `after`. Raises RolledBack."""
        ...

    async def mark(self, partition: str) -> Position:
        """Up to where the partition's events are durable as promised (its last event, when nothing is in flight).
        Raises LogUnavailable."""
        ...

    async def drop_contents(self, partition: str, upto: Position) -> Position:
        """Content messages at or below `upto` may go: this site has them as blobs on disk. Up to where they are gone: at the
        home not before every copy has them too."""
        ...
