"""A site's tables: the pure fold of its partition's events, with the commands that were applied and a digest.

What storage/projector.py does over PostgreSQL, without PostgreSQL: a repeated command is ignored, what has no meaning is
quarantined, and the digest covers position, payload and outcome.
"""

import hashlib
from collections.abc import Iterator, Sequence

from cluster import codec
from cluster.control.partitions import in_history
from cluster.domain.mailbox.events import AnyEvent, EpochStarted
from cluster.domain.mailbox.state import AccountMail, Box, MailState, Unappliable, evolve
from cluster.log.model import Record
from cluster.position import SEQUENCE_MAX, split


class Tables:
    def __init__(self) -> None:
        self.position = 0
        self.state = MailState()
        self.commands: dict[bytes, int] = {}
        self.digest = b""
        self.ends: dict[int, int] = {}  # epoch → its last sequence in history
        self.events: list[Record] = []
        self.quarantined: list[str] = []

    @classmethod
    def of(cls, events: Sequence[Record]) -> "Tables":
        made = cls()
        for record in events:
            made.fold(record)
        return made

    def fold(self, record: Record) -> AnyEvent | None:
        """The event, or None: it was a repeat, or had no meaning."""
        assert record.position > self.position, f"{record.position} after {self.position}"
        envelope, event = codec.decode(record.payload)
        outcome = b"a"
        if envelope.n < self.commands.get(envelope.id, 0):
            outcome = b"r"
        else:
            self.commands[envelope.id] = envelope.n + 1
            account = int(record.entity) if record.entity else 0
            after = evolve(self.state, account, event, record.position)
            if isinstance(after, Unappliable):
                outcome = b"q"
                self.quarantined.append(after.why)
            else:
                self.state = after
        if isinstance(event, EpochStarted):
            self.ends.update((epoch, last) for epoch, last, _ in event.ended)
        self.position = record.position
        digest = hashlib.blake2b(self.digest, digest_size=16)
        digest.update(record.position.to_bytes(8, "big") + record.payload + outcome)
        self.digest = digest.digest()
        self.events.append(record)
        return event if outcome == b"a" else None

    @property
    def history(self) -> tuple[tuple[int, int], ...]:
        """(epoch, its last sequence in history), as the facts tell it up to where this stands."""
        epoch = split(self.position).epoch
        return (*sorted((each, last) for each, last in self.ends.items() if each != epoch), (epoch, SEQUENCE_MAX))

    def boxes(self) -> Iterator[Box]:
        for mail in self.state.accounts.values():
            yield from mail.boxes.values()

    def has_in_history(self, position: int) -> bool:
        """Of those not beyond where it stands."""
        return in_history(self.history, position)

    def box(self, account: int, name: str) -> Box | None:
        mail = self.state.accounts.get(account) or AccountMail(self.state.uidvalidity_base)
        return mail.boxes.get(mail.names.get(name, 0))
