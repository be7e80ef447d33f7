"""How an operator sees and changes the system of all sites, from any of them: implements `protocols.admin.port.Cluster`.

Everything that is changed is first a plan, a list of steps (cluster.control.topology); each step that was done is a fact of
the directory, with who did it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Literal

import msgspec
import structlog

from cluster import partitions
from cluster.control.leaving import AnyStep, Empty, Goodbye, Remove, Start, Stop
from cluster.control.partitions import Partition, windowed
from cluster.control.topology import (
    Create,
    Force,
    Leave,
    Level,
    Move,
    Place,
    Topology,
    TopologyRefused,
    check,
    described,
    plan,
    wanted,
    way,
)
from cluster.domain.actor import Actor
from cluster.domain.directory.commands import RecordTopology
from cluster.domain.refusal import Reason, Refusal
from cluster.log.model import LogUnavailable
from cluster.log.operations import Operations, View, hindrance
from storage.comings import Comings
from storage.overview import Progress
from storage.postgres.compared import Agreement
from storage.postgres.pool import AWAY
from storage.shapes import Done
from storage.sites_seen import Overview, overview

RECORD_S_MAX = 20.0  # for the directory to have a home again that writes down what was done
TRY_AGAIN_S = 0.5
SPOOL_S_MAX = 60.0  # for what a site holds to go into its queue

STAYS = Refusal(Reason.UNAVAILABLE, "Sites and nodes cannot be changed from this process.")

log = structlog.get_logger("operating")

Execute = Callable[[Actor, RecordTopology], Awaitable[Done | Refusal]]
Agreements = Callable[[], Awaitable[Sequence[Agreement]]]


# ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────────────


class Planned(msgspec.Struct, frozen=True, tag_field="kind", tag="step"):
    """`refused`: why it cannot be done as things stand; empty = it can."""

    number: int
    action: str
    partition: str
    site: str
    text: str
    refused: str
    lag_messages: int | None
    lag_seconds: float | None


class Did(msgspec.Struct, frozen=True, tag_field="kind", tag="did"):
    """`seconds`: how long it took, until the home answered; of a move, about what a writer waited. `warning`: what whoever
    watches should know."""

    number: int
    action: str
    partition: str
    text: str
    seconds: float
    warning: str = ""


Line = Planned | Did | Progress | Refusal


class Change(msgspec.Struct, frozen=True):
    """Of one partition; None = as it is. `windows`: of the sites named, in days; 0 = all is kept there."""

    home: str | None = None
    copies: tuple[str, ...] | None = None
    durability: Literal["local", "remote"] | None = None
    strict: bool | None = None
    pinned: bool | None = None
    windows: Mapping[str, int] | None = None


# ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────────────


class Operating:
    """`agreements`: what the site noted of comparisons with others; raises AWAY. `now`: seconds that only rise. `comings`:
    None = sites and nodes stay as they are."""

    def __init__(
        self,
        operations: Operations,
        execute: Execute,
        agreements: Agreements,
        now: Callable[[], float],
        comings: Comings | None = None,
    ) -> None:
        self._operations = operations
        self._comings = comings
        self._agreements = agreements
        self._execute = execute
        self._now = now

    async def serve(self) -> None:
        """For ever."""
        await self._operations.serve()

    async def overview(self) -> Overview:
        view = await self._operations.look()
        try:
            return overview(view, await self._agreements())
        except AWAY:
            return overview(view, ())

    async def topology(self) -> Topology | Refusal:
        view = await self._operations.look()
        if not view.records:
            return Refusal(Reason.UNAVAILABLE, "The control plane does not answer, and nothing is noted here yet.")
        return described(view.records, view.sites)

    async def partition(self, name: str) -> Refusal | None:
        """Whether there is one of this name."""
        view = await self._operations.look()
        return None if name in view.records else _no_partition(name, view)

    async def switchover(
        self, actor: Actor, names: tuple[str, ...], to: str, away_from: str, *, only_plan: bool
    ) -> AsyncIterator[Line]:
        """Of the partitions named, or of all at home at `away_from`. `to` empty: each to the copy that is nearest."""
        view = await self._operations.look()
        steps: list[AnyStep] | Refusal = _moves(view, names, to, away_from)
        done = not only_plan
        async for line in self._carry_out(actor, steps, view, only_plan):
            done = done and not isinstance(line, Refusal)
            yield line
        if done and away_from:
            async for line in self._spool_empties(away_from):
                yield line

    async def failover(self, actor: Actor, names: tuple[str, ...], to: str, *, only_plan: bool) -> AsyncIterator[Line]:
        """Takes them over by force, with what the copy there has."""
        view = await self._operations.look()
        refused = next((_no_partition(name, view) for name in names if name not in view.records), _no_site(to, view))
        steps: list[AnyStep] | Refusal = refused or [Force(name, to) for name in names]
        async for line in self._carry_out(actor, steps, view, only_plan):
            yield line

    async def add(self, actor: Actor, name: str, change: Change, *, only_plan: bool) -> AsyncIterator[Line]:
        """Copies at all other sites, where the change says nothing of them."""
        view = await self._operations.look()
        home = change.home or view.site
        copies = tuple(site for site in view.sites if site != home)
        new = _changed(Partition(name, home, copies=copies), change)
        exists = Refusal(Reason.CONFLICT, f"There is a partition {name} already.", (name,))
        steps = exists if name in view.records else _way(None, new, view)
        async for line in self._carry_out(actor, steps, view, only_plan):
            yield line

    async def change(self, actor: Actor, name: str, change: Change, *, only_plan: bool) -> AsyncIterator[Line]:
        view = await self._operations.look()
        record = view.records.get(name)
        steps = _no_partition(name, view) if record is None else _way(record, _changed(record, change), view)
        async for line in self._carry_out(actor, steps, view, only_plan):
            yield line

    async def apply(self, actor: Actor, topology: Topology, *, only_plan: bool) -> AsyncIterator[Line]:
        view = await self._operations.look()
        steps: list[AnyStep] | Refusal
        try:
            steps = list(plan(view.records, wanted(view.records, topology, view.sites, view.voters)))
        except TopologyRefused as error:
            steps = Refusal(Reason.CONFLICT, f"{error}.")
        async for line in self._carry_out(actor, steps, view, only_plan):
            yield line

    async def drain_node(self, actor: Actor, node: str, *, only_plan: bool) -> AsyncIterator[Line]:
        """Its leases go to other nodes of its site, until it is started again."""
        view = await self._operations.look()
        site = next((seen.node.site for seen in view.nodes if seen.node.node == node), "")
        steps: list[AnyStep] | Refusal = [Leave(site, node)]
        if not site:
            known = ", ".join(seen.node.node for seen in view.nodes)
            steps = Refusal(Reason.NO_SUCH_ENTRY, f"There is no node {node}; there are {known}.", (node,))
        async for line in self._carry_out(actor, steps, view, only_plan):
            yield line

    async def remove_site(self, actor: Actor, site: str, *, only_plan: bool) -> AsyncIterator[Line]:
        """For good: homes and copies go elsewhere, then it is shut out."""
        view = await self._operations.look()
        steps: list[AnyStep] | Refusal = STAYS
        if self._comings is not None:
            steps = await self._comings.farewell(actor, site, view, lambda record: _nearest(record, view))
        async for line in self._carry_out(actor, steps, view, only_plan):
            yield line

    async def add_node(self, actor: Actor, *, only_plan: bool) -> AsyncIterator[Line]:
        """One more at this site, at every start too."""
        view = await self._operations.look()
        steps = STAYS if self._comings is None else self._comings.new_node(view)
        async for line in self._carry_out(actor, steps, view, only_plan):
            yield line

    async def remove_node(self, actor: Actor, node: str, *, only_plan: bool) -> AsyncIterator[Line]:
        """The last one of this site: its leases go to others, and it is not started again."""
        view = await self._operations.look()
        steps = STAYS if self._comings is None else self._comings.parting(view, node)
        async for line in self._carry_out(actor, steps, view, only_plan):
            yield line

    async def _spool_empties(self, site: str) -> AsyncIterator[Line]:
        """What it holds goes to no other site by itself: a site that is to stop waits for it."""
        most = 0
        try:
            async for left in self._emptied(site):
                most = max(most, left)
                yield Progress(f"the spool of {site}", most - left, most, "messages")
        except LogUnavailable as error:
            yield Refusal(Reason.UNAVAILABLE, f"{error}.", (site,))

    async def _emptied(self, site: str) -> AsyncIterator[int]:
        """While it waits, what is left. Raises LogUnavailable when that takes too long."""
        deadline = self._now() + SPOOL_S_MAX
        while left := (await self._operations.look()).spooled(site):
            if self._now() > deadline:
                text = f"{left} messages are in the spool of {site} still, for its queue takes nothing: do not stop it yet"
                raise LogUnavailable(text)
            yield left
            await asyncio.sleep(TRY_AGAIN_S)

    # ── carrying out ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _carry_out(
        self, actor: Actor, steps: list[AnyStep] | Refusal, view: View, only_plan: bool
    ) -> AsyncIterator[Line]:
        if isinstance(steps, Refusal):
            yield steps
            return
        planned = [_planned(number, steps, view) for number in range(len(steps))]
        for line in planned:
            yield line
        if only_plan:
            return
        if refused := [line.refused for line in planned if line.refused]:
            reason = Reason.CONFLICT if view.quorum else Reason.UNAVAILABLE
            yield Refusal(reason, f"Nothing was changed: {'; '.join(dict.fromkeys(refused))}.")
            return
        for number, step in enumerate(steps):
            async for said in self._one(actor, number, step):
                yield said
                if isinstance(said, Refusal):
                    return

    async def _one(self, actor: Actor, number: int, step: AnyStep) -> AsyncIterator[Line]:
        before, began = await self._operations.look(), self._now()
        most, warning = 0, ""
        try:
            async for said in self._done(actor, step):
                if isinstance(said, str):
                    warning = said
                    continue
                most = max(most, said)
                yield Progress(_waits_for(step), most - said, most, "messages")
        except LogUnavailable as error:
            yield Refusal(Reason.UNAVAILABLE, f"Step {number + 1} ({text_of(step)}) was not done: {error}.")
            return
        took = self._now() - began
        warning = "; ".join(word for word in (warning, await self._recorded(actor, step, before)) if word)
        yield Did(number + 1, _word(step), getattr(step, "partition", ""), text_of(step), round(took, 3), warning)

    def _done(self, actor: Actor, step: AnyStep) -> AsyncIterator[int | str]:
        if isinstance(step, Empty):
            return self._emptied(step.site)
        return self._operations.do(step) if self._comings is None else self._comings.do(actor, step)

    async def _recorded(self, actor: Actor, step: AnyStep, before: View) -> str:
        """Writes down what was done; what to know if that was not possible."""
        if isinstance(step, Level | Empty | Goodbye):
            return ""
        name = getattr(step, "partition", "")
        after = (await self._operations.look()).records.get(name)
        was, now = _record_text(before.records.get(name)), text_of(step) if after is None else _record_text(after)
        command = RecordTopology(_word(step), name, was, now)
        deadline = self._now() + RECORD_S_MAX
        while True:
            done = await self._execute(actor, command)
            if not isinstance(done, Refusal) or done.reason is Reason.NOT_SHOWN_YET:
                return ""
            if self._now() > deadline:
                log.error("a change of the topology is not in the directory", what=_word(step), partition=name)
                return f"it was done, and could not be written into the directory: {done.text}"
            await asyncio.sleep(TRY_AGAIN_S)


# ── from steps to what is shown ─────────────────────────────────────────────────────────────────────────────────────


def _planned(number: int, steps: list[AnyStep], view: View) -> Planned:
    step = steps[number]
    name, site = getattr(step, "partition", ""), getattr(step, "site", "")
    said = view.copy(name, site) if name else None
    text = text_of(step)
    if isinstance(step, Force) and said is not None:
        text += _loss(step, view, said.messages)
    # What an earlier step makes so is not asked of the world as it is.
    earlier = any(getattr(each, "partition", None) == name for each in steps[:number])
    refused = hindrance(step, view) if not earlier or not view.quorum else ""
    lag = (None, None) if said is None else (said.messages, round(said.seconds, 1))
    return Planned(number + 1, _word(step), name, site, text, refused, *lag)


def _loss(step: Force, view: View, behind: int) -> str:
    """What a takeover by force leaves behind, as far as it is known."""
    home = view.records[step.partition].home
    alive = f"; {home} is alive: `cluster switchover` would lose nothing" if view.here(home) else ""
    if behind == 0:
        return f"; {step.site} has all that it knows {home} to have had; what {home} wrote after that is rolled back{alive}"
    return f"; {step.site} lacks {behind} messages that {home} had: they are rolled back, and salvaged when {home} returns{alive}"


def text_of(step: AnyStep) -> str:
    match step:
        case Place():
            return f"{step.partition}: copies at {_listed(step.copies)}, {_settings(step)}"
        case Create():
            settings = _settings(step)
            return f"{step.partition}: made, home {step.home}, copies at {_listed(step.copies)}, {settings}"
        case Level():
            return f"{step.partition}: wait for the copy at {step.site}"
        case Move():
            return f"{step.partition}: home moves to {step.site}"
        case Force():
            return f"{step.partition}: {step.site} takes it over by force"
        case Leave():
            return f"{step.node} of {step.site} gives its leases to others"
        case Empty():
            return f"{step.partition}: wait until it is empty"
        case Goodbye():
            return f"{step.site} is told that it goes for good, and keeps nothing up any more"
        case Remove():
            lost = "; it is away: what only it has is lost with it" if step.away else ""
            return f"{step.site} is no member any more, and is shut out{lost}"
        case Start():
            return f"{step.node} of {step.site} is started, at every start too"
        case Stop():
            return f"{step.node} of {step.site} is stopped, and not started again"


def _waits_for(step: AnyStep) -> str:
    match step:
        case Level():
            return f"{step.partition} to {step.site}"
        case Empty():
            return f"the spool of {step.site}"
        case _:
            return "waiting"


def _word(step: AnyStep) -> str:
    return type(step).__name__.lower()


def _record_text(record: Partition | None) -> str:
    if record is None:
        return ""
    settings = _settings(record)
    return f"epoch {record.epoch}, home {record.home}, copies {_listed(record.copies)}, {settings}"


def _settings(of: Partition | Place | Create) -> str:
    words = ("remote" if of.remote else "local", "strict" if of.strict else "", "pinned" if of.pinned else "")
    windows = ", ".join(f"{days} days of content at {site}" for site, days in sorted(of.windows.items()))
    return " ".join(word for word in words if word) + (f", {windows}" if windows else "")


def _listed(sites: tuple[str, ...]) -> str:
    return " ".join(sites) or "nowhere"


# ── from what is asked to steps ──────────────────────────────────────────────────────────────────────────────────────


def _moves(view: View, names: tuple[str, ...], to: str, away_from: str) -> list[AnyStep] | Refusal:
    records: Mapping[str, Partition] = view.records
    for name in names:
        if name not in records:
            return _no_partition(name, view)
        if partitions.is_spool(name):
            return Refusal(Reason.CONFLICT, f"{name} is a site's own spool and stays there.", (name,))
    for site in (to, away_from):
        if site and (refused := _no_site(site, view)):
            return refused
    homes = sorted(name for name, record in records.items() if record.home == away_from)
    chosen = names or tuple(name for name in homes if not partitions.is_spool(name))
    steps: list[AnyStep] = []
    for name in chosen:
        target = to or _nearest(records[name], view)
        if not target:
            return Refusal(Reason.CONFLICT, f"{name} has no copy at a site that is here: it can go nowhere.", (name,))
        if target != records[name].home:
            steps.append(Move(name, target))
    return steps


def _nearest(record: Partition, view: View) -> str:
    """The copy that is least behind; of equals the one named first."""
    found = [
        (said.messages, number, site)
        for number, site in enumerate(record.copies)
        if not windowed(record, site) and view.here(site) and (said := view.copy(record.name, site)) is not None
    ]
    return min(found)[2] if found else ""


def _changed(record: Partition, change: Change) -> Partition:
    home = change.home or record.home
    copies = change.copies
    if copies is None:
        # Who moves a home and says nothing of copies wants as many as before.
        copies = (
            tuple(site for site in (record.home, *record.copies) if site != home)
            if home != record.home
            else record.copies
        )
    remote = record.remote if change.durability is None else change.durability == "remote"
    return msgspec.structs.replace(
        record,
        home=home,
        copies=copies,
        remote=remote,
        strict=(record.strict and remote) if change.strict is None else change.strict,
        pinned=record.pinned if change.pinned is None else change.pinned,
        windows={
            site: days
            for site, days in {**record.windows, **(change.windows or {})}.items()
            # A negative number is refused, and a window goes with its copy unless it is named.
            if days and (site in (home, *copies) or site in (change.windows or {}))
        },
    )


def _way(now: Partition | None, new: Partition, view: View) -> list[AnyStep] | Refusal:
    try:
        check(new, now, view.sites, view.voters)
    except TopologyRefused as error:
        return Refusal(Reason.CONFLICT, f"{error}.", (new.name,))
    return list(way(now, new))


def _no_partition(name: str, view: View) -> Refusal:
    if not view.records:
        return Refusal(Reason.UNAVAILABLE, "The control plane does not answer, and nothing is noted here yet.")
    known = ", ".join(sorted(view.records))
    return Refusal(Reason.NO_SUCH_ENTRY, f"There is no partition {name}; there are {known}.", (name,))


def _no_site(site: str, view: View) -> Refusal | None:
    if site in view.sites:
        return None
    return Refusal(Reason.NO_SUCH_ENTRY, f"There is no site {site}; there are {', '.join(view.sites)}.", (site,))
