"""The partitions' records: where a partition is at home, who leads it, which epochs it had, who may follow.

One key holds lease, home, epochs and sync set, so that one revision guards all (ops/decisions/failover-model.md). The
functions are pure; `tests/sim/model/rules.py` shows by walks which of them is needed for what.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from cluster.control.bucket import Conflict, Entry, Keys
from cluster.control.holder import Holder
from cluster.domain.mailbox.events import UID_GAP, UIDVALIDITY_FRESH
from cluster.position import SEQUENCE_MAX, Position, position, split

PREFIX = "partition."

Spans = tuple[tuple[int, int], ...]  # (epoch, its last sequence in history), ascending


class Ended(msgspec.Struct, frozen=True):
    """An epoch that is over. `last`: its last sequence in history, 0 = nothing of it is. `gap`: by how much UIDNEXT rises
    when its end is announced; 0 = it ended clean. `home`: the site that has all of its stream, its tail too."""

    epoch: int
    last: int
    gap: int
    home: str


class Member(msgspec.Struct, frozen=True):
    """A copy that a home recognised. `life`: of its site's engine, from one start to the next: after a start its disk may
    have been put back to an earlier state, so it must be recognised anew."""

    site: str
    life: str


class Partition(msgspec.Struct, frozen=True):
    """`begun`: False after a switchover until the new home says that it begins. `copies`: sites that have one, not the
    home. `members`: of these, those that may follow the home by themselves (with `remote`: those that every word waits
    for). `remote`: the durability. `pinned`: the home goes on when cut off, and only force moves it. `windows`: copies there
    keep all events and so many days' content; they are never members.
    `gap`: no member is further behind than by so many UIDs; `gap_forced`: so many were given in this epoch at most.
    `holder` and `beat` are the lease; `life`: of the engine that its holder writes through; `closed`: the last sequence
    at an orderly end, -1 = there was none."""

    name: str
    home: str
    epoch: int = 1
    begun: bool = True
    ended: tuple[Ended, ...] = ()
    copies: tuple[str, ...] = ()
    members: tuple[Member, ...] = ()
    remote: bool = False
    strict: bool = False
    pinned: bool = False
    windows: Mapping[str, int] = {}
    gap: int = UID_GAP
    gap_forced: int = UID_GAP
    holder: Holder | None = None
    life: str = ""
    closed: int = -1
    beat: int = 0


class Known(msgspec.Struct, frozen=True):
    """What lies of a partition at a site: the record without its lease, and the stream of each epoch there."""

    partition: Partition
    streams: dict[int, str]


class Found(NamedTuple):
    partition: Partition
    revision: int


decode = msgspec.json.Decoder(Partition).decode
encode = msgspec.json.encode
_decode_known = msgspec.json.Decoder(Known).decode


# ── History ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def spans(partition: Partition) -> Spans:
    """History; the present epoch has no end yet."""
    return (*((old.epoch, old.last) for old in partition.ended), (partition.epoch, SEQUENCE_MAX))


def in_history(history: Spans, at: int) -> bool:
    epoch, sequence = split(at)
    return at == 0 or any(e == epoch and sequence <= last for e, last in history)


def clip(history: Spans, at: int) -> Position:
    """The last position in history that is not beyond `at`."""
    epoch, sequence = split(at)
    best = Position(0)
    for e, last in history:
        if e <= epoch and last:
            best = position(e, min(sequence, last) if e == epoch else last)
    return best


def unannounced(partition: Partition) -> tuple[tuple[int, int, int], ...]:
    """What the present epoch's EpochStarted must list: every epoch that ended since the last one in history (with that
    one), as (epoch, last sequence, gap). Empty ones too: their homes may have given UIDs that history never saw."""
    listed: list[tuple[int, int, int]] = []
    for ended in reversed(partition.ended):
        listed.append((ended.epoch, ended.last, ended.gap))
        if ended.last > 0:
            break
    return tuple(reversed(listed))


# ── Succession ───────────────────────────────────────────────────────────────────────────────────────────────────────


def is_member(partition: Partition, site: str, life: str) -> bool:
    return Member(site, life) in partition.members


def windowed(partition: Partition, site: str) -> int:
    """For how many days what arrives stays at the copy there, 0 = for ever. A home keeps all."""
    return partition.windows.get(site, 0) if site != partition.home else 0


def sound(before: Partition, after: Partition) -> Partition:
    """`after` with those members that `before`'s home recognised for it. With `remote`, those of `local` may lack what was
    shown. A home that was pinned and is cut off does not hear that it may be followed: nobody may before it recognised them
    anew. A windowed copy is none."""
    if (after.remote and not before.remote) or (before.pinned and not after.pinned):
        return msgspec.structs.replace(after, members=())
    members = tuple(member for member in after.members if not windowed(after, member.site))
    return msgspec.structs.replace(after, members=members)


def may_follow(partition: Partition, site: str, life: str, at: int) -> bool:
    """Whether the copy there, which has all up to `at`, may take over by itself. With `remote` nothing above what every
    member has was ever shown; else it must have the beginning of this epoch, for UIDs are reckoned from there."""
    reached = partition.remote or at >= position(partition.epoch, 1)
    return is_member(partition, site, life) and reached and not partition.pinned


def gap_of(partition: Partition, site: str, life: str, at: int) -> int:
    """By how much UIDNEXT must rise if the copy there, which has all up to `at`, follows now: not at all if that is all
    that the home had when it ended its time in good order."""
    if partition.closed >= 0 and at >= position(partition.epoch, partition.closed):
        return 0
    if may_follow(partition, site, life, at):
        return partition.gap
    return partition.gap_forced if at >= position(partition.epoch, 1) else UIDVALIDITY_FRESH


def takeover(partition: Partition, site: str, at: int, gap: int) -> Partition:
    """The next epoch at `site`, which has all up to `at`: history goes on from there, so what was recorded as the end of
    an epoch is lowered where the new home does not have it."""
    epoch, sequence = split(at)
    ended: list[Ended] = []
    for old in (*partition.ended, Ended(partition.epoch, SEQUENCE_MAX, 0, partition.home)):
        if old.epoch < epoch or (old.epoch == epoch and old.last == sequence):
            ended.append(old)
        else:
            last = sequence if old.epoch == epoch else 0
            fresh = UIDVALIDITY_FRESH in (gap, old.gap)
            ended.append(Ended(old.epoch, last, UIDVALIDITY_FRESH if fresh else max(gap, old.gap), old.home))
    return _moved(partition, site, tuple(ended))


def switchover(partition: Partition, site: str, last: int) -> Partition:
    """The next epoch at `site`, after the home fenced itself with `last` as its stream's end: nothing is lost."""
    ended = (*partition.ended, Ended(partition.epoch, last, 0, partition.home))
    return msgspec.structs.replace(_moved(partition, site, ended), begun=False)


