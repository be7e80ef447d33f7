"""All sites: what is where, and how it is moved. Every change streams its plan, then what was done."""

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from msgspec import UNSET, UnsetType

from cluster.domain.refusal import Reason, Refusal
from protocols.admin.door import Answer, Call, Door
from protocols.admin.errors import of_refusal
from protocols.admin.model import (
    ClusterLine,
    Drain,
    Failover,
    Finished,
    NewPartition,
    PartitionChange,
    PlanOnly,
    Switchover,
)
from protocols.admin.port import Change, Cluster, Line, Planned, Topology
from protocols.admin.streams import closed

NO_CLUSTER = Refusal(Reason.UNAVAILABLE, "There is no control plane behind this door.")

T = TypeVar("T")
Work = Callable[[Cluster], AsyncIterator[Line]]


async def show(door: Door, call: Call) -> Answer:
    return NO_CLUSTER if door.cluster is None else await door.cluster.overview()


async def topology(door: Door, call: Call) -> Answer:
    return NO_CLUSTER if door.cluster is None else await door.cluster.topology()


def apply(door: Door, call: Call) -> AsyncIterator[ClusterLine]:
    asked: PlanOnly = call.query
    wanted: Topology = call.body
    return _lines(door, lambda cluster: cluster.apply(call.actor, wanted, only_plan=asked.plan), asked.plan)


def switchover(door: Door, call: Call) -> AsyncIterator[ClusterLine]:
    asked: Switchover = call.body
    if not asked.partitions and not asked.away_from:
        return _refused("Name partitions, or a site from which all are to move.")

    def moved(cluster: Cluster) -> AsyncIterator[Line]:
        return cluster.switchover(call.actor, asked.partitions, asked.to, asked.away_from, only_plan=asked.plan)

    return _lines(door, moved, asked.plan)


def failover(door: Door, call: Call) -> AsyncIterator[ClusterLine]:
    asked: Failover = call.body
    if not asked.force and not asked.plan:
        return _refused("What the copy lacks would be rolled back: look at the plan, then say `force`.")

    def taken(cluster: Cluster) -> AsyncIterator[Line]:
        return cluster.failover(call.actor, asked.partitions, asked.to, only_plan=asked.plan)

    return _lines(door, taken, asked.plan)


def drain_site(door: Door, call: Call) -> AsyncIterator[ClusterLine]:
    asked: Drain = call.body
    site = call.path["site"]
    return _lines(door, lambda cluster: cluster.switchover(call.actor, (), "", site, only_plan=asked.plan), asked.plan)


def drain_node(door: Door, call: Call) -> AsyncIterator[ClusterLine]:
    asked: Drain = call.body
    node = call.path["node"]
    return _lines(door, lambda cluster: cluster.drain_node(call.actor, node, only_plan=asked.plan), asked.plan)


def remove_site(door: Door, call: Call) -> AsyncIterator[ClusterLine]:
    asked: Drain = call.body
    site = call.path["site"]
    return _lines(door, lambda cluster: cluster.remove_site(call.actor, site, only_plan=asked.plan), asked.plan)


def add_node(door: Door, call: Call) -> AsyncIterator[ClusterLine]:
    asked: Drain = call.body
    return _lines(door, lambda cluster: cluster.add_node(call.actor, only_plan=asked.plan), asked.plan)


def remove_node(door: Door, call: Call) -> AsyncIterator[ClusterLine]:
    asked: Drain = call.body
    node = call.path["node"]
    return _lines(door, lambda cluster: cluster.remove_node(call.actor, node, only_plan=asked.plan), asked.plan)


def add(door: Door, call: Call) -> AsyncIterator[ClusterLine]:
    new: NewPartition = call.body
    change = Change(
        new.home or None, _given(new.copies), new.durability, new.strict, new.pinned, _given(new.windows)
    )
    return _lines(door, lambda cluster: cluster.add(call.actor, new.name, change, only_plan=new.plan), new.plan)


def change(door: Door, call: Call) -> AsyncIterator[ClusterLine]:
    asked: PartitionChange = call.body
    name = call.path["partition"]
    wanted = Change(
        _given(asked.home),
        _given(asked.copies),
        _given(asked.durability),
        _given(asked.strict),
        _given(asked.pinned),
        _given(asked.windows),
    )
    return _lines(door, lambda cluster: cluster.change(call.actor, name, wanted, only_plan=asked.plan), asked.plan)


def _given(value: T | UnsetType) -> T | None:
    return None if value is UNSET else value


async def _refused(text: str) -> AsyncIterator[ClusterLine]:
    yield of_refusal(Refusal(Reason.CONFLICT, text))


async def _lines(door: Door, work: Work, plan: bool) -> AsyncIterator[ClusterLine]:
    if door.cluster is None:
        yield of_refusal(NO_CLUSTER)
        return
    steps = 0
    async with closed(work(door.cluster)) as lines:
        async for line in lines:
            if isinstance(line, Refusal):
                yield of_refusal(line)
                return
            steps += isinstance(line, Planned)
            yield line
    if not steps:
        yield Finished("everything is so already")
    else:
        yield Finished(f"{steps} steps, none of them done" if plan else f"{steps} steps done")
