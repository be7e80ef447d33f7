"""The partitions' records: where a partition is at home, which epoch it is in, where the earlier ones ended and lie."""

import msgspec

from cluster.control.bucket import Conflict, Keys


class Ended(msgspec.Struct, frozen=True):
    """An epoch that is over. `last`: its last sequence in history, 0 = nothing of it is. `stream`: where it lies here."""

    epoch: int
    last: int
    clean: bool
    stream: str


class Partition(msgspec.Struct, frozen=True):
    """`stream`: of the present `epoch`. `ended`: earlier epochs, ascending. `copies`: sites that have one, not the home."""

    name: str
    home: str
    epoch: int
    stream: str
    ended: tuple[Ended, ...] = ()
    copies: tuple[str, ...] = ()


_decode = msgspec.json.Decoder(Partition).decode


def unannounced(partition: Partition) -> tuple[tuple[int, int, bool], ...]:
    """What the present epoch's EpochStarted must list: every epoch that ended since the last one in history (with that
    one), as (epoch, last sequence, clean)."""
    listed: list[tuple[int, int, bool]] = []
    for ended in reversed(partition.ended):
        listed.append((ended.epoch, ended.last, ended.clean))
        if ended.last > 0:
            break
    return tuple(reversed(listed))


class Partitions:
    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def get(self, name: str) -> tuple[Partition, int] | None:
        """The record and its revision. Raises Unreachable."""
        entry = await self._keys.get(_key(name))
        return (_decode(entry.value), entry.revision) if entry.revision else None

    async def create(self, partition: Partition) -> None:
        """Raises Conflict if there is one of this name, Unreachable."""
        entry = await self._keys.get(_key(partition.name))
        if entry.revision:
            raise Conflict(partition.name)
        await self._keys.put(_key(partition.name), msgspec.json.encode(partition), entry.written)

    async def change(self, partition: Partition, revision: int) -> None:
        """Raises Conflict if the record is not at `revision`, Unreachable."""
        await self._keys.put(_key(partition.name), msgspec.json.encode(partition), revision)

    async def note(self, partition: Partition) -> None:
        """Makes the record say this, whatever it said. Raises Conflict if someone else writes it now, Unreachable."""
        entry = await self._keys.get(_key(partition.name))
        value = msgspec.json.encode(partition)
        if entry.value != value:
            await self._keys.put(_key(partition.name), value, entry.written)


def _key(name: str) -> str:
    return f"partition.{name}"
