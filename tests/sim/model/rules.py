"""The rules of failover, as plain functions on frozen values, in the design's words. Each has a switch in `Rules`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

SEQUENCES = 1000  # stands for 1 << 40
UNENDED = SEQUENCES - 1
LEASE_TICKS = 3
MARGIN_TICKS = 2
GAP = 2  # stands for 65,536
FORCED_GAP = 4  # stands for 16,777,216: a copy that is no member may lie further behind
FRESH = -1  # in place of a gap: nothing is known about the UIDs given, so UIDVALIDITY changes


@dataclass(frozen=True)
class Rules:
    """One switch a rule; what each is for: ops/decisions/failover-model.md."""

    # Identity
    fold_ignores_repeats: bool = True
    gap_at_unclean_end: bool = True
    gap_for_every_ended_epoch: bool = True
    uids_bounded_by_members: bool = True
    uids_bounded_by_copies: bool = True
    bound_over_all_positions: bool = True
    forced_gap_is_wider: bool = True
    unknown_copy_changes_uidvalidity: bool = True
    # Lease
    word_needs_lease: bool = True
    lease_has_margin: bool = True
    lease_by_boot_clock: bool = True
    deadline_before_send: bool = True
    lost_answer_counts_earliest: bool = True
    wait_counts_own_writes: bool = True
    takeover_on_seen_revision: bool = True
    # Durability
    nothing_above_mark: bool = True
    remote_waits_for_members: bool = True
    members_only: bool = True
    shrink_before_word: bool = True
    grow_when_caught_up: bool = True
    pending_members_count: bool = True
    position_is_contiguous: bool = True
    # Failover
    freeze_before_promotion: bool = True
    freeze_survives_crash: bool = True
    most_advanced_is_promoted: bool = True
    later_takeover_lowers_ends: bool = True
    start_begins_epoch: bool = True
    start_hears_a_member: bool = True
    restarted_must_be_recognised: bool = True
    switchover_waits_for_copy: bool = True
    silent_after_end: bool = True
    follower_stops_at_end: bool = True
    roll_back_beyond_end: bool = True
    # Salvage
    salvage: bool = True
    salvage_from_any_copy: bool = True
    salvage_keeps_command_id: bool = True
    salvage_maps_objects: bool = True
    reaffirm_touched: bool = True
    reaffirm_names_uidvalidity: bool = True
    reaffirm_whole_if_destroyed: bool = True
    # Tokens
    token_beyond_end_is_lost: bool = True
    clamp_only_what_is_salvaged: bool = True
    wait_for_token: bool = True
    bye_when_rolled_back: bool = True
    own_write_must_be_in_history: bool = True
    decided_on_lost_is_refused: bool = True
    unchangedsince_needs_token: bool = True


# ── Positions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def at(epoch: int, sequence: int) -> int:
    return epoch * SEQUENCES + sequence


def split(position: int) -> tuple[int, int]:
    return divmod(position, SEQUENCES)


# ── The partition's record in the control plane ──────────────────────────────────────────────────────────────────────


class Ended(NamedTuple):
    """An epoch that is over. `last`: its last sequence in history, 0 = nothing of it is. `gap`: by how much UIDNEXT rises
    when its end is announced; 0 = it ended clean. `home`: the disk that has all of its stream."""

    epoch: int
    last: int
    gap: int
    home: int


class Record(NamedTuple):
    """Lease, home, epochs and sync set in one key, so that one revision guards all. `home`, `members`: disks, not names.
    `begun`: False after a switchover until the new home has said that it begins. `copies`: of each disk that may ever be
    promoted, a position that it surely holds."""

    revision: int
    home: int
    epoch: int
    begun: bool
    ended: tuple[Ended, ...]
    members: frozenset[int]
    copies: tuple[tuple[int, int], ...]


def site_of(disk: int) -> int:
    """A disk that was wiped is another disk at the same site."""
    return disk % 10


def spans(record: Record) -> list[tuple[int, int]]:
    """History: (epoch, its last sequence in history), ascending; the present epoch has no end yet."""
    return [*((old.epoch, old.last) for old in record.ended), (record.epoch, UNENDED)]


def in_history(record: Record, position: int) -> bool:
    """Whether `position` is in history, as this record knows it."""
    epoch, sequence = split(position)
    return position == 0 or any(e == epoch and sequence <= last for e, last in spans(record))


def clip(record: Record, position: int) -> int:
    """The last position in history that is not beyond `position`."""
    epoch, sequence = split(position)
    best = 0
    for e, last in spans(record):
        if e <= epoch and last:
            best = at(e, min(sequence, last) if e == epoch else last)
    return best


def following(record: Record, position: int, held: Mapping[int, int], rules: Rules) -> int:
    """The position after `position` in history; `held`: how much of each epoch lies here."""
    epoch, sequence = split(position)
    for e, end in spans(record):
        last = end if rules.follower_stops_at_end else max(end, held.get(e, 0))
        if e == epoch and sequence < last:
            return at(e, sequence + 1)
        if e > epoch and last:
            return at(e, 1)
    return at(record.epoch, UNENDED)


def contiguous(record: Record, held: Mapping[int, int], rules: Rules) -> int:
    """A copy's position: up to where it holds history without a hole, over all epochs."""
    best = 0
    for epoch, last in spans(record):
        have = min(held.get(epoch, 0), last)
        if have:
            best = at(epoch, have)
        if have < last and rules.position_is_contiguous:
            return best
    return best


