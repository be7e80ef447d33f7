"""The world of the model: three sites, the control plane between them, two clients. State and what everybody uses; the
steps are in home, copies, clients and faults."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tests.sim.model import fold, rules
from tests.sim.model.fold import Event, Kind, Tables
from tests.sim.model.rules import Record, Rules, site_of

SITES = 3
REQUESTS_MAX = 4


class Violation(Exception):
    """`name`: of the invariant."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name


@dataclass(frozen=True)
class Setting:
    """What a seed draws first. `remote`: durability. `wipes`: a site may lose its disk (one at a time, until it is rebuilt).
    `forces`: operators promote copies, members or not. `restores`: a home's disk may jump back to an earlier state.
    `lying_clocks`: no bound on drift (only what does not depend on leases is promised then)."""

    remote: bool
    wipes: bool = False
    forces: bool = False
    restores: bool = False
    lying_clocks: bool = False


class Request(NamedTuple):
    """A compare-and-set on its way. `sent`: on the sender's clock, before it was sent. `base`: the revision expected."""

    site: int
    run: int
    sent: int
    base: int
    record: Record


@dataclass
class Lead:
    """What a home's appender keeps in memory. `flight` is the engine's, at the site. `next`: sequence of the next event
    let in. `uids`: UIDNEXT after each position. `confirmed`: by disk. `waiting`: (position, command)."""

    epoch: int
    record: Record
    deadline: int
    next: int
    uidnext: int
    validity: int
    uids: dict[int, int]
    known: dict[int, int]
    salvaged: dict[int, int]
    mark: int = 0
    target: int = 0  # disk that a switchover drains for
    fenced: bool = False
    queue: list[tuple[Event, ...]] = field(default_factory=list)
    waiting: list[tuple[int, int]] = field(default_factory=list)
    confirmed: dict[int, int] = field(default_factory=dict)
    pending: list[Request] = field(default_factory=list)

    def needed(self, switches: Rules) -> frozenset[int]:
        """Disks that must confirm before a word: the sync set, and what it may have become without us knowing yet."""
        asked = [request.record.members for request in self.pending if switches.pending_members_count]
        return self.record.members.union(*asked)


class Site:
    def __init__(self, name: int, disk: int, record: Record) -> None:
        self.name = name
        self.disk = disk
        self.record = record  # as known here
        self.streams: dict[int, list[Event]] = {}
        self.flight: tuple[int, list[Event]] = (0, [])  # epoch, what the engine is writing
        self.frozen = 0  # revision of the record on which somebody may take over
        self.tables = Tables()
        self.mark = 0
        self.rolled_back = 0  # how often
        self.up = True
        self.run = 1
        self.recognised = True  # since this run began, a home has said that all it promised is here
        self.lead: Lead | None = None
        self.standing: Request | None = None
        self.clock = 0  # CLOCK_BOOTTIME: drifts a little
        self.wall = 0  # steps
        self.drifted = -100
        self.seen = (0, 0)  # revision, since when on the clock in use
        self.writes_since = 0
        self.troubled = 0  # true time at which it last could not renew
        self.snapshot: dict[int, list[Event]] = {}

    def now(self, switches: Rules) -> int:
        return self.clock if switches.lease_by_boot_clock else self.clock + self.wall

    def position(self, switches: Rules) -> int:
        return rules.contiguous(self.record, fold.held(self.streams), switches)

    @property
    def is_frozen(self) -> bool:
        return self.record.revision <= self.frozen


class Client:
    """`exact`: its token is always as new as its cache; otherwise only a sync moves the token. `top`: highest token ever.
    `session`: (site, run, rollbacks, position shown so far)."""

    def __init__(self, name: int, *, exact: bool) -> None:
        self.name = name
        self.exact = exact
        self.site = name
        self.validity = 1
        self.cache: dict[int, tuple[int, int]] = {}
        self.token = 0
        self.top = 0
        self.session: tuple[int, int, int, int] | None = None
        self.pending: Event | None = None
        self.answer = 0