def _moved(partition: Partition, site: str, ended: tuple[Ended, ...]) -> Partition:
    copies = tuple(each for each in (partition.home, *partition.copies) if each != site)
    # The members of the old home are not told from here; the new one recognises them as it hears of them.
    return msgspec.structs.replace(
        partition,
        home=site,
        epoch=partition.epoch + 1,
        begun=True,
        ended=ended,
        copies=copies if site != partition.home else partition.copies,
        members=tuple(member for member in partition.members if partition.remote and member.site != site),
        gap=UID_GAP,
        gap_forced=UID_GAP,
        holder=None,
        life="",
        closed=-1,
    )


def lasting(partition: Partition) -> Partition:
    """Without the lease, which changes every second."""
    return msgspec.structs.replace(partition, holder=None, life="", closed=-1, beat=0)


# ── Where they are kept ──────────────────────────────────────────────────────────────────────────────────────────────


class Partitions:
    """The records in the control plane. Every call raises Unreachable."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    async def all(self) -> dict[str, Found]:
        """Every record, perhaps as it was a moment ago."""
        entries = await self.keys.every(PREFIX)
        return {key.removeprefix(PREFIX): _found(entry) for key, entry in entries.items() if entry.revision}

    async def get(self, name: str) -> Found | None:
        entry = await self.keys.get(PREFIX + name)
        return _found(entry) if entry.revision else None

    async def create(self, partition: Partition) -> None:
        """Raises Conflict if there is one of this name."""
        entry = await self.keys.get(PREFIX + partition.name)
        if entry.revision:
            raise Conflict(partition.name)
        await self.keys.put(PREFIX + partition.name, encode(partition), entry.written)

    async def change(self, partition: Partition, revision: int) -> int:
        """The new revision. Raises Conflict if the record is not at `revision`."""
        return await self.keys.put(PREFIX + partition.name, encode(partition), revision)


class KnownPartitions:
    """What a site has noted of its partitions, in a bucket of its own: it reads while the control plane is out of reach,
    and others ask it what it has. Every call raises Unreachable."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def get(self, name: str) -> Known | None:
        entry = await self._keys.get(f"known.{name}")
        return _decode_known(entry.value) if entry.revision else None

    async def note(self, partition: Partition, streams: Mapping[int, str]) -> Known:
        """Raises Conflict if someone else writes it now."""
        known = Known(lasting(partition), dict(sorted(streams.items())))
        entry = await self._keys.get(f"known.{partition.name}")
        value = encode(known)
        if entry.value != value:
            await self._keys.put(f"known.{partition.name}", value, entry.written)
        return known


def _found(entry: Entry) -> Found:
    return Found(decode(entry.value), entry.revision)
