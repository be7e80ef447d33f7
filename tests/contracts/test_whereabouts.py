"""Whether an account's mail is at this site, by the records of its partition and by how far its tables are."""

import msgspec
import pytest

from cluster.control.partitions import Partition
from cluster.domain.refusal import Reason, Refusal
from cluster.position import Position
from storage.whereabouts import Whereabouts

ANNA, NOBODY = 7, 8
MAIL = Partition("mail", "mumbai", copies=("pune", "dr"))


class Known:
    """What a site knows of one partition: its record, the home's mark, its own tables."""

    def __init__(self, record: Partition | None, mark: int | None = None, tables: int = 0) -> None:
        self.found, self.mark, self.tables = record, mark, tables

    def record(self, partition: str) -> Partition | None:
        assert partition == "mail"
        return self.found

    def home_mark(self, partition: str) -> Position | None:
        return None if self.mark is None else Position(self.mark)

    def position(self, partition: str) -> int:
        return self.tables


async def partition_of(account: int) -> str | None:
    return "mail" if account == ANNA else None


def at(site: str, known: Known, *, followed: bool = True) -> Whereabouts:
    return Whereabouts(site, known, known, partition_of, lambda name: followed)


@pytest.mark.parametrize(
    ("site", "where"), [("mumbai", ()), ("pune", ()), ("elsewhere", ("mumbai", "pune", "dr"))], ids=str
)
async def test_the_home_comes_first_and_then_copies_in_their_order(site: str, where: tuple[str, ...]) -> None:
    whereabouts = at(site, Known(MAIL))
    whereabouts.caught_up(["mail"])
    assert await whereabouts.elsewhere(ANNA) == where
    assert await whereabouts.elsewhere(NOBODY) == ()


async def test_a_copy_that_is_only_being_made_does_not_count() -> None:
    known = Known(MAIL)
    whereabouts = at("dr", known)
    assert await whereabouts.elsewhere(ANNA) == ("mumbai", "pune"), "nothing was heard of the home"
    known.mark, known.tables = 100, 60
    assert await whereabouts.elsewhere(ANNA) == ("mumbai", "pune")
    known.tables = 100
    assert await whereabouts.elsewhere(ANNA) == ()
    known.mark = 200
    assert await whereabouts.elsewhere(ANNA) == (), "once level, the view waits for what comes later"


@pytest.mark.parametrize("asked", [True, False])
async def test_who_was_home_and_is_a_copy_since_has_what_it_had(asked: bool) -> None:
    known = Known(MAIL, mark=100, tables=100)
    whereabouts = at("mumbai", known)
    if asked:
        assert await whereabouts.elsewhere(ANNA) == ()
    else:
        whereabouts.caught_up(["mail"])
    known.found, known.mark = msgspec.structs.replace(MAIL, home="dr", copies=("pune", "mumbai"), epoch=2), 200
    assert await whereabouts.elsewhere(ANNA) == (), "what came since is waited for, as at any copy"


async def test_a_start_in_the_middle_of_the_making_is_none_of_a_whole_copy() -> None:
    known = Known(MAIL, mark=100, tables=60)
    whereabouts = at("dr", known)
    whereabouts.caught_up(["mail"])
    assert await whereabouts.elsewhere(ANNA) == ("mumbai", "pune")


async def test_a_copy_that_was_taken_away_and_came_back_must_be_level_again() -> None:
    known = Known(MAIL, mark=100, tables=100)
    whereabouts = at("dr", known)
    whereabouts.caught_up(["mail"])
    assert await whereabouts.elsewhere(ANNA) == ()
    known.found = msgspec.structs.replace(MAIL, copies=("pune",))
    assert await whereabouts.elsewhere(ANNA) == ("mumbai", "pune")
    known.found, known.mark = MAIL, 500
    assert await whereabouts.elsewhere(ANNA) == ("mumbai", "pune")


async def test_cut_off_from_the_start_it_serves_what_it_follows_and_knows_no_more() -> None:
    assert await at("dr", Known(None)).elsewhere(ANNA) == ()
    unknown = await at("dr", Known(None), followed=False).elsewhere(ANNA)
    assert isinstance(unknown, Refusal) and unknown.reason is Reason.UNAVAILABLE
