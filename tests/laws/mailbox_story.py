"""Stories of an account's mail, for the laws: random commands, and a book that remembers what clients were shown."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from hypothesis import strategies as st

from cluster.domain.decision import Decision, Unappliable
from cluster.domain.mailbox import commands as c
from cluster.domain.mailbox import names, ranges
from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.decide import TREE_COMMANDS, decide, tree_reads, tree_restores
from cluster.domain.mailbox.events import UID_GAP, AnyEvent, EpochStarted, FlagMode, Ranges
from cluster.domain.mailbox.state import AccountMail, MailState, evolve, messages_of, tree_of
from cluster.domain.refusal import Refusal

ACCOUNT = 7

NAMES = ["INBOX", "inbox", "Sent", "Junk", "a", "a/b", "a/b/c", "b", "b/", "b/c", "INBOX/x", "no//name", "%"]
mailbox_names = st.sampled_from(NAMES)
contents = st.integers(0, 40).map(lambda n: Content(bytes([n]) * 32, n, (), b""))
flags = st.integers(0, 31)
keywords = st.lists(st.sampled_from(["x", "$Junk", "Y", "bad word"]), max_size=2).map(tuple)
uid_ranges: st.SearchStrategy[Ranges] = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=3).map(
    tuple
)
messages = st.builds(c.NewMessage, contents, st.integers(0, 9), st.just(0), flags, keywords)

# A mailbox is named by its number in the story; the teller puts its id there. Ids of new ones are the teller's, too.
number = st.integers(0, 9)
NO_IDS: st.SearchStrategy[tuple[int, ...]] = st.just(())
commands: st.SearchStrategy[c.AnyCommand] = st.one_of(
    st.builds(
        c.CreateMailbox,
        st.just(ACCOUNT),
        mailbox_names,
        NO_IDS,
        st.sampled_from(["", "", "\\Sent", "\\archive", "\\All"]),
    ),
    st.builds(c.DeleteMailbox, st.just(ACCOUNT), mailbox_names),
    st.builds(c.RenameMailbox, st.just(ACCOUNT), mailbox_names, mailbox_names, NO_IDS),
    st.builds(c.Subscribe, st.just(ACCOUNT), mailbox_names, st.booleans()),
    st.builds(c.AppendMessage, st.just(ACCOUNT), mailbox_names, st.lists(messages, max_size=3).map(tuple)),
    st.builds(c.Deliver, st.just(ACCOUNT), contents, st.integers(0, 9), NO_IDS, mailbox_names),
    st.builds(c.OpenAccount, st.just(ACCOUNT), NO_IDS),
    st.builds(
        c.ChangeFlags,
        st.just(ACCOUNT),
        number,
        uid_ranges,
        st.sampled_from(FlagMode),
        flags,
        keywords,
        st.none() | st.integers(0, 300),
    ),
    st.builds(c.CopyMessages, st.just(ACCOUNT), number, mailbox_names, uid_ranges, st.booleans()),
    st.builds(c.Expunge, st.just(ACCOUNT), number, uid_ranges, st.booleans()),
    st.builds(c.ReplaceMessage, st.just(ACCOUNT), number, st.integers(1, 12), mailbox_names, messages),
    st.builds(
        c.SetAnnotations,
        st.just(ACCOUNT),
        mailbox_names,
        st.sampled_from([ACCOUNT, 9]),
        st.lists(
            st.tuples(st.sampled_from(["/shared/comment", "/private/comment", "/no"]), st.sampled_from([None, b"", b"a"])),
            max_size=2,
        ).map(tuple),
    ),
    st.builds(
        c.SetRights,
        st.just(ACCOUNT),
        mailbox_names,
        st.sampled_from(["anyone", "-9", "9"]),
        st.sampled_from(FlagMode),
        st.sampled_from(["lr", "lrswi", "a", ""]),
    ),
    st.builds(c.RestoreMessages, st.just(ACCOUNT), number, uid_ranges, mailbox_names, st.sampled_from([(), (1,)])),
)


@dataclass
class Book:
    """What clients were shown and may have cached. Raises where a handle stands for two things."""

    contents: dict[tuple[str, int, int], bytes] = field(default_factory=dict)  # (name, UIDVALIDITY, UID) → hash
    boxes: dict[int, int] = field(default_factory=dict)  # UIDVALIDITY → mailbox id

    def shown(self, state: MailState) -> None:
        mail = state.accounts.get(ACCOUNT)
        for box in mail.boxes.values() if mail else ():
            assert self.boxes.setdefault(box.uidvalidity, box.id) == box.id
            for uid, message in box.messages.items():
                key = (box.name, box.uidvalidity, uid)
                assert self.contents.setdefault(key, message.content.hash) == message.content.hash


@dataclass
class Teller:
    """Plays commands on one account. Every fact goes to `log` as (command number, n, event, position)."""

    state: MailState = MailState()
    position: int = 0
    ids: int = 1000
    book: Book = field(default_factory=Book)
    log: list[tuple[int, int, AnyEvent, int]] = field(default_factory=list)
    told: int = 0
    unappliable: int = 0

    def concrete(self, command: c.AnyCommand) -> c.AnyCommand:
        """With ids of mailboxes where the story has numbers."""
        match command:
            case c.CreateMailbox():
                return msgspec.structs.replace(command, ids=self.fresh(names.levels(command.name)))
            case c.RenameMailbox():
                return msgspec.structs.replace(command, ids=self.fresh(names.levels(command.new)))
            case c.Deliver() | c.OpenAccount():
                return msgspec.structs.replace(command, ids=self.fresh(6))
            case c.ChangeFlags() | c.Expunge():
                return msgspec.structs.replace(command, mailbox=self.mailbox(command.mailbox))
            case c.CopyMessages() | c.ReplaceMessage():
                return msgspec.structs.replace(command, source=self.mailbox(command.source))
            case c.RestoreMessages():
                mail = self.state.accounts.get(ACCOUNT)
                return restoring(mail, command, self.fresh(names.levels(command.target) if command.ids else 0))
        return command

    def fresh(self, count: int) -> tuple[int, ...]:
        self.ids += count
        return tuple(range(self.ids - count, self.ids))

    def mailbox(self, number: int) -> int:
        mail = self.state.accounts.get(ACCOUNT)
        there = sorted(mail.boxes) if mail else []
        return there[number] if number < len(there) else 1

    def answer(self, command: c.AnyCommand, state: MailState | None = None) -> Decision | Refusal:
        return decided(self.state if state is None else state, command)

    def tell(self, command: c.AnyCommand, stale: MailState | None = None) -> Decision | Refusal:
        """`stale`: decide on that state, as if nobody had noticed that it is old."""
        command = self.concrete(command)
        answer = self.answer(command, stale)
        if isinstance(answer, Decision):
            for n, (_, event) in enumerate(answer.events):
                self.apply(event, n)  # type: ignore[arg-type]
        self.told += 1
        return answer

    def apply(self, event: AnyEvent, n: int = 0) -> None:
        self.position += 10
        self.log.append((self.told, n, event, self.position))
        after = evolve(self.state, ACCOUNT, event, self.position)
        if isinstance(after, Unappliable):
            self.unappliable += 1
            return
        check_step(self.state, after, self.position)
        self.state = after
        self.book.shown(after)

    def play(self, story: Sequence[c.AnyCommand]) -> None:
        for command in story:
            self.tell(command)

    def lose_tail(self, tail: Sequence[c.AnyCommand], clean: bool = False) -> None:
        """A home goes on, shows what it did to its clients, and is lost with it; another starts a new epoch."""
        kept = self.state
        log = list(self.log)
        self.play(tail)
        if not clean:
            self.state, self.log = kept, log
        self.position = (self.position >> 40) + 1 << 40
        self.told += 1
        self.apply(EpochStarted(((1, self.position, 0 if clean else UID_GAP),)))
        self.told += 1


def decided(state: MailState, command: c.AnyCommand) -> Decision | Refusal:
    if isinstance(command, c.ChangeFlags | c.Expunge):
        return decide(messages_of(state, ACCOUNT, command.mailbox, command.uids), command)
    assert type(command) in TREE_COMMANDS
    return decide(tree_of(state, ACCOUNT, tree_reads(command), tree_restores(command)), command)


def restoring(mail: AccountMail | None, command: c.RestoreMessages, ids: tuple[int, ...]) -> c.RestoreMessages:
    """With a mailbox of those from which something went, living and deleted."""
    known = sorted(mail.gone) if mail else []
    source = known[command.source % len(known)] if known else 1
    return msgspec.structs.replace(command, source=source, places=ranges.normalise(command.places), ids=ids)


def check_step(before: MailState, after: MailState, position: int) -> None:
    """What holds for every fact, whatever it is."""
    old, new = before.accounts.get(ACCOUNT), after.accounts.get(ACCOUNT)
    if new is None:
        return
    assert {box.name: box.id for box in new.boxes.values()} == new.names
    assert all(box.uidvalidity <= new.uidvalidity for box in new.boxes.values())
    assert old is None or old.uidvalidity <= new.uidvalidity
    for box in new.boxes.values():
        was = old.boxes.get(box.id) if old else None
        known = (*box.messages, *box.expunged)
        assert all(0 < uid < box.uidnext for uid in known) and not box.messages.keys() & box.expunged.keys()
        assert all(message.modseq <= box.highestmodseq <= position for message in box.messages.values())
        assert all(message.keywords == tuple(sorted(set(message.keywords))) for message in box.messages.values())
        if was is None:
            continue
        assert (box.uidvalidity, box.special_use) == (was.uidvalidity, was.special_use)
        # UIDs and MODSEQ only rise; what changed has this very position.
        assert box.uidnext >= was.uidnext and box.highestmodseq in (was.highestmodseq, position)
        assert was.messages.keys() | was.expunged.keys() <= set(known)
        assert all(uid >= was.uidnext for uid in box.messages.keys() - was.messages.keys())
        assert was.expunged.items() <= box.expunged.items()
        for uid, message in box.messages.items():
            same = was.messages.get(uid)
            assert message == same or message.modseq == position == box.highestmodseq
        assert all(box.expunged[uid] == position for uid in box.expunged.keys() - was.expunged.keys())
