"""Where a site keeps content: blobs, named by the SHA-256 of their clear bytes, never changed.

The log has content first; blobs are its copy for reading. Hence the protocol of durability: `Intake.take` what a
follower meets, `sync`, then confirm `Intake.confirmable(position)`, after which the log may drop the content. Whoever
starts again feeds everything after the last confirmed position once more: what a crash left torn is mended by that.
"""

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from cluster.domain.mailbox.content import Segment
from cluster.log.model import Blob, Record

PIECE_BYTES_MAX = 256 * 1024  # of what `read` gives at once
HASH_BYTES = 32


class BlobMissing(Exception):
    """No blob has this name here; another site may have it."""


class BlobCorrupt(Exception):
    """What is stored, or was given, under this name is not what the name says."""


class BlobsUnavailable(Exception):
    """The disk is full, or the store does not answer. Nothing that was synced is lost; try again later."""


class Taken(NamedTuple):
    """What a batch of records made: the hashes of blobs now whole, and of those whose bytes belie their name."""

    complete: tuple[bytes, ...]
    corrupt: tuple[bytes, ...]


class Intake(Protocol):
    """One follower's way into the store. It keeps large blobs whose chunks are still coming."""

    async def take(self, records: Sequence[Record]) -> Taken:
        """Stores the content among `records` (events are passed over). Not durable before `sync`. Chunks of several
        blobs may interleave and repeat. Raises BlobsUnavailable: start again after the last confirmed position."""
        ...

    def confirmable(self, reached: int) -> int:
        """The position that may be confirmed once `sync` has returned: `reached`, or less while a large blob is
        unfinished, because its first chunks would be needed again after a restart."""
        ...

    def close(self) -> None:
        """Forgets unfinished blobs."""
        ...


class Contents(Protocol):
    """What sessions read: these two methods of `Blobs`."""

    async def get_many(self, hashes: Sequence[bytes]) -> list[bytes | None]: ...

    def read(self, segments: Sequence[Segment], start: int = 0, end: int | None = None) -> AsyncIterator[bytes]: ...


class Blobs(Protocol):
    """Any method may be called from any task; none blocks the event loop. All raise BlobsUnavailable.

    `name`: told once, when the store was made empty; '' = it cannot tell. Who finds another name finds none of what it
    had put there."""

    name: str

    async def put(self, blobs: Sequence[Blob]) -> int:
        """How many of them were new. Not durable before `sync`. Raises BlobCorrupt when bytes belie their name."""
        ...

    async def keep(self, hash: bytes, pieces: AsyncIterable[bytes]) -> None:
        """One blob that comes in pieces, in the place of what may be there. Not durable before `sync`. Raises BlobCorrupt
        when they belie its name, and what `pieces` raises: then nothing is kept."""
        ...

    def intake(self) -> Intake: ...

    async def sync(self) -> None:
        """Returns when all that was put or taken before this call is on disk. Raises BlobsUnavailable: call it again;
        what it cannot write even then from what it has must be put again."""
        ...

    async def get(self, hash: bytes) -> bytes:
        """A whole blob: for small ones. Raises BlobMissing, BlobCorrupt."""
        ...

    async def get_many(self, hashes: Sequence[bytes]) -> list[bytes | None]:
        """Whole blobs in the order asked, together small; None where one is missing or corrupt."""
        ...

    def read(self, segments: Sequence[Segment], start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes `start` to `end` of the segments laid one after another, as a slice would give them, in pieces of
        at most PIECE_BYTES_MAX. Raises BlobMissing, BlobCorrupt."""
        ...

    async def size(self, hash: bytes) -> int | None:
        """Clear bytes; None where there is no such blob or its file is torn."""
        ...

    async def sizes(self, hashes: Sequence[bytes]) -> list[int | None]:
        """The same of each, in order."""
        ...

    async def missing(self, hashes: Sequence[bytes]) -> list[bytes]:
        """Those that are not here (or torn)."""
        ...

    async def verify(self, hash: bytes) -> None:
        """Reads it all and compares with its name. Raises BlobMissing, BlobCorrupt."""
        ...

    async def delete(self, hash: bytes) -> bool:
        """Whether it was there."""
        ...

    def walk(self) -> AsyncIterator[list[bytes]]:
        """The names of all blobs, ascending, in batches. What comes or goes meanwhile may or may not be among them."""
        ...

    async def close(self) -> None: ...
