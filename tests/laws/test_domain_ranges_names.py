"""Sets of UIDs against Python's own sets; names of mailboxes and keywords."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.domain.mailbox import names, ranges
from cluster.domain.mailbox.events import Ranges
from cluster.domain.refusal import Reason, Refusal

uids = st.sets(st.integers(1, 60))


def _model(of: Ranges) -> set[int]:
    return {uid for first, last in of for uid in range(first, last + 1)}


def _well_formed(of: Ranges) -> bool:
    flat = [end for pair in of for end in pair]
    return flat == sorted(flat) and all(a[1] + 1 < b[0] for a, b in zip(of, of[1:], strict=False))


@given(st.lists(st.integers(1, 60)))
def test_compress_keeps_exactly_these(given_uids: list[int]) -> None:
    out = ranges.compress(given_uids)
    assert _well_formed(out)
    assert list(ranges.expand(out)) == sorted(set(given_uids))
    assert ranges.count(out) == len(set(given_uids))


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60))))
def test_normalise_takes_pairs_either_way_round(pairs: list[tuple[int, int]]) -> None:
    out = ranges.normalise(pairs)
    assert _well_formed(out)
    assert _model(out) == {uid for pair in pairs for uid in range(min(pair), max(pair) + 1)}
    assert ranges.normalise(out) == out


@pytest.mark.parametrize(
    ("function", "model"),
    [
        (ranges.union, set.union),
        (ranges.intersect, set.intersection),
        (ranges.subtract, set.difference),
    ],
)
@given(a=uids, b=uids)
def test_sets(
    function: Callable[[Ranges, Ranges], Ranges],
    model: Callable[[set[int], set[int]], set[int]],
    a: set[int],
    b: set[int],
) -> None:
    out = function(ranges.compress(a), ranges.compress(b))
    assert _well_formed(out)
    assert _model(out) == model(a, b)


@given(uids, st.integers(1, 61))
def test_contains(a: set[int], uid: int) -> None:
    assert ranges.contains(ranges.compress(a), uid) == (uid in a)


@given(uids, st.integers(1, 60), st.integers(1, 60))
def test_limit(a: set[int], first: int, last: int) -> None:
    assert _model(ranges.limit(ranges.compress(a), first, last)) == {uid for uid in a if first <= uid <= last}


def test_the_largest_range_is_no_burden() -> None:
    assert ranges.count(ranges.EVERY_UID) == ranges.UID_MAX
    assert ranges.subtract(ranges.EVERY_UID, ((5, 5),)) == ((1, 4), (6, ranges.UID_MAX))


@given(st.text())
def test_a_canonical_name_is_its_own_canonical_name(name: str) -> None:
    assert names.canonical(names.canonical(name)) == names.canonical(name)


@given(st.text())
def test_a_valid_name_has_valid_superiors(name: str) -> None:
    if names.invalid(name) is None:
        assert all(names.invalid(superior) is None for superior in names.superiors(name))
        assert all(names.is_beneath(name, superior) for superior in names.superiors(name))
        assert names.levels(name) == len(names.superiors(name)) + 1


@pytest.mark.parametrize(
    ("given_name", "canonical"),
    [
        ("inbox", "INBOX"),
        ("InBox/Lists", "INBOX/Lists"),
        ("inboxes", "inboxes"),
        ("\u0131nbox", "\u0131nbox"),
        ("a/inbox", "a/inbox"),
    ],
)
def test_inbox_has_no_case(given_name: str, canonical: str) -> None:
    # RFC 9051 §5.1
    assert names.canonical(given_name) == canonical


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "a\x00b",
        "a\r\nb",
        "a\x85b",
        "a\u2028b",
        "a%",
        "*",
        "\ud800",
        "ä" * 501,
        "/".join("a" * 21),
    ],
)
def test_no_names(name: str) -> None:
    refused = names.invalid(name)
    assert refused is not None and refused.reason is Reason.MAILBOX_NAME_INVALID and refused.text


@pytest.mark.parametrize(
    "name", ["INBOX", "My Lists", "Entwürfe/älter", "a.b", "..", "&", "ä" * 500, "/".join("a" * 20)]
)
def test_names(name: str) -> None:
    assert names.invalid(name) is None


def test_keywords_have_one_spelling() -> None:
    assert names.keywords(("$forwarded", "$Forwarded", "MyLabel", "mylabel")) == ("$Forwarded", "mylabel")


@pytest.mark.parametrize("keyword", ["", "a b", "\\Seen", "a]", "ä", "a(", "x\n", "a*"])
def test_what_is_no_atom_is_no_keyword(keyword: str) -> None:
    # RFC 9051 §9 flag-keyword
    refused = names.keywords((keyword,))
    assert isinstance(refused, Refusal) and refused.reason is Reason.NOT_PERMITTED


def test_keywords_are_bounded() -> None:
    for given_keywords in (("a" * 129,), tuple(f"k{n}" for n in range(65))):
        refused = names.keywords(given_keywords)
        assert isinstance(refused, Refusal) and refused.reason is Reason.OVER_LIMIT


def test_special_uses() -> None:
    # RFC 6154 §2, §3
    assert names.special_use("\\sent") == "\\Sent"
    assert names.special_use("") == ""
    assert names.special_use("\\All") is None and names.special_use("\\Flagged") is None
