"""What a copy lacks does not look deleted: who waits, for what, and what is said when it takes too long."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from cluster.control.partitions import Spans
from cluster.domain.refusal import Reason, Refusal
from cluster.position import SEQUENCE_MAX, Position, position
from storage.level import LEVEL_S_MAX, Level
from storage.news import Hub
from storage.postgres.folded import News
from tests.sim.clock import run

P, ANNA = "mail-pune-1", 7
HISTORY: Spans = ((3, 100), (4, 0), (5, SEQUENCE_MAX))


class Tables:
    """What a database tells its listener; and that epoch 5 ended at 9, for who asks after it."""

    async def listen(self, told: Callable[[str], None], _: object) -> None:
        self.told = told

    async def row(self, _: str, partition: str, epoch: int) -> dict[str, int] | None:
        return {"last": 9} if (partition, epoch) == (P, 5) else None

    def folded(self, at: int, was: int = 0) -> None:
        self.told(msgspec.json.encode(News(P, at, {}, was=was, times=1 if was else 0)).decode())


class Homes:
    def __init__(self, home: int | None) -> None:
        self.home = home

    def home_mark(self, partition: str) -> Position | None:
        return None if self.home is None else Position(self.home)

    async def home_asked(self, partition: str) -> Position | None:
        return self.home_mark(partition)

    async def known_history(self, partition: str) -> Spans:
        return HISTORY


class Place:
    """Tables, and what is heard of the home."""

    def __init__(self, home: int | None) -> None:
        self.tables, self.homes = Tables(), Homes(home)
        self.hub = Hub(self.tables)  # type: ignore[arg-type]  # all that it asks of a database
        self.level = Level(self.hub, self.homes, self._partition_of, self._salvaged)

    async def _partition_of(self, account: int) -> str | None:
        return P if account == ANNA else None

    async def _salvaged(self, partition: str) -> dict[int, int]:
        return {3: 105} if partition == P else {}

    def becomes(self, at: int | None) -> None:
        """The tables reach a position, or (None) the home falls silent, or (below 0) they are taken back from there."""
        if at is None:
            self.homes.home = None
        elif at < 0:
            self.tables.folded(position(5, 9), was=-at)
        else:
            self.tables.folded(at)


def answer(home: int | None, asked: Callable[[Level], Awaitable[object]], *later: tuple[float, int | None]) -> tuple[object, float]:
    """The answer of a site whose tables stand at 5.10, and how many seconds it took. `later`: what becomes after how long."""
    found: list[tuple[object, float]] = []

    async def main(loop: asyncio.AbstractEventLoop) -> None:
        place = Place(home)
        await place.hub.run()
        place.becomes(position(5, 10))
        for delay_s, at in later:
            loop.call_later(delay_s, place.becomes, at)
        began = loop.time()
        given = await asked(place.level)
        found.append((given, loop.time() - began))

    run(main)
    return found[0]


def is_unavailable(given: object) -> bool:
    return isinstance(given, Refusal) and given.reason is Reason.UNAVAILABLE


def with_home(level: Level) -> Awaitable[object]:
    return level.with_home(ANNA)


def token(at: int) -> Callable[[Level], Awaitable[object]]:
    return lambda level: level.token(ANNA, at)


def test_level_with_the_home_or_without_a_home_nobody_waits() -> None:
    assert answer(position(5, 10), with_home) == (True, 0)
    assert answer(None, with_home) == (True, 0)
    assert answer(position(5, 12), lambda level: level.with_home(8)) == (True, 0), "of nobody's mail nothing is known"


def test_a_copy_that_lags_is_waited_for_and_for_no_more_than_was_there_when_asked() -> None:
    assert answer(position(5, 12), with_home, (1.25, position(5, 11)), (2.25, position(5, 12))) == (True, 2.25)


def test_a_copy_that_lags_for_long_says_so() -> None:
    given, took_s = answer(position(5, 12), with_home, (1, position(5, 11)))
    assert given is False and took_s == LEVEL_S_MAX


def test_when_the_home_falls_silent_what_is_there_is_served() -> None:
    given, took_s = answer(position(5, 12), with_home, (1.25, None))
    assert given is True and took_s < 2


def test_what_the_home_had_shown_and_was_rolled_back_is_followed_by_the_next_epoch() -> None:
    later = (1.25, -position(5, 10)), (3, position(6, 1))
    given, took_s = answer(position(5, 12), with_home, *later)
    assert given is True and 3 <= took_s < 4
    assert answer(position(5, 12), token(position(5, 12)), *later) == (None, 3)


def test_a_lost_token_is_answered_when_the_next_epoch_has_raised_uidnext_above_all_that_the_tail_gave() -> None:
    given, took_s = answer(position(5, 12), token(position(5, 12)), (1.25, -position(5, 10)))
    assert is_unavailable(given) and took_s == 1.25 + LEVEL_S_MAX


@pytest.mark.parametrize("home", [None, position(5, 10)])
@pytest.mark.parametrize("at", [0, 1, position(2, 5), position(3, 100), position(5, 3), position(5, 10)])
def test_a_token_below_what_the_tables_have_counts_as_it_is(at: int, home: int | None) -> None:
    assert answer(home, token(at)) == (at, 0)


@pytest.mark.parametrize("home", [None, position(5, 10)])
@pytest.mark.parametrize("at", [position(3, 106), position(4, 1)])
def test_a_token_beyond_the_end_of_its_epoch_is_lost(at: int, home: int | None) -> None:
    assert answer(home, token(at)) == (None, 0)


@pytest.mark.parametrize("at", [position(3, 101), position(3, 105)])
def test_a_token_from_a_tail_that_is_salvaged_stands_for_the_end_of_its_epoch(at: int) -> None:
    assert answer(None, token(at)) == (position(3, 100), 0)


@pytest.mark.parametrize("at", [position(5, 11), position(6, 1), (1 << 63) - 1])
def test_a_token_that_the_home_has_not_given_is_lost(at: int) -> None:
    assert answer(position(5, 10), token(at)) == (None, 0)


@pytest.mark.parametrize("at", [position(5, 11), position(6, 1)])
def test_a_token_above_what_the_tables_have_waits_for_them(at: int) -> None:
    for home in (None, at):
        assert answer(home, token(at), (3, at)) == (at, 3)
        given, took_s = answer(home, token(at))
        assert is_unavailable(given) and took_s == LEVEL_S_MAX
