"""What an operator does where a failover or a disk left something to settle: reports of salvage, tails that still lie here,
and the comparison of sites. Implements `protocols.admin.port.Mending`.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from typing import Protocol

import msgspec

from cluster.domain.actor import Actor
from cluster.domain.refusal import Reason, Refusal
from cluster.log.model import LogUnavailable
from cluster.position import SEQUENCE_MAX, shown, split
from storage.answers import UNAVAILABLE, answered
from storage.inspection import Finding, Inspection
from storage.lines import Stretch
from storage.overview import Progress
from storage.postgres.salvage_view import ReportRow
from storage.salvaging import Reports

TAILS_S_MAX = 5.0

NOT_SHOWN_YET = Refusal(Reason.NOT_SHOWN_YET, "It is written down, and the tables here do not show it yet.")


class Tails(Protocol):
    """What lies at this site beyond the ends of epochs: cluster.log.jetstream."""

    async def tails(self, partition: str) -> Sequence[Stretch]: ...
    async def known_history(self, partition: str) -> tuple[tuple[int, int], ...]:
        """(epoch, last sequence of it) in order; the present epoch is the last one."""
        ...



class Report(msgspec.Struct, frozen=True):
    """`whose`: the address of the account that it is about, empty if there is none. `age_s`: since it was reported."""

    row: ReportRow
    whose: str
    age_s: float


class Waiting(msgspec.Struct, frozen=True):
    """A tail that lies here and is not in history yet. `after`, `last`: positions; `upto`: how far it is salvaged."""

    partition: str
    epoch: int
    after: int
    last: int
    upto: int


class Salvaged(msgspec.Struct, frozen=True):
    """`unread`: partitions whose tails could not be looked for, as their log does not answer."""

    reports: tuple[Report, ...]
    waiting: tuple[Waiting, ...]
    unread: tuple[str, ...]


class Mending:
    """`partitions`: those that are kept here. `now`: unix seconds."""

    def __init__(
        self,
        reports: Reports,
        tails: Tails,
        partitions: Callable[[], Collection[str]],
        inspection: Callable[[], Inspection],
        now: Callable[[], float],
    ) -> None:
        self._reports = reports
        self._tails = tails
        self._partitions = partitions
        self._inspection = inspection
        self._now = now

    async def salvaged(self, *, settled: bool) -> Salvaged | Refusal:
        """Reports that are open, or all; and what is still to be salvaged here."""
        rows = await answered(self._reports.view.reports(only_open=not settled))
        if isinstance(rows, Refusal):
            return rows
        names = await answered(self._reports.view.addresses(_accounts(rows)))
        if isinstance(names, Refusal):
            return names
        found = await asyncio.gather(*(self._waiting(name) for name in sorted(self._partitions())))
        waiting = tuple(tail for each in found if not isinstance(each, str) for tail in each)
        unread = tuple(each for each in found if isinstance(each, str))
        return Salvaged(tuple(self._told(row, names) for row in rows), waiting, unread)

    async def report(self, partition: str, position: int) -> Report | Refusal:
        row = await answered(self._reports.view.report(partition, position))
        if row is None:
            text = f"There is no report at {shown(position)} of {partition}; `angarium cluster salvage list --all` shows all."
            return Refusal(Reason.NO_SUCH_ENTRY, text)
        if isinstance(row, Refusal):
            return row
        names = await answered(self._reports.view.addresses(_accounts([row])))
        return names if isinstance(names, Refusal) else self._told(row, names)

    async def settle(self, actor: Actor, partition: str, position: int, *, applied: bool) -> Report | Refusal:
        """Writes down that the operator did what the report is about, or does not want it."""
        before = await self.report(partition, position)
        if isinstance(before, Refusal):
            return before
        if before.row.state != "open":
            return _settled(before)
        done = await self._reports.settle(actor, partition, position, applied=applied)
        after = await self.report(partition, position)
        if isinstance(done, Refusal):
            # Somebody else may have been quicker.
            return _settled(after) if isinstance(after, Report) and after.row.state != "open" else done
        return NOT_SHOWN_YET if isinstance(after, Report) and after.row.state == "open" else after

    async def give_up(self, actor: Actor, partition: str, epoch: int) -> Refusal | None:
        """Writes down that nobody will bring what is left of that epoch's tail."""
        if partition not in self._partitions():
            return _no_partition(partition, self._partitions())
        try:
            history = await self._tails.known_history(partition)
        except LogUnavailable:
            return UNAVAILABLE
        if epoch not in [ended for ended, _ in history[:-1]]:
            # What it may still lose would not be brought back.
            return Refusal(Reason.CONFLICT, f"No epoch {epoch} of {partition} has ended: it has no tail to give up.")
        done = await self._reports.give_up(actor, partition, epoch)
        return done if isinstance(done, Refusal) else None

    async def verify(
        self, partitions: Collection[str], *, deep: bool, heal: bool
    ) -> AsyncGenerator[Progress | Finding | Refusal, None]:
        """Of those named, or of all that are kept here."""
        inspection = self._inspection()
        for name in partitions:
            if name not in inspection.partitions:
                yield _no_partition(name, inspection.partitions)
                return
        if not inspection.partitions:
            yield UNAVAILABLE
            return
        found = inspection.verify(partitions or inspection.partitions, deep=deep, heal=heal)
        try:
            async for step in found:
                yield step
        finally:
            await found.aclose()

    async def _waiting(self, partition: str) -> list[Waiting] | str:
        """What lies here of a partition, or its name where nobody can say."""
        try:
            async with asyncio.timeout(TAILS_S_MAX):
                tails = await self._tails.tails(partition)
        except (LogUnavailable, TimeoutError):
            return partition
        done = await answered(self._reports.view.salvaged(partition))
        if isinstance(done, Refusal):
            return partition
        return [
            Waiting(partition, tail.epoch, tail.after, tail.last, min(done.get(tail.epoch, 0), SEQUENCE_MAX))
            for tail in tails
            if split(tail.last).sequence > done.get(tail.epoch, 0)
        ]

    def _told(self, row: ReportRow, names: dict[int, str]) -> Report:
        whose = names.get(int(row.entity), "") if _accounts([row]) else ""
        return Report(row, whose, max(0.0, self._now() - row.at))


def _accounts(rows: Sequence[ReportRow]) -> list[int]:
    return [int(row.entity) for row in rows if row.noun == "mailbox" and row.entity.isascii() and row.entity.isdigit()]


def _settled(report: Report) -> Refusal:
    where = f"The report at {shown(report.row.position)} of {report.row.partition}"
    return Refusal(Reason.CONFLICT, f"{where} is settled already: it was {report.row.state}.")


def _no_partition(name: str, known: Collection[str]) -> Refusal:
    return Refusal(Reason.NO_SUCH_ENTRY, f"There is no partition {name} here; there are {', '.join(sorted(known))}.")
