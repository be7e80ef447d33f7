"""What salvage keeps, whatever was in the tail and whatever happened meanwhile."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import codec
from cluster.domain.decision import Decision
from cluster.domain.mailbox import commands as c
from cluster.domain.mailbox import events as m
from cluster.domain.mailbox import names, ranges
from cluster.domain.mailbox.line import Line
from cluster.domain.mailbox.state import AccountMail, Box, MailState
from cluster.log.model import LogUnavailable, Record
from cluster.position import position, split
from cluster.tokens import judged
from storage.blobs.memory import MemoryBlobs
from storage.salvage import Salvage, Salvaged
from tests.laws.mailbox_story import ACCOUNT, commands, contents, decided, flags, keywords, messages, restoring
from tests.lost_tails import LosingLog
from tests.memory_site import MemoryWorld
from tests.sim.world.tables import Tables

# Mostly things done to messages that are there: what makes lines differ.
box = st.integers(0, 2)
target = st.sampled_from(["INBOX", "Sent", "a"])
some = st.one_of(st.just(ranges.EVERY_UID), st.integers(1, 4).map(lambda n: ((n, n),)), st.just(((1, 2),)))
lively: st.SearchStrategy[c.AnyCommand] = st.one_of(
    st.builds(c.AppendMessage, st.just(ACCOUNT), target, st.lists(messages, min_size=1, max_size=2).map(tuple)),
    st.builds(c.Deliver, st.just(ACCOUNT), contents, st.just(5), st.just(()), target),
    st.builds(c.ChangeFlags, st.just(ACCOUNT), box, some, st.sampled_from(m.FlagMode), flags, keywords),
    st.builds(c.CopyMessages, st.just(ACCOUNT), box, target, some, st.booleans()),
    st.builds(c.Expunge, st.just(ACCOUNT), box, some, st.booleans()),
    st.builds(c.RestoreMessages, st.just(ACCOUNT), box, some, target),
)
stories = st.lists(st.booleans().flatmap(lambda usual: commands if usual else lively), max_size=12)


class Place:
    """A partition with one account, whose people do what the story says."""

    def __init__(self) -> None:
        self.log = LosingLog()
        self.ids = 1000
        self.commands = 0
        self.do(c.OpenAccount(ACCOUNT, ()))

    def tables(self) -> Tables:
        return Tables.of([record for record in self.log.records() if record.noun])

    def do(self, command: c.AnyCommand, id: bytes = b"") -> Decision | None:
        state = self.tables().state
        answer = decided(state, self.concrete(state, command))
        self.commands += 1
        if not isinstance(answer, Decision):
            return None
        for n, (entity, event) in enumerate(answer.events):
            self.log.put(entity, event, id or self.commands.to_bytes(16, "little"), n)
        return answer

    def concrete(self, state: MailState, command: c.AnyCommand) -> c.AnyCommand:
        """With ids of mailboxes where the story has numbers."""
        mail = state.accounts.get(ACCOUNT)
        there = sorted(mail.boxes) if mail else []

        def box(number: int) -> int:
            return there[number] if number < len(there) else 1

        def fresh(count: int) -> tuple[int, ...]:
            self.ids += count
            return tuple(range(self.ids - count, self.ids))

        match command:
            case c.CreateMailbox():
                return msgspec.structs.replace(command, ids=fresh(names.levels(command.name)))
            case c.RenameMailbox():
                return msgspec.structs.replace(command, ids=fresh(names.levels(command.new)))
            case c.Deliver() | c.OpenAccount():
                return msgspec.structs.replace(command, ids=fresh(6))
            case c.ChangeFlags() | c.Expunge():
                mailbox = box(command.mailbox)
                return msgspec.structs.replace(command, mailbox=mailbox, uids=self.uids(mail, mailbox, command.uids))
            case c.CopyMessages():
                source = box(command.source)
                return msgspec.structs.replace(command, source=source, uids=self.uids(mail, source, command.uids))
            case c.RestoreMessages():
                return restoring(mail, command, fresh(names.levels(command.target) if command.ids else 0))
        return command

    def uids(self, mail: AccountMail | None, mailbox: int, wanted: m.Ranges) -> m.Ranges:
        """Of the n-th messages there."""
        found = sorted(mail.boxes[mailbox].messages) if mail and mailbox in mail.boxes else []
        wanted = ranges.normalise(wanted)
        return ranges.compress(uid for n, uid in enumerate(found, 1) if ranges.contains(wanted, n))

    def play(self, story: list[c.AnyCommand]) -> int:
        """How many records it made."""
        before = len(self.log.streams[self.log.epoch])
        for command in story:
            self.do(command)
        return len(self.log.streams[self.log.epoch]) - before

    def salvage(self) -> Salvaged:
        made = Salvage("p", self.log, MemoryBlobs(), MemoryWorld(self.commands))
        return asyncio.run(made.run())


def shown(state: MailState) -> dict[str, list[tuple[bytes, int, tuple[str, ...]]]]:
    """What a person sees, without the numbers."""
    mail = state.accounts[ACCOUNT]
    return {
        box.name: sorted((one.content.hash, one.flags, one.keywords) for one in box.messages.values())
        for box in mail.boxes.values()
    }


def _rights(state: MailState) -> dict[str, dict[str, str]]:
    return {box.name: dict(box.rights) for box in state.accounts[ACCOUNT].boxes.values()}


def lines(records: Sequence[Record]) -> Line:
    line = Line((ACCOUNT,))
    for record in records:
        envelope, event = codec.decode(record.payload)
        line.tell(int(record.entity), event, envelope.id, envelope.n, record.position)
    return line


def facts(records: Sequence[Record]) -> list[tuple[bytes, m.AnyEvent]]:
    return [(envelope.id, event) for envelope, event in map(codec.decode, (one.payload for one in records))]


@settings(max_examples=60, deadline=None)
@given(stories, stories)
def test_where_nothing_happened_meanwhile_all_is_as_it_was(
    before: list[c.AnyCommand], tail: list[c.AnyCommand]
) -> None:
    place = Place()
    place.play(before)
    count = place.play(tail)
    wanted = place.tables().state
    place.log.lose(count)
    outcome = place.salvage()
    assert outcome.reported == 0
    after = place.tables()
    assert shown(after.state) == shown(wanted)
    assert _rights(after.state) == _rights(wanted)
    assert after.state.accounts[ACCOUNT].subscriptions == wanted.accounts[ACCOUNT].subscriptions
    assert not after.quarantined


@settings(max_examples=60, deadline=None)
@given(stories, stories, stories, st.integers(0, 5))
def test_nothing_is_lost_or_doubled_and_once_more_changes_nothing(
    before: list[c.AnyCommand], tail: list[c.AnyCommand], meanwhile: list[c.AnyCommand], killed_after: int
) -> None:
    place = Place()
    place.play(before)
    count = place.play(tail)
    line = lines(place.log.records())
    place.log.lose(count)
    place.play(meanwhile)
    place.log.fail_after = killed_after
    try:
        place.salvage()
    except LogUnavailable:
        place.log.fail_after = 1 << 30
        place.salvage()
    place.log.fail_after = 1 << 30
    records = place.log.records()
    tables, now = Tables.of(records), lines(records)
    assert not tables.quarantined
    # Every message of the tail is in history by its own command, or it was delivered again meanwhile.
    arrived = Counter(one.content.hash for _, one in facts(place.log.streams[2]) if isinstance(one, m.MessageAppended))
    others = Counter[bytes]()
    for command, one in facts(place.log.streams[1]):
        if isinstance(one, m.MessageAppended) and command not in now.commands:
            assert one.delivered
            others[one.content.hash] += 1
    assert others <= arrived
    made = Counter(
        thing for mail in now.accounts.values() for box in mail.boxes.values() for thing in box.messages.values()
    )
    assert max(made.values(), default=1) == 1
    assert line.made <= now.made or others or tables.state.reports, "copies that were not made again are reported"
    if count:
        assert tables.state.salvaged == {1: len(place.log.streams[1])}
    place.salvage()
    assert place.log.records() == records


@settings(max_examples=60, deadline=None)
@given(stories, stories, stories, st.data())
def test_who_cached_the_tail_is_put_right_by_the_delta(
    before: list[c.AnyCommand], tail: list[c.AnyCommand], meanwhile: list[c.AnyCommand], data: st.DataObject
) -> None:
    """RFC 7162 §3.2.5: a client's cache and what QRESYNC tells since its token give what there is."""
    place = Place()
    place.play(before)
    stream = place.log.streams[1]
    count = place.play(tail)
    # The client saw the mailboxes at some moment of the tail.
    seen = data.draw(st.integers(len(stream) - count, len(stream)))
    cached = Tables.of([record for record in stream[:seen] if record.noun]).state.accounts[ACCOUNT]
    token = position(1, seen)
    place.log.lose(count)
    place.play(meanwhile)
    place.salvage()
    state = place.tables().state
    since = judged(place.log.history(), token, state.salvaged)
    assert since is not None and split(since).epoch == 1
    for box in state.accounts[ACCOUNT].boxes.values():
        was = cached.boxes.get(box.id)
        if was is not None and was.uidvalidity == box.uidvalidity:
            assert updated(was, box, since) == {
                uid: (one.content.hash, one.flags, one.keywords) for uid, one in box.messages.items()
            }


