"""Facts about messages on their way out."""

import msgspec

from cluster.domain.mailbox.content import Content

SENT_COPY = "\\Sent"  # no address can be so


class Event(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of this noun's facts."""


class MessageQueued(Event, frozen=True, tag="MessageQueued.1"):
    """`sender` empty = null reverse-path, SENT_COPY = it goes nowhere but into the \\Sent mailbox of `account`, the recipient.
    `recipients` may be local too: a message with both kinds is queued whole, so that a retry by the client doubles nothing.
    `account`: who sent it, 0 = the system. `smtputf8`: RFC 6531. `taken_at`: unix seconds when a site first took it in, 0 = at
    this event's time. `handed`: how many times it went from one queue to another."""

    queued: int
    sender: str
    recipients: tuple[str, ...]
    content: Content
    account: int = 0
    body_8bit: bool = False
    smtputf8: bool = False
    taken_at: int = 0
    handed: int = 0


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """`code`: the SMTP reply, 0 = no reply (connection, timeout). `outcome`: sent, deferred, failed, expired."""

    recipient: str
    outcome: str
    code: int = 0
    text: str = ""


class DeliveryAttempted(Event, frozen=True, tag="DeliveryAttempted.1"):
    """`next_at`: unix seconds of the next try for those deferred, 0 = none are. The message leaves the outbox when no
    recipient is pending."""

    queued: int
    attempts: tuple[Attempt, ...]
    next_at: int = 0


AnyEvent = MessageQueued | DeliveryAttempted


def queued_key(queued: int) -> str:
    return f"queued/{queued}"


def changes(event: AnyEvent) -> tuple[str, ...]:
    return (queued_key(event.queued),)
