"""UIDs that many sessions share, against a plain list for each."""

from array import array
from bisect import bisect_left, bisect_right

from hypothesis import given
from hypothesis import strategies as st

from storage import uids as module
from storage.uids import Uids

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("comes"), st.integers(0, 3), st.integers(1, 4)),
        st.tuples(st.just("goes"), st.integers(0, 3), st.sets(st.integers(0, 12), max_size=4)),
        st.tuples(st.just("begins"), st.integers(0, 3), st.integers(0, 3)),
        st.tuples(st.just("reads"), st.integers(0, 3), st.integers(0, 3)),
    ),
    max_size=40,
)


@given(st.sets(st.integers(1, 30), max_size=12).map(sorted), STEPS, st.booleans())
def test_nobody_sees_what_another_does(first: list[int], steps: list[tuple[str, int, object]], many: bool) -> None:
    """What comes to a mailbox comes to all in one order, but each may hear of it with others, or of none in between."""
    kept, module.SINGLES_MAX = module.SINGLES_MAX, 1 if many else 1024
    try:
        mine = [Uids(array("I", first)) for _ in range(4)]
        plain = [list(first) for _ in range(4)]
        for word, who, what in steps:
            here, there = mine[who], plain[who]
            if word == "comes":
                assert isinstance(what, int)
                new = [max([40, *there]) + n for n in range(1, what + 1)]
                here.extend(new)
                there += new
            elif word == "goes":
                assert isinstance(what, set)
                lost = [uid for place, uid in enumerate(there) if place in what]
                here.remove(lost)
                plain[who] = [uid for uid in there if uid not in lost]
            elif word == "begins":
                assert isinstance(what, int)
                mine[who], plain[who] = mine[what].copy(), list(plain[what])
            else:
                assert isinstance(what, int)
                mine[who], plain[who] = Uids(array("I", plain[what]), like=mine[who]), list(plain[what])
            assert [list(one) for one in mine] == plain
        for one, there in zip(mine, plain, strict=True):
            assert (
                len(one) == len(there) and one[-3:] == array("I", there[-3:]) and one[1:9:2] == array("I", there[1:9:2])
            )
            assert [one[place] for place in range(-len(there), len(there))] == there * 2
            for uid in range(50):
                assert one.left_of(uid) == bisect_left(there, uid) and one.up_to(uid) == bisect_right(there, uid)
    finally:
        module.SINGLES_MAX = kept


def test_those_who_see_the_same_hold_one_array() -> None:
    first = Uids(array("I", range(1, 1001)))
    others = [first.copy() for _ in range(3)]
    first.extend([1001, 1002])
    for one in others:
        one.extend([1001])
        one.extend([1002])
        assert one.shares(first)
    first.remove([5, 900])
    assert not first.shares(others[0])
    for one in others:
        one.remove([5, 900])
        assert one.shares(first)
    assert Uids(array("I", first), like=first).shares(first)
    assert Uids(array("I", [*first, 2000]), like=first).shares(first)
    assert not Uids(array("I", [1, *first]), like=first).shares(first)
