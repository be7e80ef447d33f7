"""Steps of a home: its lease and sync set, its batches and its word, switchover, salvage."""

from tests.sim.model import fold, rules
from tests.sim.model.checks import check_word
from tests.sim.model.fold import WHOLE, Event, Kind
from tests.sim.model.plane import let_in
from tests.sim.model.rules import Record, at, first_uid_if_promoted
from tests.sim.model.site import REQUESTS_MAX, Lead, Site, World, send

BATCH_MAX = 3


def renew(world: World, a: int, b: int) -> None:
    """The home rewrites its lease, and with it the positions that it knows its copies to hold."""
    site = world.sites[a % 3]
    if site.up and site.lead:
        _ask(world, site, site.lead, site.lead.record)


def shrink(world: World, a: int, b: int) -> None:
    """A member that does not answer leaves the sync set, or the copies too: then it is promoted by force only under a new UIDVALIDITY."""
    site = world.sites[a % 3]
    lead = site.lead
    if not (site.up and lead) or lead.target:
        return
    gone = sorted(disk for disk, _ in lead.record.copies if disk != site.disk)
    if not gone:
        return
    leave(world, site, gone[b % len(gone)], forget=bool(b & 64))


def leave(world: World, site: Site, disk: int, *, forget: bool) -> None:
    lead = site.lead
    if lead is None or lead.target or disk == site.disk:
        return
    copies = tuple(copy for copy in lead.record.copies if copy[0] != disk or not forget)
    record = lead.record._replace(members=lead.record.members - {disk}, copies=copies)
    if not world.rules.shrink_before_word:
        lead.record = lead.record._replace(members=record.members)
    _ask(world, site, lead, record)


def grow(world: World, a: int, b: int) -> None:
    """A copy that has all that was promised becomes one of those that promises are made on."""
    site = world.sites[a % 3]
    lead = site.lead
    if not (site.up and lead) or lead.target:
        return
    for other in world.others(site):
        disk, position = other.disk, lead.confirmed.get(other.disk, 0)
        if disk in lead.record.members:
            continue
        copies = tuple(sorted({**dict(lead.record.copies), disk: position}.items()))
        joined = lead.record._replace(members=lead.record.members | {disk}, copies=copies)
        if world.rules.grow_when_caught_up:
            if position >= lead.mark > 0 and _is_near(world, lead, joined, disk):
                _ask(world, site, lead, joined)
            elif position and _is_near(world, lead, lead.record._replace(copies=copies), disk):
                _ask(world, site, lead, lead.record._replace(copies=copies))
        else:
            _ask(world, site, lead, joined)
        return


def _ask(world: World, site: Site, lead: Lead, record: Record) -> None:
    if len(lead.pending) >= REQUESTS_MAX:
        return
    copies = tuple((disk, max(base, lead.confirmed.get(disk, 0))) for disk, base in record.copies)
    lead.pending.append(send(world, site, lead.record.revision, record._replace(copies=copies)))


# ── UIDs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _first_uid(world: World, lead: Lead, record: Record, disk: int) -> int:
    base = max(dict(record.copies).get(disk, 0), lead.confirmed.get(disk, 0))
    return first_uid_if_promoted(record, disk, base, lead.uids, world.rules)


def _is_near(world: World, lead: Lead, record: Record, disk: int) -> bool:
    return lead.uidnext <= _first_uid(world, lead, record, disk)


def may_give_uid(world: World, site: Site, lead: Lead) -> bool:
    """Never a UID that a copy would give again if it were promoted now."""
    for record in (lead.record, *(request.record for request in lead.pending)):
        for disk, _ in record.copies:
            is_member = disk in record.members
            bounded = world.rules.uids_bounded_by_members if is_member else world.rules.uids_bounded_by_copies
            if bounded and disk != site.disk and lead.uidnext >= _first_uid(world, lead, record, disk):
                return False
    return True


# ── Batches and words ────────────────────────────────────────────────────────────────────────────────────────────────


