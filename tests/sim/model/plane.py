"""Steps of the control plane: requests arrive, are done or refused, and answers come back, late or never."""

from tests.sim.model import fold, rules
from tests.sim.model.checks import check_promotion
from tests.sim.model.fold import Event, Kind
from tests.sim.model.rules import LEASE_TICKS
from tests.sim.model.site import Lead, Request, Site, World, learn

KNOWN_MAX = 2


def deliver(world: World, a: int, b: int) -> None:
    """A compare-and-set is done, or refused. Requests may overtake each other."""
    if not world.inbox or world.stalled:
        return
    request = world.inbox.pop(a % len(world.inbox))
    takes_over = request.record.epoch != world.record.epoch and request.record.home != world.record.home
    done = request.base == world.record.revision
    if not done and takes_over and not world.rules.takeover_on_seen_revision:
        done = request.record.epoch > world.record.epoch
        request = request._replace(record=request.record._replace(revision=world.record.revision + 1))
    if done:
        if takes_over and request.record.begun:
            check_promotion(world, request.record)
        world.record = request.record
    world.replies.append((request, done))


def answer(world: World, a: int, b: int) -> None:
    """The sender hears what became of its request, unless the answer is lost (b == 0) or it runs no more."""
    if not world.replies:
        return
    request, done = world.replies.pop(a % len(world.replies))
    site = world.sites[request.site]
    if (b == 0 and not world.settling) or not world.on_plane(site) or site.run != request.run:
        return
    if site.standing and site.standing[:4] == request[:4]:
        site.standing = None
        if done and request.record.revision > site.record.revision:
            learn(world, site, request.record)
            begin_to_lead(world, site, request)
    elif done:
        learn(world, site, request.record)
    elif site.lead:
        site.lead.pending = [waiting for waiting in site.lead.pending if waiting is not request]
    if site.lead and done and not world.rules.deadline_before_send and request.record == site.lead.record:
        site.lead.deadline = site.now(world.rules) + LEASE_TICKS


def look(world: World, a: int, b: int) -> None:
    """A site reads the record. What it saw unchanged, and since when, is what it may take over on."""
    site = world.sites[a % 3]
    if not world.on_plane(site):
        return
    request = site.standing
    learn(world, site, world.record)
    if request and request.base < world.record.revision:
        site.standing = None
        if request.record == world.record:  # The answer was lost, and yet it was done.
            begin_to_lead(world, site, request)
    if site.seen[0] != world.record.revision:
        site.seen = (world.record.revision, site.now(world.rules))


def begin_to_lead(world: World, site: Site, request: Request) -> None:
    """The record says that this very run of this very disk is home. It folds history, and announces the ends."""
    record = request.record
    site.recognised = True
    tables = fold.folded(fold.history(record, site.streams, rules.at(record.epoch, rules.UNENDED)), world.rules)
    uids: dict[int, int] = {0: 1}
    known: dict[int, int] = {}
    counting = fold.Tables()
    for position, event in fold.history(record, site.streams, rules.at(record.epoch, rules.UNENDED)):
        fold.evolve(counting, event, position, world.rules)
        uids[position] = counting.uidnext
        if event.command and event.kind is not Kind.REPORTED:
            known.setdefault(event.command, position)
    # An appender remembers the latest commands only.
    known = dict(list(known.items())[-KNOWN_MAX:])
    stream = site.streams.setdefault(record.epoch, [])
    deadline = request.sent + LEASE_TICKS
    site.flight = site.flight if site.flight[0] != record.epoch else (0, [])
    site.lead = Lead(record.epoch, record, deadline, len(stream) + 1, tables.uidnext, tables.validity, uids, known,
                     dict(tables.salvaged))  # fmt: skip
    if not stream:
        let_in(world, site.lead, (Event(Kind.STARTED, ended=rules.announced(record, world.rules)),))


def let_in(world: World, lead: Lead, events: tuple[Event, ...]) -> int:
    """Into the queue, together or not at all; the position of the first."""
    first = rules.at(lead.epoch, lead.next)
    for event in events:
        position = rules.at(lead.epoch, lead.next)
        if event.kind is Kind.APPENDED and event.command not in lead.known:
            lead.uidnext += 1
        if event.kind is Kind.STARTED:
            lead.uidnext = rules.raised(lead.uidnext, event.ended)
            lead.validity = position if any(old.gap == rules.FRESH for old in event.ended) else lead.validity
        if event.command and event.kind is not Kind.REPORTED:  # A report is no outcome to answer a retry with.
            lead.known.setdefault(event.command, position)
        lead.uids[position] = lead.uidnext
        lead.next += 1
    lead.queue.append(events)
    return first
