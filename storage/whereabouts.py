"""Where an account's mail lies, as this site knows it: here, or at which sites instead (ops/decisions/sessions-are-carried.md)."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from cluster.control.partitions import Partition, windowed
from cluster.domain.refusal import Reason, Refusal
from cluster.position import Position

NOBODY_KNOWS = Refusal(Reason.UNAVAILABLE, "Where this mail is kept is not known here at the moment; try again later.", ("mail",))


class Records(Protocol):
    """What is known here of partitions: cluster.log.jetstream.JetStreamLog."""

    def record(self, partition: str) -> Partition | None:
        """As the control plane last told it; None = it told nothing yet, or there is none."""
        ...

    def home_mark(self, partition: str) -> Position | None:
        """Of a copy: how far the home says that the partition is shown. None = it was not heard lately, or is here."""
        ...


class Tables(Protocol):
    """How far this site's tables are: storage.news.Hub."""

    def position(self, partition: str) -> int: ...


class Whereabouts:
    """`partition_of`: an account's, None = there is no such account. `followed`: whether this process follows a partition."""

    def __init__(
        self,
        here: str,
        records: Records,
        tables: Tables,
        partition_of: Callable[[int], Awaitable[str | None]],
        followed: Callable[[str], bool],
    ) -> None:
        self._here = here
        self._records = records
        self._tables = tables
        self._partition_of = partition_of
        self._followed = followed
        self._whole: set[str] = set()  # what was at home here, and copies that were once level with their home

    def caught_up(self, names: Iterable[str]) -> None:
        """The tables have what the log had of these when the process started, where they are here."""
        for name in names:
            record, goal = self._records.record(name), self._records.home_mark(name)
            if record is not None and record.home == self._here:
                self._whole.add(name)
            elif (record is None or self._here in record.copies) and (goal is None or self._tables.position(name) >= goal):
                self._whole.add(name)

    async def elsewhere(self, account: int) -> tuple[str, ...] | Refusal:
        """Names of the sites that have the account's mail where this one has not, the home first; () = it is here. Raises the
        database's AWAY."""
        partition = await self._partition_of(account)
        return () if partition is None else self._of(partition)

    async def absent(self, accounts: Iterable[int]) -> dict[int, Refusal]:
        """Of these accounts the ones whose mail is not here, or of whom that is not known, each with what is said of it.
        Raises the database's AWAY."""
        found: dict[int, Refusal] = {}
        for account in accounts:
            sites = await self.elsewhere(account)
            if sites:
                found[account] = sites if isinstance(sites, Refusal) else refusal(sites)
        return found

    def _of(self, partition: str) -> tuple[str, ...] | Refusal:
        record = self._records.record(partition)
        if record is None:
            return () if self._followed(partition) else NOBODY_KNOWS
        others = [site for site in (record.home, *record.copies) if site != self._here]
        others.sort(key=lambda site: windowed(record, site) > 0)  # old content would go through there
        if record.home == self._here:
            # Also when it is no home any more: it lacks what came since, and waits for that as any copy does.
            self._whole.add(partition)
            return ()
        if self._here not in record.copies:
            self._whole.discard(partition)
            return tuple(others)
        return () if self._is_whole(partition) else tuple(others)

    def _is_whole(self, partition: str) -> bool:
        """A copy that is only being made would show half of a mailbox, and what it lacks would look deleted."""
        if partition not in self._whole:
            goal = self._records.home_mark(partition)
            if goal is None or self._tables.position(partition) < goal:
                return False
            self._whole.add(partition)
        return True


def refusal(sites: tuple[str, ...]) -> Refusal:
    """`sites`: what `elsewhere` gave."""
    return Refusal(Reason.UNAVAILABLE, f"This mail is not here but at {', '.join(sites)}.", sites)
