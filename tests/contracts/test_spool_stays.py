"""What an operator does with a site, and its spool: no step moves it, and a site is not done with before it is empty."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from cluster.control.partitions import Partition
from cluster.control.topology import Move, Step
from cluster.control.watch import CopySaid, Node
from cluster.domain.actor import Actor
from cluster.domain.refusal import Refusal
from cluster.log.operations import Seen, View
from storage import operating
from storage.operating import Did, Line, Operating
from storage.overview import Progress
from storage.shapes import Done
from storage.sites_seen import overview

ACTOR = Actor(name="test")


class Sites:
    """Two of them; `left`: what is in the spool of pune at each look."""

    def __init__(self, *left: int) -> None:
        self.left = [*left]
        self.records = {
            "mail-pune-1": Partition("mail-pune-1", "pune", copies=("dr",), pinned=True),
            "queue-pune": Partition("queue-pune", "pune", copies=("dr",), pinned=True),
            "spool-pune": Partition("spool-pune", "pune", pinned=True),
        }
        self.done: list[Step] = []

    async def look(self) -> View:
        said = tuple(CopySaid(name, 1 << 40, 0, 0, 0.0) for name in self.records)
        left = self.left[0] if len(self.left) == 1 else self.left.pop(0)
        nodes = (
            Node("pune", "pune-0", "1", "a", 0.0, 1, spooled=left),
            Node("dr", "dr-0", "1", "b", 0.0, 1, copies=said),
        )
        seen = tuple(Seen(node, 0.0) for node in nodes)
        return View("dr", ("pune", "dr"), 3, True, 0.0, self.records, {}, seen, {"pune": 1.0})

    async def do(self, step: Step) -> AsyncIterator[int]:
        self.done.append(step)
        for behind in range(0):
            yield behind


async def lines(sites: Sites, *names: str, away_from: str = "") -> list[Line]:
    now = iter(range(0, 10_000, 20))

    async def executed(*_: object) -> Done:
        return Done(1)

    async def none() -> list[Any]:
        return []

    what = Operating(cast(Any, sites), executed, none, lambda: float(next(now)))
    return [line async for line in what.switchover(ACTOR, names, "", away_from, only_plan=False)]


async def test_a_drained_site_keeps_its_spool_and_is_waited_for_until_it_is_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operating, "TRY_AGAIN_S", 0.0)
    sites = Sites(3, 3, 3, 3, 3, 3, 2, 0)
    said = await lines(sites, away_from="pune")
    assert sites.done == [Move("mail-pune-1", "dr"), Move("queue-pune", "dr")]
    assert len([line for line in said if isinstance(line, Did)]) == 2 and not isinstance(said[-1], Refusal)
    assert [line for line in said if isinstance(line, Progress)][-1].done >= 1


async def test_one_that_does_not_empty_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operating, "TRY_AGAIN_S", 0.0)
    last = (await lines(Sites(4), away_from="pune"))[-1]
    assert isinstance(last, Refusal) and "4 messages are in the spool of pune" in last.text


async def test_a_spool_by_name_goes_nowhere() -> None:
    sites = Sites(0)
    (refused,) = await lines(sites, "spool-pune")
    assert isinstance(refused, Refusal) and "stays there" in refused.text and not sites.done


async def test_how_much_a_site_holds_is_shown_and_its_spool_is_no_home_that_could_move() -> None:
    pune, dr = overview(await Sites(7).look(), ()).sites
    assert (pune.spooled, pune.homes, dr.spooled) == (7, 2, 0)
