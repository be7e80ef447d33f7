"""What an operator sees of all sites from one of them, and what he has done to them, one step at a time.

Every process says in the control plane who it is, what it leads and how far its copies are (`Node`). Sites are asked
besides, straight over the links: so a site that is cut off from the quorum still tells what it can reach.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import structlog

from cluster.control.bucket import Conflict
from cluster.control.leaving import AnyStep, Empty, Goodbye, Remove, Start, Stop
from cluster.control.partitions import Partition, windowed
from cluster.control.topology import Create, Force, Leave, Level, Move, Place, placed
from cluster.control.watch import GONE_AFTER_S, NODE_PREFIX, CopySaid, Node, Pulse
from cluster.log.connection import Arrived, Unreachable
from cluster.log.keeper import Keeper
from cluster.log.leader import HAND_OVER_BEHIND_MAX, Site
from cluster.log.model import LogUnavailable
from cluster.position import split

if TYPE_CHECKING:
    from cluster.log.jetstream import JetStreamLog

LOOK_EVERY_S = 1.0
ASK_S_MAX = 1.0
ANSWER_S_MAX = 0.25
LEAVE_S_MAX = 15.0
SETTLE_S_MAX = 20.0  # for a new home to begin
TRIES_MAX = 6  # at a switchover that the home refuses for now
TRY_AGAIN_S = 0.5
STUCK_S_MAX = 60.0  # a copy that comes no nearer
SHOW_EVERY_S = 0.5

log = structlog.get_logger("cluster.log.operations")

_node = msgspec.json.Decoder(Node).decode


class Told(msgspec.Struct, frozen=True):
    """What a node is told. `leave`: until it is started again it leads nothing and keeps no copy. `stop`: so, and when it
    ends it takes its word of itself back. `removed`: so, for its site goes for good, by `by`. `ask`: is it there?"""

    word: Literal["leave", "stop", "removed", "ask"]
    by: str = ""


async def _nothing(by: str) -> int:
    return 0


async def _nothing_held() -> str:
    return ""


class Seen(NamedTuple):
    """`silent_s`: since something new was heard of it."""

    node: Node
    silent_s: float

    @property
    def here(self) -> bool:
        return self.silent_s < GONE_AFTER_S


class View(NamedTuple):
    """All that one site knows. `quorum`: whether its own writes to the control plane go through (a member that is alone
    still answers questions). `silent_s`: since one last did, None = none did. `ages`: of each lease, seconds since it was
    seen renewed. `links`: milliseconds there and back to the other sites, None = no answer."""

    site: str
    sites: tuple[str, ...]
    voters: int
    quorum: bool
    silent_s: float | None
    records: Mapping[str, Partition]
    ages: Mapping[str, float]
    nodes: tuple[Seen, ...]
    links: Mapping[str, float | None]

    def here(self, site: str) -> bool:
        return any(seen.here for seen in self.nodes if seen.node.site == site)

    def spooled(self, site: str) -> int:
        """Messages in its spool, by its last word."""
        return max((seen.node.spooled for seen in self.nodes if seen.node.site == site), default=0)

    def members(self, record: Partition) -> tuple[str, ...]:
        """The sites that may follow the home by themselves: a copy whose engine was started since it was recognised may not,
        until the home has recognised it again."""
        lives = {(seen.node.site, seen.node.life) for seen in self.nodes}
        known = {site for site, _ in lives}
        return tuple(m.site for m in record.members if m.site not in known or (m.site, m.life.partition("~")[0]) in lives)

    def copy(self, partition: str, site: str) -> CopySaid | None:
        """What the copy there last said of itself."""
        said = [(seen.silent_s, copy) for seen in self.nodes if seen.node.site == site for copy in seen.node.copies]
        return min(
            ((s, c) for s, c in said if c.partition == partition), default=(0.0, None), key=lambda found: found[0]
        )[1]


class Members(NamedTuple):
    """Who belongs to the organisation, as it is now. `sites`: not witnesses. `voters`: how many members of the backbone there
    are. `removed`: is awaited when this site is told that it goes for good, with by whom; messages left in its spool.
    `holds`: what only this site has and others wait for, beside its spool; empty = nothing."""

    sites: Callable[[], tuple[str, ...]]
    voters: Callable[[], int]
    removed: Callable[[str], Awaitable[int]] = _nothing
    holds: Callable[[], Awaitable[str]] = _nothing_held


class Operations:
    def __init__(
        self,
        whole: "JetStreamLog",
        site: Site,
        pulse: Pulse,
        keepers: Mapping[str, Keeper],
        me: Callable[[], Node],
        members: Members,
    ) -> None:
        self._log = whole
        self._site = site
        self._pulse = pulse
        self._keepers = keepers
        self._me = me
        self._members = members
        self._left = False
        self._listed: set[tuple[str, str]] = set()  # nodes whose word lies in the control plane
        self._seen: dict[tuple[str, str], Seen] = {}
        self._heard_at: dict[tuple[str, str], float] = {}

    async def serve(self) -> None:
        """For ever: answers other sites, and keeps up who is there."""
        me = self._me()
        own = f"nd.{me.site}.{me.node}"
        doors = [(f"cs.{me.site}", self._on_asked), (own, self._on_told), (f"{own}.holds", self._on_held)]
        served = [await self._site.connection.subscribe(subject, handler) for subject, handler in doors]
        try:
            while True:
                with contextlib.suppress(Unreachable):
                    await self._nodes()
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            for each in served:
                await each.close()

    # ── what is ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def look(self) -> View:
        """Never raises; takes at most about ASK_S_MAX."""
        others = [site for site in self._known_sites() if site != self._site.name]
        asked = await asyncio.gather(*(self._ask(site) for site in others))
        with contextlib.suppress(Unreachable, TimeoutError):
            async with asyncio.timeout(ASK_S_MAX):
                await self._nodes()
        self._note(self._me())
        watch, now = self._site.watch, self._now()
        silent = now - self._pulse.last
        records = {name: found.partition for name, found in watch.found.items()} or await self._noted()
        ages = {name: age for name in records if (age := watch.unchanged_s(name)) is not None}
        nodes = tuple(Seen(node, now - self._heard_at[key]) for key, (node, _) in sorted(self._seen.items()))
        return View(
            self._site.name,
            self._known_sites(),
            self._members.voters(),
            self._pulse.since() is not None,
            None if silent == float("inf") else silent,
            records,
            ages,
            nodes,
            dict(zip(others, asked, strict=True)),
        )

    def _known_sites(self) -> tuple[str, ...]:
        """Those configured first, then those that were heard of since."""
        records = [found.partition for found in self._site.watch.found.values()]
        heard = [site for site, _ in self._seen] + [site for each in records for site in (each.home, *each.copies)]
        return tuple(dict.fromkeys((*self._members.sites(), *sorted(heard))))

    async def _nodes(self) -> None:
        listed = set[tuple[str, str]]()
        for entry in (await self._site.partitions.keys.every(NODE_PREFIX)).values():
            if entry.revision:
                with contextlib.suppress(msgspec.MsgspecError):  # of another release
                    node = _node(entry.value)
                    self._note(node)
                    listed.add((node.site, node.node))
        for key in [*self._seen]:
            # Its word was taken back: it went for good. One that was heard by a link alone is not forgotten for that.
            if key not in listed and (key in self._listed or self._now() - self._heard_at[key] > GONE_AFTER_S):
                del self._seen[key], self._heard_at[key]
        self._listed = listed

    def _note(self, node: Node) -> None:
        """A node is as old as its last word that differed from the one before, on our clock: never mind theirs."""
        key, now = (node.site, node.node), self._now()
        known = self._seen.get(key)
        if known is None:
            # Its own clock is all there is to go by, for a word that may be days old.
            age = max(0.0, self._site.now_us() / 1_000_000 - node.at)
            self._heard_at[key] = now - (age if age > GONE_AFTER_S else 0.0)
        elif (known.node.life, known.node.beat) != (node.life, node.beat):
            self._heard_at[key] = now
        else:
            return
        self._seen[key] = Seen(node, 0.0)

    async def _ask(self, site: str) -> float | None:
        """Milliseconds there and back."""
        began = time.perf_counter()
        try:
            answer = await self._site.connection.request(f"cs.{site}", timeout_s=ASK_S_MAX)
            self._note(_node(answer.data))
        except (Unreachable, msgspec.MsgspecError):
            return None
        return (time.perf_counter() - began) * 1000

    async def _noted(self) -> dict[str, Partition]:
        """What lies here, by the site's own notes: all there is to say while the control plane was never heard."""
        found = {}
        for name in self._keepers:
            with contextlib.suppress(Unreachable):
                if (known := await self._site.known.get(name)) is not None:
                    found[name] = known.partition
        return found

    def _now(self) -> float:
        return self._site.watch.clock()

    # ── what is done ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def do(self, step: AnyStep) -> AsyncIterator[int]:
        """One step; while it waits for a copy, the messages that this one lacks. Raises LogUnavailable with the reason."""
        match step:
            case Level():
                async for behind in self._level(step):
                    yield behind
            case Goodbye():
                await self._goodbye(step)
            case Empty() | Remove() | Start() | Stop():
                raise AssertionError(f"{step} is not done here")
            case Move():
                await self._move(step)
            case Force():
                await self._log.force(step.partition, step.site)
                await self._settled(step.partition, step.site)
            case Place():
                await self._log.place(lambda now: placed(now, step), step.partition)
                await self._site.watch.looked()
            case Create():
                await self._create(step)
            case Leave():
                await self._leave(step)

    async def _create(self, step: Create) -> None:
        made = Partition(
            step.partition,
            step.home,
            copies=step.copies,
            remote=step.remote,
            strict=step.strict,
            pinned=step.pinned,
            windows=step.windows,
        )
        try:
            await self._site.partitions.create(made)
        except Conflict:
            raise LogUnavailable(f"there is a partition {step.partition} already") from None
        except Unreachable as error:
            raise LogUnavailable(f"the control plane does not answer: {error}") from error
        await self._site.watch.say_changed()
        await self._settled(step.partition, step.home)

    async def _level(self, step: Level) -> AsyncIterator[int]:
        """What the home had when it was asked, the copy must have."""
        goal = await self._log.home_asked(step.partition)
        if goal is None:
            raise LogUnavailable(f"the home of {step.partition} does not answer")
        least, moved_at = -1, self._now()
        while True:
            view = await self.look()
            said = view.copy(step.partition, step.site)
            record = view.records.get(step.partition)
            if said is not None and said.position >= goal and view.here(step.site):
                return
            if record is not None and record.home == step.site:
                return
            behind = said.messages if said is not None else 0
            if least < 0 or behind < least:
                least, moved_at = behind, self._now()
            elif self._now() - moved_at > STUCK_S_MAX:
                raise LogUnavailable(
                    f"the copy of {step.partition} at {step.site} came no nearer in {STUCK_S_MAX:.0f} s: "
                    f"it lacks {behind} messages" + ("" if view.here(step.site) else f", and {step.site} is away")
                )
            yield behind
            await asyncio.sleep(SHOW_EVERY_S)

    async def _move(self, step: Move) -> None:
        for attempt in range(1, TRIES_MAX + 1):
            record = self._log.record(step.partition)
            if record is not None and record.home == step.site:
                break
            try:
                await self._log.switchover(step.partition, step.site)
                break
            except LogUnavailable:
                if attempt == TRIES_MAX:
                    raise
                await asyncio.sleep(TRY_AGAIN_S)  # A copy is heard within a second of its home's beginning.
        await self._settled(step.partition, step.site)

    async def _settled(self, partition: str, site: str) -> None:
        """Returns when the home there answers."""
        try:
            async with asyncio.timeout(SETTLE_S_MAX):
                while True:
                    record = self._log.record(partition)
                    if record is not None and record.home == site and record.begun and record.holder is not None:
                        answered = await self._answered(partition)
                        if answered is not None and (not record.copies or split(answered).epoch >= record.epoch):
                            return
                    await self._site.watch.looked()
        except TimeoutError:
            raise LogUnavailable(f"{partition} is {site}'s by the record, and {site} does not lead it yet") from None

    async def _answered(self, partition: str) -> int | None:
        """What the home says, if it says it at once: a question that went to one that has just gone is asked again."""
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                return await self._log.home_asked(partition)
        except TimeoutError:
            return None

    async def _goodbye(self, step: Goodbye) -> None:
        """What came into the spool meanwhile keeps the site from going."""
        view, left = await self.look(), 0
        for node in [seen.node.node for seen in view.nodes if seen.node.site == step.site and seen.here]:
            try:
                answer = await self.tell(step.site, node, Told("removed", step.by))
            except LogUnavailable as error:
                raise LogUnavailable(f"{error}; if {step.site} was stopped just now, try again in {GONE_AFTER_S:.0f} s") from None
            said = msgspec.json.decode(answer, type=int | tuple[str, ...])  # of a release before: what it led
            left = max(left, said if isinstance(said, int) else 0)
        if left:
            raise LogUnavailable(
                f"{left} messages came into the spool of {step.site} meanwhile: start {step.site} again, and remove it when "
                "they are gone"
            )

    async def holds(self, site: str) -> str:
        """Why the site must not go yet: what only it has, or that it does not say so. Empty = nothing; of one that is away
        nobody knows."""
        for node in [seen.node.node for seen in (await self.look()).nodes if seen.node.site == site and seen.here]:
            try:
                answer = await self._site.connection.request(f"nd.{site}.{node}.holds", timeout_s=LEAVE_S_MAX)
            except Unreachable as error:
                return f"{node} does not say whether {site} has something that no other site has: {error}"
            if answer.data:
                return answer.data.decode()
        return ""

    async def _leave(self, step: Leave) -> None:
        answer = await self.tell(step.site, step.node, Told("leave"))
        for name in msgspec.json.decode(answer, type=tuple[str, ...]):
            await self._settled(name, step.site)

    async def tell(self, site: str, node: str, told: Told) -> bytes:
        """Its answer: what it led; of a site that goes, what is left in the spool. Raises LogUnavailable."""
        try:
            subject = f"nd.{site}.{node}"
            answer = await self._site.connection.request(subject, msgspec.json.encode(told), timeout_s=LEAVE_S_MAX)
        except Unreachable as error:
            raise LogUnavailable(f"{node} does not answer: {error}") from error
        return answer.data

    async def _on_asked(self, message: Arrived) -> None:
        with contextlib.suppress(Unreachable):
            await self._site.connection.publish(message.reply, msgspec.json.encode(self._me()))

    async def _on_held(self, message: Arrived) -> None:
        held = await self._members.holds()
        with contextlib.suppress(Unreachable):
            await self._site.connection.publish(message.reply, held.encode())

    async def _on_told(self, message: Arrived) -> None:
        """Unless it is only asked: from now on this process leads nothing and keeps no copy; it goes on serving."""
        told = msgspec.json.decode(message.data, type=Told) if message.data else Told("leave")  # a release before said nothing
        led = self._me().leads
        self._pulse.parting = self._pulse.parting or told.word == "stop"
        if told.word != "ask" and not self._left:
            log.info("leaving", leads=led, word=told.word)
            self._left = True
            await asyncio.gather(*(keeper.stop() for keeper in self._keepers.values()))
        answer = msgspec.json.encode(await self._members.removed(told.by) if told.word == "removed" else led)
        with contextlib.suppress(Unreachable):
            await self._site.connection.publish(message.reply, answer)


