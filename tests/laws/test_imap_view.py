"""A session's view of a mailbox, against a plain list of UIDs."""

from array import array
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.domain.mailbox import ranges
from cluster.domain.mailbox.events import Ranges
from protocols.imap import results, urls
from protocols.imap.model import STAR, SequenceSet
from protocols.imap.view import NoSuchMessage, View, chunks, spans_of, total, within
from protocols.port import Named, Uids

uid_lists = st.sets(st.integers(1, 40), max_size=25).map(sorted)
numbers = st.one_of(st.just(STAR), st.integers(1, 45))
sets = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4).map(lambda pairs: SequenceSet(tuple(pairs)))


def view(uids: list[int]) -> View:
    whose = Named(7, "INBOX")
    return View(1, "INBOX", Uids(array("I", uids)), 0, uidvalidity=1, whose=whose, selected=True, recent_from=1 << 32)


def slow(uids: list[int], asked: SequenceSet, by_uid: bool) -> set[int] | None:
    """Places, as RFC 9051 §9 says it word by word; None for numbers that are not there."""
    found: set[int] = set()
    for first, last in asked.pairs:
        highest = (uids[-1] if uids else 0) if by_uid else len(uids)
        low, high = sorted((first or highest, last or highest))
        if not by_uid and (low < 1 or high > len(uids)):
            return None
        found |= {place for place, uid in enumerate(uids) if low <= (uid if by_uid else place + 1) <= high}
    return found


@given(uid_lists, sets, st.booleans())
def test_a_set_names_the_places_that_the_rfc_says(uids: list[int], asked: SequenceSet, by_uid: bool) -> None:
    wanted = slow(uids, asked, by_uid)
    if wanted is None:
        with pytest.raises(NoSuchMessage):
            view(uids).spans(asked, by_uid)
        return
    spans = view(uids).spans(asked, by_uid)
    assert {place for start, stop in spans for place in range(start, stop)} == wanted
    assert spans == spans_of(sorted(wanted))


@given(uid_lists, st.sets(st.integers(0, 24)), st.integers(1, 7))
def test_places_as_uids(uids: list[int], places: set[int], size: int) -> None:
    here = view(uids)
    spans = spans_of(sorted(place for place in places if place < len(uids)))
    wanted = [uids[place] for start, stop in spans for place in range(start, stop)]
    assert list(here.uids_of(spans)) == wanted
    assert list(ranges.expand(here.exact(spans))) == wanted
    assert here.exact(spans) == ranges.compress(wanted)
    assert set(wanted) == {uid for uid in uids if ranges.contains(here.ranges(spans), uid)}
    pieces = list(chunks(spans, size))
    assert [uid for piece in pieces for uid in here.uids_of(piece)] == wanted
    assert all(total(piece) <= size for piece in pieces)


@given(uid_lists, st.lists(st.one_of(st.sets(st.integers(1, 60)), st.integers(1, 5)), max_size=8))
def test_a_client_that_follows_the_numbers_has_the_same_view(uids: list[int], steps: list[set[int] | int]) -> None:
    here, client, there = view(uids), list(uids), list(uids)
    for step in steps:
        if isinstance(step, int):
            new = [max([60, *there]) + n for n in range(1, step + 1)]
            here.append(new)
            client += new
            there += new
            continue
        here.lose(ranges.compress(step))
        there = [uid for uid in there if uid not in step]
        assert list(here.uids) == client  # nothing is gone before it is told
        lost, gone = here.take_lost()
        for number in lost:
            del client[number - 1]  # RFC 9051 §7.5.1
        assert client == there == list(here.uids)
        assert not set(gone) & set(there)


def test_many_lost_messages_leave_quickly() -> None:
    here = view(list(range(1, 200_001)))
    here.lose(((1, 150_000),))
    lost, gone = here.take_lost()
    assert lost == list(range(150_000, 0, -1)) and gone == list(range(1, 150_001))
    assert list(here.uids) == list(range(150_001, 200_001))


def test_what_was_saved_forgets_what_is_gone() -> None:
    here = view([1, 2, 3])
    here.saved = array("I", [1, 3])
    here.lose(((1, 1),))
    here.take_lost()
    assert here.spans(SequenceSet(saved=True), uid=True) == [(1, 2)]


some_ranges = st.lists(st.tuples(st.integers(1, 45), st.integers(0, 6))).map(
    lambda pairs: ranges.normalise((first, first + more) for first, more in pairs)
)


@given(uid_lists, some_ranges)
def test_what_is_absent(uids: list[int], asked: Ranges) -> None:
    wanted = ranges.compress(uid for uid in ranges.expand(asked) if uid not in uids)
    assert view(uids).absent(asked) == wanted


ends = st.tuples(st.integers(1, 30), st.integers(1, 30)).map(sorted)


@given(st.sets(st.integers(0, 25)).map(sorted), ends, st.booleans())
def test_a_range_of_results(places: list[int], given_ends: list[int], from_the_last: bool) -> None:
    """RFC 9394 §3.1: 1 is the first, -1 the last; of places and of spans alike."""
    low, high = given_ends
    if from_the_last:
        wanted = [place for n, place in enumerate(reversed(places), 1) if low <= n <= high][::-1]
        partial = (-high, -low)
    else:
        wanted = [place for n, place in enumerate(places, 1) if low <= n <= high]
        partial = (low, high)
    assert list(results.within(places, partial)) == wanted
    assert within(spans_of(places), partial) == spans_of(wanted)


sections = st.sampled_from(("", "1.2", "HEADER", "1.MIME", "HEADER.FIELDS%20(To)"))


@given(st.text(st.characters(codec="utf-8")), st.integers(0, 99), st.integers(1, 99), sections)
def test_urls_of_messages(mailbox: str, uidvalidity: int, uid: int, section: str) -> None:
    """RFC 5092 §11; whatever it is, it is read or not, and what is said of it fits into a response code (RFC 4469 §5)."""
    url = "/" + quote(mailbox, safe="/") + (f";UIDVALIDITY={uidvalidity}" if uidvalidity else "") + f"/;uid={uid}"
    url += f"/;SECTION={section}" if section else ""
    known = urls.parse(url)
    if mailbox and not mailbox.startswith("/"):
        assert known is not None and (known.mailbox, known.uidvalidity, known.uid) == (mailbox, uidvalidity, uid)
        assert (known.section.kind != "" or known.section.path != ()) is bool(section)
    assert urls.parse(mailbox) is None or ";UID=" in mailbox.upper()
    assert not set(urls.shown(mailbox)) & set('] "\r\n\\')
