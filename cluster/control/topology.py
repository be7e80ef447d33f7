"""What an operator wants of the partitions' places, whether it can hold, and the steps that lead there. Pure.

A topology is nothing but a placement of partitions. A plan is a list of steps, each of which can be done when all before it
are: a partition gets its new copies first, they are waited for until they are level, then its home moves, and only then
copies that are not wanted any more go.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from cluster import partitions
from cluster.control.partitions import Partition, windowed

WINDOW_DAYS = 7  # of a hybrid's copies away from the edge
WINDOW_DAYS_MAX = 3_650
QUORUM_MEMBERS_MIN = 3  # of the backbone: with fewer, the loss of one is the loss of the quorum
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
OF_SITE = re.compile(r"(mail-(?P<mail>.+)-\d+|queue-(?P<queue>.+))")

Kind = Literal["active-active", "active-passive", "hybrid"]


class TopologyRefused(Exception):
    """It cannot hold; the text is one sentence that says why."""


class Placement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where one partition is to be; None = as the topology says. `copies`: sites beside the home. `strict`: a `remote`
    home that no copy confirms refuses writes in place of going on alone. `pinned`: only an operator moves it. `windows`: at
    which sites the copy keeps so many days' content only."""

    home: str | tuple[str, ...] | None = None
    copies: tuple[str, ...] | None = None
    durability: Literal["local", "remote"] | None = None
    strict: bool | None = None
    pinned: bool | None = None
    windows: Mapping[str, int] | None = None