def admit(world: World, site: Site, event: Event) -> int:
    """Where the command's event will stand, or stands already; 0 = refused for now, -1 for good."""
    lead = site.lead
    assert lead is not None
    if event.command in lead.known:
        position = lead.known[event.command]
        lead.waiting.append((position, event.command))
        return position
    if lead.fenced:
        return 0
    if event.kind is not Kind.APPENDED and event.validity != lead.validity:
        return -1
    if world.rules.decided_on_lost_is_refused and not rules.in_history(lead.record, event.read_at):
        return -1  # What it names was seen in a tail: the caller looks and decides again.
    if event.kind is Kind.APPENDED and not may_give_uid(world, site, lead):
        return 0
    position = let_in(world, lead, (event,))
    lead.waiting.append((position, event.command))
    return position


def write(world: World, a: int, b: int) -> None:
    """The next batch leaves for the engine: one at a time, expecting the stream's last sequence."""
    site = world.sites[a % 3]
    lead = site.lead
    if not (site.up and lead and lead.queue) or site.flight[1]:
        return
    groups, lead.queue = lead.queue[: 1 + b % BATCH_MAX], lead.queue[1 + b % BATCH_MAX :]
    site.flight = (lead.epoch, [event for group in groups for event in group])


def land(world: World, a: int, b: int) -> None:
    """The engine has the batch on disk, even if nobody waits for it any more."""
    site = world.sites[a % 3]
    epoch, events = site.flight
    if site.up and events:
        site.streams.setdefault(epoch, []).extend(events)
        site.flight = (0, [])


def say(world: World, a: int, b: int) -> None:
    """The home gives its word for all that is as durable as promised, if its lease holds, and raises the mark."""
    site = world.sites[a % 3]
    lead = site.lead
    if not (site.up and lead) or (world.rules.word_needs_lease and site.now(world.rules) >= lead.deadline):
        return
    if world.rules.silent_after_end and any(request.record.epoch != lead.epoch for request in lead.pending):
        return
    mark = at(lead.epoch, len(site.streams[lead.epoch]))
    if world.setting.remote and world.rules.remote_waits_for_members:
        others = lead.needed(world.rules) - {site.disk}
        mark = min([mark, *(lead.confirmed.get(disk, 0) for disk in others)])
    if mark < at(lead.epoch, 1):
        return
    told = [(position, command) for position, command in lead.waiting if position <= mark]
    if mark <= lead.mark and not told:
        return
    check_word(world, site, lead)
    lead.mark = max(mark, lead.mark)
    site.mark = max(site.mark, lead.mark)
    lead.waiting = [waiting for waiting in lead.waiting if waiting not in told]
    for position, command in told:
        world.truth.acked.setdefault(command, position)
        for client in world.clients:
            if client.pending and client.pending.command == command and b % 4:
                client.answer = position


# ── Switchover ───────────────────────────────────────────────────────────────────────────────────────────────────────


def drain(world: World, a: int, b: int) -> None:
    """A planned switchover begins: the home fences itself. Or it is given up, if nothing was asked of the plane yet."""
    site = world.sites[a % 3]
    lead = site.lead
    if not (site.up and lead):
        return
    if lead.target:
        if not any(request.record.epoch != lead.epoch for request in lead.pending):
            lead.target, lead.fenced = 0, False
        return
    others = [disk for disk in sorted(lead.record.members) if disk != site.disk]
    if others and not world.settling:
        lead.target, lead.fenced = others[b % len(others)], True


def hand_over(world: World, a: int, b: int) -> None:
    """All that was let in is durable, and the other has it: the home writes the end."""
    site = world.sites[a % 3]
    lead = site.lead
    if not (site.up and lead and lead.target) or len(lead.pending) >= REQUESTS_MAX:
        return
    last = len(site.streams[lead.epoch])
    if lead.queue or site.flight[1]:
        return
    if world.rules.switchover_waits_for_copy and lead.confirmed.get(lead.target, 0) < at(lead.epoch, max(1, last)):
        return
    if last:
        record = rules.switchover(lead.record, lead.target, last)
        lead.pending.append(send(world, site, lead.record.revision, record))


