"""What an administrator may ask of the site beyond `Site`: to look at the directory, the log and the engines, and to
start long work. Implemented once, by the floors below; changes of the directory go through `Site.execute`.

Addresses are taken as people type them and given in canonical form. Lists are ordered by their key (a domain or an
address), which is also the cursor: a page begins after `after`.
"""

from collections.abc import AsyncIterator
from typing import Protocol

from cluster.control.topology import Placement, Topology
from cluster.domain.actor import Actor
from cluster.domain.refusal import Refusal
from storage.inspection import Finding
from storage.mending import Report, Salvaged
from storage.operating import Change, Did, Line, Planned
from storage.overview import AccountRow, Alias, Domain, Engine, Group, Logged, Partition, Progress, Quarantined, State
from storage.sites_seen import Overview

__all__ = [
    "AccountRow",
    "Administration",
    "Alias",
    "Change",
    "Cluster",
    "Did",
    "Domain",
    "Finding",
    "Engine",
    "Group",
    "Line",
    "Mending",
    "Logged",
    "Overview",
    "Partition",
    "Placement",
    "Planned",
    "Progress",
    "Quarantined",
    "Report",
    "Salvaged",
    "State",
    "Topology",
]


class Administration(Protocol):
    """Nothing here raises for the outside's sake: refusals are values (NO_SUCH_…, UNAVAILABLE). Long work that fails
    ends its iterator with a Refusal; closing the iterator stops the work and leaves the site as it was."""

    async def domains(self, *, after: str, limit: int) -> list[Domain] | Refusal: ...

    async def domain(self, domain: str) -> Domain | Refusal: ...

    async def accounts(self, *, domain: str, after: str, limit: int) -> list[AccountRow] | Refusal:
        """Of one domain, or of all where `domain` is empty."""
        ...

    async def account(self, address: str) -> AccountRow | Refusal: ...

    async def aliases(self, *, domain: str, after: str, limit: int) -> list[Alias] | Refusal: ...

    async def alias(self, address: str) -> Alias | Refusal: ...

    async def groups(self, *, domain: str, after: str, limit: int) -> list[Group] | Refusal: ...

    async def group(self, address: str) -> Group | Refusal: ...

    async def place(self, address: str) -> str | Refusal:
        """The partition in which a new account's mail is to be kept."""
        ...

    def log_tail(self, partition: str, *, after: int, follow: bool) -> AsyncIterator[Logged | Refusal]:
        """Events above `after`, in each partition's order; all partitions where `partition` is empty. Without `follow` it
        ends at the mark, with it never."""
        ...

    async def state(self) -> State | Refusal: ...

    def rebuild(self) -> AsyncIterator[Progress | Refusal]:
        """The tables from the log, beside the living ones, and their exchange at the end."""
        ...

    def backup(self, target: str) -> AsyncIterator[Progress | Refusal]:
        """A verified backup in the new folder `target` (absolute path on the site's machine)."""
        ...


class Cluster(Protocol):
    """All sites, as an operator sees and changes them from this one. Every change gives its plan first (Planned), and then,
    unless only that was wanted, what was done (Did, Progress); a Refusal ends it. Closing the iterator stops before the next
    step."""

    async def overview(self) -> Overview: ...

    async def topology(self) -> Topology | Refusal: ...

    async def partition(self, name: str) -> Refusal | None:
        """Whether there is one of this name."""
        ...

    def switchover(
        self, actor: Actor, names: tuple[str, ...], to: str, away_from: str, *, only_plan: bool
    ) -> AsyncIterator[Line]:
        """Homes move without loss: of those named, or all of a site (`away_from`). `to` empty: to the nearest copy."""
        ...

    def failover(self, actor: Actor, names: tuple[str, ...], to: str, *, only_plan: bool) -> AsyncIterator[Line]: ...

    def add(self, actor: Actor, name: str, change: Change, *, only_plan: bool) -> AsyncIterator[Line]: ...

    def change(self, actor: Actor, name: str, change: Change, *, only_plan: bool) -> AsyncIterator[Line]: ...

    def apply(self, actor: Actor, topology: Topology, *, only_plan: bool) -> AsyncIterator[Line]: ...

    def drain_node(self, actor: Actor, node: str, *, only_plan: bool) -> AsyncIterator[Line]: ...

    def remove_site(self, actor: Actor, site: str, *, only_plan: bool) -> AsyncIterator[Line]:
        """For good: its homes and copies go elsewhere, then it is shut out."""
        ...

    def add_node(self, actor: Actor, *, only_plan: bool) -> AsyncIterator[Line]:
        """One more process at this site, at every start too."""
        ...

    def remove_node(self, actor: Actor, node: str, *, only_plan: bool) -> AsyncIterator[Line]:
        """The last one of this site."""
        ...


class Mending(Protocol):
    """What a failover or a disk left for an operator to settle, as far as it lies in this site's tables and log."""

    async def salvaged(self, *, settled: bool) -> Salvaged | Refusal:
        """Open reports, or all; and the tails that lie here and are not in history yet."""
        ...

    async def report(self, partition: str, position: int) -> Report | Refusal: ...

    async def settle(self, actor: Actor, partition: str, position: int, *, applied: bool) -> Report | Refusal:
        """Once: CONFLICT where it is settled already, NO_SUCH_ENTRY where there is none."""
        ...

    async def give_up(self, actor: Actor, partition: str, epoch: int) -> Refusal | None:
        """Nobody will bring what is left of that epoch's tail."""
        ...

    def verify(
        self, partitions: tuple[str, ...], *, deep: bool, heal: bool
    ) -> AsyncIterator[Progress | Finding | Refusal]:
        """Compares with every other site; all partitions that are here if none is named. `deep`: reads every log whole."""
        ...
