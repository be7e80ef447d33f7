"""Tokens over failovers: the same verdicts as the model's."""

from hypothesis import given
from hypothesis import strategies as st

from cluster.position import SEQUENCE_MAX, position
from cluster.tokens import judged
from tests.sim.model import rules
from tests.sim.model.rules import Record, Rules

HISTORY = ((1, 10), (2, 0), (3, 5), (4, SEQUENCE_MAX))


def test_a_token_from_a_tail_is_lost_until_its_tail_is_salvaged() -> None:
    assert judged(HISTORY, position(1, 10), {}) == position(1, 10)
    assert judged(HISTORY, position(4, 99), {}) == position(4, 99)
    assert judged(HISTORY, 0, {}) == 0
    assert judged(HISTORY, position(1, 11), {}) is None
    assert judged(HISTORY, position(1, 12), {1: 11}) is None
    assert judged(HISTORY, position(1, 11), {1: 11}) == position(1, 10)
    # Nothing of epoch 2 is in history: what went before it is.
    assert judged(HISTORY, position(2, 3), {1: 11, 2: 3}) == position(1, 10)
    assert judged(HISTORY, position(3, 6), {3: SEQUENCE_MAX}) == position(3, 5)


@given(
    st.lists(st.integers(0, 9), max_size=4),
    st.tuples(st.integers(0, 5), st.integers(0, 12)),
    st.dictionaries(st.integers(1, 5), st.integers(0, 12), max_size=4),
)
def test_as_in_the_model(lasts: list[int], token: tuple[int, int], salvaged: dict[int, int]) -> None:
    epoch, sequence = token
    if (epoch == 0) != (sequence == 0) or epoch > len(lasts) + 1:
        return
    ended = tuple(rules.Ended(n, last, 0, 0) for n, last in enumerate(lasts, 1))
    record = Record(1, 0, len(lasts) + 1, True, ended, frozenset(), ())
    expected = rules.judged(record, rules.at(epoch, sequence), salvaged, Rules())
    history = (*((one.epoch, one.last) for one in ended), (len(lasts) + 1, SEQUENCE_MAX))
    answer = judged(history, position(epoch, sequence), salvaged)
    assert answer == (None if expected is None else position(*rules.split(expected)))
