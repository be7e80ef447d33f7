"""Steps of bad luck, and of time."""

from tests.sim.model import fold, rules
from tests.sim.model.plane import answer, deliver
from tests.sim.model.rules import LEASE_TICKS, MARGIN_TICKS
from tests.sim.model.site import REQUESTS_MAX, Site, World, learn, send

# Two clocks differ by at most MARGIN_TICKS over a lease and its margin if each drifts by one tick in this time.
DRIFT_EVERY_TICKS = LEASE_TICKS + MARGIN_TICKS + 1
STEP_TICKS = 50


def tick(world: World, a: int, b: int) -> None:
    """Time passes. Who can, renews, and writes a beat of its own; all arrives unless the plane stalls or is slow."""
    answers = not world.stalled and b % 4 > 0
    world.time += 1
    for site in world.sites:
        site.clock += 1
        if not world.on_plane(site) or not answers:
            site.writes_since = site.now(world.rules)
        if not world.on_plane(site) or site.lead is None or site.name in world.slow:
            site.troubled = world.time
            if not world.on_plane(site) or site.lead is None:
                continue
        if site.lead.pending and answers and site.name not in world.slow:
            learn(world, site, world.record)  # An answer that did not come: the record says what was done.
        if site.lead and len(site.lead.pending) < REQUESTS_MAX:
            site.lead.pending.append(send(world, site, site.lead.record.revision, site.lead.record))
    if answers:
        late = [request for request in world.inbox if request.site in world.slow]
        world.inbox = [request for request in world.inbox if request.site not in world.slow]
        while world.inbox:
            deliver(world, a, 0)
        world.inbox = late
        waiting = [reply for reply in world.replies if reply[0].site in world.slow]
        world.replies = [reply for reply in world.replies if reply[0].site not in world.slow]
        while world.replies:
            answer(world, 0, 1)
        world.replies = waiting


def long_time(world: World, a: int, b: int) -> None:
    for _ in range(LEASE_TICKS + MARGIN_TICKS):
        tick(world, a, b)


def drift(world: World, a: int, b: int) -> None:
    """A clock runs a little fast or slow."""
    site = world.sites[a % 3]
    if world.time - site.drifted >= DRIFT_EVERY_TICKS or world.setting.lying_clocks:
        site.drifted = world.time
        site.clock += 1 if b % 2 else -1
        if world.setting.lying_clocks and b % 3 == 0:
            site.clock += 4 if b % 2 else -4


def step(world: World, a: int, b: int) -> None:
    """The wall clock is set."""
    world.sites[a % 3].wall += STEP_TICKS if b % 2 else -STEP_TICKS


def stall(world: World, a: int, b: int) -> None:
    """The control plane has no leader for a while."""
    world.stalled_until = world.time + 1 + b % 9


def slow(world: World, a: int, b: int) -> None:
    """What a site asks of the plane, and what it hears from there, stays under way."""
    world.slow.add(a % 3)


def cut(world: World, a: int, b: int) -> None:
    one, other = a % 3, b % 3
    if one != other:
        world.cuts.add((min(one, other), max(one, other)))


def isolate(world: World, a: int, b: int) -> None:
    """A site on the minority side: without the plane, and perhaps without the others."""
    world.off_plane.add(a % 3)
    if b % 2:
        for other in range(3):
            cut(world, a, other)


def heal(world: World, a: int, b: int) -> None:
    if b % 2:
        world.cuts.clear()
    world.off_plane.discard(a % 3)
    world.slow.discard(a % 3)


def crash(world: World, a: int, b: int) -> None:
    """A site stops. What the engine was writing may be on disk or not; tables fall back to what they had on disk."""
    site = world.sites[a % 3]
    if not site.up:
        return
    if site.flight[1] and b % 2:
        site.streams.setdefault(site.flight[0], []).extend(site.flight[1])
    site.flight = (0, [])
    site.up, site.lead, site.standing = False, None, None
    site.frozen = site.frozen if world.rules.freeze_survives_crash else 0
    _refold(world, site, site.tables.position - b % 3)


def restart(world: World, a: int, b: int) -> None:
    site = world.sites[a % 3]
    if not site.up:
        site.up, site.run, site.seen, site.writes_since = True, site.run + 1, (0, 0), site.now(world.rules)
        site.recognised = False


def _refold(world: World, site: Site, upto: int) -> None:
    site.tables = fold.folded(fold.history(site.record, site.streams, upto), world.rules)
    site.mark = min(site.mark, site.tables.position)


def wipe(world: World, a: int, b: int) -> None:
    """A site loses its disk. One at a time: not before the last one is a member again, and not the only member."""
    site = world.sites[a % 3]
    if not world.setting.wipes or not _may_lose(world, site):
        return
    crash(world, a, b)
    lost = {event.command for events in site.streams.values() for event in events if event.command}
    site.streams, site.frozen, site.mark, site.tables, site.snapshot = {}, 0, 0, fold.Tables(), {}
    world.disks += 1
    site.disk = world.disks // 3 * 10 + site.name
    world.truth.unbuilt = site.disk
    if not world.setting.remote:
        rest = {event.command for other in world.sites for events in other.streams.values() for event in events}
        world.truth.destroyed |= lost - rest
    if b % 3 == 0:
        restart(world, a, b)


def snapshot(world: World, a: int, b: int) -> None:
    site = world.sites[a % 3]
    site.snapshot = {epoch: list(events) for epoch, events in site.streams.items()}


def restore(world: World, a: int, b: int) -> None:
    """The machine of a member comes back as it was some time ago, and nobody told it."""
    site = world.sites[a % 3]
    if not world.setting.restores or not site.snapshot or site.disk not in world.record.members:
        return
    if not _may_lose(world, site):
        return
    crash(world, a, b)
    site.streams = {epoch: list(events) for epoch, events in site.snapshot.items()}
    _refold(world, site, rules.at(world.record.epoch, rules.UNENDED))
    world.truth.unbuilt = site.disk
    restart(world, a, b)


def _may_lose(world: World, site: Site) -> bool:
    """Durability `remote` is a promise over the loss of one site, while the sync set has more than one member."""
    unbuilt = next((other for other in world.sites if other.disk == world.truth.unbuilt), None)
    if unbuilt is not None:
        is_rebuilt = unbuilt.disk in world.record.members and unbuilt.position(world.rules) >= _acked(world)
        if not is_rebuilt and unbuilt is not site:
            return False
    if not world.setting.remote:
        return any(disk != site.disk for disk, _ in world.record.copies)
    return len(world.record.members - {site.disk}) > 0


def _acked(world: World) -> int:
    return max((p for p in world.truth.acked.values() if rules.in_history(world.record, p)), default=0)