# ── Succession ───────────────────────────────────────────────────────────────────────────────────────────────────────


def may_be_promoted(record: Record, disk: int, rules: Rules) -> bool:
    """By itself: only a member, for only members are waited for."""
    return disk in record.members or not rules.members_only


def gap_of(record: Record, disk: int, rules: Rules) -> int:
    """By how much UIDNEXT must rise if `disk` is promoted, for each epoch of which something may be lost."""
    if disk in record.members:
        return GAP
    if any(disk == copy for copy, _ in record.copies):
        return FORCED_GAP if rules.forced_gap_is_wider else GAP
    return FRESH if rules.unknown_copy_changes_uidvalidity else FORCED_GAP


def takeover(record: Record, disk: int, position: int, gap: int, rules: Rules) -> Record:
    """The next epoch under `disk`, whose contiguous position is `position`: that is where history goes on from, so what
    was recorded as the end of an epoch is lowered if the new home does not have it."""
    epoch, sequence = split(position)
    ended: list[Ended] = []
    for old in (*record.ended, Ended(record.epoch, UNENDED, 0, record.home)):
        is_present = old.epoch == record.epoch
        if old.epoch < epoch or (old.epoch == epoch and old.last == sequence):
            ended.append(old)
        elif not is_present and not rules.later_takeover_lowers_ends:
            ended.append(old)
        else:
            last = sequence if old.epoch == epoch else 0
            ended.append(Ended(old.epoch, last, FRESH if FRESH in (gap, old.gap) else max(gap, old.gap), old.home))
    # A copy that was no member has confirmed nothing of what others count on, nor they of what it will say.
    members = record.members if disk in record.members else frozenset({disk})
    copies = tuple(sorted({**dict(record.copies), disk: position}.items()))
    return Record(record.revision + 1, disk, record.epoch + 1, True, tuple(ended), members, copies)


def switchover(record: Record, target: int, last: int) -> Record:
    """The next epoch under `target`, after the home fenced itself with `last` as its stream's end: nothing is lost."""
    ended = (*record.ended, Ended(record.epoch, last, 0, record.home))
    return record._replace(revision=record.revision + 1, home=target, epoch=record.epoch + 1, begun=False, ended=ended)


def announced(record: Record, rules: Rules) -> tuple[Ended, ...]:
    """What the present epoch's EpochStarted lists: every epoch that ended since the last one in history, with that one.
    Empty ones too: their homes may have given UIDs that history never saw."""
    listed: list[Ended] = []
    for ended in reversed(record.ended):
        listed.append(ended)
        if ended.last > 0 or not rules.gap_for_every_ended_epoch:
            break
    return tuple(reversed(listed))


def raised(uidnext: int, ended: Iterable[Ended]) -> int:
    return uidnext + sum(max(0, old.gap) for old in ended)


def first_uid_if_promoted(record: Record, disk: int, base: int, uids: Mapping[int, int], rules: Rules) -> int:
    """UIDs from this on might be given out again if `disk` were promoted now. It surely holds all up to `base`, perhaps
    more; `uids`: UIDNEXT after each position. Being further may mean a smaller gap: an epoch that the copy has whole and
    that ended clean adds none. So the least over all that it may hold counts; within an epoch that is its beginning."""
    base = clip(record, base)
    edges = {base}
    if rules.bound_over_all_positions:
        edges |= {at(epoch, 1) for epoch, last in spans(record) if last}
        edges |= {at(old.epoch, old.last) for old in record.ended if old.last}
    firsts = [
        raised(
            uids[position], announced(takeover(record, disk, position, gap_of(record, disk, Rules()), Rules()), Rules())
        )
        for position in edges
        if base <= position and position in uids
    ]
    return min(firsts, default=1)


# ── Lease ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def lease_is_over(seen_since: int, writes_since: int, now: int, rules: Rules) -> bool:
    """`seen_since`: when this revision was first seen; `writes_since`: since when every write of one's own went through.
    Both and `now` on the candidate's own clock. A plane that takes no writes takes none of the holder's either."""
    since = max(seen_since, writes_since) if rules.wait_counts_own_writes else seen_since
    return now - since >= LEASE_TICKS + (MARGIN_TICKS if rules.lease_has_margin else 0)


# ── Tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def judged(record: Record, token: int, salvaged: Mapping[int, int], rules: Rules) -> int | None:
    """The token to compute changes since; None = it is lost: answer with everything."""
    if in_history(record, token) or not rules.token_beyond_end_is_lost:
        return token
    epoch, sequence = split(token)
    if sequence <= salvaged.get(epoch, 0) or not rules.clamp_only_what_is_salvaged:
        return clip(record, token)
    return None
