"""`angarium cluster verify`: every partition at every site that has it, compared now; what differs is named by its first
event, and mended where that can be done without loss.

With `deep` each site's log is read whole and reckoned against the digests of what was once folded from it: a bit that
flipped on a disk since then is in no digest yet.
"""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec
import structlog

from cluster.log.digests import AskMend, AskPassed, AskStanding, Checkpoint, NoAnswer
from cluster.log.model import LogUnavailable, Record
from cluster.position import shown, split
from storage.agreement import Compared, Others, Tables, compare
from storage.overview import Progress
from storage.postgres.folded import NOTHING_FOLDED, Folded
from storage.postgres.history import SEQUENCES_MAX
from storage.postgres.pool import AWAY
from storage.projector import APPLIED, advanced

PROGRESS_EVENTS = 5_000

log = structlog.get_logger("inspection")


class Place(NamedTuple):
    """Where a partition is. `sites`: all that have it."""

    home: str
    sites: Sequence[str]


class Finding(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="finding"):
    """`verdict`: equal, behind, differs or unknown (`why`: no answer). `upto`: position up to which there is no
    difference. `first`: position of the first event that differs. `what`: "log" where the sites' logs differ, "tables" where
    only what was made of them does, "disk" where the site's log is not any more what its tables were made of. `healed`: it
    was mended, and found equal afterwards."""

    partition: str
    site: str
    verdict: str
    upto: int
    first: int | None = None
    what: str = ""
    why: str = ""
    healed: bool = False


class Damaged(NamedTuple):
    """A log that is not what was folded from it: above `after`, up to `upto`."""

    after: int
    upto: int
    why: str


