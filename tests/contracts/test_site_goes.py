"""A site goes for good, as an operator sees it: what refuses it, in which order it is done, and what is written down."""

from collections.abc import AsyncIterator
from typing import Any, cast

from cluster.control.bucket import MemoryKeys
from cluster.control.leaving import AnyStep, Goodbye, Start
from cluster.control.partitions import Partition
from cluster.control.roster import Member, Roster, Rosters, founded, joined, revoked
from cluster.control.topology import Level, Move, Place
from cluster.control.watch import CopySaid, Node
from cluster.domain.actor import Actor
from cluster.domain.directory.commands import RecordTopology
from cluster.domain.refusal import Reason, Refusal
from cluster.log.model import LogUnavailable
from cluster.log.operations import Seen, View
from storage.comings import LISTED_BY_HAND, Comings
from storage.operating import Did, Line, Operating, Planned
from storage.shapes import Done

ACTOR = Actor(name="kim", administrator=True)
TWO = joined(founded(Member("pune", "192.0.2.1", 0)), Member("dr", "192.0.2.2", 0))


class Sites:
    """Two of them, as pune sees them. `spooled`: in the spool of dr; `missed`: came into it while it was told to go; `held`:
    what it says that only it has; `silent_s`: since it was heard."""

    def __init__(self, spooled: int = 0, missed: int = 0, held: str = "", silent_s: float = 0.0) -> None:
        self.held, self.silent_s = held, silent_s
        self.spooled, self.missed = spooled, missed
        self.records = {
            "directory": Partition("directory", "pune", copies=("dr",)),
            "mail-dr-1": Partition("mail-dr-1", "dr", copies=("pune",)),
            "spool-dr": Partition("spool-dr", "dr", pinned=True),
        }
        self.done: list[AnyStep] = []

    async def look(self) -> View:
        said = tuple(CopySaid(name, 1 << 40, 0, 0, 0.0) for name in self.records)
        nodes = (
            Node("pune", "pune-0", "1", "a", 0.0, 1, copies=said),
            Node("dr", "dr-0", "1", "b", 0.0, 1, spooled=self.spooled),
        )
        seen = (Seen(nodes[0], 0.0), Seen(nodes[1], self.silent_s))
        return View("pune", ("pune", "dr"), 1, True, 0.0, self.records, {}, seen, {"dr": 1.0})

    async def holds(self, site: str) -> str:
        return self.held

    async def do(self, step: AnyStep) -> AsyncIterator[int]:
        if isinstance(step, Goodbye) and self.missed:
            raise LogUnavailable(f"{self.missed} messages came into the spool of {step.site} meanwhile")
        self.done.append(step)
        for behind in range(0):
            yield behind


class Known:
    """Who belongs to it, in memory."""

    def __init__(self, roster: Roster = TWO) -> None:
        self.roster = roster

    async def without(self, site: str) -> tuple[Roster, Roster] | Refusal:
        if self.roster.find(site) is None:
            return self.roster, self.roster
        return self.roster, revoked(self.roster, site)

    async def shut_out(self, site: str, by: str) -> str | Refusal:
        self.roster = revoked(self.roster, site)
        return f"{site} still says something"


class NoNodes:
    count = 0

    async def keep(self, count: int, *, after_s: float = 0.0) -> None:
        raise ValueError("nobody would start it")

    def runs(self, number: int) -> bool:
        return False


class Book:
    def __init__(self) -> None:
        self.written: list[tuple[str, str]] = []

    async def execute(self, actor: Actor, command: RecordTopology) -> Done:
        self.written.append((actor.name, command.what))
        return Done(1)


def operating(sites: Sites, membership: Known | None, book: Book) -> Operating:
    async def none() -> list[Any]:
        return []

    comings = Comings(cast(Any, sites), membership, NoNodes(), lambda: 0.0, node="pune-0", sites_by_hand=True)
    return Operating(cast(Any, sites), book.execute, none, lambda: 0.0, comings)


async def removed(sites: Sites, membership: Known | None, book: Book, *, only_plan: bool = False) -> list[Line]:
    what = operating(sites, membership, book)
    return [line async for line in what.remove_site(ACTOR, "dr", only_plan=only_plan)]


async def test_all_is_done_in_order_and_written_down_with_who_did_it() -> None:
    sites, known, book = Sites(), Known(), Book()
    said = await removed(sites, known, book)
    assert [type(step) for step in sites.done] == [Level, Move, Place, Place, Goodbye]
    assert sites.done[-1] == Goodbye("dr", "kim") and known.roster.find("dr") is None
    last = said[-1]
    assert isinstance(last, Did) and (last.action, last.warning) == ("remove", "dr still says something")
    assert book.written == [("kim", "move"), ("kim", "place"), ("kim", "place"), ("kim", "remove")]


