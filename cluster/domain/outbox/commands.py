"""What may be asked of the outbox."""

import msgspec

from cluster.domain.mailbox.content import Content
from cluster.domain.outbox.events import Attempt


class Command(msgspec.Struct, frozen=True):
    queued: int


class QueueMessage(Command, frozen=True):
    sender: str
    recipients: tuple[str, ...]
    content: Content
    account: int = 0
    body_8bit: bool = False
    smtputf8: bool = False
    taken_at: int = 0
    handed: int = 0


class RecordAttempt(Command, frozen=True):
    attempts: tuple[Attempt, ...]
    next_at: int = 0


AnyCommand = QueueMessage | RecordAttempt