class Inspection:
    """From one site, `others.site`."""

    def __init__(self, tables: Tables, others: Others, placed: Mapping[str, Place]) -> None:
        self._tables = tables
        self._others = others
        self._placed = placed
        self._here = others.site

    @property
    def partitions(self) -> tuple[str, ...]:
        """Those that are here, and so can be compared from here."""
        return tuple(sorted(name for name, place in self._placed.items() if self._here in place.sites))

    async def verify(
        self, partitions: Collection[str] = (), *, deep: bool = False, heal: bool = False
    ) -> AsyncGenerator[Progress | Finding, None]:
        """One finding for each partition (of those named, or all) and each site that has it; for ours only with `deep`."""
        chosen = [name for name in self.partitions if name in (partitions or self.partitions)]
        done, total = 0, sum(len(self._placed[name].sites) for name in chosen)
        for partition in chosen:
            place = self._placed[partition]
            for site in sorted(place.sites, key=lambda site: site != self._here):
                yield Progress("comparing sites", done, total, "copies")
                done += 1
                if (finding := await self._looked(partition, place, site, deep=deep)) is None:
                    continue
                if heal and finding.verdict == "differs":
                    yield Progress("mending", 0, 1, "copies")
                    finding = await self._healed(finding, place, deep=deep)
                yield finding
        yield Progress("comparing sites", total, total, "copies")

    async def _looked(self, partition: str, place: Place, site: str, *, deep: bool) -> Finding | None:
        try:
            compared = await self._compared(partition, site)
            if compared is not None and compared.differs is not None:
                return await self._located(partition, site, compared)
            if deep and (damaged := await self._damage(partition, site)) is not None:
                first = await self._first_unlike(partition, place, site, damaged)
                return Finding(partition, site, "differs", damaged.after, first, "disk", damaged.why)
            if compared is None:
                return Finding(partition, site, "equal", await self._standing(partition)) if deep else None
        except (NoAnswer, LogUnavailable, *AWAY) as error:
            return Finding(partition, site, "unknown", 0, why=f"{type(error).__name__}: {error}")
        verdict = "behind" if compared.theirs < compared.ours else "equal"
        return Finding(partition, site, verdict, compared.agreed)

    async def _compared(self, partition: str, site: str) -> Compared | None:
        return None if site == self._here else await compare(self._tables, self._others, partition, site)

    async def _standing(self, partition: str) -> int:
        at = (await self._tables.standing(AskStanding(partition, 0))).at
        return at.position if at is not None else 0

    # ── where it differs ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _located(self, partition: str, site: str, compared: Compared) -> Finding:
        """The first differing event between the last digest that agrees and the first that does not."""
        after, upto = compared.agreed, compared.differs or compared.agreed
        unlike = await _unlike(
            self._others.events(self._here, partition, after, upto), self._others.events(site, partition, after, upto)
        )
        if unlike is not None:
            return Finding(partition, site, "differs", after, unlike, "log")
        ours = (await self._tables.passed(AskPassed(partition, after, upto))).outcomes
        theirs = (await self._others.passed(site, partition, after, upto)).outcomes
        others = [at for at in sorted({*ours, *theirs}) if ours.get(at) != theirs.get(at)]
        why = "" if others else "both logs and all outcomes are equal: the digest itself was reckoned otherwise"
        return Finding(partition, site, "differs", after, others[0] if others else upto, "tables", why)

    async def _damage(self, partition: str, site: str) -> Damaged | None:
        """What is wrong with that site's log, measured by the digests that the tables here keep of it."""
        standing = await self._tables.standing(AskStanding(partition, 0))
        if standing.at is None:
            return None
        kept = await self._kept(partition)
        # Where older ones were forgotten, the oldest that is kept is taken for granted.
        first = kept[0] if kept and kept[0].events > 1 else None
        folded = Folded(first.position, first.digest, first.events, 0) if first is not None else NOTHING_FOLDED
        good = folded.position
        outcomes = (await self._tables.passed(AskPassed(partition, good, standing.at.position))).outcomes
        marks = deque(at for at in kept if at.position > good)
        if not marks or marks[-1].position < standing.at.position:
            marks.append(standing.at)
        try:
            async for record in self._others.events(site, partition, good, standing.at.position):
                if marks and marks[0].position < record.position:
                    return Damaged(good, record.position, f"the event at {shown(marks[0].position)} is not there")
                folded = advanced(folded, record, outcomes.get(record.position, APPLIED.decode()).encode())
                if marks and marks[0].position == record.position:
                    mark = marks.popleft()
                    if (mark.digest, mark.events) != (folded.digest, folded.events):
                        return Damaged(good, record.position, "it is not what was once folded from it")
                    good = record.position
        except LogUnavailable as error:
            return Damaged(folded.position, marks[-1].position if marks else folded.position, str(error))
        if site == self._here and marks:
            return Damaged(good, marks[-1].position, "events at its end are not there")
        return None

    async def _kept(self, partition: str) -> list[Checkpoint]:
        kept: list[Checkpoint] = []
        while page := (
            await self._tables.standing(AskStanding(partition, kept[-1].position if kept else 0))
        ).checkpoints:
            kept += page
        return kept

    async def _first_unlike(self, partition: str, place: Place, site: str, damaged: Damaged) -> int | None:
        """By another site's log, where there is one."""
        for other in place.sites:
            if other != site:
                try:
                    unlike = await _unlike(
                        self._others.events(other, partition, damaged.after, damaged.upto),
                        self._others.events(site, partition, damaged.after, damaged.upto),
                    )
                except LogUnavailable:
                    continue
                if unlike is not None:
                    return unlike
        return None

    # ── mending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _healed(self, finding: Finding, place: Place, *, deep: bool) -> Finding:
        partition, site = finding.partition, finding.site
        epoch = split(finding.first or finding.upto).epoch if finding.what != "tables" else 0
        after = SEQUENCES_MAX if finding.what == "disk" else finding.upto  # then the tables are right
        if epoch and site == place.home:
            if self._here == site or finding.what == "disk":
                return _not(finding, "it is at home there: move it to a site whose log is right, then verify again")
            site = self._here
        why = await self._mend(site, partition, after, epoch)
        if not why and finding.what == "tables":
            # Whose are right is not asked: both are what a fold of the same log gives.
            why = await self._mend(self._here, partition, after, 0)
        if why:
            return _not(finding, why)
        again = await self._looked(partition, place, finding.site, deep=deep)
        if again is None or again.verdict == "differs":
            return _not(finding, "it was mended, and differs still")
        log.warning("mended", partition=partition, site=site, after=shown(finding.upto), what=finding.what)
        return msgspec.structs.replace(finding, healed=True)

    async def _mend(self, site: str, partition: str, after: int, epoch: int) -> str:
        if site == self._here:
            return (await self._tables.mend(AskMend(partition, after, epoch))).why
        try:
            return await self._others.mend(site, partition, after, epoch)
        except NoAnswer as error:
            return str(error)


async def _unlike(one: AsyncIterator[Record], other: AsyncIterator[Record]) -> int | None:
    """Position of the first event that is not the same in both. Raises LogUnavailable."""
    while True:
        mine, its = await anext(one, None), await anext(other, None)
        if mine is None or its is None:
            lone = mine or its
            return lone.position if lone is not None else None
        if (mine.position, mine.noun, mine.entity, mine.payload) != (its.position, its.noun, its.entity, its.payload):
            return min(mine.position, its.position)


def _not(finding: Finding, why: str) -> Finding:
    return msgspec.structs.replace(finding, why=". ".join(filter(None, (finding.why, f"Not mended: {why}"))))
