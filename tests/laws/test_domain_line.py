"""A line knows the same mail as the pure fold; and its names of things hold where UIDs do not."""

import msgspec
from hypothesis import Phase, given, settings

from cluster import codec
from cluster.domain.mailbox import events as m
from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.line import Line
from cluster.position import position
from tests.laws.tables_story import ACCOUNTS, NOT_IN_THE_TABLES, Model, Step, stories, told

HELLO, WORLD = Content(b"h" * 32, 5, (), b"d"), Content(b"w" * 32, 7, (), b"d")


@settings(max_examples=100, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(stories())
def test_a_line_is_the_fold_of_its_accounts(story: list[Step]) -> None:
    # No site forgets a command in the time that a line spans, and what no table can hold no command can say.
    steps = [
        msgspec.structs.replace(step, later_s=0)
        for step in story
        if NOT_IN_THE_TABLES not in getattr(step.event, "keywords", ())
    ]
    model = told(steps)
    for accounts in (ACCOUNTS, ACCOUNTS[:1]):
        line = Line(accounts)
        for record in model.records:
            try:
                envelope, event = codec.decode(record.payload)
            except codec.Undecodable:
                continue
            if record.noun == "mailbox":
                line.tell(int(record.entity), event, envelope.id, envelope.n, record.position)
        assert_equal(line, model, accounts)


def assert_equal(line: Line, model: Model, accounts: tuple[int, ...]) -> None:
    assert line.accounts.keys() <= set(accounts)
    for account in accounts:
        mail, known = model.mail.accounts.get(account), line.account(account)
        if mail is None:
            assert not known.boxes
            continue
        assert (known.uidvalidity, known.names) == (mail.uidvalidity, dict(mail.names))
        assert frozenset(known.subscriptions) == mail.subscriptions
        assert known.annotations == mail.annotations
        assert known.boxes.keys() == mail.boxes.keys()
        for box in mail.boxes.values():
            here = known.boxes[box.id]
            assert (here.name, here.uidvalidity, here.uidnext) == (box.name, box.uidvalidity, box.uidnext)
            assert list(here.messages) == sorted(box.messages) and here.rights == box.rights
            assert [line.flags[thing] for thing in here.messages.values()] == [
                box.messages[uid].flags for uid in here.messages
            ]
            assert all(line.places[thing] == (account, box.id, uid) for uid, thing in here.messages.items())
        known_gone = {
            (account, mailbox, place)
            for mailbox, went in mail.gone.items()
            for place, one in enumerate(went, 1)
            if not one.taken and not one.moved
        }
        assert {tuple(place) for place in line.expunged.values() if place.account == account} == known_gone
    assert (
        len(line.places)
        == len(line.flags)
        == sum(len(b.messages) for a in line.accounts.values() for b in a.boxes.values())
    )
    assert line.salvaged == model.mail.salvaged and line.reported == model.mail.reports.keys()


def test_the_same_command_makes_the_same_thing_wherever_it_comes_to_be() -> None:
    one, other = Line((7,)), Line((7,))
    for n, line in enumerate((one, other)):
        at = position(n + 1, 1)
        line.tell(7, m.MailboxesCreated((m.Made(70 + n, "INBOX"), m.Made(80 + n, "a"))), bytes([n]) * 16, 0, at)
        if n:
            line.tell(7, m.MessageAppended(71, HELLO, 0), b"h" * 16, 0, at + 1)
        line.tell(7, m.MessageAppended(70 + n, WORLD, 0), b"w" * 16, 0, at + 2)
        line.tell(7, m.MessagesCopied(70 + n, 80 + n, ((1, 9),)), b"c" * 16, 0, at + 3)
    assert one.made < other.made
    assert {other.places[thing][1:] for thing in one.made} == {(71, 2), (81, 2)}
    assert {one.places[thing][1:] for thing in one.made} == {(70, 1), (80, 1)}
