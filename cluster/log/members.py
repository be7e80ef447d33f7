"""Whom a home's words are promised on: what its copies have confirmed, who of them may follow it, how many UIDs it may give.

A copy is recognised when it has confirmed, since its engine's last start, all that was promised when it was first heard;
then it is put on the record. With durability `remote` every word waits for all recognised copies, and for those whose
recognition was asked for and not yet answered; one that is silent is taken off the record before the first word without
it. UIDs: a copy that follows us raises UIDNEXT by the record's gap, so no more may be given beyond what it surely has; the
gap on the record is raised before more are.
"""

import asyncio
import time
from collections import deque

import msgspec
import structlog

from cluster.control.hold import Hold
from cluster.control.partitions import Member, Partition, windowed
from cluster.domain.mailbox.events import UID_GAP_FORCED
from cluster.log.appender import Appender, Publish
from cluster.log.connection import Unreachable
from cluster.log.wire import Confirmed
from cluster.position import SEQUENCE_MAX, position, split

SILENT_S_MAX = 2.5  # a member that words wait for and that confirms nothing for longer leaves the sync set
AWAY_S_MAX = 30.0  # the same for one that nobody waits for: only the gap that it needs grows
TICK_S = 0.25
GAP_STEP = 65_536
ROOM_LEFT = 16_384  # with less than this the gap is raised ahead of need
GIVEN_KEPT_MAX = 4_096

log = structlog.get_logger("cluster.log.members")


class _Copy:
    def __init__(self, life: str, goal: int) -> None:
        self.life = life
        self.goal = goal  # to be confirmed before it is recognised
        self.position = 0
        self.heard_at = time.monotonic()


