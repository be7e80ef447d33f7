"""The life of some accounts' mail as one line of epochs knew it, with every message named by the command that made it.

Over a lost tail two lines are compared: the one that the tail's home knew, and history. UIDs and UIDVALIDITY of one mean
something else in the other, the name of a thing does not. The same fold as in state.py, for changes in place: of whole
mailboxes, not of single messages, the cost of an event is what it names.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cluster.domain.mailbox import ranges
from cluster.domain.mailbox.annotations import Key, Values, changed, whose
from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.events import (
    DELETED,
    UID_GAP,
    UIDNEXT_RAISED_MAX,
    UIDVALIDITY_FRESH,
    AnnotationsChanged,
    AnyEvent,
    EpochStarted,
    ExpungedGivenUp,
    FlagMode,
    FlagsChanged,
    MailboxDeleted,
    MailboxesCreated,
    MailboxesRenamed,
    MessageAppended,
    MessagesCopied,
    MessagesExpunged,
    MessagesRestored,
    Ranges,
    RightsChanged,
    SalvageReported,
    SeenChanged,
    Subscribed,
    TailDestroyed,
    TailSalvaged,
)
from cluster.domain.mailbox.names import FILED, INBOX
from cluster.position import SEQUENCE_MAX

Thing = bytes  # the name of a message, equal in all lines: 16 bytes
THING_BYTES = 16


class Place(NamedTuple):
    """Where a message is."""

    account: int
    mailbox: int
    uid: int


class Touched(NamedTuple):
    """UIDs of which clients may have been told by an event."""

    mailbox: int
    uidvalidity: int
    uids: Ranges


class Effect(NamedTuple):
    """What an event did in its line. `things`: the messages that it named and that were there, in the order of their
    UIDs; of an append, the one that it made. `target`: the mailbox in which something came to be; `names`: of each
    mailbox that it speaks of, the name before. `tree`: the list of mailboxes changed. `was`: the rights
    before; `annotated`: the values before, of the entries that it names."""

    things: tuple[Thing, ...] = ()
    touched: tuple[Touched, ...] = ()
    target: int = 0
    names: dict[int, str] = {}
    tree: bool = False
    was: str = ""
    annotated: Values = ()


NOTHING = Effect()


@dataclass(slots=True)
class Box:
    id: int
    name: str
    uidvalidity: int
    special_use: str = ""
    uidnext: int = 1
    messages: dict[int, Thing] = field(default_factory=dict)  # by UID, ascending
    rights: dict[str, str] = field(default_factory=dict)  # by identifier


@dataclass(slots=True)
class Went:
    """A message that is not in its mailbox any more, and since which position. `taken`: restored or given up."""

    thing: Thing
    flags: int
    at: int
    taken: bool = False


@dataclass(slots=True)
class Account:
    """`ever`: ids of all mailboxes that it ever had."""

    id: int
    uidvalidity: int
    boxes: dict[int, Box] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    subscriptions: set[str] = field(default_factory=set)
    ever: set[int] = field(default_factory=set)
    annotations: dict[Key, bytes] = field(default_factory=dict)


class Line:
    """Of the accounts named. `commands`: those that they were told, with how many events. `flags`: of each
    message that is there. `made`: every message that ever was. `expunged`: where among what went from a mailbox those are
    that can be restored; `restored`: those that were. `delivered`: content of mail delivered above position
    `since`, by the mailbox that it came into; `brought`: likewise of what clients brought, or was filed for them, and whether
    it was filed."""

    def __init__(self, accounts: Iterable[int], since: int = 0) -> None:
        self._wanted = frozenset(accounts)
        self._since = since
        self._base = 0
        self._ordinal: tuple[bytes, dict[int, int]] = (b"", {})
        self.accounts: dict[int, Account] = {}
        self.commands: dict[bytes, int] = {}
        self.places: dict[Thing, Place] = {}
        self.flags: dict[Thing, int] = {}
        self.made: set[Thing] = set()
        self.expunged: dict[Thing, Place] = {}  # `uid`: the place
        self.restored: set[Thing] = set()
        self._went: dict[tuple[int, int], list[Went]] = {}  # of each account's mailbox, in the order of their places
        self.delivered: dict[tuple[int, int], list[tuple[Thing, Content]]] = {}
        self.brought: dict[tuple[int, int], list[tuple[Thing, Content, bool]]] = {}
        self.salvaged: dict[int, int] = {}
        self.reported: set[int] = set()

    def account(self, id: int) -> Account:
        return self.accounts.get(id) or Account(id, self._base)

    def box(self, account: int, mailbox: int) -> Box | None:
        return self.account(account).boxes.get(mailbox)

    def tell(self, account: int, event: AnyEvent, command: bytes, n: int, position: int) -> Effect:
        """Of an event that repeats a command, has no meaning or is of another account: NOTHING."""
        if account in self._wanted or command in self.commands or isinstance(event, OF_PARTITION):
            if n < self.commands.get(command, 0):
                return NOTHING
            self.commands[command] = n + 1
        match event:
            case EpochStarted():
                self._epoch_started(event)
            case TailSalvaged():
                self.salvaged[event.epoch] = max(event.upto, self.salvaged.get(event.epoch, 0))
            case TailDestroyed():
                self.salvaged[event.epoch] = SEQUENCE_MAX
            case SalvageReported():
                self.reported.add(event.position)
            case _:
                tells = TELLS.get(type(event))
                if account in self._wanted and tells is not None:
                    mail = self.accounts.setdefault(account, Account(account, self._base))
                    return tells(self, mail, event, command, position)
        return NOTHING

    # -- messages -----------------------------------------------------------------------------------------------------

    def appended(self, mail: Account, event: MessageAppended, command: bytes, position: int) -> Effect:
        box = self._landing(mail, event.mailbox)
        if box is None:
            return NOTHING
        if self._ordinal[0] != command:
            self._ordinal = (command, {})
        ordinal = self._ordinal[1][mail.id] = self._ordinal[1].get(mail.id, 0) + 1
        thing = self._unused(_thing(b"a", command, mail.id, ordinal.to_bytes(4, "big")))
        uid = self._put(mail, box, thing, event.flags)
        if event.delivered and position > self._since:
            self.delivered.setdefault((mail.id, box.id), []).append((thing, event.content))
        elif position > self._since:
            filed = FILED in event.keywords
            self.brought.setdefault((mail.id, box.id), []).append((thing, event.content, filed))
        return Effect((thing,), (_touched(box, [uid]),), box.id, {box.id: box.name})

    def flags_changed(self, mail: Account, event: FlagsChanged, command: bytes, position: int) -> Effect:
        box = mail.boxes.get(event.mailbox)
        if box is None:
            return NOTHING
        uids = _there(box, event.uids)
        for thing in (box.messages[uid] for uid in uids):
            was = self.flags[thing]
            self.flags[thing] = (
                was | event.flags
                if event.mode is FlagMode.ADD
                else was & ~event.flags
                if event.mode is FlagMode.REMOVE
                else event.flags | was & event.kept
            )
        things = tuple(box.messages[uid] for uid in uids)
        return Effect(things, (_touched(box, uids),), 0, {box.id: box.name})

    def seen_changed(self, mail: Account, event: SeenChanged, command: bytes, position: int) -> Effect:
        box = mail.boxes.get(event.mailbox)
        if box is None:
            return NOTHING
        uids = _there(box, event.uids)
        return Effect(tuple(box.messages[uid] for uid in uids), (_touched(box, uids),), 0, {box.id: box.name})

    def copied(self, mail: Account, event: MessagesCopied, command: bytes, position: int) -> Effect:
        source, target = mail.boxes.get(event.source), self._landing(mail, event.target)
        if source is None or target is None:
            return NOTHING
        uids = _there(source, event.uids)
        things = tuple(source.messages[uid] for uid in uids)
        new = [
            self._put(mail, target, self._unused(copied_thing(command, mail.id, thing)), self.flags[thing])
            for thing in things
        ]
        touched = [_touched(target, new)]
        if event.moved:
            self._take(mail, source, uids, position, moved=True)
            touched.append(_touched(source, uids))
        return Effect(things, tuple(touched), target.id, {source.id: source.name, target.id: target.name})

    def went(self, mail: Account, event: MessagesExpunged, command: bytes, position: int) -> Effect:
        box = mail.boxes.get(event.mailbox)
        if box is None:
            return NOTHING
        uids = [
            uid for uid in _there(box, event.uids) if not event.only_deleted or self.flags[box.messages[uid]] & DELETED
        ]
        things = tuple(box.messages[uid] for uid in uids)
        self._take(mail, box, uids, position, moved=event.replaced)
        return Effect(things, (_touched(box, uids),), 0, {box.id: box.name})

    def brought_back(self, mail: Account, event: MessagesRestored, command: bytes, position: int) -> Effect:
        target = self._landing(mail, event.target)
        if target is None:
            return NOTHING
        of = self._went.get((mail.id, event.source), [])
        went = [one for n, one in enumerate(of, 1) if not one.taken and ranges.contains(event.places, n)]
        things = tuple(one.thing for one in went)
        new = [
            self._put(mail, target, self._unused(copied_thing(command, mail.id, one.thing)), one.flags & ~DELETED)
            for one in went
        ]
        for one in went:
            self._close(one)
        self.restored.update(things)
        source = mail.boxes.get(event.source)
        names = {target.id: target.name} | ({source.id: source.name} if source else {})
        return Effect(things, (_touched(target, new),), target.id, names)

    def given_up(self, mail: Account, event: ExpungedGivenUp, command: bytes, position: int) -> Effect:
        for (account, _), of in self._went.items():
            for one in of if account == mail.id else ():
                if one.at <= event.upto and not one.taken:
                    self._close(one)
        return NOTHING

    # -- the tree -----------------------------------------------------------------------------------------------------

    def created(self, mail: Account, event: MailboxesCreated, command: bytes, position: int) -> Effect:
        names = [made.name for made in event.made]
        ids = [made.mailbox for made in event.made]
        taken = not mail.names.keys().isdisjoint(names) or not mail.boxes.keys().isdisjoint(ids)
        if taken or len({*names}) < len(names) or len({*ids}) < len(ids):
            return NOTHING
        for made in event.made:
            mail.uidvalidity += 1
            mail.boxes[made.mailbox] = Box(
                made.mailbox, made.name, mail.uidvalidity, made.special_use, rights=dict(made.rights)
            )
            mail.names[made.name] = made.mailbox
            mail.ever.add(made.mailbox)
            if made.subscribed:
                mail.subscriptions.add(made.name)
        return Effect(names=dict(zip(ids, names, strict=True)), tree=True)

    def renamed(self, mail: Account, event: MailboxesRenamed, command: bytes, position: int) -> Effect:
        there = [(mail.boxes[mailbox], name) for mailbox, name in event.renamed if mailbox in mail.boxes]
        old = {box.id: box.name for box, _ in there}
        names = {name: id for name, id in mail.names.items() if name not in old.values()}
        for box, name in there:
            if name in names:
                return NOTHING
            names[name] = box.id
        for box, name in there:
            box.name = name
        mail.names = names
        return Effect(names=old, tree=True)

    def deleted(self, mail: Account, event: MailboxDeleted, command: bytes, position: int) -> Effect:
        box = mail.boxes.pop(event.mailbox, None)
        if box is None:
            return NOTHING
        del mail.names[box.name]
        mail.annotations = {key: value for key, value in mail.annotations.items() if key[0] != box.id}
        uids, things = list(box.messages), tuple(box.messages.values())
        touched = _touched(box, uids)
        self._take(mail, box, uids, position)
        return Effect(things, (touched,), 0, {box.id: box.name}, tree=True)

    def subscribed(self, mail: Account, event: Subscribed, command: bytes, position: int) -> Effect:
        (mail.subscriptions.add if event.subscribed else mail.subscriptions.discard)(event.name)
        return Effect(tree=True)

    def rights_changed(self, mail: Account, event: RightsChanged, command: bytes, position: int) -> Effect:
        box = mail.boxes.get(event.mailbox)
        if box is None:
            return NOTHING
        was = box.rights.pop(event.identifier, "")
        if event.rights:
            box.rights[event.identifier] = event.rights
        return Effect(names={box.id: box.name}, tree=True, was=was)

    def annotated(self, mail: Account, event: AnnotationsChanged, command: bytes, position: int) -> Effect:
        box = mail.boxes.get(event.mailbox)
        if event.mailbox and box is None:
            return NOTHING
        keys = [(event.mailbox, whose(name, event.by), name) for name, _ in event.values]
        was = tuple((key[2], mail.annotations.get(key)) for key in keys)
        mail.annotations = changed(mail.annotations, event.mailbox, event.by, event.values)
        return Effect(names={box.id: box.name} if box is not None else {}, annotated=was)

    def _epoch_started(self, event: EpochStarted) -> None:
        unclean = [gap for _, _, gap in event.ended if gap]
        gap, fresh = sum(max(0, gap) for gap in unclean), UIDVALIDITY_FRESH in unclean
        self._base += UID_GAP * len(unclean)
        for mail in self.accounts.values() if unclean else ():
            mail.uidvalidity += UID_GAP * len(unclean)
            for _, box in sorted(mail.boxes.items()):
                begins = box.uidnext + gap > UIDNEXT_RAISED_MAX
                if fresh or begins:
                    mail.uidvalidity += 1
                    box.uidvalidity = mail.uidvalidity
                box.uidnext += gap
                if begins:
                    self._renumber(mail, box)

    def _renumber(self, mail: Account, box: Box) -> None:
        things = list(box.messages.values())
        box.messages, box.uidnext = {}, 1
        for one in self._went.pop((mail.id, box.id), ()):
            self._close(one)
        for thing in things:
            self._put(mail, box, thing, self.flags[thing])

    # -----------------------------------------------------------------------------------------------------------------

    def _landing(self, mail: Account, mailbox: int) -> Box | None:
        return mail.boxes.get(mailbox) or mail.boxes.get(mail.names.get(INBOX, 0))

    def _unused(self, thing: Thing) -> Thing:
        """A name is given once, also where one command makes the same thing twice (which none does that we decide)."""
        while thing in self.made:
            thing = _thing(b"again", thing, 0, b"")
        return thing

    def _put(self, mail: Account, box: Box, thing: Thing, flags: int) -> int:
        uid = box.uidnext
        box.uidnext += 1
        box.messages[uid] = thing
        self.places[thing] = Place(mail.id, box.id, uid)
        self.flags[thing] = flags
        self.made.add(thing)
        return uid

    def _take(self, mail: Account, box: Box, uids: Iterable[int], position: int, *, moved: bool = False) -> None:
        """`uids`: ascending."""
        of = self._went.setdefault((mail.id, box.id), [])
        for uid in uids:
            thing = box.messages.pop(uid)
            del self.places[thing]
            of.append(Went(thing, self.flags.pop(thing), position))
            if not moved:
                self.expunged[thing] = Place(mail.id, box.id, len(of))

    def _close(self, one: "Went") -> None:
        """It cannot be restored any more."""
        one.taken = True
        self.expunged.pop(one.thing, None)


def _there(box: Box, uids: Ranges) -> list[int]:
    """The UIDs of these that are there, ascending."""
    if ranges.count(uids) <= len(box.messages):
        return [uid for uid in ranges.expand(uids) if uid in box.messages]
    return [uid for uid in box.messages if ranges.contains(uids, uid)]


def _touched(box: Box, uids: Iterable[int]) -> Touched:
    return Touched(box.id, box.uidvalidity, ranges.compress(uids))


def copied_thing(command: bytes, account: int, thing: Thing) -> Thing:
    """The copy of `thing` that the command made."""
    return _thing(b"c", command, account, thing)


def _thing(kind: bytes, command: bytes, account: int, what: bytes) -> Thing:
    text = kind + command + account.to_bytes(8, "big") + what
    return hashlib.blake2b(text, digest_size=THING_BYTES).digest()


OF_PARTITION = EpochStarted | TailSalvaged | TailDestroyed | SalvageReported
TELLS: dict[type, Callable[[Line, Account, Any, bytes, int], Effect]] = {
    MailboxesCreated: Line.created,
    MailboxesRenamed: Line.renamed,
    MailboxDeleted: Line.deleted,
    Subscribed: Line.subscribed,
    MessageAppended: Line.appended,
    FlagsChanged: Line.flags_changed,
    SeenChanged: Line.seen_changed,
    RightsChanged: Line.rights_changed,
    AnnotationsChanged: Line.annotated,
    MessagesCopied: Line.copied,
    MessagesExpunged: Line.went,
    MessagesRestored: Line.brought_back,
    ExpungedGivenUp: Line.given_up,
}
