"""What the facts about messages on their way out add up to."""

from collections.abc import Mapping

import msgspec

from cluster.domain.decision import Unappliable
from cluster.domain.mailbox.content import Content
from cluster.domain.outbox.events import AnyEvent, Attempt, DeliveryAttempted, MessageQueued

DEFERRED = "deferred"
OUTCOMES = frozenset({"sent", DEFERRED, "failed", "expired"})


class Pending(msgspec.Struct, frozen=True):
    """A recipient to whom the message is still to be handed. `last`: what the last attempt brought."""

    recipient: str
    attempts: int = 0
    last: Attempt | None = None


class Queued(msgspec.Struct, frozen=True):
    """A message in the outbox. `position`: of the fact that queued it. `attempts`: how many times it was tried.
    `next_at`: unix seconds of the next try, 0 = at once. `handed`: how many queues it was in before this one."""

    queued: int
    sender: str
    content: Content
    position: int
    pending: tuple[Pending, ...]
    account: int = 0
    body_8bit: bool = False
    smtputf8: bool = False
    attempts: int = 0
    next_at: int = 0
    handed: int = 0


class OutboxState(msgspec.Struct, frozen=True):
    """By id. A message without a pending recipient is not there any more."""

    messages: Mapping[int, Queued] = {}


def evolve(state: OutboxState, event: AnyEvent, position: int) -> OutboxState | Unappliable:
    match event:
        case MessageQueued():
            if event.queued in state.messages:
                return Unappliable(f"message {event.queued:x} is queued already")
            pending = tuple(Pending(recipient) for recipient in dict.fromkeys(event.recipients))
            message = Queued(
                event.queued,
                event.sender,
                event.content,
                position,
                pending,
                event.account,
                event.body_8bit,
                event.smtputf8,
                handed=event.handed,
            )
        case DeliveryAttempted():
            there = state.messages.get(event.queued)
            # Attempts on a message that left the outbox are passed over.
            if there is None:
                return state
            message = attempted(there, event)
    messages = {**state.messages, message.queued: message}
    if not message.pending:
        del messages[message.queued]
    return OutboxState(messages)


def attempted(message: Queued, event: DeliveryAttempted) -> Queued:
    """The message after an attempt: who was not deferred is pending no more. The last word on a recipient counts."""
    outcomes = {attempt.recipient: attempt for attempt in event.attempts}
    pending = []
    for one in message.pending:
        attempt = outcomes.get(one.recipient)
        if attempt is None:
            pending.append(one)
        elif attempt.outcome == DEFERRED:
            pending.append(Pending(one.recipient, one.attempts + 1, attempt))
    return msgspec.structs.replace(
        message, pending=tuple(pending), attempts=message.attempts + bool(event.attempts), next_at=event.next_at
    )