def updated(was: Box, box: Box, since: int) -> dict[int, tuple[bytes, int, tuple[str, ...]]]:
    cache = {uid: (one.content.hash, one.flags, one.keywords) for uid, one in was.messages.items()}
    gone = {uid for uid, modseq in box.expunged.items() if modseq > since}
    told = ranges.normalise((first, last) for first, last, modseq in box.vanished if modseq > since)
    for uid in list(cache):
        if uid in gone or (ranges.contains(told, uid) and uid not in box.messages):
            del cache[uid]
    changed = {uid: one for uid, one in box.messages.items() if one.modseq > since}
    return cache | {uid: (one.content.hash, one.flags, one.keywords) for uid, one in changed.items()}


@settings(max_examples=40, deadline=None)
@given(stories, stories, stories, stories, st.data())
def test_a_tail_may_rest_on_another_one(
    before: list[c.AnyCommand],
    tail: list[c.AnyCommand],
    second: list[c.AnyCommand],
    meanwhile: list[c.AnyCommand],
    data: st.DataObject,
) -> None:
    """A home was lost, then the next one, and the third had less of the first than the second."""
    place = Place()
    place.play(before)
    kept = len(place.log.streams[1])
    count = place.play(tail)
    first_end = data.draw(st.integers(kept, kept + count))
    place.log.fork(position(1, first_end))
    place.play(second)
    cached = place.tables().state.accounts[ACCOUNT]
    token = place.log.streams[2][-1].position
    place.log.fork(position(1, data.draw(st.integers(kept, first_end))))
    place.play(meanwhile)
    if data.draw(st.booleans()) and place.log.ends[1] < first_end:
        # One site has the one, another has the other: the second waits for the first.
        place.log.hidden = {1}
        assert place.salvage().waiting == (2,)
        place.log.hidden = set()
    assert place.salvage().waiting == ()
    records = place.log.records()
    tables, now = Tables.of(records), lines(records)
    assert not tables.quarantined
    arrived = Counter(one.content.hash for _, one in facts(place.log.streams[3]) if isinstance(one, m.MessageAppended))
    others = Counter[bytes]()
    for command, one in facts([*place.log.streams[1], *place.log.streams[2]]):
        if isinstance(one, m.MessageAppended) and command not in now.commands:
            assert one.delivered
            others[one.content.hash] += 1
    assert others <= arrived
    place.salvage()
    assert place.log.records() == records
    since = judged(place.log.history(), token, tables.state.salvaged)
    assert since is not None
    for box in tables.state.accounts[ACCOUNT].boxes.values():
        was = cached.boxes.get(box.id)
        if was is not None and was.uidvalidity == box.uidvalidity:
            assert updated(was, box, since) == {
                uid: (one.content.hash, one.flags, one.keywords) for uid, one in box.messages.items()
            }
