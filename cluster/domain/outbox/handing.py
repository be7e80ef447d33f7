"""A message that goes from one queue to another: what it is called there, so that handing it over twice is doing it once.

Two appends make a hand-over, to the other queue and then to ours, with a crash between them at the worst. The second time
finds the same id and the same command id, whoever does it: both are made of what is handed over and of nothing else.
"""

import hashlib
from collections.abc import Sequence

import msgspec

from cluster.domain.outbox.commands import QueueMessage
from cluster.domain.outbox.events import Attempt
from cluster.domain.outbox.state import Queued

HANDED_MAX = 5  # times; more are a circle of sites
COMMAND_ID_BYTES = 16
SENT = 250  # RFC 5321 §4.2.3: what we record of a recipient that another queue answers for now

_SPOOLED = 0x53706F6F6C656421  # tells a message's id in the spool from that in the queue; 63 bits
_SENT_COPY = 0x53656E7420636F70  # likewise


def spooled(queued: int) -> int:
    """The id in a spool of a message that is to be `queued` in the queue, and the other way round: the two never have the
    same, for a site folds both into one table."""
    return queued ^ _SPOOLED


def sent_copy(queued: int) -> int:
    """The id of the copy for its sender's \\Sent mailbox of a message that is `queued`, or delivered under this id."""
    return queued ^ _SENT_COPY


def command_of(queued: int) -> bytes:
    """The command id under which a message is queued. The same from whoever takes it in and from the spool's drain, so
    that an append of which nobody knows whether it succeeded may be repeated from there."""
    return hashlib.sha256(f"queued/{queued:x}".encode()).digest()[:COMMAND_ID_BYTES]


def handed(message: Queued, recipients: Sequence[str], target: str, taken_at: int) -> QueueMessage:
    """The command for the queue `target` that has these recipients of the message there."""
    return QueueMessage(
        _derived(message.queued, recipients, target),
        message.sender,
        tuple(recipients),
        message.content,
        message.account,
        message.body_8bit,
        message.smtputf8,
        taken_at,
        message.handed + 1,
    )


def drained(message: Queued, taken_at: int) -> QueueMessage:
    """The command for the queue that has the spooled message there, as if it had been taken in by it at first."""
    recipients = tuple(one.recipient for one in message.pending)
    return msgspec.structs.replace(
        handed(message, recipients, "", taken_at), queued=spooled(message.queued), handed=message.handed
    )


def settled(recipients: Sequence[str], target: str) -> tuple[Attempt, ...]:
    """What is recorded of recipients that `target` answers for now."""
    return tuple(Attempt(recipient, "sent", SENT, f"2.0.0 Handed to {target}") for recipient in recipients)


def _derived(queued: int, recipients: Sequence[str], target: str) -> int:
    """63 bits, never 0."""
    text = f"handed/{queued:x}/{target}/" + "/".join(sorted(recipients))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1 or 1
