"""Steps of a copy: it copies, confirms, projects up to the mark, and stands for home when the lease is over."""

from tests.sim.model import fold, rules
from tests.sim.model.checks import check_most_advanced, check_shown
from tests.sim.model.rules import Record, at, split
from tests.sim.model.site import Site, World, learn, send


def fetch(world: World, a: int, b: int) -> None:
    """The copier takes the next events of history from whoever has them; not while somebody may take over on its word."""
    site = world.sites[a % 3]
    if not site.up or site.lead or site.is_frozen:
        return
    sources = list(world.others(site))
    if not sources:
        return
    source = sources[b % len(sources)]
    position = site.position(world.rules)
    epoch, sequence = split(rules.following(site.record, position, {}, world.rules))
    theirs = source.streams.get(epoch, [])
    if not world.rules.position_is_contiguous and not theirs and source.streams:
        epoch = max(source.streams)  # The present epoch is there already; the rest of the old one may come later.
        theirs = source.streams[epoch]
    mine = site.streams.setdefault(epoch, [])
    mine.extend(theirs[len(mine) : len(mine) + 1 + b % 4])


def confirm(world: World, a: int, b: int) -> None:
    """A copy tells the home what it has on disk."""
    site = world.sites[a % 3]
    home = world.home_of(site) if site.up else None
    if home is None or home.lead is None or home is site or site.is_frozen or site.record.epoch != home.lead.epoch:
        return
    confirmed, position = home.lead.confirmed, site.position(world.rules)
    if site.recognised or not world.rules.restarted_must_be_recognised:
        confirmed[site.disk] = max(position, confirmed.get(site.disk, 0))
    else:
        confirmed[site.disk] = position  # What it said before it was started again counts no more.
        site.recognised = position >= home.lead.mark > 0


def hear(world: World, a: int, b: int) -> None:
    """The mark arrives."""
    site = world.sites[a % 3]
    for home in world.sites:
        if home.lead and world.linked(site.name, home.name) and (b % 2 or site.record.home == home.disk):
            site.mark = max(site.mark, home.lead.mark)


def project(world: World, a: int, b: int) -> None:
    """The next events of history into the tables, not above the mark."""
    site = world.sites[a % 3]
    for _ in range(1 + b % 4):
        if not site.up or not _project_one(world, site):
            return


def _project_one(world: World, site: Site) -> bool:
    here = fold.held(site.streams)
    position = rules.following(site.record, site.tables.position, here, world.rules)
    epoch, sequence = split(position)
    if sequence > here.get(epoch, 0) or (position > site.mark and world.rules.nothing_above_mark):
        return False
    event = site.streams[epoch][sequence - 1]
    fold.evolve(site.tables, event, position, world.rules)
    check_shown(world, site, event, position)
    return True


# ── Standing for home ────────────────────────────────────────────────────────────────────────────────────────────────


def stand(world: World, a: int, b: int) -> None:
    """A candidate that saw the lease unchanged for long enough."""
    site = world.sites[a % 3]
    if not world.on_plane(site) or site.lead or site.standing or site.record.home == site.disk:
        return
    if site.seen[0] != site.record.revision or site.record.revision != world.record.revision:
        return
    if not site.recognised and world.rules.restarted_must_be_recognised:
        return  # Its disk may have been put back to an earlier state.
    if not rules.may_be_promoted(site.record, site.disk, world.rules):
        return
    if rules.lease_is_over(site.seen[1], site.writes_since, site.now(world.rules), world.rules):
        home = world.sites[rules.site_of(site.record.home)]
        world.truth.healthy[site.disk, site.record.revision] = world.time - home.troubled
        _take_over(world, site, frozenset(site.record.members))


def force(world: World, a: int, b: int) -> None:
    """An operator promotes a copy, whatever it has and whoever is home."""
    site = world.sites[a % 3]
    if not world.on_plane(site) or site.lead or site.standing or site.record.revision != world.record.revision:
        return
    _take_over(world, site, frozenset())
    world.truth.forced.add(site.record.epoch + 1)


def start(world: World, a: int, b: int) -> None:
    """A home that has nothing in memory: it was started, or was made home and did not hear of it."""
    site = world.sites[a % 3]
    record = site.record
    if not world.on_plane(site) or site.lead or site.standing or record.home != site.disk:
        return
    if record.revision != world.record.revision:
        return
    if not record.begun:
        begin = record._replace(begun=True)
        if site.position(world.rules) == _end(record) or not world.rules.switchover_waits_for_copy:
            site.standing = send(world, site, record.revision, begin)
        return
    others = record.members - {site.disk}
    heard = [other for other in world.others(site) if other.disk in others]
    if world.setting.remote and others and not heard and world.rules.start_hears_a_member:
        return
    if world.rules.start_begins_epoch:
        _take_over(world, site, others)
    elif all(other.position(world.rules) <= site.position(world.rules) for other in heard):
        site.standing = send(world, site, record.revision, record)


def _end(record: Record) -> int:
    """Where history ends before the present epoch."""
    return max((at(old.epoch, old.last) for old in record.ended if old.last), default=0)


def _take_over(world: World, site: Site, asked: frozenset[int]) -> None:
    """Copies freeze, then report their positions; the most advanced takes the next epoch on the very revision seen."""
    record = site.record
    frozen = [site, *(other for other in world.others(site) if other.disk in asked)]
    if world.rules.freeze_before_promotion:
        for copy in frozen:
            copy.frozen = max(copy.frozen, record.revision)
    position = site.position(world.rules)
    reports = [rules.contiguous(record, fold.held(other.streams), world.rules) for other in frozen]
    if world.rules.most_advanced_is_promoted and max(reports) > position:
        return
    if asked:
        check_most_advanced(world, site, position)
    gap = rules.gap_of(record, site.disk, world.rules) if world.rules.gap_at_unclean_end else 0
    site.standing = send(world, site, record.revision, rules.takeover(record, site.disk, position, gap, world.rules))


def sees(world: World, site: Site) -> None:
    """A watch on the record that never lags, for settling."""
    if world.on_plane(site):
        learn(world, site, world.record)