# ── what cannot be done, and why ─────────────────────────────────────────────────────────────────────────────────────


def hindrance(step: AnyStep, view: View) -> str:
    """Why it cannot be done as things stand; empty = it can. Pure."""
    if not view.quorum:
        return (
            f"the control plane does not take what {view.site} writes; reads go on, and pinned homes; all others take writes, and "
            "can be moved, where most members of the backbone see each other"
        )
    if isinstance(step, Leave):
        return _leaving(step, view)
    if isinstance(step, Empty):
        left = view.spooled(step.site)
        return f"{left} messages are in the spool of {step.site}, and go into a queue first: wait for that" if left else ""
    if isinstance(step, Goodbye | Remove | Start | Stop):
        return ""
    record = view.records.get(step.partition)
    if isinstance(step, Create):
        return f"there is a partition {step.partition} already" if record is not None else _away(step.home, view)
    if record is None:
        return f"there is no partition {step.partition}"
    if isinstance(step, Place):
        return ""
    if step.site == record.home:
        return f"{step.partition} is at home at {step.site} already" if isinstance(step, Force) else ""
    if isinstance(step, Move | Force) and step.site not in record.copies:
        there = f"copies are at {', '.join(record.copies)}" if record.copies else "it has none"
        return f"{step.site} has no copy of {step.partition}; {there}"
    if away := _away(step.site, view):
        return away
    if isinstance(step, Move):
        if days := windowed(record, step.site):
            return (
                f"{step.site} keeps {days} days of {step.partition} only: take its window off first (`cluster partition set "
                f"{step.partition} --window {step.site}=0`), or `cluster failover` takes it over by force"
            )
        said = view.copy(step.partition, step.site)
        if said is None:
            return f"{step.site} has not said yet how far its copy of {step.partition} is"
        if said.messages > HAND_OVER_BEHIND_MAX:
            return f"{step.site} is too far behind: {said.messages} messages of {step.partition}; wait until it has come nearer"
        if not view.here(record.home):
            return f"{record.home} is away: without it nothing can be moved cleanly; `cluster failover` takes it over by force"
    return ""


def _away(site: str, view: View) -> str:
    if view.here(site):
        return ""
    silent = min((seen.silent_s for seen in view.nodes if seen.node.site == site), default=None)
    return f"{site} is away" + ("" if silent is None else f": nothing was heard of it for {silent:.0f} s")


def _leaving(step: Leave, view: View) -> str:
    here = [seen.node.node for seen in view.nodes if seen.node.site == step.site and seen.here]
    if step.node not in here:
        return (
            f"there is no node {step.node}; there are {', '.join(seen.node.node for seen in view.nodes if seen.here)}"
        )
    if len(here) == 1:
        return f"{step.node} is the only node of {step.site}: drain the site"
    return ""