class Members:
    """One home's view of one epoch. The appender asks it before it gives its word."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._copies: dict[str, _Copy] = {}
        self._given: deque[tuple[int, int]] = deque(maxlen=GIVEN_KEPT_MAX)  # (sequence, UIDs given up to there)
        self._appender: Appender | None = None
        self._began_at = time.monotonic()
        self._limit = 0  # UIDs that may be given in this epoch
        self._need = 0  # that somebody asked for
        self._wanted = asyncio.Event()
        self._heard = asyncio.Event()  # set and replaced whenever a copy said something

    def serve(self, appender: Appender) -> None:
        self._appender = appender
        self._given.append((appender.last, appender.given))
        self._reckon()

    # ── what the appender asks ───────────────────────────────────────────────────────────────────────────────────────

    def held(self) -> bool:
        return self._hold.held()

    async def confirm(self) -> None:
        await self._hold.confirm()

    def promised(self) -> int:
        record = self._hold.record
        if not record.remote:
            return SEQUENCE_MAX
        needed = {member for each in (record, *self._hold.asked) for member in each.members}
        if record.pinned:
            # Nobody follows by himself, so the record need not say first who is waited for no more.
            needed = {member for member in needed if self._stays(record, member)}
        if not needed and record.strict:
            return 0
        return min((self._confirmed(member, record) for member in needed), default=SEQUENCE_MAX)

    def room(self, given: int) -> bool:
        """Whether so many UIDs may be given. When little is left, more is asked for. Without copies too: an appender that is
        started again in this epoch knows no more than the record, and a copy may have been added by then."""
        self._need = max(self._need, given)
        if self._limit - given < ROOM_LEFT:
            self._wanted.set()
        return given <= self._limit

    # ── what copies say ──────────────────────────────────────────────────────────────────────────────────────────────

    def heard(self, said: Confirmed) -> None:
        appender = self._appender
        if appender is None or said.site not in self._hold.record.copies:
            return
        copy = self._copies.get(said.site)
        if copy is None or copy.life != said.life:
            # What it confirmed before it was started again counts no more: its disk may have been put back.
            goal = max(appender.mark.durable, position(appender.stream.epoch, 1))
            copy = self._copies[said.site] = _Copy(said.life, goal)
        if said.position > copy.position or said.position >= appender.mark.written:
            copy.heard_at = time.monotonic()  # One that says the same again and again, and lacks something, is no help.
        copy.position = max(copy.position, said.position)
        self._heard.set()
        self._heard = asyncio.Event()
        if not self._is_member(said.site, copy) and self._may_join(said.site, copy):
            self._wanted.set()

    def confirmed(self, site: str) -> int:
        """The position that a copy has confirmed, 0 = it was not heard in this epoch."""
        copy = self._copies.get(site)
        return copy.position if copy is not None else 0

    async def reached(self, site: str, at: int) -> None:
        """Returns when the copy there has confirmed `at`."""
        while self.confirmed(site) < at:
            heard = self._heard
            await heard.wait()

    # ── keeping the record true ──────────────────────────────────────────────────────────────────────────────────────

    async def keep(self, publish: Publish) -> None:
        """For ever. Raises LeaseLost."""
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            self._note_given()
            wanted = self._adjusted(self._hold.record)
            if wanted != self._hold.record and self._hold.held():
                try:
                    await self._hold.change(self._adjusted)
                    log.info("sync set", partition=wanted.name, members=[each.site for each in wanted.members])
                except Unreachable as error:
                    log.warning("the sync set could not be changed", partition=wanted.name, why=str(error))
            self._reckon()
            if self._appender is not None:
                await self._appender.advance(publish)  # Fewer may be waited for now, or the lease is held again.

    def _adjusted(self, record: Partition) -> Partition:
        members = tuple(member for member in record.members if self._stays(record, member))
        here = {member.site for member in members}
        joining = sorted(site for site, copy in self._copies.items() if site in record.copies and self._may_join(site, copy))
        members += tuple(Member(site, self._copies[site].life) for site in joining if site not in here)
        return self._with_room(msgspec.structs.replace(record, members=members))

    def _stays(self, record: Partition, member: Member) -> bool:
        if member.site not in record.copies or windowed(record, member.site):
            return False
        copy = self._copies.get(member.site)
        if copy is not None and copy.life != member.life:
            return False
        silent = time.monotonic() - (copy.heard_at if copy is not None else self._began_at)
        if not record.remote:
            return silent < AWAY_S_MAX
        return silent < SILENT_S_MAX or (record.strict and len(record.members) == 1)

    def _may_join(self, site: str, copy: _Copy) -> bool:
        appender = self._appender
        if windowed(self._hold.record, site):
            return False
        if appender is None or copy.position < copy.goal or time.monotonic() - copy.heard_at > SILENT_S_MAX / 2:
            return False
        return copy.position >= appender.mark.durable if self._hold.record.remote else True

    def _is_member(self, site: str, copy: _Copy) -> bool:
        return Member(site, copy.life) in self._hold.record.members

    def _confirmed(self, member: Member, record: Partition) -> int:
        copy = self._copies.get(member.site)
        if copy is None or copy.life != member.life:
            return 0
        at = split(copy.position)
        return at.sequence if at.epoch == record.epoch else 0

    # ── UIDs ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _note_given(self) -> None:
        appender = self._appender
        if appender is not None and self._given[-1][1] != appender.given:
            self._given.append((appender.let_in, appender.given))

    def _behind(self, record: Partition, given: int) -> int:
        """UIDs given that a member may lack."""
        least = min((self._confirmed(member, record) for member in record.members), default=None)
        if least is None:
            return 0
        return given - max((upto for sequence, upto in self._given if sequence <= least), default=0)

    def _reckon(self) -> None:
        """Whatever may be on the record counts, and the least of it."""
        appender = self._appender
        if appender is not None:
            given = appender.given
            self._limit = min(
                min(given + record.gap - self._behind(record, given), record.gap_forced)
                if record.members
                else record.gap_forced
                for record in (self._hold.record, *self._hold.asked)
            )

    def _with_room(self, record: Partition) -> Partition:
        appender = self._appender
        if appender is None:
            return record
        given = max(appender.given, self._need)
        gap, forced = _roomy(record.gap, self._behind(record, given)), _roomy(record.gap_forced, given)
        if record.pinned:
            forced = max(forced, UID_GAP_FORCED)  # It may have to do with that for as long as it is cut off.
        return msgspec.structs.replace(record, gap=min(gap, forced), gap_forced=forced)


def _roomy(gap: int, used: int) -> int:
    """The gap, so that there is room beyond what is used, in few steps."""
    if gap - used < ROOM_LEFT:
        return (used // GAP_STEP + 2) * GAP_STEP
    return GAP_STEP if used < GAP_STEP - 2 * ROOM_LEFT and gap > 4 * GAP_STEP else gap
