"""What one line of epochs knew of a partition: history, or the line that the home of a lost tail went on with.

Read from the log each time, so that it hangs on nothing but the facts.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from cluster import codec
from cluster.domain.decision import Unappliable
from cluster.domain.directory import state as directory
from cluster.domain.mailbox.events import EpochStarted
from cluster.domain.mailbox.line import NOTHING, Effect, Line
from cluster.domain.outbox import state as outbox
from cluster.log.model import Record
from cluster.position import position, split


class Stretch(Protocol):
    """cluster.log.jetstream.Tail: positions above `after`, up to `last`."""

    @property
    def epoch(self) -> int: ...
    @property
    def after(self) -> int: ...
    @property
    def last(self) -> int: ...


class Fact(NamedTuple):
    """One record of the log, read. `event` None: it cannot be, and `why`. `effect`: what it did to mail in its line."""

    record: Record
    command: bytes
    envelope: codec.Envelope | None
    event: Any
    effect: Effect = NOTHING
    why: str = ""


class Known:
    """`accounts`: whose mail it is to know. `commands`: those told above `since`, and those of these accounts."""

    def __init__(self, accounts: Iterable[int], since: int = 0) -> None:
        self.mail = Line(accounts, since)
        self.directory = directory.DirectoryState()
        self.outbox = outbox.OutboxState()
        self.position = 0
        self._since = since
        self._commands: set[bytes] = set()
        self._applied: set[bytes] = set()

    def has(self, command: bytes) -> bool:
        return command in self._commands

    def add(self, command: bytes) -> None:
        """It is in history, but not read from there yet."""
        self._commands.add(command)

    def tell(self, record: Record) -> Fact:
        self.position = record.position
        try:
            envelope, event = codec.decode(record.payload)
        except codec.Undecodable as error:
            return Fact(record, b"", None, None, why=str(error))
        effect = NOTHING
        match envelope.noun:
            case "mailbox" if record.entity.isascii() and record.entity.isdigit():
                effect = self.mail.tell(int(record.entity), event, envelope.id, envelope.n, record.position)
            case "directory" if envelope.n or envelope.id not in self._applied:
                known = directory.evolve(self.directory, event)
                self.directory = self.directory if isinstance(known, Unappliable) else known
            case "outbox" if envelope.n or envelope.id not in self._applied:
                waiting = outbox.evolve(self.outbox, event, record.position)
                self.outbox = self.outbox if isinstance(waiting, Unappliable) else waiting
        if record.position > self._since or envelope.id in self.mail.commands:
            self._applied.add(envelope.id)
            self._commands.add(envelope.id)
        return Fact(record, envelope.id, envelope, event, effect)


def began_after(event: object) -> int:
    """Where the line stood when an epoch began, by its first fact: 0 = nowhere."""
    if isinstance(event, EpochStarted):
        return next((position(epoch, last) for epoch, last, _ in event.ended if last), 0)
    return 0


def holding(tails: Iterable[Stretch], at: int) -> Stretch | None:
    """The tail in which a position lies."""
    return next((tail for tail in tails if tail.epoch == split(at).epoch and tail.after < at <= tail.last), None)