# ── Salvage ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def salvage(world: World, a: int, b: int) -> None:
    """One event of a tail that lies at some site is decided again, and what it touched is reaffirmed with it."""
    site, other = world.sites[a % 3], world.sites[b % 3]
    lead = site.lead
    if not (site.up and lead) or lead.fenced or not world.linked(site.name, other.name) or not world.rules.salvage:
        return
    for old in lead.record.ended:
        done = max(old.last, lead.salvaged.get(old.epoch, 0))
        if len(other.streams.get(old.epoch, ())) <= done:
            continue
        if other.disk != old.home and not world.rules.salvage_from_any_copy:
            continue
        _salvage_event(world, site, lead, other, at(old.epoch, done + 1))
        return


def _salvage_event(world: World, site: Site, lead: Lead, other: Site, position: int) -> None:
    epoch, sequence = rules.split(position)
    event = other.streams[epoch][sequence - 1]
    line = fold.line(other.streams, epoch, sequence)
    then = fold.folded(line, world.rules)
    new = site.streams[lead.epoch] + site.flight[1] + [event for group in lead.queue for event in group]
    now = fold.folded(fold.history(lead.record, {**site.streams, lead.epoch: new}, at(lead.epoch, rules.UNENDED)),
                      world.rules)  # fmt: skip
    again: list[Event] = []
    touched: tuple[int, ...] = ()
    if event.command and event.kind is not Kind.REPORTED:
        touched = (then.applied[event.command],)
    if event.command and event.command not in now.applied and event.command not in now.reported:
        if event.kind is Kind.APPENDED and not may_give_uid(world, site, lead):
            return
        again.append(_decided_again(world, event, then, now))
    elif event.command and not world.rules.salvage_keeps_command_id and event.kind is Kind.APPENDED:
        again.append(event._replace(command=-event.command))
    uids = touched if world.rules.reaffirm_touched else ()
    let_in(world, lead, (*again, Event(Kind.REAFFIRMED, validity=then.validity, tail=(epoch, sequence), uids=uids)))
    lead.salvaged[epoch] = sequence


def _decided_again(world: World, event: Event, then: fold.Tables, now: fold.Tables) -> Event:
    """The same command in today's history. Objects are found by the command that made them, not by their UIDs."""
    command = event.command if world.rules.salvage_keeps_command_id else -event.command
    if event.kind is Kind.APPENDED:
        return event._replace(command=command)
    uid = event.uid
    if world.rules.salvage_maps_objects:
        maker = next((maker for maker, made in then.applied.items() if made == event.uid), 0)
        uid = now.applied.get(maker, 0)
    if uid not in now.messages or event.kind is Kind.REPORTED:
        return Event(Kind.REPORTED, command=command)
    return event._replace(command=command, uid=uid, validity=now.validity)


def declare_destroyed(world: World, a: int, b: int) -> None:
    """An operator says that the disk with an epoch's tail is gone for good: all is reaffirmed, whatever the tail was."""
    site = world.sites[a % 3]
    lead = site.lead
    if not (site.up and lead) or lead.fenced or not world.rules.reaffirm_whole_if_destroyed:
        return
    disks = {other.disk for other in world.sites}
    for old in lead.record.ended:
        # A copy's share of the tail comes first.
        rest = any(len(other.streams.get(old.epoch, ())) > max(old.last, lead.salvaged.get(old.epoch, 0))
                   for other in world.sites)  # fmt: skip
        if old.gap and old.home not in disks and not rest and lead.salvaged.get(old.epoch, 0) < WHOLE:
            let_in(world, lead, (Event(Kind.REAFFIRMED, tail=(old.epoch, WHOLE)),))
            lead.salvaged[old.epoch] = WHOLE
            return
