"""What the facts of a lost tail mean in history: decided again, with the objects that they named where those are now.

Messages are found by the command that made them (line.py), mailboxes by their ids, or by their names where they are not
there any more. What would undo what people did meanwhile is not done but reported.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cluster.domain.mailbox import annotations, ranges
from cluster.domain.mailbox.events import (
    DELETED,
    AnnotationsChanged,
    AnyEvent,
    FlagsChanged,
    Made,
    MailboxDeleted,
    MailboxesCreated,
    MailboxesRenamed,
    MessageAppended,
    MessagesCopied,
    MessagesExpunged,
    MessagesRestored,
    Reaffirmed,
    RightsChanged,
    SeenChanged,
    Subscribed,
    expunged_key,
    messages_key,
    rights_key,
    tree_key,
)
from cluster.domain.mailbox.line import Effect, Line, Thing, copied_thing
from cluster.domain.mailbox.names import STANDARD, superiors

SPECIAL_USES = dict(STANDARD)
GONE = "It is not there any more."


class Told(msgspec.Struct, frozen=True):
    """A fact of the tail, with what it did there. `n`: which of the tail's records it is, to whoever asks."""

    account: int
    event: AnyEvent
    effect: Effect
    n: int = 0


class Conflict(msgspec.Struct, frozen=True):
    """What of the record `n` is not done. Sentences for people."""

    n: int
    what: str
    why: str


@dataclass(slots=True)
class Again:
    """`events`: each with its account, to be appended together. `depends`: keys that they rest on. `others`: facts of
    other nouns, with their entities."""

    events: list[tuple[int, AnyEvent]] = field(default_factory=list)
    depends: dict[str, None] = field(default_factory=dict)
    conflicts: list[Conflict] = field(default_factory=list)
    others: list[tuple[str, msgspec.Struct]] = field(default_factory=list)
    made: dict[tuple[int, str], int] = field(default_factory=dict)  # mailboxes that `events` make


def decided_again(now: Line, told: Sequence[Told], same: Mapping[Thing, Thing], new_id: Callable[[], int]) -> Again:
    """The facts of one command, which is not in history, as history stands. `same`: messages of the tail that came in
    otherwise meanwhile. `new_id`: ids for mailboxes."""
    again = Again()
    for one in told:
        mapped = MAPPED.get(type(one.event))
        if mapped is not None:
            mapped(_Mapping(now, one, same, new_id, again))
    return again


def reaffirmed(now: Line, told: Sequence[Told], epoch: int, upto: int) -> list[tuple[int, Reaffirmed]]:
    """What clients may have been shown by these facts, by account and mailbox; without what no client can have in a
    mailbox that is there today."""
    uids: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    trees: dict[int, None] = {}
    for one in told:
        if one.effect.tree:
            trees[one.account] = None
        for touched in one.effect.touched:
            box = now.box(one.account, touched.mailbox)
            if touched.uids and box is not None and box.uidvalidity == touched.uidvalidity:
                uids.setdefault((one.account, box.id, box.uidvalidity), []).extend(touched.uids)
    return [
        *((account, Reaffirmed(0, 0, (), epoch, upto)) for account in trees),
        *(
            (account, Reaffirmed(mailbox, uidvalidity, ranges.normalise(pairs), epoch, upto))
            for (account, mailbox, uidvalidity), pairs in uids.items()
        ),
    ]


def same_copies(told: Sequence[Told], command: bytes, same: Mapping[Thing, Thing]) -> dict[Thing, Thing]:
    """Of messages that came in otherwise meanwhile, the copies that this command made, or what it restored: in the tail, and
    in history."""
    return {
        copied_thing(command, one.account, thing): copied_thing(command, one.account, same[thing])
        for one in told
        if isinstance(one.event, MessagesCopied | MessagesRestored)
        for thing in one.effect.things
        if thing in same
    }


