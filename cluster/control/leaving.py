"""How a site goes for good, and how a site's nodes come and go: steps beside those of the topology. Pure.

A site goes in good order: homes move away, then its copies are let go (what stays is whole before), then what it holds
back for other sites is waited for, then it takes nothing more, and only then the others shut it out.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from cluster import partitions
from cluster.control.partitions import Partition
from cluster.control.topology import QUORUM_MEMBERS_MIN, Step, TopologyRefused, check, way


class Empty(msgspec.Struct, frozen=True, tag="empty"):
    """Waits until nothing is in the site's spool."""

    partition: str
    site: str


class Goodbye(msgspec.Struct, frozen=True, tag="goodbye"):
    """The site's nodes are told: from now on they lead nothing and keep no copy. `by`: who has it removed."""

    site: str
    by: str


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    """It is no member any more: the others shut it out and forget what it said of itself. `away`: nobody asked it."""

    site: str
    away: bool = False


class Start(msgspec.Struct, frozen=True, tag="start"):
    """One more node at its site."""

    site: str
    node: str


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """One node less. It leads nothing any more."""

    site: str
    node: str


AnyStep = Step | Empty | Goodbye | Remove | Start | Stop


class Staying(NamedTuple):
    """Who is there without it. `sites`: those that keep mail; `voters` keep the control plane then, `voters_now` today."""

    sites: tuple[str, ...]
    voters: int
    voters_now: int


def farewell(
    records: Mapping[str, Partition],
    goodbye: Goodbye,
    staying: Staying,
    heir: Callable[[Partition], str],
    *,
    here: bool,
) -> tuple[AnyStep, ...]:
    """All that is done until the site is gone. `heir`: which copy is to be home, empty = none can. `here`: whether it answers;
    one that does not has no home any more. Raises TopologyRefused."""
    site = goodbye.site
    names = [
        name
        for name in sorted(records, key=lambda name: (name == partitions.DIRECTORY, name))
        if not partitions.is_spool(name)
    ]
    if not here and (lost := [name for name in names if records[name].home == site]):
        raise TopologyRefused(
            f"{site} is away, and at home there are {', '.join(lost)}: take them over first, as far as their copies are "
            f"(`angarium cluster failover {' '.join(lost)} --to SITE --force`)"
        )
    _quorum([records[name] for name in names], staying)
    steps: list[AnyStep] = []
    for name in names:
        now = records[name]
        if site in (now.home, *now.copies):
            new = _without(now, site, heir)
            _fit(now, new, site, staying)
            steps += way(now, new)
    spool = partitions.spool(site)
    if here:
        steps += [Empty(spool, site)] if spool in records else []
        steps.append(goodbye)
    return (*steps, Remove(site, not here))


def _quorum(records: list[Partition], staying: Staying) -> None:
    if staying.voters >= QUORUM_MEMBERS_MIN or staying.voters_now < QUORUM_MEMBERS_MIN:
        return
    leased = [record.name for record in records if not record.pinned]
    if leased:
        raise TopologyRefused(
            f"no quorum: {staying.voters} members of the backbone would be left, which cannot decide who is home of "
            f"{', '.join(leased)} when one of them is gone; let a witness or another site join first, or say "
            'failover = "command" (each partition pinned)'
        )


def _without(now: Partition, site: str, heir: Callable[[Partition], str]) -> Partition:
    home = now.home
    if home == site:
        home = heir(now)
        if not home:
            raise TopologyRefused(
                f"{now.name} is at home at {site}, and no other site that is here has a whole copy of it: make one first "
                f"(`angarium cluster partition move {now.name} --copies SITE`)"
            )
    copies = tuple(each for each in now.copies if each not in (site, home))
    windows = {each: days for each, days in now.windows.items() if each != site}
    return msgspec.structs.replace(now, home=home, copies=copies, windows=windows)


def _fit(now: Partition, new: Partition, site: str, staying: Staying) -> None:
    """Raises TopologyRefused. Where one site stays alone nothing can have a copy."""
    if not new.copies and len(staying.sites) > 1:
        raise TopologyRefused(
            f"{now.name} would be at {new.home} alone, and all of it gone with that disk: give it another copy first "
            f"(`angarium cluster partition move {now.name} --copies SITE`)"
        )
    if new.remote and not new.copies:
        raise TopologyRefused(
            f"{now.name} has durability remote, and {site} the only copy: say first that it is local "
            f"(`angarium cluster partition set {now.name} --durability local --not-strict`)"
        )
    check(new, msgspec.structs.replace(now, copies=new.copies), staying.sites, staying.voters)
