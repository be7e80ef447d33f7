"""All sites as one of them sees them, in the shape in which an operator is told."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from cluster import partitions
from cluster.control.partitions import Partition, windowed
from cluster.log.operations import View
from cluster.position import shown
from storage.postgres.compared import Agreement


class NodeSeen(msgspec.Struct, frozen=True):
    """`silent_s`: since a new word of it was heard. `leads`: partitions whose appender it is."""

    node: str
    here: bool
    version: str
    silent_s: float
    leads: tuple[str, ...]


class SiteSeen(msgspec.Struct, frozen=True):
    """`link_ms`: there and back from the site that answers; null = it did not answer, or is that site itself. `spooled`:
    messages that it took in and that no queue has yet, by its own last word."""

    site: str
    here: bool
    link_ms: float | None
    homes: int
    nodes: tuple[NodeSeen, ...]
    spooled: int = 0


class CopySeen(msgspec.Struct, frozen=True):
    """`lag_…`: how far it is behind what it knows of the home, null = it never said. `member`: it may follow the home by
    itself, and with durability `remote` every acknowledgement waits for it. `window_days`: for how long content stays
    there, 0 = for ever."""

    site: str
    here: bool
    member: bool
    position: str | None
    lag_messages: int | None
    lag_bytes: int | None
    lag_seconds: float | None
    window_days: int = 0


class Placed(msgspec.Struct, frozen=True):
    """`lease_age_s`: since its lease was seen renewed. `digest`: up to where the tables of the site that answers were
    found equal to the others', or where they differ; null = they were not compared."""

    partition: str
    home: str
    epoch: int
    node: str | None
    lease_age_s: float | None
    durability: Literal["local", "remote"]
    strict: bool
    pinned: bool
    members: tuple[str, ...]
    copies: tuple[CopySeen, ...]
    digest: str | None = None


class Overview(msgspec.Struct, frozen=True):
    """As one site sees it. `quorum`: whether the control plane takes its writes; without it the rest is what was last
    known, and `note` says so."""

    site: str
    quorum: bool
    note: str
    sites: tuple[SiteSeen, ...]
    partitions: tuple[Placed, ...]


def overview(view: View, agreements: Sequence[Agreement]) -> Overview:
    note = ""
    if not view.quorum:
        when = (
            "never took a write of it"
            if view.silent_s is None
            else f"last took a write of it {view.silent_s:.0f} s ago"
        )
        note = (
            f"{view.site} is without the quorum: the control plane {when}. What stands here is what was known then. Reads go "
            "on, and mail is taken in and waits in the spool; of the homes here only pinned ones take other writes until most "
            "members of the backbone see each other again."
        )
    return Overview(
        view.site,
        view.quorum,
        note,
        tuple(_site(site, view) for site in view.sites),
        tuple(
            _placed(record, view, [each for each in agreements if each.partition == name and each.site in (record.home, *record.copies)])
            for name, record in sorted(view.records.items())
        ),
    )


def _site(site: str, view: View) -> SiteSeen:
    nodes = tuple(
        NodeSeen(seen.node.node, seen.here, seen.node.version, round(seen.silent_s, 1), seen.node.leads)
        for seen in view.nodes
        if seen.node.site == site
    )
    ms = view.links.get(site)
    homes = sum(record.home == site for name, record in view.records.items() if not partitions.is_spool(name))
    link = None if ms is None else round(ms, 1)
    return SiteSeen(site, view.here(site), link, homes, nodes, view.spooled(site))


def _digest(agreements: Sequence[Agreement]) -> str | None:
    differing = [
        f"differs from {each.site} at {shown(each.differs)}" for each in agreements if each.differs is not None
    ]
    if differing or not agreements:
        return "; ".join(differing) or None
    sites = " ".join(each.site for each in agreements)
    return f"equal to {sites} up to {shown(min(each.agreed for each in agreements))}"


def _placed(record: Partition, view: View, agreements: Sequence[Agreement]) -> Placed:
    members = view.members(record)
    age = view.ages.get(record.name)
    copies = []
    for site in record.copies:
        said = view.copy(record.name, site)
        lag: tuple[int | None, int | None, float | None] = (None, None, None)
        if said is not None:
            lag = (said.messages, said.bytes, round(said.seconds, 1))
        where = None if said is None else shown(said.position)
        copies.append(CopySeen(site, view.here(site), site in members, where, *lag, windowed(record, site)))
    return Placed(
        record.name,
        record.home,
        record.epoch,
        record.holder.node if record.holder is not None else None,
        None if age is None else round(age, 1),
        "remote" if record.remote else "local",
        record.strict,
        record.pinned,
        members,
        tuple(copies),
        _digest(agreements),
    )
