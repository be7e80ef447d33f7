"""A message leaves the outbox when nobody waits for it any more, and not before."""

from hypothesis import given
from hypothesis import strategies as st

from cluster.domain.decision import Decision, Unappliable
from cluster.domain.mailbox.content import Content
from cluster.domain.outbox.commands import AnyCommand, QueueMessage, RecordAttempt
from cluster.domain.outbox.decide import decide
from cluster.domain.outbox.events import AnyEvent, Attempt, MessageQueued
from cluster.domain.outbox.state import DEFERRED, OutboxState, evolve
from cluster.domain.refusal import Reason, Refusal

C = Content(b"c" * 32, 1, (), b"")
PEOPLE = ["a@x.org", "B@x.org", "c@y.org"]
recipients = st.lists(st.sampled_from([*PEOPLE, "a@X.ORG"]), min_size=1, max_size=4).map(tuple)
attempts = st.lists(
    st.builds(
        Attempt,
        st.sampled_from(["a@x.org", "B@x.org", "c@y.org", "who@z.org"]),
        st.sampled_from(["sent", DEFERRED, "failed", "expired"]),
        st.sampled_from([0, 250, 451, 550]),
        st.text(max_size=5),
    ),
    max_size=4,
).map(tuple)


def tell(state: OutboxState, command: AnyCommand, position: int) -> tuple[OutboxState, Decision | Refusal]:
    answer = decide(state.messages.get(command.queued), command)
    if isinstance(answer, Decision):
        for entity, event in answer.events:
            assert entity == f"{command.queued:x}"
            after = evolve(state, event, position)  # type: ignore[arg-type]
            assert not isinstance(after, Unappliable)
            state = after
    return state, answer


@given(recipients, st.lists(st.tuples(attempts, st.integers(0, 9)), max_size=6))
def test_everyone_is_pending_until_a_last_word(
    to: tuple[str, ...], rounds: list[tuple[tuple[Attempt, ...], int]]
) -> None:
    state, _ = tell(OutboxState(), QueueMessage(5, "s@x.org", to, C), 1)
    waiting = {one.replace("X.ORG", "x.org") for one in to}
    for position, (tried, next_at) in enumerate(rounds, 2):
        state, answer = tell(state, RecordAttempt(5, tried, next_at), position)
        if not waiting:
            assert isinstance(answer, Refusal) and answer.reason is Reason.NO_SUCH_ENTRY
            continue
        last = {attempt.recipient: attempt.outcome for attempt in tried}
        waiting = {one for one in waiting if last.get(one, DEFERRED) == DEFERRED}
        message = state.messages.get(5)
        assert {one.recipient for one in (message.pending if message else ())} == waiting
        assert message is None or message.next_at == next_at


@given(st.text(), st.lists(st.text(), max_size=3))
def test_any_text_is_answered(sender: str, to: list[str]) -> None:
    tell(OutboxState(), QueueMessage(1, sender, tuple(to), C), 1)


def _reason(command: AnyCommand, state: OutboxState | None = None) -> Reason:
    _, answer = tell(state or OutboxState(), command, 9)
    assert isinstance(answer, Refusal) and answer.text
    return answer.reason


def test_refusals() -> None:
    assert _reason(QueueMessage(1, "s@x.org", (), C)) is Reason.ADDRESS_INVALID
    assert _reason(QueueMessage(1, "nonsense", ("a@x.org",), C)) is Reason.ADDRESS_INVALID
    assert _reason(QueueMessage(1, "", tuple(f"{n}@x.org" for n in range(1001)), C)) is Reason.OVER_LIMIT
    assert _reason(RecordAttempt(1, ())) is Reason.NO_SUCH_ENTRY
    state, _ = tell(OutboxState(), QueueMessage(1, "", ("a@x.org",), C), 1)
    assert _reason(QueueMessage(1, "", ("a@x.org",), C), state) is Reason.CONFLICT
    assert _reason(RecordAttempt(1, (Attempt("a@x.org", "lost"),)), state) is Reason.NOT_PERMITTED


def test_what_other_hosts_say_is_bounded() -> None:
    state, _ = tell(OutboxState(), QueueMessage(1, "", ("a@x.org",), C), 1)
    _, answer = tell(state, RecordAttempt(1, (Attempt("a@x.org", DEFERRED, 451, "x" * 10_000),), 60), 2)
    assert isinstance(answer, Decision)
    event: AnyEvent = answer.events[0][1]  # type: ignore[assignment]
    assert event.attempts[0].text == "x" * 2_000  # type: ignore[union-attr]


def test_a_foreign_sender_is_kept_as_it_came() -> None:
    """Such senders are met: longer than the standard's 64 octets, or of a host with an underscore."""
    for sender in (f"{'bounce-' * 12}1@example.org", "news@em_1.example.com"):
        answer = decide(None, QueueMessage(1, sender, ("ben@elsewhere.example",), C))
        assert isinstance(answer, Decision)
        event = answer.events[0][1]
        assert isinstance(event, MessageQueued) and event.sender == sender
    for nonsense in ("no address", "a b@example.org", "<x@y>", "@example.org", f"{'x' * 400}@example.org", "x@y\r\nz"):
        assert isinstance(decide(None, QueueMessage(1, nonsense, ("ben@elsewhere.example",), C)), Refusal)


@given(st.text(max_size=20))
def test_what_another_host_said_is_kept_as_text_that_tables_can_hold(said: str) -> None:
    state, _ = tell(OutboxState(), QueueMessage(1, "a@x.org", ("b@y.org",), C), 1)
    state, _ = tell(state, RecordAttempt(1, (Attempt("b@y.org", DEFERRED, 451, f"no\0{said}"),), 60), 2)
    kept = state.messages[1].pending[0].last
    assert kept is not None and kept.text.startswith("no ") and kept.text.isprintable()
    assert kept.text.encode().decode() == kept.text
