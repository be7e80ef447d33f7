"""A site's store of blobs, as far as a follower and salvage need it: in memory, and gone with the site's disk."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from cluster.domain.mailbox.content import Segment
from cluster.log.model import Record
from storage.blobs import BlobMissing


class SimBlobs:
    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}

    def take(self, record: Record) -> None:
        assert record.chunks == 1, "contents are small here"
        self.kept[record.hash] = record.payload

    def intake(self) -> "SimIntake":
        return SimIntake(self)

    async def get_many(self, hashes: Sequence[bytes]) -> list[bytes | None]:
        return [self.kept.get(hash) for hash in hashes]

    async def read(self, segments: Sequence[Segment], start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        for segment in segments:
            if segment.hash not in self.kept:
                raise BlobMissing(segment.hash.hex())
        yield b"".join(self.kept[segment.hash] for segment in segments)[start:end]


class SimIntake:
    def __init__(self, blobs: SimBlobs) -> None:
        self._blobs = blobs

    async def take(self, records: Sequence[Record]) -> Any:
        for record in records:
            if not record.noun:
                self._blobs.take(record)

    def close(self) -> None:
        """Nothing is unfinished."""


class SimWorld:
    """What cluster.world.World asks."""

    def __init__(self, now_ns: Any, monotonic: Any, entropy: Any) -> None:
        self._now_ns = now_ns
        self.monotonic = monotonic
        self.entropy = entropy

    def now(self) -> float:
        return float(self._now_ns()) / 1e9

    def new_id(self) -> int:
        return int.from_bytes(self.entropy(8), "big") >> 1 or 1
