"""Facts of all nouns in one partition, for the laws of the tables: also such as no command would lead to any more
(races, repeats, damage), and what they add up to by the pure folds alone."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import strategies as st

from cluster import codec
from cluster.domain.actor import Actor
from cluster.domain.decision import Unappliable
from cluster.domain.directory import events as d
from cluster.domain.directory import state as directory_state
from cluster.domain.mailbox import events as m
from cluster.domain.mailbox import ranges
from cluster.domain.mailbox import state as mail_state
from cluster.domain.mailbox.content import Content, Segment
from cluster.domain.outbox import events as o
from cluster.domain.outbox import state as outbox_state
from cluster.log.model import Record
from cluster.position import position
from storage.projector import COMMANDS_KEPT_S, PRUNE_EVERY_S
from tests.laws import mailbox_story as story

PARTITION = "law"
ACCOUNTS = (7, 8)
START_S = 1_700_000_000
OF_ACCOUNT = -1  # in place of a mailbox
NOT_IN_THE_TABLES = "no\0name"  # PostgreSQL's text holds every character but this one

def weighed(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """(weight, strategy). `one_of` would flatten what is nested and so lose the weights."""
    return st.sampled_from([choice for weight, choice in choices for _ in range(weight)]).flatmap(lambda one: one)


number = st.sampled_from(
    [0, 0, 0, 1, 1, 2, 3, 7]
)  # of a mailbox among those that the account has, had, or another one has
contents = st.integers(0, 6).map(
    lambda n: Content(bytes([n]) * 32, n * 1000, (Segment(bytes([n]) * 32, n * 1000),), bytes([n]), n or None)
)
uids = st.one_of(
    st.just(((1, 12),)),
    st.tuples(st.integers(1, 6), st.integers(0, 6)).map(lambda pair: ((pair[0], sum(pair)),)),
    story.uid_ranges.map(lambda pairs: ranges.limit(ranges.normalise(pairs), 1, ranges.UID_MAX)),
)
keywords = st.lists(st.sampled_from(["x", "$Junk", "é", "Y"]), max_size=3).map(tuple)
system_flags = st.integers(0, 31)
names = st.sampled_from(["INBOX", "a", "b", "a/b", "c"])
readers = st.sampled_from((8, 9))
identifiers = st.sampled_from(["anyone", "8", "-8", "all@b.org"])
letters = st.sampled_from(["lr", "lrswi", "a"])
granted = st.lists(st.tuples(identifiers, letters), max_size=2, unique_by=lambda pair: pair[0]).map(tuple)
made = st.builds(m.Made, st.just(0), names, st.sampled_from(["", "\\Sent"]), st.booleans(), granted)

tree_events: st.SearchStrategy[Any] = st.one_of(
    st.builds(m.MailboxesCreated, st.lists(made, min_size=1, max_size=3).map(tuple)),
    st.builds(
        m.MailboxesRenamed,
        st.lists(st.tuples(number, names), min_size=1, max_size=2, unique_by=lambda pair: pair[0]).map(tuple),
    ),
    st.builds(m.MailboxDeleted, number),
    st.builds(m.Subscribed, names, st.booleans()),
    st.builds(
        m.AnnotationsChanged,
        st.just(OF_ACCOUNT) | number,
        st.sampled_from(ACCOUNTS),
        st.lists(
            st.tuples(
                st.sampled_from(["/shared/comment", "/private/comment", "/private/vendor/x"]),
                st.sampled_from([None, b"", b"a", bytes(range(256))]),
            ),
            max_size=3,
        ).map(tuple),
    ),
    st.builds(m.RightsChanged, number, identifiers, st.just("") | letters),
)
appended = st.builds(
    m.MessageAppended, number, contents, st.integers(0, 9), st.integers(-720, 720), system_flags, keywords,
    seen_by=st.just(0) | readers,
)  # fmt: skip
message_events: st.SearchStrategy[Any] = st.one_of(
    appended,
    appended,
    st.builds(m.FlagsChanged, number, uids, st.sampled_from(m.FlagMode), system_flags, keywords, st.just(0) | system_flags),
    st.builds(m.SeenChanged, number, readers, uids, st.booleans()),
    st.builds(m.MessagesCopied, number, number, uids, st.booleans()),
    st.builds(m.MessagesExpunged, number, uids, st.booleans(), st.sampled_from((False, False, True))),
    st.builds(m.MessagesRestored, number, number, uids),
    st.builds(m.ExpungedGivenUp, st.integers(0, 150).map(lambda n: position(1, n))),
)
gaps = st.sampled_from((0, 3, 3, m.UIDVALIDITY_FRESH, m.UIDNEXT_RAISED_MAX))
reported = st.integers(1, 3)
sentences = st.sampled_from(["renamed meanwhile", "é"])
epochs: st.SearchStrategy[Any] = weighed(
    (3, st.builds(m.EpochStarted, st.lists(st.tuples(st.just(1), st.just(2), gaps), max_size=2).map(tuple))),
    (4, st.builds(m.Reaffirmed, number, st.sampled_from((0, 0, 0, 1, 2)), uids, st.just(1), st.just(9))),
    (1, st.builds(m.TailSalvaged, st.integers(1, 2), st.integers(1, 9))),
    (1, st.builds(m.TailDestroyed, st.integers(1, 2))),
    (
        1,
        st.builds(m.SalvageReported, reported, st.just("mailbox"), st.just("7"), sentences, sentences, st.just(b"e")),
    ),
    (1, st.builds(m.SalvageSettled, reported, st.booleans())),
)

domains = st.sampled_from(["a.org", "b.org"])
addresses = st.sampled_from(["anna@a.org", "bo@a.org", "carl@b.org", "all@b.org"])
people = st.integers(1, 3)
verifiers = st.sampled_from(["$argon2id$1", "$argon2id$2"]).map(lambda text: d.Verifier(text, text[-1]))
softs = st.sampled_from([None, (), (80, 95)])
labels = st.sampled_from(["phone", "laptop"])
several = st.lists(addresses, max_size=3).map(tuple)
directory_events: st.SearchStrategy[Any] = st.one_of(
    st.builds(d.DomainAdded, domains, st.just("") | addresses, st.booleans()),
    st.builds(d.DomainChanged, domains, st.just("") | addresses, st.booleans()),
    st.builds(d.UndeletePeriodChanged, domains, st.integers(0, 3)),
    st.builds(d.DomainRemoved, domains),
    *[st.builds(d.AccountAdded, people, addresses, st.just("law"), st.just("A"), st.none() | verifiers, st.booleans())]
    * 2,
    st.builds(d.AccountChanged, people, addresses, st.just("B"), st.booleans(), st.booleans()),
    st.builds(d.Pop3ThresholdChanged, people, addresses, st.integers(0, 9)),
    st.builds(d.SentFilingChanged, people, addresses, st.booleans()),
    st.builds(d.QuotaChanged, people, addresses, st.sampled_from([None, 0, 7]), st.sampled_from([None, 3]), softs),
    st.builds(d.DomainQuotaChanged, domains, st.integers(0, 9), st.integers(0, 9), st.sampled_from([(), (50, 90)])),
    st.builds(d.AccountShared, people, addresses),
    st.builds(d.AccountRemoved, people, addresses),
    st.builds(d.PasswordChanged, people, addresses, verifiers),
    st.builds(d.AppPasswordAdded, people, addresses, labels, verifiers),
    st.builds(d.AppPasswordRevoked, people, addresses, labels),
    st.builds(d.AliasAdded, addresses, several),
    st.builds(d.AliasRemoved, addresses),
    st.builds(d.GroupAdded, addresses, st.just("G"), several),
    st.builds(d.GroupMembersChanged, addresses, several, several),
    st.builds(d.GroupRemoved, addresses),
    st.builds(d.TopologyChanged, st.just("move"), st.just("law"), st.just("home a"), st.just("home b")),
)

queued = st.integers(1, 2)
recipients = st.lists(st.sampled_from(["x@else.org", "y@else.org", "é@else.org"]), max_size=3).map(tuple)
attempts = st.lists(
    st.builds(
        o.Attempt,
        st.sampled_from(["x@else.org", "y@else.org", "nobody@else.org"]),
        st.sampled_from(["sent", outbox_state.DEFERRED, "failed"]),
        st.integers(0, 599),
        st.text("ab é", max_size=4),
    ),
    max_size=3,
).map(tuple)
outbox_events: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        o.MessageQueued, queued, st.sampled_from(["", "anna@a.org"]), recipients, contents, people, st.booleans(),
        handed=st.integers(0, 5),
    ),
    st.builds(o.DeliveryAttempted, queued, attempts, st.integers(0, 99)),
)


class Step(msgspec.Struct, frozen=True):
    """`event` None = bytes that are none. `repeats`: sends what came so many records ago once more. `same_command`:
    the event belongs to the command before it. `later_s`: since the event before."""

    account: int
    event: Any
    repeats: int = 0
    same_command: bool = False
    later_s: int = 0


odd = st.one_of(
    st.none(),
    st.builds(m.MessageAppended, number, contents, st.just(0), keywords=st.just((NOT_IN_THE_TABLES,))),
)
steps = st.builds(
    Step,
    st.sampled_from([*ACCOUNTS, ACCOUNTS[0]]),
    weighed((11, message_events), (3, tree_events), (2, epochs), (4, directory_events), (2, outbox_events), (1, odd)),
    st.sampled_from([0] * 9 + [1, 3]),
    st.booleans(),
    st.sampled_from([0, 0, 1, 3600, 49 * 3600]),
)


@st.composite
def stories(draw: st.DrawFn) -> list[Step]:
    """Mostly of people who have an INBOX and some messages: elsewhere little happens."""
    size = draw(st.sampled_from([50, 30, 30, 15, 3]))
    opening = [
        Step(account, event)
        for account in ACCOUNTS
        for event in (
            m.MailboxesCreated((m.Made(0, "INBOX", "", True), m.Made(0, "a"), m.Made(0, "b"))),
            *[m.MessageAppended(n % 3, draw(contents), n, 0, draw(system_flags), draw(keywords)) for n in range(5)],
        )
    ]
    return [*(opening if draw(st.integers(0, 6)) else ()), *draw(st.lists(steps, min_size=size, max_size=size))]


@dataclass
class Model:
    """The pure folds, and what the projector says beside them."""

    mail: mail_state.MailState = mail_state.MailState()
    directory: directory_state.DirectoryState = directory_state.DirectoryState()
    outbox: outbox_state.OutboxState = outbox_state.OutboxState()
    records: list[Record] = field(default_factory=list)
    outcomes: list[bytes] = field(default_factory=list)
    commands: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)  # id → (events, position, at)
    saved_at: dict[int, int] = field(default_factory=dict)  # position → unix seconds
    pruned_at: int = 0
    at: int = START_S
    n: int = 0
    ids: int = 1000
    deleted: list[int] = field(default_factory=list)

    def tell(self, step: Step) -> None:
        place = position(1, len(self.records) * 3 + 1)
        self.at += step.later_s
        if step.repeats and step.repeats <= len(self.records):
            first = self.records[-step.repeats]
            record = msgspec.structs.replace(first, position=place)
        elif step.event is None:
            record = Record(place, "mailbox", str(step.account), b"\x81\xa1x" + bytes([len(self.records) % 256]))
        else:
            event = self._concrete(step.account, step.event)
            self.n = self.n + 1 if step.same_command else 0
            command = self._command(new=not step.same_command)
            payload = codec.encode(event, at_us=self.at * 1_000_000 + 7, by=Actor("law"), command=command, n=self.n)
            noun = codec.noun_of(event)
            record = Record(place, noun, str(step.account) if noun == "mailbox" else "entity", payload)
        self.records.append(record)
        self.outcomes.append(self._outcome(record))

    def digest(self) -> bytes:
        digest = bytes(32)
        for record, outcome in zip(self.records, self.outcomes, strict=True):
            text = digest + record.position.to_bytes(8, "big") + record.payload + outcome
            digest = hashlib.blake2b(text, digest_size=32).digest()
        return digest

    def boxes(self) -> list[tuple[int, mail_state.Box]]:
        return [(account, box) for account, mail in self.mail.accounts.items() for box in mail.boxes.values()]

    # -----------------------------------------------------------------------------------------------------------------

    def _command(self, *, new: bool) -> bytes:
        if new:
            self.ids += 1
        return self.ids.to_bytes(16, "big")

    def _concrete(self, account: int, event: Any) -> Any:
        """With ids of mailboxes where the story has numbers."""
        match event:
            case m.MailboxesCreated():
                self.ids += len(event.made)
                first = self.ids
                made = tuple(msgspec.structs.replace(one, mailbox=first - n) for n, one in enumerate(event.made))
                return m.MailboxesCreated(made)
            case m.MailboxesRenamed():
                return m.MailboxesRenamed(tuple({self._id(account, n): name for n, name in event.renamed}.items()))
            case m.MessagesCopied():
                source, target = self._id(account, event.source), self._id(account, event.target)
                return msgspec.structs.replace(event, source=source, target=target)
            case m.MessagesRestored():
                source, target = self._ever(account, event.source), self._id(account, event.target)
                return msgspec.structs.replace(event, source=source, target=target)
            case m.MailboxDeleted():
                self.deleted.append(self._id(account, event.mailbox))
                return m.MailboxDeleted(self.deleted[-1])
            case m.Reaffirmed():
                mailbox = self._id(account, event.mailbox)
                real = next((box.uidvalidity for _, box in self.boxes() if box.id == mailbox), 0)
                return msgspec.structs.replace(event, mailbox=mailbox, uidvalidity=event.uidvalidity or real)
            case m.AnnotationsChanged():
                mailbox = 0 if event.mailbox == OF_ACCOUNT else self._id(account, event.mailbox)
                return msgspec.structs.replace(event, mailbox=mailbox)
            case m.MessageAppended() | m.FlagsChanged() | m.MessagesExpunged() | m.SeenChanged() | m.RightsChanged():
                return msgspec.structs.replace(event, mailbox=self._id(account, event.mailbox))
        return event

    def _id(self, account: int, number: int) -> int:
        own = [box.id for of, box in self.boxes() if of == account]
        foreign = [box.id for of, box in self.boxes() if of != account]
        known = [*own, *self.deleted[-2:], *foreign[:1]]
        return known[number % len(known)] if known else 1

    def _ever(self, account: int, number: int) -> int:
        """Mostly one from which something went."""
        mail = self.mail.accounts.get(account)
        known = list(mail.gone) if mail else []
        return known[number - 1] if 0 < number <= len(known) else self._id(account, number)

    def _outcome(self, record: Record) -> bytes:
        try:
            envelope, event = codec.decode(record.payload)
        except codec.Undecodable:
            return b"q"
        at = envelope.at // 1_000_000
        if envelope.n < self.commands.get(envelope.id, (0, 0, 0))[0]:
            outcome = b"r"
        else:
            self.commands[envelope.id] = (envelope.n + 1, record.position, at)
            outcome = self._applied(record, event)
            self.saved_at[record.position] = at
        if at >= self.pruned_at + PRUNE_EVERY_S:
            self.commands = {k: v for k, v in self.commands.items() if v[2] >= at - COMMANDS_KEPT_S}
            self.pruned_at = at
        return outcome

    def _applied(self, record: Record, event: Any) -> bytes:
        if NOT_IN_THE_TABLES in getattr(event, "keywords", ()):
            return b"q"
        match record.noun:
            case "mailbox":
                mail = mail_state.evolve(self.mail, int(record.entity), event, record.position)
                if isinstance(mail, Unappliable):
                    return b"q"
                self.mail = mail
            case "directory":
                known = directory_state.evolve(self.directory, event)
                if isinstance(known, Unappliable):
                    return b"q"
                self.directory = known
            case _:
                waiting = outbox_state.evolve(self.outbox, event, record.position)
                if isinstance(waiting, Unappliable):
                    return b"q"
                self.outbox = waiting
        return b"a"


def told(story: Sequence[Step]) -> Model:
    model = Model()
    for step in story:
        model.tell(step)
    return model