class _Mapping:
    """One fact of the tail, and what of it was mapped so far."""

    def __init__(
        self, now: Line, told: Told, same: Mapping[Thing, Thing], new_id: Callable[[], int], again: Again
    ) -> None:
        self.now = now
        self.told = told
        self.event: Any = told.event
        self.effect = told.effect
        self.account = told.account
        self.mail = now.account(told.account)
        self._same = same
        self._new_id = new_id
        self._again = again

    def add(self, event: AnyEvent, *depends: str) -> None:
        self._again.events.append((self.account, event))
        self._again.depends |= dict.fromkeys((tree_key(self.account), *depends))

    def conflict(self, what: str, why: str) -> None:
        self._again.conflicts.append(Conflict(self.told.n, what, why))

    def existing(self, mailbox: int) -> int:
        """The mailbox today, 0 = it is not there."""
        if mailbox in self.mail.boxes:
            return mailbox
        name = self.effect.names.get(mailbox, "")
        return self.mail.names.get(name, 0) or self._again.made.get((self.account, name), 0)

    def mailbox(self, mailbox: int) -> int:
        """The mailbox today; made anew if it is not there: what was acknowledged must have its place."""
        found = self.existing(mailbox)
        if found:
            return found
        name = self.effect.names[mailbox]
        made = Made(self.unused(mailbox), name, self.free_use(SPECIAL_USES.get(name, "")))
        self.create((made,))
        return made.mailbox

    def create(self, made: tuple[Made, ...]) -> None:
        self._again.made |= {(self.account, one.name): one.mailbox for one in made}
        self.add(MailboxesCreated(made))

    def unused(self, mailbox: int) -> int:
        """An id is used once: what went with a mailbox is kept under it."""
        return self._new_id() if mailbox in self.mail.ever else mailbox

    def free_use(self, special_use: str) -> str:
        return "" if any(box.special_use == special_use for box in self.mail.boxes.values()) else special_use

    def rights_above(self, made: Made) -> tuple[tuple[str, str], ...]:
        """Of the mailbox above it as they are today: who was shut out there meanwhile is so here."""
        above = next((name for name in reversed(superiors(made.name)) if name in self.mail.names), None)
        return made.rights if above is None else tuple(sorted(self.mail.boxes[self.mail.names[above]].rights.items()))

    def is_taken(self, name: str) -> bool:
        return name in self.mail.names or (self.account, name) in self._again.made

    def found(self, things: Iterable[Thing]) -> dict[int, list[tuple[int, Thing]]]:
        """Those that are there today: mailbox → (UID, thing)."""
        found: dict[int, list[tuple[int, Thing]]] = {}
        for thing in things:
            thing = self.today(thing)
            if thing in self.now.places:
                place = self.now.places[thing]
                found.setdefault(place.mailbox, []).append((place.uid, thing))
        return found

    def gone(self, things: Iterable[Thing]) -> dict[int, list[tuple[int, Thing]]]:
        """Those that were expunged and can be restored: mailbox → (its place there, thing)."""
        found: dict[int, list[tuple[int, Thing]]] = {}
        for thing in map(self.today, things):
            if thing in self.now.expunged:
                place = self.now.expunged[thing]
                found.setdefault(place.mailbox, []).append((place.uid, thing))
        return found

    def today(self, thing: Thing) -> Thing:
        return self._same.get(thing, thing)

    def missing(self, found: Mapping[int, Sequence[Any]], what: str) -> None:
        count = len(self.effect.things) - sum(len(each) for each in found.values())
        if count:
            self.conflict(f"{what} of {_messages(count)} in {self.names()}", GONE)

    def names(self) -> str:
        return ", ".join(repr(name) for name in self.effect.names.values())


def _created(to: _Mapping) -> None:
    wanted = tuple(one for one in to.event.made if to.existing(one.mailbox) == 0)
    if wanted:
        to.create(
            tuple(
                msgspec.structs.replace(
                    one,
                    mailbox=to.unused(one.mailbox),
                    special_use=to.free_use(one.special_use),
                    rights=to.rights_above(one),
                )
                for one in wanted
            )
        )


def _renamed(to: _Mapping) -> None:
    pairs: list[tuple[int, str]] = []
    old = to.effect.names
    changes = ", ".join(f"{old[mailbox]!r} to {name!r}" for mailbox, name in to.event.renamed if mailbox in old)
    what = f"Renaming of {changes}"
    moving = {mailbox for mailbox, _ in to.event.renamed}
    for mailbox, name in to.event.renamed:
        if mailbox not in old:
            continue
        # By its id alone: another one of its name is somebody's new mailbox.
        box = to.mail.boxes.get(mailbox)
        if box is None:
            return to.conflict(what, f"{old[mailbox]!r} is not there any more.")
        if box.name == name:
            continue
        if box.name != old[mailbox]:
            return to.conflict(what, f"{old[mailbox]!r} was renamed to {box.name!r} meanwhile.")
        if to.is_taken(name) and to.mail.names.get(name) not in moving:
            return to.conflict(what, f"There is a mailbox {name!r} already.")
        pairs.append((box.id, name))
    if pairs:
        to.add(MailboxesRenamed(tuple(pairs)))


def _deleted(to: _Mapping) -> None:
    box = to.mail.boxes.get(to.event.mailbox)
    if box is None:
        return
    known = set(to.effect.things)
    arrived = sum(thing not in known for thing in box.messages.values())
    if arrived:
        return to.conflict(f"Deletion of {to.names()}", f"{_messages(arrived)} came into it meanwhile.")
    to.add(MailboxDeleted(box.id), messages_key(to.account, box.id))