class Topology(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`sites`: in order, the first one is the primary (active-passive) or the edge (hybrid). `failover`: "command" = no
    partition moves by itself. The settings above `partitions` are those of every partition that says nothing else.
    `windows` are mail's alone; None = in a hybrid WINDOW_DAYS at every site but the first, else none."""

    topology: Kind
    sites: tuple[str, ...]
    failover: Literal["automatic", "command"] = "automatic"
    durability: Literal["local", "remote"] = "local"
    strict: bool = False
    windows: Mapping[str, int] | None = None
    partitions: Mapping[str, Placement] = {}


class Place(msgspec.Struct, frozen=True, tag="place"):
    """The record says from now on that copies lie there, with these settings."""

    partition: str
    copies: tuple[str, ...]
    remote: bool
    strict: bool
    pinned: bool
    windows: Mapping[str, int] = {}


class Create(msgspec.Struct, frozen=True, tag="create"):
    partition: str
    home: str
    copies: tuple[str, ...]
    remote: bool
    strict: bool
    pinned: bool
    windows: Mapping[str, int] = {}


class Level(msgspec.Struct, frozen=True, tag="level"):
    """Waits until the copy there has what its home has."""

    partition: str
    site: str


class Move(msgspec.Struct, frozen=True, tag="move"):
    """The home moves, without loss."""

    partition: str
    site: str


class Force(msgspec.Struct, frozen=True, tag="force"):
    """The copy there becomes the home with what it has."""

    partition: str
    site: str


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """A node gives its leases to others of its site."""

    site: str
    node: str


Step = Place | Create | Level | Move | Force | Leave


# ── what is wanted ───────────────────────────────────────────────────────────────────────────────────────────────────


def wanted(
    records: Mapping[str, Partition], topology: Topology, members: Iterable[str], voters: int
) -> dict[str, Partition]:
    """Of each partition the record as it is to become (its history is today's). `members`: the sites there are. `voters`:
    members of the backbone, witnesses too. Raises TopologyRefused."""
    known = tuple(members)
    for site in topology.sites:
        if site not in known:
            raise TopologyRefused(f"there is no site {site}; there are {', '.join(known)}")
    if len(set(topology.sites)) != len(topology.sites) or not topology.sites:
        raise TopologyRefused("`sites` must name every site that takes part, each once")
    names = (*sorted(records), *(name for name in topology.partitions if name not in records))
    names = tuple(name for name in names if name in topology.partitions or not partitions.is_spool(name))
    found = {name: _one(name, records.get(name), topology) for name in names}
    for name, partition in found.items():
        check(partition, records.get(name), known, voters)
    return found


def _one(name: str, now: Partition | None, topology: Topology) -> Partition:
    own = topology.partitions.get(name, Placement())
    if isinstance(own.home, tuple):
        raise TopologyRefused(f"{name} has {len(own.home)} homes; a partition has one, and copies beside it")
    home = own.home or _home(name, now, topology)
    copies = own.copies if own.copies is not None else tuple(site for site in topology.sites if site != home)
    remote = (own.durability or topology.durability) == "remote"
    # Cut off, the edge goes on with its own queue too; those of the other sites have successors.
    at_the_edge = not partitions.is_queue(name) or name == partitions.queue(topology.sites[0])
    pinned = topology.failover == "command" or (topology.topology == "hybrid" and at_the_edge)
    return msgspec.structs.replace(
        now or Partition(name, home),
        home=home,
        copies=copies,
        remote=remote,
        strict=own.strict if own.strict is not None else topology.strict and remote,
        pinned=own.pinned if own.pinned is not None else pinned and bool(copies),
        windows=own.windows if own.windows is not None else _windows(name, home, copies, topology),
    )


def _windows(name: str, home: str, copies: tuple[str, ...], topology: Topology) -> dict[str, int]:
    if not partitions.is_mail(name):
        return {}
    if topology.windows is not None:
        return {site: days for site, days in topology.windows.items() if site in (home, *copies)}
    return {site: WINDOW_DAYS for site in copies} if topology.topology == "hybrid" else {}


def _home(name: str, now: Partition | None, topology: Topology) -> str:
    named = OF_SITE.fullmatch(name)
    own = (named["mail"] or named["queue"]) if named else ""
    if own in topology.sites and (topology.topology == "active-active" or name.startswith("queue-")):
        return own  # Its queue is the site's own in every topology: it sends what was handed in there.
    if topology.topology != "active-active" and not name.startswith("queue-"):
        return topology.sites[0]
    return now.home if now is not None and now.home in topology.sites else topology.sites[0]


def check(new: Partition, now: Partition | None, sites: tuple[str, ...], voters: int) -> None:
    """Raises TopologyRefused where a partition cannot be so."""
    name = new.name
    if not NAME.fullmatch(name):
        raise TopologyRefused(f"{name!r} is no name for a partition: letters a-z, digits and hyphens")
    if partitions.is_spool(name):
        raise TopologyRefused(f"{name} is a site's own spool: it is made with the site, and stays there without copies")
    for site in (new.home, *new.copies):
        if site not in sites:
            raise TopologyRefused(f"{name}: there is no site {site}; there are {', '.join(sites)}")
    if new.home in new.copies:
        raise TopologyRefused(f"{name}: {new.home} is its home and cannot be its copy as well: two homes in one place")
    if len(set(new.copies)) != len(new.copies):
        raise TopologyRefused(f"{name}: a site is named twice among its copies")
    for site, days in new.windows.items():
        if site not in (new.home, *new.copies):
            raise TopologyRefused(f"{name}: a window at {site}, which has no copy of it")
        if not 0 < days <= WINDOW_DAYS_MAX:
            raise TopologyRefused(f"{name}: a window of {days} days; it has 1 to {WINDOW_DAYS_MAX}")
    if new.windows and not partitions.is_mail(name):
        raise TopologyRefused(f"{name} holds no mail: windows are for mail alone, all else is kept whole")
    if new.remote and new.copies and all(windowed(new, site) for site in new.copies):
        raise TopologyRefused(
            f"{name}: durability remote needs a copy that keeps everything, and those at {', '.join(new.copies)} keep a window"
        )
    if new.remote and not new.copies:
        raise TopologyRefused(f"{name}: durability remote needs a copy somewhere, and it has none")
    if new.strict and not new.remote:
        raise TopologyRefused(f"{name}: strict says what `remote` does without its copies; with local it means nothing")
    if now is not None and now.copies and not new.copies:
        raise TopologyRefused(f"{name}: its only copy would go, and all of it with the next disk")
    if name == partitions.DIRECTORY and (missing := set(sites) - {new.home, *new.copies}):
        raise TopologyRefused(
            f"the directory must be at every site, for sign-in; it would not be at {', '.join(sorted(missing))}"
        )
    changed = now is None or (now.pinned, now.copies) != (new.pinned, new.copies)
    if changed and new.copies and not new.pinned and voters < QUORUM_MEMBERS_MIN:
        raise TopologyRefused(
            f"{name}: no quorum: {voters} members of the backbone cannot decide who is home when one is gone; add a third "
            'site or a witness, or say failover = "command"'
        )


# ── the way there ────────────────────────────────────────────────────────────────────────────────────────────────────


def plan(records: Mapping[str, Partition], new: Mapping[str, Partition]) -> tuple[Step, ...]:
    """From the records as they are to those wanted. Empty where nothing differs."""
    return tuple(step for name, partition in new.items() for step in way(records.get(name), partition))


def way(now: Partition | None, new: Partition) -> tuple[Step, ...]:
    """Of one partition."""
    if now is None:
        return (Create(new.name, new.home, new.copies, new.remote, new.strict, new.pinned, new.windows),)
    steps: list[Step] = []
    there = (now.home, *now.copies)
    coming = tuple(site for site in (new.home, *new.copies) if site not in there)
    copies = now.copies
    if coming:
        copies = (*copies, *coming)
        fresh = {site: days for site, days in new.windows.items() if site in coming}  # never whole, to be thrown away
        steps.append(Place(now.name, copies, now.remote, now.strict, now.pinned, {**now.windows, **fresh}))
        steps += [Level(now.name, site) for site in coming]
    if new.home != now.home:
        if new.home not in coming:
            steps.append(Level(now.name, new.home))
        steps.append(Move(now.name, new.home))
        copies = moved(copies, now.home, new.home)
    leaving = set(copies) - set(new.copies)
    if leaving:
        # What stays must be whole before what leaves is let go.
        steps += [Level(now.name, site) for site in new.copies if site not in coming]
    settings = _settings(now) != _settings(new)
    if leaving or settings:
        kept = new.copies if leaving else copies
        steps.append(Place(now.name, kept, new.remote, new.strict, new.pinned, new.windows))
    return tuple(steps)


def _settings(partition: Partition) -> tuple[object, ...]:
    return partition.remote, partition.strict, partition.pinned, partition.windows


def moved(copies: tuple[str, ...], home: str, to: str) -> tuple[str, ...]:
    """The copies after a home moved, as `partitions.switchover` leaves them."""
    return tuple(site for site in (home, *copies) if site != to)


def placed(partition: Partition, step: Place) -> Partition:
    """The record after a Place. Members that are copies no more go with it."""
    members = tuple(member for member in partition.members if member.site in step.copies)
    return msgspec.structs.replace(
        partition,
        copies=step.copies,
        members=members,
        remote=step.remote,
        strict=step.strict,
        pinned=step.pinned,
        windows=step.windows,
    )


# ── what is ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def described(records: Mapping[str, Partition], sites: tuple[str, ...]) -> Topology:
    """Today's placement, every partition written out, so that it may be applied again and changes nothing."""
    people = [record for name, record in records.items() if name.startswith("mail-")]
    homes = {record.home for record in people}
    kind: Kind = "active-active" if len(homes) > 1 or len(sites) == 1 else "active-passive"
    apart = [record for record in records.values() if record.copies]
    failover: Literal["automatic", "command"] = "automatic"
    if apart and all(record.pinned for record in apart):
        failover = "command"
    elif people and all(record.pinned and record.copies for record in people):
        kind = "hybrid"
    return Topology(
        kind,
        sites,
        failover,
        partitions={
            name: Placement(
                record.home,
                record.copies,
                "remote" if record.remote else "local",
                record.strict,
                record.pinned,
                record.windows,
            )
            for name, record in sorted(records.items())
            if not partitions.is_spool(name)
        },
    )
