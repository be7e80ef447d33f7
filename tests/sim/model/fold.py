"""One mailbox, as facts and what they add up to. Much smaller than cluster/domain/mailbox, with the same meaning."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from tests.sim.model.rules import FRESH, Ended, Record, Rules, at, raised, spans, split

WHOLE = 1 << 30  # as `upto`: all of the epoch's tail, however long it was


class Kind(Enum):
    APPENDED = "appended"
    FLAGGED = "flagged"
    EXPUNGED = "expunged"
    STARTED = "started"
    REAFFIRMED = "reaffirmed"
    REPORTED = "reported"


class Event(NamedTuple):
    """`command` 0: nobody's. `uid`, `validity`: which message. `value`: the content, or the new flags. `ended`: of
    STARTED. `tail`: of REAFFIRMED, (epoch, up to which sequence its tail is salvaged). `uids`: what it touched.
    `read_at`: where the tables stood that it was decided on."""

    kind: Kind
    command: int = 0
    uid: int = 0
    validity: int = 0
    value: int = 0
    ended: tuple[Ended, ...] = ()
    tail: tuple[int, int] = (0, 0)
    uids: tuple[int, ...] = ()
    read_at: int = 0


class Message(NamedTuple):
    content: int
    flags: int
    modseq: int


class Tables:
    """`gone`: UID → position at which it went. `applied`: command → UID that it was about. `highest`: HIGHESTMODSEQ.
    `salvaged`: epoch → sequence up to which its tail is salvaged. `reported`: commands that went to the report."""

    __slots__ = ("applied", "gone", "highest", "messages", "position", "reported", "salvaged", "uidnext", "validity")

    def __init__(self) -> None:
        self.position = 0
        self.validity = 1
        self.uidnext = 1
        self.highest = 0
        self.messages: dict[int, Message] = {}
        self.gone: dict[int, int] = {}
        self.applied: dict[int, int] = {}
        self.salvaged: dict[int, int] = {}
        self.reported: set[int] = set()

    def shown(self) -> dict[int, tuple[int, int]]:
        return {uid: (message.content, message.flags) for uid, message in self.messages.items()}

    def told(self) -> tuple[object, ...]:
        """All that must be equal at all sites."""
        return (self.position, self.validity, self.uidnext, self.highest, self.messages, self.gone, self.applied,
                self.salvaged, self.reported)  # fmt: skip


def evolve(tables: Tables, event: Event, position: int, rules: Rules) -> None:
    tables.position = position
    if event.command in tables.applied and rules.fold_ignores_repeats:
        return
    if event.kind is Kind.STARTED:
        if any(old.gap for old in event.ended):
            tables.uidnext = raised(tables.uidnext, event.ended)
            tables.highest = position
        if any(old.gap == FRESH for old in event.ended):
            tables.validity = position
    elif event.kind is Kind.REAFFIRMED:
        _reaffirmed(tables, event, position, rules)
    elif event.kind is Kind.REPORTED:
        tables.reported.add(event.command)
    else:
        _changed(tables, event, position)


def _changed(tables: Tables, event: Event, position: int) -> None:
    uid = event.uid
    if event.kind is Kind.APPENDED:
        uid = tables.uidnext
        tables.uidnext += 1
        tables.messages[uid] = Message(event.value, 0, position)
    elif event.validity == tables.validity and uid in tables.messages:
        if event.kind is Kind.FLAGGED:
            tables.messages[uid] = Message(tables.messages[uid].content, event.value, position)
        else:
            del tables.messages[uid]
            tables.gone[uid] = position
    tables.applied[event.command] = uid
    tables.highest = position


def _reaffirmed(tables: Tables, event: Event, position: int, rules: Rules) -> None:
    epoch, upto = event.tail
    # UIDs of another UIDVALIDITY name other messages today, or none yet.
    is_same = event.validity == tables.validity or not rules.reaffirm_names_uidvalidity
    for uid in range(1, tables.uidnext) if upto == WHOLE else event.uids if is_same else ():
        if uid in tables.messages:
            tables.messages[uid] = tables.messages[uid]._replace(modseq=position)
        else:
            tables.gone[uid] = position
    tables.salvaged[epoch] = max(upto, tables.salvaged.get(epoch, 0))
    tables.highest = position


Streams = Mapping[int, list[Event]]


def held(streams: Streams) -> dict[int, int]:
    return {epoch: len(events) for epoch, events in streams.items()}


def history(record: Record, streams: Streams, upto: int) -> Iterable[tuple[int, Event]]:
    """What lies here of history, in order, not beyond position `upto`."""
    for epoch, last in spans(record):
        for sequence, event in enumerate(streams.get(epoch, ())[:last], 1):
            if at(epoch, sequence) > upto:
                return
            yield at(epoch, sequence), event


def folded(events: Iterable[tuple[int, Event]], rules: Rules) -> Tables:
    tables = Tables()
    for position, event in events:
        evolve(tables, event, position, rules)
    return tables


def line(streams: Streams, epoch: int, upto: int) -> list[tuple[int, Event]]:
    """The life of the partition as the home of `epoch` knew it, up to its sequence `upto`: its EpochStarted says after
    what it began. This is what a tail has to be read against, not today's history."""
    events = streams[epoch][:upto]
    here = [(at(epoch, sequence), event) for sequence, event in enumerate(events, 1)]
    before = next((old for old in events[0].ended if old.last), None) if events else None
    return line(streams, before.epoch, before.last) + here if before else here


def changes_since(tables: Tables, token: int) -> tuple[dict[int, tuple[int, int]], set[int]]:
    """RFC 7162 §3.2.5: what FETCH and VANISHED tell since `token`."""
    changed = {uid: (m.content, m.flags) for uid, m in tables.messages.items() if m.modseq > token}
    return changed, {uid for uid, modseq in tables.gone.items() if modseq > token}


def epoch_of(position: int) -> int:
    return split(position)[0]