def _subscribed(to: _Mapping) -> None:
    if (to.event.name in to.mail.subscriptions) != to.event.subscribed:
        to.add(to.event)


def _appended(to: _Mapping) -> None:
    if to.effect.things and to.effect.things[0] not in to._same:
        to.add(msgspec.structs.replace(to.event, mailbox=to.mailbox(to.effect.target)))


def _flags_changed(to: _Mapping) -> None:
    """Also of what somebody else than the owner has read."""
    found = to.found(to.effect.things)
    for mailbox, places in found.items():
        uids = ranges.compress(uid for uid, _ in places)
        to.add(msgspec.structs.replace(to.event, mailbox=mailbox, uids=uids), messages_key(to.account, mailbox))
    to.missing(found, "New flags")


def _copied(to: _Mapping) -> None:
    found = to.found(to.effect.things)
    for mailbox, places in found.items():
        target = to.mailbox(to.effect.target)
        uids = ranges.compress(uid for uid, _ in places)
        to.add(MessagesCopied(mailbox, target, uids, to.event.moved), messages_key(to.account, mailbox))
    to.missing(found, "Moving" if to.event.moved else "Copying")


def _expunged(to: _Mapping) -> None:
    # What is gone already is as it was wanted.
    for mailbox, places in to.found(to.effect.things).items():
        kept = [thing for _, thing in places if to.event.only_deleted and not to.now.flags[thing] & DELETED]
        if kept:
            to.conflict(
                f"Expunging of {_messages(len(kept))} in {to.names()}", "They are not marked as deleted any more."
            )
        uids = ranges.compress(uid for uid, thing in places if thing not in kept)
        if uids:
            event = msgspec.structs.replace(to.event, mailbox=mailbox, uids=uids)
            to.add(event, messages_key(to.account, mailbox))


def _rights_changed(to: _Mapping) -> None:
    """Only where nobody said otherwise meanwhile: who was shut out in history is not let in again. By the mailbox's id alone:
    another one of its name is somebody's new mailbox."""
    mailbox, identifier, rights = to.event.mailbox, to.event.identifier, to.event.rights
    box = to.mail.boxes.get(mailbox)
    today = box.rights.get(identifier, "") if box is not None else ""
    if box is None or today == rights:
        if box is None and rights:
            to.conflict(f"Rights {rights!r} of {identifier} to {to.names()}", GONE)
        return
    if today != to.effect.was:
        why = f"They were changed to {today!r} meanwhile."
        return to.conflict(f"Rights {rights!r} of {identifier} to {to.names()}", why)
    to.add(RightsChanged(mailbox, identifier, rights), rights_key(to.account, mailbox))


def _restored(to: _Mapping) -> None:
    found = to.gone(to.effect.things)
    for mailbox, places in found.items():
        target = to.mailbox(to.effect.target)
        numbers = ranges.compress(sorted(place for place, _ in places))
        to.add(MessagesRestored(mailbox, target, numbers), expunged_key(to.account))
    # What is there, as its expunging was lost too, or was restored meanwhile, is as it was wanted.
    missing = [
        thing
        for thing in map(to.today, to.effect.things)
        if thing not in to.now.places and thing not in to.now.restored and not any(
            thing == there for places in found.values() for _, there in places
        )
    ]
    if missing:
        to.conflict(f"Restoring of {_messages(len(missing))} in {to.names()}", "They cannot be restored any more.")


def _annotated(to: _Mapping) -> None:
    """Each value by itself, only where nobody said otherwise meanwhile."""
    event, was = to.event, dict(to.effect.annotated)
    if not was:
        return
    mailbox = to.existing(event.mailbox) if event.mailbox else 0
    what = f"Annotations of {to.names() or 'the account'}"
    if event.mailbox and not mailbox:
        return to.conflict(what, GONE)
    wanted: list[tuple[str, bytes | None]] = []
    changed: list[str] = []
    for name, value in event.values:
        today = to.mail.annotations.get((mailbox, annotations.whose(name, event.by), name))
        if today == value:
            continue
        if today == was[name]:
            wanted.append((name, value))
        else:
            changed.append(name)
    if wanted:
        to.add(AnnotationsChanged(mailbox, event.by, tuple(wanted)))
    if changed:
        to.conflict(what, f"{', '.join(changed)}: changed meanwhile.")


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


MAPPED: dict[type, Callable[[_Mapping], None]] = {
    MailboxesCreated: _created,
    MailboxesRenamed: _renamed,
    MailboxDeleted: _deleted,
    Subscribed: _subscribed,
    MessageAppended: _appended,
    FlagsChanged: _flags_changed,
    SeenChanged: _flags_changed,
    RightsChanged: _rights_changed,
    AnnotationsChanged: _annotated,
    MessagesCopied: _copied,
    MessagesExpunged: _expunged,
    MessagesRestored: _restored,
}
