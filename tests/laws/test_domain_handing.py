"""A message that goes from queue to queue is the same one there however often it is handed over, and no other."""

from hypothesis import given
from hypothesis import strategies as st

from cluster.domain.decision import Decision
from cluster.domain.mailbox.content import Content
from cluster.domain.outbox import handing
from cluster.domain.outbox.commands import QueueMessage, RecordAttempt
from cluster.domain.outbox.decide import decide
from cluster.domain.outbox.events import MessageQueued
from cluster.domain.outbox.state import OutboxState, Queued, evolve

C = Content(b"c" * 32, 1, (), b"")
PEOPLE = ("a@x.org", "b@x.org", "c@y.org")
ids = st.integers(1, (1 << 63) - 1)
some = st.lists(st.sampled_from(PEOPLE), min_size=1, unique=True)
sites = st.sampled_from(["queue-pune", "queue-mumbai"])


def taken_in(command: QueueMessage, state: OutboxState | None = None) -> tuple[OutboxState, Queued]:
    state = state or OutboxState()
    answer = decide(state.messages.get(command.queued), command)
    assert isinstance(answer, Decision)
    event = answer.events[0][1]
    assert isinstance(event, MessageQueued)
    after = evolve(state, event, len(state.messages) + 1)
    assert isinstance(after, OutboxState)
    return after, after.messages[command.queued]


def queued(id: int, recipients: tuple[str, ...] = PEOPLE, handed: int = 0) -> Queued:
    return taken_in(QueueMessage(id, "s@x.org", recipients, C, 7, True, True, handed=handed))[1]


@given(ids, some, some, sites, sites)
def test_the_same_hand_over_is_the_same_message_and_another_is_another(
    id: int, first: list[str], second: list[str], here: str, there: str
) -> None:
    one, other = handing.handed(queued(id), first, here, 5), handing.handed(queued(id), second, there, 5)
    again = handing.handed(queued(id), list(reversed(first)), here, 6)
    assert one.queued == again.queued and 0 < one.queued < 1 << 63
    assert (one.queued == other.queued) == (set(first) == set(second) and here == there)
    assert one.queued not in (id, handing.spooled(id)) and len(handing.command_of(one.queued)) == 16


@given(ids)
def test_the_spool_and_the_queue_never_share_an_id_and_the_way_back_is_known(id: int) -> None:
    there = handing.spooled(id)
    assert there != id and 0 <= there < 1 << 63 and handing.spooled(there) == id
    assert handing.command_of(there) != handing.command_of(id)


@given(ids, st.integers(0, 9), st.integers(1, 1 << 40))
def test_what_the_drain_queues_is_what_was_handed_in(id: int, handed: int, at: int) -> None:
    """So that the append whose fate nobody knew and the drain's are one command about one message."""
    given_in = QueueMessage(id, "s@x.org", PEOPLE, C, 7, True, True, handed=handed)
    spooled = queued(handing.spooled(id), PEOPLE, handed)
    assert handing.drained(spooled, at) == QueueMessage(id, "s@x.org", PEOPLE, C, 7, True, True, at, handed)
    assert taken_in(handing.drained(spooled, at))[1] == taken_in(given_in)[1]


@given(ids, some, sites)
def test_who_was_handed_over_is_waited_for_no_more_and_others_are(id: int, some: list[str], target: str) -> None:
    state, message = taken_in(QueueMessage(id, "s@x.org", PEOPLE, C))
    answer = decide(message, RecordAttempt(id, handing.settled(some, target), 9))
    assert isinstance(answer, Decision)
    after = evolve(state, answer.events[0][1], 9)  # type: ignore[arg-type]
    assert isinstance(after, OutboxState)
    left = after.messages[id].pending if id in after.messages else ()
    assert {one.recipient for one in left} == set(PEOPLE) - set(some)


def test_each_hand_over_is_counted() -> None:
    message = queued(3)
    for times in range(1, handing.HANDED_MAX + 1):
        message = taken_in(handing.handed(message, PEOPLE, "queue-pune", 1))[1]
        assert message.handed == times