@dataclass
class Truth:
    """What only the checkers know."""

    acked: dict[int, int] = field(default_factory=dict)  # command → position
    names: dict[tuple[int, int], int] = field(default_factory=dict)  # (validity, UID) → content
    events: dict[int, Event] = field(default_factory=dict)  # position → event
    meant: dict[int, tuple[Kind, int]] = field(default_factory=dict)  # command → what it does to which content
    destroyed: set[int] = field(default_factory=set)  # acknowledged commands that lie on no disk any more
    forced: set[int] = field(default_factory=set)  # epochs begun by force
    healthy: dict[tuple[int, int], int] = field(default_factory=dict)  # (disk, base) → since when the old home was well
    unbuilt: int | None = None  # site that lost its disk and is not rebuilt


class World:
    def __init__(self, setting: Setting, switches: Rules) -> None:
        self.setting = setting
        self.rules = switches
        disks = range(10, 10 + SITES)
        self.record = Record(1, 10, 1, True, (), frozenset(disks), tuple((disk, 0) for disk in disks))
        self.sites = [Site(disk - 10, disk, self.record) for disk in disks]
        self.clients = [Client(0, exact=True), Client(1, exact=False)]
        self.inbox: list[Request] = []
        self.replies: list[tuple[Request, bool]] = []
        self.cuts: set[tuple[int, int]] = set()
        self.off_plane: set[int] = set()
        self.slow: set[int] = set()  # sites whose requests and answers stay under way
        self.time = 0
        self.stalled_until = 0
        self.commands = 0
        self.steps = 0
        self.disks = 10 + SITES
        self.settling = False
        self.truth = Truth()

    def linked(self, one: int, other: int) -> bool:
        if not (self.sites[one].up and self.sites[other].up):
            return False
        return one == other or (min(one, other), max(one, other)) not in self.cuts

    def on_plane(self, site: Site) -> bool:
        return site.up and site.name not in self.off_plane

    @property
    def stalled(self) -> bool:
        return self.time < self.stalled_until

    def home_of(self, site: Site) -> Site | None:
        """The home as this site knows it, if it can be reached and leads."""
        home = self.sites[site_of(site.record.home)]
        return home if self.linked(site.name, home.name) and home.lead is not None else None

    def others(self, site: Site) -> Iterator[Site]:
        return (other for other in self.sites if other is not site and self.linked(site.name, other.name))

    def violated(self, name: str, what: str) -> None:
        raise Violation(name, what)


def learn(world: World, site: Site, record: Record) -> None:
    """A site hears how the record is now. What it projected beyond an end goes, and a home that is none any more stops."""
    if record.revision <= site.record.revision:
        return
    site.record = record
    if not rules.in_history(record, site.tables.position) and world.rules.roll_back_beyond_end:
        kept = fold.history(record, site.streams, site.tables.position)
        site.tables = fold.folded(kept, world.rules)
        site.rolled_back += 1
    lead = site.lead
    if lead is None:
        return
    if record.epoch != lead.epoch or record.home != site.disk:
        site.lead = None
        return
    done = [request.sent for request in lead.pending if request.record == record]
    if done:  # A request whose answer was lost was done after all: which of several that say the same, nobody knows.
        sent = min(done) if world.rules.lost_answer_counts_earliest else max(done)
        lead.deadline = max(lead.deadline, sent + rules.LEASE_TICKS)
    lead.pending = []
    lead.record = record


def send(world: World, site: Site, base: int, record: Record) -> Request:
    request = Request(site.name, site.run, site.now(world.rules), base, replace_revision(record, base + 1))
    world.inbox.append(request)
    return request


def replace_revision(record: Record, revision: int) -> Record:
    return record._replace(revision=revision)


def drawn(remote: bool, which: int) -> Setting:
    """The settings that seeds go through in turn."""
    plain = Setting(remote)
    if remote:
        kinds = [
            plain,
            replace(plain, wipes=True),
            replace(plain, wipes=True, restores=True),
            replace(plain, wipes=True, lying_clocks=True),
            replace(plain, forces=True),
        ]
    else:
        kinds = [
            plain,
            replace(plain, wipes=True),
            replace(plain, forces=True),
            replace(plain, wipes=True, forces=True),
        ]
    return kinds[which % len(kinds)]
