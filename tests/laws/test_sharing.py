"""What somebody who is not the owner may do: flag by flag and right by right, against the plainest model."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.domain.mailbox import commands as c
from cluster.domain.mailbox import events as m
from cluster.domain.mailbox import rights, sharing
from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.state import MailState, Unappliable, as_read_by, evolve, messages_of
from cluster.domain.refusal import Reason, Refusal
from storage.sharing import prefix_of, split

OWNER, BOB, CARL, INBOX = 7, 8, 9, 1
NEEDED = {m.SEEN: "s", m.DELETED: "t", m.ANSWERED: "w", m.FLAGGED: "w", m.DRAFT: "w"}

letters = st.integers(0, (1 << len(rights.ALL)) - 1).map(
    lambda bits: "".join(letter for n, letter in enumerate(rights.ALL) if bits >> n & 1)
)
flags = st.integers(0, 31)
keywords = st.sets(st.sampled_from(["x", "y"])).map(lambda words: tuple(sorted(words)))


def told(events: list[m.AnyEvent]) -> MailState:
    state = MailState()
    for position, event in enumerate(events, 1):
        after = evolve(state, OWNER, event, position)
        assert not isinstance(after, Unappliable), after
        state = after
    return state


@settings(max_examples=600, deadline=None)
@given(letters, flags, keywords, st.booleans(), st.sampled_from(m.FlagMode), flags, keywords)
def test_flags_are_changed_as_far_as_one_may(
    given_: str, was: int, had: tuple[str, ...], read: bool, mode: m.FlagMode, asked: int, words: tuple[str, ...]
) -> None:
    content = Content(b"h" * 32, 5, (), b"d")
    before: list[m.AnyEvent] = [
        m.MailboxesCreated((m.Made(INBOX, "INBOX"),)),
        m.MessageAppended(INBOX, content, 0, 0, was, had, seen_by=BOB if read else 0),
    ]
    state, uids = told(before), ((1, 1),)
    command = c.ChangeFlags(OWNER, INBOX, uids, mode, asked, words)
    reader = sharing.Reader(BOB, {INBOX: given_})
    answer = sharing.decide(messages_of(state, OWNER, INBOX, uids, BOB), command, reader)
    # What bob sees, with every flag for itself.
    seen = was & ~m.SEEN | (m.SEEN if read else 0)
    wanted, named = 0, False
    for flag, needed in NEEDED.items():
        on = bool(seen & flag)
        if needed in given_ and (asked & flag or mode is m.FlagMode.REPLACE):
            on, named = bool(asked & flag) and mode is not m.FlagMode.REMOVE, True
        wanted |= flag if on else 0
    kept = set(had)
    if "w" in given_ and (words or mode is m.FlagMode.REPLACE):
        named = True
        kept = {m.FlagMode.ADD: kept | set(words), m.FlagMode.REMOVE: kept - set(words)}.get(mode, set(words))
    if not named and (asked or words or mode is m.FlagMode.REPLACE):
        assert isinstance(answer, Refusal)
        assert answer.reason is (Reason.NOT_PERMITTED if "l" in given_ else Reason.NO_SUCH_MAILBOX)
        return
    if isinstance(answer, Refusal):
        assert not named and "r" not in given_
        return
    after = told([*before, *(event for _, event in answer.events)])  # type: ignore[list-item]  # of this noun
    message = after.accounts[OWNER].boxes[INBOX].messages[1]
    shown = as_read_by(message, BOB)
    assert (shown.flags, set(shown.keywords)) == (wanted, kept)
    # The owner's \Seen, and what others have read, is as it was.
    assert message.flags & m.SEEN == was & m.SEEN and not as_read_by(message, CARL).flags & m.SEEN
    # A reader is told by a MODSEQ that rises; who is told nothing new by none.
    changed = (shown.flags, set(shown.keywords)) != (seen, set(had))
    assert (shown.modseq > 2) == changed


@given(st.lists(st.tuples(st.sampled_from(["anyone", "8", "-8", "-anyone", "all@a.org"]), letters), max_size=5))
def test_rights_are_the_union_without_what_is_taken(entries: list[tuple[str, str]]) -> None:
    """RFC 4314 §2."""
    found = rights.combined(entries)
    for right in rights.ALL:
        given_ = any(right in some and not who.startswith("-") for who, some in entries)
        taken = any(right in some and who.startswith("-") for who, some in entries)
        assert (right in found) == (given_ and not taken)


@given(st.text("abcdefxyzkwRQ0-", max_size=6))
def test_any_letters_are_rights_or_none(text: str) -> None:
    """RFC 4314 §3.1: no letter is passed over in silence; §2.1.1: "c" and "d" are added to what is told, and to be ignored there."""
    found = rights.parsed(text)
    assert (found is None) == bool(set(text) - set("lrswipkxteacd"))
    assert found is None or rights.shown(found).rstrip("cd") == found


@given(st.sampled_from(["anna@a.org", "a/b@a.org", "x@y.z"]), st.sampled_from(["INBOX", "a/b", "a@b/c"]), st.booleans())
def test_a_name_is_taken_apart_as_it_was_put_together(address: str, name: str, shared: bool) -> None:
    prefix = prefix_of(address, shared=shared)
    assert split(prefix + name) == (prefix.partition("/")[0], address, name)
