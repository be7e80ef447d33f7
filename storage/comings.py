"""Sites that go for good, and a site's nodes that come and go: what is planned of it (cluster.control.leaving) and done. Who
belongs to the organisation, and how many processes serve here, is known above this floor and comes in by two ports.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

import structlog

from cluster.control.leaving import AnyStep, Goodbye, Remove, Start, Staying, Stop, farewell
from cluster.control.partitions import Partition
from cluster.control.roster import Roster
from cluster.control.topology import Leave, TopologyRefused
from cluster.domain.actor import Actor
from cluster.domain.refusal import Reason, Refusal
from cluster.log.model import LogUnavailable
from cluster.log.operations import Operations, Told, View

NODES_MAX = 64  # at one site
STARTED_S_MAX = 120.0  # for one more node to serve: its tables are its site's, and there already
GIVEN_UP_S = 10.0  # for which there is no process of it: it ended, and is not started again
STOPPED_S_MAX = 60.0  # for one to end, when its sessions have finished what they are at
LOOK_EVERY_S = 0.3
SAID_S = 3.0  # for a process that stops itself to say what it did

log = structlog.get_logger("comings")

LISTED_BY_HAND = Refusal(
    Reason.CONFLICT, "The sites were listed by hand, with keys that all share (`init --member`): none can be shut out."
)
ALONE = Refusal(Reason.CONFLICT, "This site was made to stay alone: there is no other to be removed.")
NOT_KEPT = "nothing that keeps nodes running (`angarium up`) runs at this site"


class Membership(Protocol):
    async def without(self, site: str) -> tuple[Roster, Roster] | Refusal:
        """Who belongs to the organisation, today and without that site; equal if it was shut out before. Or why it cannot be
        shut out from here."""
        ...

    async def shut_out(self, site: str, by: str) -> str | Refusal:
        """Without it; what an operator should know, empty = nothing."""
        ...


class Nodes(Protocol):
    """The processes of this site, numbered from 0."""

    @property
    def count(self) -> int:
        """How many there shall be; 0 = nobody here starts or stops any."""
        ...

    async def keep(self, count: int, *, after_s: float = 0.0) -> None:
        """So many at every start, and now, in so many seconds. Raises OSError or ValueError with the reason."""
        ...

    def runs(self, number: int) -> bool: ...


class Comings:
    """`sites_by_hand`: there are other sites, and no roster of them."""

    def __init__(
        self,
        operations: Operations,
        membership: Membership | None,
        nodes: Nodes,
        now: Callable[[], float],
        *,
        node: str,
        sites_by_hand: bool = False,
    ) -> None:
        self._operations = operations
        self._membership = membership
        self._nodes = nodes
        self._now = now
        self._me = node
        self._none = LISTED_BY_HAND if sites_by_hand else ALONE

    # ── what is planned ──────────────────────────────────────────────────────────────────────────────────────────────

    async def farewell(
        self, actor: Actor, site: str, view: View, heir: Callable[[Partition], str]
    ) -> list[AnyStep] | Refusal:
        if self._membership is None:
            return self._none
        rosters = await self._membership.without(site)
        if isinstance(rosters, Refusal):
            return rosters
        now, after = rosters
        if now == after and not _named(site, view):
            return []  # it was shut out, and nothing of it is left
        here = view.here(site)
        if held := await self._held(site, view, member=now != after):
            return Refusal(Reason.CONFLICT, f"{held}.", (site,))
        sites = tuple(member.site for member in after.members if member.role == "site")
        staying = Staying(sites, len(after.formed), len(now.formed))
        try:
            return list(farewell(view.records, Goodbye(site, actor.name), staying, heir, here=here))
        except TopologyRefused as error:
            return Refusal(Reason.CONFLICT, f"{error}.", (site,))

    async def _held(self, site: str, view: View, *, member: bool) -> str:
        """What would be lost with it, or with one that is away, by its last word."""
        if view.here(site):
            return await self._operations.holds(site)
        left = view.spooled(site) if member else 0
        start = f"start it, or give them up: `angarium cluster revoke {site}` first"
        return f"{site} is away, and by its last word {left} messages are in its spool: {start}" if left else ""

    def new_node(self, view: View) -> list[AnyStep] | Refusal:
        count = self._nodes.count
        if not count:
            return Refusal(Reason.CONFLICT, f"No node can be started: {NOT_KEPT}.")
        if count >= NODES_MAX:
            return Refusal(Reason.CONFLICT, f"{view.site} has {count} nodes, and may have {NODES_MAX}.")
        return [Start(view.site, named(view.site, count))]

    def parting(self, view: View, node: str) -> list[AnyStep] | Refusal:
        """The last one: they are numbered without a gap, at the next start too."""
        count, site = self._nodes.count, view.site
        if not count:
            return Refusal(Reason.CONFLICT, f"No node can be stopped: {NOT_KEPT}.")
        own = [named(site, number) for number in range(count)]
        if node not in own:
            elsewhere = next((seen.node.site for seen in view.nodes if seen.node.node == node), "")
            if elsewhere and elsewhere != site:
                return Refusal(Reason.CONFLICT, f"{node} is of {elsewhere}: say it there.", (node,))
            return Refusal(Reason.NO_SUCH_ENTRY, f"There is no node {node} here; there are {', '.join(own)}.", (node,))
        if count == 1:
            return Refusal(
                Reason.CONFLICT,
                f"{node} is the only node of {site}: `cluster site drain`, then stop the site.",
                (node,),
            )
        if node != own[-1]:
            text = f"Nodes are numbered from 0 without a gap, so {own[-1]} goes first."
            return Refusal(Reason.CONFLICT, text, (node,))
        here = any(seen.node.node == node and seen.here for seen in view.nodes)
        return [*([Leave(site, node)] if here else []), Stop(site, node)]

    # ── what is done ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def do(self, actor: Actor, step: AnyStep) -> AsyncIterator[int | str]:
        """One step: numbers while it waits, at last perhaps a warning. Raises LogUnavailable with the reason."""
        match step:
            case Remove():
                assert self._membership is not None
                done = await self._membership.shut_out(step.site, actor.name)
                if isinstance(done, Refusal):
                    raise LogUnavailable(done.text)
                yield done
            case Start():
                await self._start(step)
            case Stop():
                await self._stop(step)
            case _:
                async for behind in self._operations.do(step):
                    yield behind

    async def _start(self, step: Start) -> None:
        count = self._nodes.count
        await self._keep(count + 1)
        began = ran_at = self._now()
        while True:
            try:
                await self._operations.tell(step.site, step.node, Told("ask"))
                return
            except LogUnavailable as error:
                now = self._now()
                ran_at = now if self._nodes.runs(count) else ran_at
                if now > min(began + STARTED_S_MAX, ran_at + GIVEN_UP_S):
                    await self._keep(count)
                    raise LogUnavailable(f"{step.node} does not come up, see the log of {step.site}: {error}") from None
            await asyncio.sleep(LOOK_EVERY_S)

    async def _stop(self, step: Stop) -> None:
        """The process that does it may be the one that goes: then it says so before it ends."""
        count = self._nodes.count
        try:
            await self._operations.tell(step.site, step.node, Told("stop"))
        except LogUnavailable as error:
            log.info("a node that is stopped does not answer", node=step.node, why=str(error))
        if step.node == self._me:
            await self._keep(count - 1, after_s=SAID_S)
            return
        await self._keep(count - 1)
        deadline = self._now() + STOPPED_S_MAX
        while self._nodes.runs(count - 1):
            if self._now() > deadline:
                raise LogUnavailable(f"{step.node} has not ended after {STOPPED_S_MAX:.0f} s; it takes nothing new")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _keep(self, count: int, *, after_s: float = 0.0) -> None:
        try:
            await self._nodes.keep(count, after_s=after_s)
        except (OSError, ValueError) as error:
            raise LogUnavailable(f"{error}") from error


def named(site: str, number: int) -> str:
    return f"{site}-{number}"


def _named(site: str, view: View) -> bool:
    """Whether anything is left of it."""
    records: Mapping[str, Partition] = view.records
    of_records = any(site in (record.home, *record.copies) for record in records.values())
    return of_records or any(seen.node.site == site for seen in view.nodes)
