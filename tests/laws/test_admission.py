"""The appender's memory against a plain one that forgets nothing: it may refuse more, never less."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.log.admission import Admission
from cluster.log.model import NewEvent, Stale, Stored

KEYS = st.sampled_from(["a", "b", "c", "d", "e"])
STEP = st.tuples(
    st.binary(min_size=1, max_size=1),  # the command's id: few of them, so that they repeat
    st.lists(st.lists(KEYS, max_size=2).map(tuple), min_size=1, max_size=3).map(tuple),
    st.lists(KEYS, max_size=2).map(tuple),
    st.integers(0, 3),  # how far the state it was decided on lags behind
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=40), st.integers(1, 4), st.integers(0, 9))
def test_nothing_stale_gets_in_whatever_is_forgotten(
    steps: list[tuple[bytes, tuple[tuple[str, ...], ...], tuple[str, ...], int]], keys_max: int, floor: int
) -> None:
    admission = Admission(floor, keys_max=keys_max, commands_max=1000)
    changed: dict[str, int] = {}
    stored: dict[bytes, Stored] = {}
    last = floor
    for command, changes, depends, lag in steps:
        read_at = last - lag
        verdict = admission.verdict(command, depends, read_at)
        if command in stored:
            assert verdict == Stored(stored[command].first, stored[command].last, repeated=True)
            continue
        truly = max((changed.get(key, 0) for key in depends), default=0)
        if truly > read_at:
            assert isinstance(verdict, Stale)
        if isinstance(verdict, Stale):
            assert truly <= verdict.changed_at <= last and verdict.changed_at > read_at
            # Whoever waits for what he is told and reads again gets in.
            assert admission.verdict(command, depends, verdict.changed_at) is None
            continue
        events = tuple(NewEvent("n", "e", b"", keys) for keys in changes)
        stored[command] = admission.admit(command, events, last + 1)
        for at, keys in enumerate(changes, last + 1):
            changed.update(dict.fromkeys(keys, at))
        last += len(events)
        assert stored[command].last == last


@given(st.lists(st.tuples(st.lists(KEYS, max_size=2).map(tuple), st.booleans()), max_size=20), st.integers(0, 20))
def test_what_did_not_get_into_the_log_is_forgotten(events: list[tuple[tuple[str, ...], bool]], durable: int) -> None:
    admission = Admission(0)
    for at, (keys, _) in enumerate(events, 1):
        admission.admit(bytes([at]), (NewEvent("n", "e", b"", keys),), at)
    durable = min(durable, len(events))
    admission.forget_above(durable)
    for at in range(1, len(events) + 1):
        known = admission.verdict(bytes([at]), (), 0)
        assert known == (Stored(at, at, repeated=True) if at <= durable else None)
    for key in "abcde":
        assert admission.verdict(b"new", (key,), durable) is None
        if durable:
            assert admission.verdict(b"new", (key,), durable - 1) == Stale(durable)


def test_memory_is_bounded() -> None:
    admission = Admission(0, keys_max=10, commands_max=10)
    for at in range(1, 101):
        admission.admit(at.to_bytes(2, "big"), (NewEvent("n", "e", b"", (f"k{at}",)),), at)
    assert admission.verdict((100).to_bytes(2, "big"), (), 0) == Stored(100, 100, repeated=True)
    assert admission.verdict((90).to_bytes(2, "big"), (), 0) is None
    assert admission.floor == 90
    assert admission.verdict(b"x", ("never seen",), 89) == Stale(90)
