"""What holds for an account's mail whatever happens to it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.domain.decision import Decision, Unappliable
from cluster.domain.history import History, admit
from cluster.domain.mailbox import commands as c
from cluster.domain.mailbox import ranges
from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.decide import (
    DECIDERS,
    TREE_COMMANDS,
    decide,
    reads_modseqs,
    tree_ids,
    tree_needs,
    tree_reads,
)
from cluster.domain.mailbox.events import (
    DELETED,
    FLAGGED,
    SEEN,
    UID_GAP,
    UID_GAP_FORCED,
    UIDNEXT_RAISED_MAX,
    EpochStarted,
    FlagMode,
    FlagsChanged,
    Made,
    MailboxesCreated,
    MessageAppended,
    MessagesCopied,
    MessagesExpunged,
    Reaffirmed,
    TailDestroyed,
)
from cluster.domain.mailbox.names import STANDARD
from cluster.domain.mailbox.state import Box, MailState, MessagesState, Tree, evolve, messages_of, tree_of
from cluster.domain.refusal import Reason, Refusal
from tests.laws.mailbox_story import ACCOUNT, Teller, commands, decided, mailbox_names, messages

HELLO = Content(b"h" * 32, 5, (), b"")
WORLD = Content(b"w" * 32, 7, (), b"")
stories = st.lists(commands, max_size=25)


@given(stories, st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_handles_stand_for_one_thing_for_ever(story: list[c.AnyCommand], seed: int) -> None:
    """Teller and Book check every step: UIDs rise, MODSEQ never falls, (mailbox, UIDVALIDITY, UID) is one content, also
    when tails of epochs are lost that clients had seen, and when decisions were made on stale states."""
    chance = random.Random(seed)
    teller = Teller()
    stale = teller.state
    for command in story:
        match chance.randrange(8):
            case 0:
                teller.lose_tail(story[: chance.randrange(6)], clean=chance.random() < 0.3)
            case 1:
                teller.tell(command, stale)
            case 2:
                stale = teller.state
                teller.tell(command)
            case _:
                teller.tell(command)


@given(stories)
@settings(deadline=None)
def test_what_is_decided_on_the_present_always_applies(story: list[c.AnyCommand]) -> None:
    teller = Teller()
    teller.play(story)
    assert teller.unappliable == 0


@given(stories, st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24), st.integers(0, 24)), max_size=4))
@settings(deadline=None)
def test_a_repeated_command_changes_nothing(story: list[c.AnyCommand], repeats: list[tuple[int, int, int]]) -> None:
    """A command that comes again later, decided like another one (more events or fewer), is passed over whole."""
    teller = Teller()
    teller.play(story)
    groups: list[list[tuple[int, int, object, int]]] = [[] for _ in range(teller.told)]
    for fact in teller.log:
        groups[fact[0]].append(fact)
    groups = [group for group in groups if group]
    log = [fact for group in groups for fact in group]
    if groups:
        for first, after, like in sorted(repeats, key=lambda repeat: -repeat[1]):
            command = groups[min(first, after) % len(groups)][0][0]
            at = [n for n, fact in enumerate(log) if fact[0] == groups[max(first, after) % len(groups)][-1][0]][-1] + 1
            if all(fact[0] != command for fact in log[:at]):
                continue
            log[at:at] = [(command, n, event, log[at - 1][3] + 1) for _, n, event, _ in groups[like % len(groups)]]
    history, state = History(), MailState()
    for command, n, event, position in log:
        history, wanted = admit(history, command.to_bytes(16), n, position)
        if wanted:
            after_it = evolve(state, ACCOUNT, event, position)  # type: ignore[arg-type]
            state = state if isinstance(after_it, Unappliable) else after_it
    assert state == teller.state


@given(stories)
@settings(deadline=None)
def test_a_log_gives_one_state(story: list[c.AnyCommand]) -> None:
    teller = Teller()
    teller.play(story)
    state = MailState()
    for _, _, event, position in teller.log:
        after = evolve(state, ACCOUNT, event, position)
        assert not isinstance(after, Unappliable)
        state = after
    assert state == teller.state


@given(stories, commands)
@settings(deadline=None)
def test_what_tree_needs_names_is_enough(story: list[c.AnyCommand], command: c.AnyCommand) -> None:
    """A decision on the asked part of the tree is the decision on all of it."""
    teller = Teller()
    teller.play(story)
    command = teller.concrete(command)
    if type(command) in TREE_COMMANDS:
        whole = tree_of(teller.state, ACCOUNT, tree_reads(command))
        wanted, ids = tree_needs(command), tree_ids(command)
        part = {
            name: entry for name, entry in whole.entries.items() if wanted is None or name in wanted or entry.id in ids
        }
        subscriptions = whole.subscriptions if isinstance(command, c.Subscribe) else frozenset[str]()
        assert decide(Tree(part, whole.count, subscriptions, whole.messages), command) == decide(whole, command)
    elif not reads_modseqs(command):
        assert isinstance(command, c.ChangeFlags | c.Expunge)
        state = messages_of(teller.state, ACCOUNT, command.mailbox, command.uids)
        assert decide(MessagesState(state.exists), command) == decide(state, command)


@given(st.text(), st.text(), st.text(), st.lists(st.text(), max_size=3))
def test_any_text_is_answered(a: str, b: str, use: str, words: list[str]) -> None:
    teller = Teller()
    teller.play([c.OpenAccount(ACCOUNT, ()), c.CreateMailbox(ACCOUNT, a, (), use)])
    teller.play([c.RenameMailbox(ACCOUNT, a, b, ()), c.Subscribe(ACCOUNT, b, True), c.DeleteMailbox(ACCOUNT, b)])
    teller.play([c.AppendMessage(ACCOUNT, a, (c.NewMessage(HELLO, 0, 0, 99, tuple(words)),))])
    teller.play([c.ChangeFlags(ACCOUNT, 0, ((-5, 1 << 70),), FlagMode.ADD, -1, tuple(words), 5)])
    assert teller.unappliable == 0


@given(stories, mailbox_names)
@settings(deadline=None)
def test_after_create_it_is_there_and_may_go_and_come_again(story: list[c.AnyCommand], name: str) -> None:
    teller = Teller()
    teller.play(story)
    answer = teller.tell(c.CreateMailbox(ACCOUNT, name, ()))
    if isinstance(answer, Refusal):
        assert answer.reason in (Reason.MAILBOX_EXISTS, Reason.MAILBOX_NAME_INVALID)
        return
    canonical = name.removesuffix("/")
    tree = tree_of(teller.state, ACCOUNT)
    levels = canonical.split("/")
    assert all("/".join(levels[:n]) in tree.entries for n in range(1, len(levels) + 1))
    uidvalidity = tree.entries[canonical].uidvalidity
    assert isinstance(teller.tell(c.DeleteMailbox(ACCOUNT, canonical)), Decision)
    assert canonical not in tree_of(teller.state, ACCOUNT).entries
    assert isinstance(teller.tell(c.CreateMailbox(ACCOUNT, name, ())), Decision)
    assert tree_of(teller.state, ACCOUNT).entries[canonical].uidvalidity > uidvalidity


@given(stories, mailbox_names, mailbox_names)
@settings(deadline=None)
def test_after_rename_ids_and_uidvalidity_stay(story: list[c.AnyCommand], old: str, new: str) -> None:
    teller = Teller()
    teller.play([c.OpenAccount(ACCOUNT, ()), *story])
    before = tree_of(teller.state, ACCOUNT)
    answer = teller.tell(c.RenameMailbox(ACCOUNT, old, new, ()))
    after = tree_of(teller.state, ACCOUNT)
    if isinstance(answer, Refusal):
        assert after == before
        return
    new = new.removesuffix("/")
    if old.upper() == "INBOX":
        assert before.entries.items() <= after.entries.items() and new in after.entries
        return
    moved = {name: entry for name, entry in before.entries.items() if name == old or name.startswith(old + "/")}
    assert all(after.entries[new + name[len(old) :]] == entry for name, entry in moved.items())
    assert all(after.entries[name] == before.entries[name] for name in before.entries.keys() - moved.keys())
    assert not moved.keys() & after.entries.keys() or new + "/" in {name[: len(new) + 1] for name in moved}


@given(stories, st.lists(messages, min_size=1, max_size=3))
@settings(deadline=None)
def test_copies_keep_everything_but_their_place(story: list[c.AnyCommand], new: list[c.NewMessage]) -> None:
    teller = Teller()
    teller.play([c.OpenAccount(ACCOUNT, ()), *story, c.AppendMessage(ACCOUNT, "INBOX", tuple(new))])
    inbox = tree_of(teller.state, ACCOUNT).entries["INBOX"].id
    before = teller.state.accounts[ACCOUNT].boxes[inbox]
    teller.tell(c.CreateMailbox(ACCOUNT, "copies", ()))
    target = tree_of(teller.state, ACCOUNT).entries["copies"].id
    teller.apply(MessagesCopied(inbox, target, ranges.EVERY_UID, moved=True))
    mail = teller.state.accounts[ACCOUNT]
    copies = list(mail.boxes[target].messages.values())
    assert [message.origin_uid for message in copies] == sorted(before.messages)
    for message in copies:
        source = before.messages[message.origin_uid]
        assert (message.content, message.flags, message.keywords, message.internal_at, message.thread) == (
            source.content, source.flags, source.keywords, source.internal_at, source.thread,
        )  # fmt: skip
    assert not mail.boxes[inbox].messages and before.messages.keys() <= mail.boxes[inbox].expunged.keys()


def _opened(*story: c.AnyCommand) -> Teller:
    teller = Teller()
    teller.play([c.OpenAccount(ACCOUNT, ()), *story])
    return teller


def _reason(answer: Decision | Refusal) -> Reason:
    assert isinstance(answer, Refusal)
    return answer.reason


def test_every_command_has_its_row() -> None:
    assert set(DECIDERS) == set(c.AnyCommand.__args__)


def test_first_mail_opens_the_account() -> None:
    teller = Teller()
    teller.tell(c.Deliver(ACCOUNT, HELLO, 5, (), "junk-is-not-there"))
    mail = teller.state.accounts[ACCOUNT]
    assert [(box.name, box.special_use) for box in mail.boxes.values()] == list(STANDARD)
    assert mail.subscriptions == {name for name, _ in STANDARD}
    assert [m.content for m in mail.boxes[mail.names["INBOX"]].messages.values()] == [HELLO]
    assert teller.tell(c.OpenAccount(ACCOUNT, ())) == Decision()


def test_inbox_is_protected() -> None:
    teller = _opened()
    assert _reason(teller.tell(c.DeleteMailbox(ACCOUNT, "Inbox"))) is Reason.MAILBOX_PROTECTED
    assert _reason(teller.tell(c.CreateMailbox(ACCOUNT, "iNBOX", ()))) is Reason.MAILBOX_EXISTS
    assert _reason(teller.tell(c.RenameMailbox(ACCOUNT, "Sent", "inbox", ()))) is Reason.MAILBOX_EXISTS


def test_rename_inbox_moves_its_messages_and_not_its_children() -> None:
    # RFC 9051 §6.3.6
    teller = _opened(
        c.CreateMailbox(ACCOUNT, "INBOX/child", ()), c.AppendMessage(ACCOUNT, "INBOX", (c.NewMessage(HELLO, 1),))
    )
    teller.tell(c.RenameMailbox(ACCOUNT, "inbox", "old/2026", ()))
    mail = teller.state.accounts[ACCOUNT]
    assert not mail.boxes[mail.names["INBOX"]].messages and "INBOX/child" in mail.names and "old" in mail.names
    assert len(mail.boxes[mail.names["old/2026"]].messages) == 1


def test_renames_that_cannot_be() -> None:
    teller = _opened(
        c.CreateMailbox(ACCOUNT, "a/b", ()), c.CreateMailbox(ACCOUNT, "z/b", ()), c.DeleteMailbox(ACCOUNT, "z")
    )
    assert _reason(teller.tell(c.RenameMailbox(ACCOUNT, "a", "a/b/c", ()))) is Reason.MAILBOX_NAME_INVALID
    assert _reason(teller.tell(c.RenameMailbox(ACCOUNT, "a", "Sent", ()))) is Reason.MAILBOX_EXISTS
    assert _reason(teller.tell(c.RenameMailbox(ACCOUNT, "a", "a", ()))) is Reason.MAILBOX_EXISTS
    # z is only a superior that is not there: it cannot be renamed, and a child of it is in the way.
    assert _reason(teller.tell(c.RenameMailbox(ACCOUNT, "z", "y", ()))) is Reason.NO_SUCH_MAILBOX
    assert _reason(teller.tell(c.RenameMailbox(ACCOUNT, "a", "z", ()))) is Reason.MAILBOX_EXISTS


def test_unchangedsince_spares_and_names_what_changed() -> None:
    # RFC 7162 §3.1.3
    teller = _opened(c.AppendMessage(ACCOUNT, "INBOX", tuple(c.NewMessage(HELLO, n) for n in range(4))))
    since = teller.position
    teller.tell(c.ChangeFlags(ACCOUNT, 0, ((2, 3),), FlagMode.ADD, FLAGGED))
    answer = teller.tell(c.ChangeFlags(ACCOUNT, 0, ((1, 9),), FlagMode.ADD, SEEN, (), since))
    assert isinstance(answer, Decision) and answer.modified == ((2, 3),) and answer.depends
    inbox = next(iter(teller.state.accounts[ACCOUNT].boxes.values()))
    assert [message.flags for message in inbox.messages.values()] == [SEEN, FLAGGED, FLAGGED, SEEN]


def test_flags_that_are_there_already_keep_the_modseq() -> None:
    teller = _opened(c.AppendMessage(ACCOUNT, "INBOX", (c.NewMessage(HELLO, 1, 0, SEEN), c.NewMessage(WORLD, 1))))
    before = next(iter(teller.state.accounts[ACCOUNT].boxes.values()))
    teller.tell(c.ChangeFlags(ACCOUNT, 0, ((1, 2),), FlagMode.ADD, SEEN))
    after = next(iter(teller.state.accounts[ACCOUNT].boxes.values()))
    assert (
        after.messages[1] == before.messages[1] and after.messages[2].modseq == teller.position == after.highestmodseq
    )


def test_only_deleted_messages_are_expunged_where_asked() -> None:
    # RFC 4315 §2.1
    teller = _opened(c.AppendMessage(ACCOUNT, "INBOX", (c.NewMessage(HELLO, 1, 0, DELETED), c.NewMessage(WORLD, 1))))
    teller.tell(c.Expunge(ACCOUNT, 0, ((1, 2),)))
    inbox = next(iter(teller.state.accounts[ACCOUNT].boxes.values()))
    assert list(inbox.messages) == [2] and inbox.expunged == {1: teller.position}


def test_a_message_is_replaced_once() -> None:
    """RFC 8508 §3.4: both happen or neither; who comes second is told that it is not there any more."""
    teller = _opened(c.AppendMessage(ACCOUNT, "INBOX", (c.NewMessage(HELLO, 1),)))
    first = c.ReplaceMessage(ACCOUNT, 0, 1, "INBOX", c.NewMessage(WORLD, 2, 0, SEEN))
    answer = teller.tell(first)
    inbox = next(iter(teller.state.accounts[ACCOUNT].boxes.values()))
    assert isinstance(answer, Decision) and [type(event) for _, event in answer.events] == [MessageAppended, MessagesExpunged]
    assert len(answer.depends) == 2
    assert {uid: message.content for uid, message in inbox.messages.items()} == {2: WORLD} and list(inbox.expunged) == [1]
    assert _reason(teller.tell(first)) is Reason.NO_SUCH_ENTRY
    assert _reason(teller.tell(c.ReplaceMessage(ACCOUNT, 0, 2, "nowhere", first.message))) is Reason.NO_SUCH_MAILBOX
    assert teller.state.accounts[ACCOUNT].boxes[inbox.id] == inbox


def test_what_comes_too_late_for_its_mailbox_goes_to_inbox() -> None:
    teller = _opened(c.CreateMailbox(ACCOUNT, "gone", ()))
    gone = tree_of(teller.state, ACCOUNT).entries["gone"].id
    teller.tell(c.DeleteMailbox(ACCOUNT, "gone"))
    teller.apply(MessageAppended(gone, HELLO, 1))
    teller.apply(FlagsChanged(gone, ((1, 1),), FlagMode.ADD, SEEN))
    inbox = next(iter(teller.state.accounts[ACCOUNT].boxes.values()))
    teller.apply(MessagesCopied(inbox.id, gone, ((1, 1),)))
    inbox = next(iter(teller.state.accounts[ACCOUNT].boxes.values()))
    assert [(uid, message.flags) for uid, message in inbox.messages.items()] == [(1, 0), (2, 0)]
    assert isinstance(evolve(MailState(), ACCOUNT, MessageAppended(gone, HELLO, 1), 5), Unappliable)


def test_an_unclean_epoch_leaves_a_gap() -> None:
    teller = _opened(c.AppendMessage(ACCOUNT, "INBOX", (c.NewMessage(HELLO, 1),)))
    before = teller.state.accounts[ACCOUNT]
    teller.lose_tail([], clean=True)
    assert teller.state.accounts[ACCOUNT] == before
    teller.lose_tail(
        [c.AppendMessage(ACCOUNT, "INBOX", (c.NewMessage(WORLD, 1),)), c.CreateMailbox(ACCOUNT, "new", ())]
    )
    after = teller.state.accounts[ACCOUNT]
    assert after.uidvalidity == before.uidvalidity + UID_GAP
    assert [box.uidnext for box in after.boxes.values()] == [box.uidnext + UID_GAP for box in before.boxes.values()]
    # An account whose every fact was in the tail starts above what it was shown.
    fresh = evolve(teller.state, 99, MailboxesCreated((Made(1, "INBOX"),)), teller.position + 1)
    assert isinstance(fresh, MailState) and fresh.accounts[99].boxes[1].uidvalidity == UID_GAP + 1


def test_a_mailbox_whose_uids_would_not_be_enough_begins_anew() -> None:
    """RFC 9051 §2.3.1.1: UIDs are 32 bits; a hundred forced takeovers must not use them up."""
    teller = _opened(c.AppendMessage(ACCOUNT, "INBOX", (c.NewMessage(HELLO, 1), c.NewMessage(WORLD, 1))))
    inbox = _inbox(teller.state)
    teller.apply(MessagesExpunged(inbox.id, ((1, 1),), only_deleted=False))
    state, gaps = teller.state, 0
    while _inbox(state).uidvalidity == inbox.uidvalidity:
        gaps += 1
        after = evolve(state, ACCOUNT, EpochStarted(((gaps, 0, UID_GAP_FORCED),)), (gaps + 1) << 40)
        assert isinstance(after, MailState) and _inbox(after).uidnext <= UIDNEXT_RAISED_MAX
        state = after
    anew = _inbox(state)
    assert gaps > 100 and anew.uidvalidity > state.accounts[ACCOUNT].uidvalidity - len(state.accounts[ACCOUNT].boxes)
    assert [(uid, one.content) for uid, one in anew.messages.items()] == [(1, WORLD)]
    assert (anew.uidnext, anew.expunged) == (2, {})


def test_what_is_reaffirmed_counts_as_changed_or_gone() -> None:
    teller = _opened(c.AppendMessage(ACCOUNT, "INBOX", (c.NewMessage(HELLO, 1), c.NewMessage(WORLD, 1))))
    inbox = _inbox(teller.state)
    other = evolve(teller.state, ACCOUNT, Reaffirmed(inbox.id, inbox.uidvalidity + 9, ((1, 9),)), 1 << 40)
    assert other == teller.state
    after = evolve(teller.state, ACCOUNT, Reaffirmed(inbox.id, inbox.uidvalidity, ((2, 9),)), 1 << 40)
    assert isinstance(after, MailState)
    assert [one.modseq for one in _inbox(after).messages.values()] == [inbox.messages[1].modseq, 1 << 40]
    # What was never given is not called gone: it may yet name a message.
    assert _inbox(after).vanished == ((2, 2, 1 << 40),) and _inbox(after).highestmodseq == 1 << 40


def test_a_tail_that_nobody_will_bring_reaffirms_all() -> None:
    teller = _opened(c.AppendMessage(ACCOUNT, "INBOX", (c.NewMessage(HELLO, 1), c.NewMessage(WORLD, 1))))
    after = evolve(teller.state, 0, TailDestroyed(1), 1 << 40)
    assert isinstance(after, MailState) and after.salvaged == {1: (1 << 40) - 1}
    assert {one.modseq for one in _inbox(after).messages.values()} == {1 << 40}
    assert _inbox(after).vanished == ((1, 2, 1 << 40),)


def _inbox(state: MailState) -> Box:
    mail = state.accounts[ACCOUNT]
    return mail.boxes[mail.names["INBOX"]]


def test_limits_are_kept() -> None:
    teller = _opened()
    full = Tree(tree_of(teller.state, ACCOUNT).entries, 20_000)
    assert _reason(decide(full, c.CreateMailbox(ACCOUNT, "x", (1,)))) is Reason.OVER_LIMIT
    assert _reason(decide(full, c.RenameMailbox(ACCOUNT, "INBOX", "x", (1,)))) is Reason.OVER_LIMIT
    many = c.AppendMessage(ACCOUNT, "INBOX", tuple(c.NewMessage(HELLO, 1) for _ in range(101)))
    assert _reason(decided(teller.state, many)) is Reason.OVER_LIMIT
    ranges_max = tuple((2 * n + 1, 2 * n + 1) for n in range(100_001))
    assert _reason(decide(MessagesState(True), c.Expunge(ACCOUNT, 1, ranges_max))) is Reason.OVER_LIMIT


@pytest.mark.parametrize("use", ["\\All", "\\Flagged", "\\Inbox", "Sent"])
def test_uses_that_no_mailbox_is_made_for(use: str) -> None:
    # RFC 6154 §3
    assert _reason(_opened().tell(c.CreateMailbox(ACCOUNT, "x", (), use))) is Reason.SPECIAL_USE_INVALID
