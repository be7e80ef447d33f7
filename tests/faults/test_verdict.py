"""The judge of the faults is judged: what is planted in a story it must find."""

from tests.faults.load import DONE, WORK, Shown, Story, text, whole
from tests.faults.verdict import delivered, vanished, worked

ANNA = "anna@example.org"


def shown(name: str, uid: int = 1, modseq: int = 1, *, flagged: bool = False) -> Shown:
    return Shown(uid, modseq, flagged, name, text(name))


def test_mail_that_is_lost_doubled_or_strange() -> None:
    story = Story(sent={"a": ((ANNA,), (ANNA,)), "b": ((ANNA,), ()), "c": (("ben@example.org",), ("ben@example.org",))})
    assert not delivered(story, ANNA, [shown("a"), shown("b")])
    assert not delivered(story, ANNA, [shown("a")])
    assert "acknowledged" in delivered(story, ANNA, [shown("b")])[0]
    assert "2 times" in delivered(story, ANNA, [shown("a"), shown("b", 2), shown("b", 3)])[0]
    assert "never sent" in delivered(story, ANNA, [shown("a"), shown("c")])[0]


def test_a_promise_that_was_not_kept() -> None:
    story = Story(states={"a": {(WORK, True)}, "b": {None, (DONE, False)}})
    assert not worked(story, [shown("a", flagged=True)], [shown("b")])
    assert not worked(story, [shown("a", flagged=True)], [])
    assert worked(story, [shown("a")], [])
    assert worked(story, [], [shown("a", flagged=True)])
    assert worked(story, [shown("a", flagged=True), shown("b")], [])
    assert worked(story, [shown("a", flagged=True)], [shown("a", flagged=True)])
    assert worked(story, [shown("a", flagged=True)], [shown("stranger")])


def test_a_uid_that_means_another_message_and_a_modseq_that_falls() -> None:
    story = Story()
    story.look(ANNA, "INBOX", 1, shown("a", 7, 50))
    story.look(ANNA, "INBOX", 1, shown("a", 7, 51))
    story.look(ANNA, "INBOX", 2, shown("b", 7, 1))
    assert not story.wrong
    story.look(ANNA, "INBOX", 1, shown("b", 7, 52))
    story.look(ANNA, "INBOX", 1, shown("a", 7, 40))
    story.look_highest(ANNA, "INBOX", 9)
    story.look_highest(ANNA, "INBOX", 8)
    assert len(story.wrong) == 3


def test_what_was_shown_and_is_gone() -> None:
    story = Story()
    story.look(ANNA, "INBOX", 1, shown("a"))
    assert not vanished(story, {(ANNA, "INBOX"): [shown("a")]})
    assert vanished(story, {(ANNA, "INBOX"): []})


def test_bytes_that_changed() -> None:
    assert whole(b"Return-Path: <x@y>\r\n" + text("a"))
    assert not whole(text("a").replace(b"line 2", b"line 3"))
