"""Of a lost tail: what others may do with a mailbox, and what they have read of it."""

import pytest

from cluster.domain.mailbox import commands as c
from cluster.domain.mailbox import events as m
from cluster.domain.mailbox import sharing
from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.ranges import EVERY_UID
from cluster.domain.mailbox.state import Box, messages_of, tree_of
from cluster.domain.refusal import Refusal
from tests.laws.mailbox_story import ACCOUNT
from tests.laws.test_salvage import Place

BOB, CARL = 8, 9


class Shared(Place):
    """With somebody else in INBOX."""

    def inbox(self) -> Box:
        mail = self.tables().state.accounts[ACCOUNT]
        return mail.boxes[mail.names["INBOX"]]

    def letter(self, number: int) -> None:
        message = c.NewMessage(Content(bytes([number]) * 32, number, (), b""), number)
        self.do(c.AppendMessage(ACCOUNT, "INBOX", (message,)))

    def give(self, who: int, given: str) -> None:
        self.do(c.SetRights(ACCOUNT, "INBOX", str(who), m.FlagMode.REPLACE, given))

    def read(self, who: int, uids: m.Ranges, seen: bool = True) -> None:
        """As bob asks for it."""
        state, box = self.tables().state, self.inbox()
        mode = m.FlagMode.ADD if seen else m.FlagMode.REMOVE
        command = c.ChangeFlags(ACCOUNT, box.id, uids, mode, m.SEEN)
        answer = sharing.decide(
            messages_of(state, ACCOUNT, box.id, uids, who), command, sharing.Reader(who, {box.id: box.rights[str(who)]})
        )
        assert not isinstance(answer, Refusal), answer
        self.commands += 1
        for n, (entity, event) in enumerate(answer.events):
            self.log.put(entity, event, self.commands.to_bytes(16, "little"), n)

    def seen_by(self, who: int) -> dict[bytes, bool]:
        return {one.content.hash[:1]: one.seen.get(who, (False, 0))[0] for one in self.inbox().messages.values()}


@pytest.fixture
def place() -> Shared:
    made = Shared()
    for number in (1, 2, 3):
        made.letter(number)
    made.give(BOB, "lrs")
    return made


def test_what_somebody_has_read_comes_back_with_the_messages(place: Shared) -> None:
    place.read(BOB, ((1, 1),))
    before = len(place.log.streams[place.log.epoch])
    place.letter(4)
    place.read(BOB, EVERY_UID)
    place.read(BOB, ((2, 2),), seen=False)
    wanted = place.seen_by(BOB)
    place.log.lose(len(place.log.streams[place.log.epoch]) - before)
    place.letter(5)
    assert place.salvage().reported == 0
    assert place.seen_by(BOB) == {**wanted, b"\5": False}
    # Who cached the tail's \Seen is told of each message, whatever became of it.
    assert all(one.modseq >> 40 > 1 for uid, one in place.inbox().messages.items() if uid <= 3)


def test_rights_come_back_where_nobody_said_otherwise(place: Shared) -> None:
    before = len(place.log.streams[place.log.epoch])
    place.give(BOB, "lrswi")
    place.give(CARL, "lr")
    place.log.lose(len(place.log.streams[place.log.epoch]) - before)
    place.give(BOB, "")
    done = place.salvage()
    # Bob was shut out in history, and is not let in again by what the tail says.
    assert place.inbox().rights == {str(CARL): "lr"} and done.reported == 1


def test_a_mailbox_of_the_same_name_is_another_one(place: Shared) -> None:
    place.do(c.CreateMailbox(ACCOUNT, "Plans", ()))
    before = len(place.log.streams[place.log.epoch])
    place.do(c.SetRights(ACCOUNT, "Plans", str(BOB), m.FlagMode.REPLACE, "lrswite"))
    place.log.lose(len(place.log.streams[place.log.epoch]) - before)
    place.do(c.DeleteMailbox(ACCOUNT, "Plans"))
    place.do(c.CreateMailbox(ACCOUNT, "Plans", ()))
    assert place.salvage().reported == 1
    entry = tree_of(place.tables().state, ACCOUNT).entries["Plans"]
    assert not place.tables().state.accounts[ACCOUNT].boxes[entry.id].rights
