"""Annotations: which names are some, what is too much, and what becomes of them (RFC 5464)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.domain.mailbox import annotations as a
from cluster.domain.mailbox.annotations import Annotated
from cluster.domain.mailbox.commands import SetAnnotations
from cluster.domain.mailbox.decide import annotates, decide
from cluster.domain.mailbox.events import Made, MailboxDeleted, MailboxesCreated, MailboxesRenamed
from cluster.domain.mailbox.state import MailState, annotated_of, evolve, tree_of
from cluster.domain.refusal import Reason, Refusal

ANNA, BOB, BOX = 7, 8, 70


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("/shared/comment", "/shared/comment"),
        ("/PRIVATE/Vendor/X y/z", "/private/vendor/x y/z"),  # RFC 5464 §3.2: in any case the same
        ("/private", "/private"),
        ("/shared/a//b", None),
        ("/shared/a/", None),
        ("/shared/a*", None),
        ("/shared/100%", None),
        ("/shared/é", None),
        ("/shared/a\tb", None),
        ("/shared/a\n", None),
        ("/other/a", None),
        ("shared/a", None),
        ("/sharedness/a", None),
        ("/shared/" + "a" * 248, "/shared/" + "a" * 248),
        ("/shared/" + "a" * 249, None),
    ],
)
def test_names(given: str, name: str | None) -> None:
    assert a.entry(given) == name


@given(st.text(max_size=20))
def test_a_name_is_its_own_spelling(text: str) -> None:
    name = a.entry(f"/private/{text}")
    assert name is None or a.entry(name) == name and a.whose(name, ANNA) == ANNA


def _reason(answer: object) -> Reason | None:
    return answer.reason if isinstance(answer, Refusal) else None


def test_what_is_too_much_is_refused_whole() -> None:
    full = Annotated({(0, f"/shared/{n}"): 1 for n in range(a.PER_MAILBOX_MAX)}, a.PER_MAILBOX_MAX)
    longest = b"x" * a.VALUE_BYTES_MAX
    assert a.refused((("/shared/0", longest), ("/private/new", b"y")), ANNA, full) is None
    assert _reason(a.refused((("/shared/new", b"y"),), ANNA, full)) is Reason.OVER_LIMIT
    assert a.refused((("/shared/0", None), ("/shared/new", b"y")), ANNA, full) is None
    assert _reason(a.refused((("/shared/0", longest + b"x"),), ANNA, full)) is Reason.TOO_BIG
    much = Annotated({(0, "/shared/0"): 5}, a.ACCOUNT_BYTES_MAX)
    assert a.refused((("/shared/0", b"12345"),), ANNA, much) is None
    assert _reason(a.refused((("/shared/0", b"123456"),), ANNA, much)) is Reason.OVER_LIMIT
    assert _reason(a.refused((("/shared/NEW", b"y"),), ANNA, Annotated())) is Reason.NOT_PERMITTED
    assert _reason(a.refused((("/shared", b"y"),), ANNA, Annotated())) is Reason.NOT_PERMITTED
    many = tuple((f"/private/{n}", None) for n in range(a.PER_COMMAND_MAX + 1))
    assert _reason(a.refused(many, ANNA, Annotated())) is Reason.OVER_LIMIT


def _set(state: MailState, command: SetAnnotations, position: int) -> MailState:
    tree = tree_of(state, command.account)
    answer = decide(tree, command)
    assert not isinstance(answer, Refusal)
    for _, event in answer.events:
        after = evolve(state, command.account, event, position)  # type: ignore[arg-type]
        assert isinstance(after, MailState)
        state = after
    return state


def test_they_are_seen_by_whom_they_are_for_and_go_with_their_mailbox() -> None:
    state = evolve(MailState(), ANNA, MailboxesCreated((Made(BOX, "box"), Made(71, "other"))), 1)
    assert isinstance(state, MailState)
    before = state.accounts[ANNA].boxes[BOX].highestmodseq
    both = (("/shared/comment", b"all"), ("/private/comment", b"mine"))
    state = _set(state, SetAnnotations(ANNA, "box", ANNA, both), 2)
    state = _set(state, SetAnnotations(ANNA, "box", BOB, (("/private/comment", b"his"),)), 3)
    state = _set(state, SetAnnotations(ANNA, "", ANNA, (("/private/comment", b"me"),)), 4)
    mail = state.accounts[ANNA]
    assert mail.boxes[BOX].highestmodseq == before
    assert a.seen_by(mail.annotations, ANNA, [BOX], None) == {BOX: {"/private/comment": b"mine", "/shared/comment": b"all"}}
    assert a.seen_by(mail.annotations, BOB, [BOX], ["/private/comment"]) == {BOX: {"/private/comment": b"his"}}
    assert a.seen_by(mail.annotations, ANNA, [0], None) == {0: {"/private/comment": b"me"}}
    assert annotated_of(state, ANNA, "box") == Annotated(
        {(0, "/shared/comment"): 3, (ANNA, "/private/comment"): 4, (BOB, "/private/comment"): 3}, 12
    )
    assert annotates(SetAnnotations(ANNA, "inbox", ANNA, ())) == "INBOX"
    # RFC 5464 §4.1: with a new name they stay, and go with the mailbox.
    renamed = evolve(state, ANNA, MailboxesRenamed(((BOX, "new"),)), 5)
    assert isinstance(renamed, MailState) and renamed.accounts[ANNA].annotations == mail.annotations
    gone = evolve(renamed, ANNA, MailboxDeleted(BOX), 6)
    assert isinstance(gone, MailState) and gone.accounts[ANNA].annotations == {(0, ANNA, "/private/comment"): b"me"}
    assert isinstance(decide(tree_of(gone, ANNA), SetAnnotations(ANNA, "new", ANNA, both)), Refusal)