async def test_a_plan_does_nothing() -> None:
    sites, known, book = Sites(), Known(), Book()
    said = await removed(sites, known, book, only_plan=True)
    assert all(isinstance(line, Planned) and not line.refused for line in said) and len(said) == 7
    assert (sites.done, known.roster, book.written) == ([], TWO, [])


async def test_mail_in_its_spool_keeps_it_and_is_counted() -> None:
    sites, known, book = Sites(spooled=4), Known(), Book()
    last = (await removed(sites, known, book))[-1]
    assert isinstance(last, Refusal) and "4 messages are in the spool of dr" in last.text and not sites.done


async def test_mail_that_comes_while_it_is_told_keeps_it_too() -> None:
    sites, known, book = Sites(missed=2), Known(), Book()
    last = (await removed(sites, known, book))[-1]
    assert isinstance(last, Refusal) and "2 messages came into the spool of dr" in last.text
    assert known.roster == TWO, "it is a member as long as it has mail that nobody else has"


async def test_what_only_it_has_keeps_it() -> None:
    sites, known = Sites(held="dr has tails of lost homes that are not salvaged yet, of mail-dr-1"), Known()
    (said,) = await removed(sites, known, Book())
    assert isinstance(said, Refusal) and "tails of lost homes" in said.text and (sites.done, known.roster) == ([], TWO)


async def test_of_one_that_is_away_its_last_word_counts_until_it_is_given_up() -> None:
    """And the plan says that nobody asked it."""
    sites = Sites(spooled=3, silent_s=60.0)
    sites.records["mail-dr-1"] = Partition("mail-dr-1", "pune", copies=("dr",))
    (said,) = await removed(sites, Known(), Book())
    assert isinstance(said, Refusal) and "by its last word 3 messages are in its spool" in said.text
    planned = await removed(sites, Known(revoked(TWO, "dr")), Book(), only_plan=True)
    assert isinstance(planned[-1], Planned) and "what only it has is lost with it" in planned[-1].text
    assert len(planned) == 3 and not any(isinstance(line, Planned) and line.refused for line in planned)


async def test_one_that_was_shut_out_before_is_cleared_away_once() -> None:
    sites, known, book = Sites(), Known(revoked(TWO, "dr")), Book()
    assert [type(line) for line in await removed(sites, known, book, only_plan=True)] == [Planned] * 7
    sites.records = {"directory": Partition("directory", "pune")}
    seen = await sites.look()

    async def alone() -> View:
        return seen._replace(nodes=seen.nodes[:1])

    sites.look = alone  # type: ignore[method-assign]
    assert await removed(sites, known, book) == []


async def test_sites_that_share_their_keys_cannot_be_shut_out() -> None:
    assert await removed(Sites(), None, Book()) == [LISTED_BY_HAND]


async def test_a_node_that_nobody_would_keep_is_refused() -> None:
    (said,) = [line async for line in operating(Sites(), None, Book()).add_node(ACTOR, only_plan=False)]
    assert isinstance(said, Refusal) and said.reason is Reason.CONFLICT and "nothing that keeps nodes running" in said.text


async def test_a_node_that_does_not_come_is_not_kept() -> None:
    """The number goes back to what it was, so that the next start does not try it again."""

    class Numbers(NoNodes):
        count = 1
        kept: list[int] = []

        async def keep(self, count: int, *, after_s: float = 0.0) -> None:
            self.kept.append(count)

    class Silent(Sites):
        async def tell(self, *_: object) -> bytes:
            raise LogUnavailable("nobody there")

    numbers, now = Numbers(), iter(range(0, 1000, 50))
    comings = Comings(cast(Any, Silent()), None, numbers, lambda: float(next(now)), node="pune-0")
    try:
        async for _ in comings.do(ACTOR, Start("pune", "pune-1")):
            pass
    except LogUnavailable as error:
        assert "pune-1 does not come up" in str(error)
    assert numbers.kept == [2, 1]


async def test_what_it_said_of_itself_is_forgotten_and_nothing_else() -> None:
    keys = MemoryKeys()
    gone = ("node.dr.dr-0", "node.dr.dr-1", "kept.mail-pune-1.dr", "partition.spool-dr")
    kept = ("node.dr2.dr2-0", "kept.dr.pune", "kept.mail-dr-1.pune", "partition.mail-dr-1", "partition.spool-dr2", "members")
    for key in (*gone, *kept):
        await keys.put(key, b"x", 0)
    rosters = Rosters(keys)
    assert (await rosters.forget("dr"), await rosters.forget("dr")) == (len(gone), 0)
    assert [bool((await keys.get(key)).revision) for key in (*gone, *kept)] == [False] * len(gone) + [True] * len(kept)
