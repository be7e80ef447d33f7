"""What the facts of a lost tail mean in the outbox as history has it: nobody gets a message twice for it, if it can be
helped, and nobody goes without."""

from collections.abc import Iterable, Mapping

import msgspec

from cluster.domain.outbox.events import AnyEvent, DeliveryAttempted, MessageQueued
from cluster.domain.outbox.state import DEFERRED, OutboxState

Settled = Mapping[int, frozenset[str]]  # message → recipients who are pending no more


def settled(events: Iterable[AnyEvent]) -> dict[int, frozenset[str]]:
    """By these facts: recipients who have it, or never will."""
    found: dict[int, frozenset[str]] = {}
    for event in events:
        if isinstance(event, DeliveryAttempted):
            ended = {attempt.recipient for attempt in event.attempts if attempt.outcome != DEFERRED}
            found[event.queued] = found.get(event.queued, frozenset()) | ended
    return found


def decided_again(now: OutboxState, event: AnyEvent, tail: Settled) -> AnyEvent | None:
    """None: nothing is to be done. `tail`: who was settled in all of the tail, so that a message which it both took in
    and sent is not queued again for a moment in which it would be sent twice. Who asks knows that the command is not in
    history."""
    match event:
        case MessageQueued():
            ended = tail.get(event.queued, frozenset())
            left = tuple(recipient for recipient in event.recipients if recipient not in ended)
            if not left or event.queued in now.messages:
                return None
            return msgspec.structs.replace(event, recipients=left)
        case DeliveryAttempted():
            message = now.messages.get(event.queued)
            pending = {one.recipient for one in message.pending} if message is not None else set()
            attempts = tuple(one for one in event.attempts if one.recipient in pending and one.outcome != DEFERRED)
            next_at = message.next_at if message is not None else 0
            return DeliveryAttempted(event.queued, attempts, next_at) if attempts else None
