"""What the facts add up to. `evolve` is the meaning of this noun's events; the tables of a site hold the same.

What every event does, beyond what its name says:
- A mailbox that an event names gets its position as HIGHESTMODSEQ (MODSEQ is the position), whether or not a message
  changed: at creation, rename, append, change of flags, copy (target; source too when moved) and expunge. `Subscribed`
  and clean epochs touch none.
- A message that is new or really changes gets the position as MODSEQ; one whose flags stay the same keeps the one it
  has (RFC 7162 §3.1.3 permits it).
- UIDs that are not there are passed over; so is an event on a mailbox that is not there, except that what was
  acknowledged is not lost: an append or copy into a mailbox that went goes to the account's INBOX.
- What cannot be given a meaning gives `Unappliable`, the same at every site, and changes nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cluster.domain.decision import Unappliable as Unappliable
from cluster.domain.mailbox import ranges
from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.events import (
    DELETED,
    UID_GAP,
    UIDVALIDITY_FRESH,
    AnyEvent,
    EpochStarted,
    FlagMode,
    FlagsChanged,
    MailboxDeleted,
    MailboxesCreated,
    MailboxesRenamed,
    MessageAppended,
    MessagesCopied,
    MessagesExpunged,
    Ranges,
    Subscribed,
)
from cluster.domain.mailbox.names import INBOX


class Msg(msgspec.Struct, frozen=True):
    """A message in a mailbox. `keywords` sorted. `saved`: position at which it came into this mailbox. `thread`:
    position at which its first copy came into the account. `origin`, `origin_uid`: the mailbox and UID that it was
    copied from, or 0."""

    content: Content
    internal_at: int
    internal_zone: int
    flags: int
    keywords: tuple[str, ...]
    modseq: int
    saved: int
    thread: int
    origin: int = 0
    origin_uid: int = 0


class Box(msgspec.Struct, frozen=True):
    """A mailbox. `expunged`: UID → position at which it went (VANISHED, RFC 7162 §3.2.6)."""

    id: int
    name: str
    uidvalidity: int
    highestmodseq: int
    special_use: str = ""
    uidnext: int = 1
    messages: Mapping[int, Msg] = {}
    expunged: Mapping[int, int] = {}


class AccountMail(msgspec.Struct, frozen=True):
    """`uidvalidity`: the last that was given out. `names`: of each mailbox, its id."""

    uidvalidity: int
    boxes: Mapping[int, Box] = {}
    names: Mapping[str, int] = {}
    subscriptions: frozenset[str] = frozenset()


class MailState(msgspec.Struct, frozen=True):
    """All accounts of a partition. `uidvalidity_base`: where an account without a fact yet starts counting: the gap of
    each unclean epoch, as the tail that was lost may have known the account."""

    accounts: Mapping[int, AccountMail] = {}
    uidvalidity_base: int = 0


class Entry(msgspec.Struct, frozen=True):
    """A mailbox as the tree knows it."""

    id: int
    uidvalidity: int = 0
    special_use: str = ""


class Tree(msgspec.Struct, frozen=True):
    """What structural commands are decided on. `entries` has the mailboxes that `decide.tree_needs` and `tree_ids` name
    (more does no harm). `count`: mailboxes of the account, wanted by CREATE and RENAME. `subscriptions`: all of the
    account's, wanted by Subscribe."""

    entries: Mapping[str, Entry]
    count: int
    subscriptions: frozenset[str] = frozenset()


class MessagesState(msgspec.Struct, frozen=True):
    """What commands on messages are decided on. `modseqs`: of those of the asked UIDs that are there; wanted only by a
    ChangeFlags with `unchanged_since`."""

    exists: bool
    modseqs: Mapping[int, int] = {}


def evolve(state: MailState, account: int, event: AnyEvent, position: int) -> MailState | Unappliable:
    """The state after `event` of `account` (an EpochStarted is of no account: any number) at `position`."""
    if isinstance(event, EpochStarted):
        return _epoch_started(state, event, position)
    mail = state.accounts.get(account) or AccountMail(state.uidvalidity_base)
    after = FOLDS[type(event)](mail, event, position)
    if isinstance(after, Unappliable):
        return after
    return msgspec.structs.replace(state, accounts={**state.accounts, account: after})


def tree_of(state: MailState, account: int) -> Tree:
    """The whole tree."""
    mail = state.accounts.get(account) or AccountMail(state.uidvalidity_base)
    entries = {box.name: Entry(box.id, box.uidvalidity, box.special_use) for box in mail.boxes.values()}
    return Tree(entries, len(entries), mail.subscriptions)


def messages_of(state: MailState, account: int, mailbox: int, uids: Ranges) -> MessagesState:
    mail = state.accounts.get(account)
    box = mail.boxes.get(mailbox) if mail else None
    if box is None:
        return MessagesState(exists=False)
    return MessagesState(
        True, {uid: message.modseq for uid, message in box.messages.items() if ranges.contains(uids, uid)}
    )


def flagged(message: Msg, event: FlagsChanged, position: int) -> Msg:
    """The message with its flags changed; the very same if they were like that already."""
    match event.mode:
        case FlagMode.ADD:
            flags, words = message.flags | event.flags, set(message.keywords) | set(event.keywords)
        case FlagMode.REMOVE:
            flags, words = message.flags & ~event.flags, set(message.keywords) - set(event.keywords)
        case FlagMode.REPLACE:
            flags, words = event.flags, set(event.keywords)
    keywords = tuple(sorted(words))
    if flags == message.flags and keywords == message.keywords:
        return message
    return msgspec.structs.replace(message, flags=flags, keywords=keywords, modseq=position)


Folded = AccountMail | Unappliable


def _created(mail: AccountMail, event: MailboxesCreated, position: int) -> Folded:
    boxes, names, uidvalidity = dict(mail.boxes), dict(mail.names), mail.uidvalidity
    subscriptions = set(mail.subscriptions)
    for made in event.made:
        if made.name in names or made.mailbox in boxes:
            return Unappliable(f"mailbox {made.name!r} is there already")
        uidvalidity += 1
        boxes[made.mailbox] = Box(made.mailbox, made.name, uidvalidity, position, made.special_use)
        names[made.name] = made.mailbox
        if made.subscribed:
            subscriptions.add(made.name)
    return AccountMail(uidvalidity, boxes, names, frozenset(subscriptions))


def _renamed(mail: AccountMail, event: MailboxesRenamed, position: int) -> Folded:
    boxes, names = dict(mail.boxes), dict(mail.names)
    there = [(mail.boxes[mailbox], name) for mailbox, name in event.renamed if mailbox in mail.boxes]
    # All old names go before any new one comes: a/b → a and a/b/b → a/b is one fact.
    for box, _ in there:
        names.pop(box.name, None)
    for box, name in there:
        if name in names:
            return Unappliable(f"mailbox {name!r} is there already")
        names[name] = box.id
        boxes[box.id] = msgspec.structs.replace(box, name=name, highestmodseq=position)
    return msgspec.structs.replace(mail, boxes=boxes, names=names)


def _deleted(mail: AccountMail, event: MailboxDeleted, position: int) -> Folded:
    if event.mailbox not in mail.boxes:
        return mail
    boxes, names = dict(mail.boxes), dict(mail.names)
    del names[boxes.pop(event.mailbox).name]
    return msgspec.structs.replace(mail, boxes=boxes, names=names)


def _subscribed(mail: AccountMail, event: Subscribed, position: int) -> Folded:
    names = mail.subscriptions | {event.name} if event.subscribed else mail.subscriptions - {event.name}
    return msgspec.structs.replace(mail, subscriptions=names)


def _landing(mail: AccountMail, mailbox: int) -> Box | None:
    """Where a message for this mailbox goes: INBOX if it was deleted meanwhile."""
    return mail.boxes.get(mailbox) or mail.boxes.get(mail.names.get(INBOX, 0))


def _appended(mail: AccountMail, event: MessageAppended, position: int) -> Folded:
    box = _landing(mail, event.mailbox)
    if box is None:
        return Unappliable("neither the mailbox nor INBOX is there")
    keywords = tuple(sorted(set(event.keywords)))
    message = Msg(
        event.content, event.internal_at, event.internal_zone, event.flags, keywords, position, position, position
    )
    return _with_box(
        mail,
        msgspec.structs.replace(
            box, uidnext=box.uidnext + 1, highestmodseq=position, messages={**box.messages, box.uidnext: message}
        ),
    )


def _flags_changed(mail: AccountMail, event: FlagsChanged, position: int) -> Folded:
    box = mail.boxes.get(event.mailbox)
    if box is None:
        return mail
    messages = {
        uid: flagged(message, event, position) if ranges.contains(event.uids, uid) else message
        for uid, message in box.messages.items()
    }
    return _with_box(mail, msgspec.structs.replace(box, highestmodseq=position, messages=messages))


def _copied(mail: AccountMail, event: MessagesCopied, position: int) -> Folded:
    source = mail.boxes.get(event.source)
    if source is None:
        return mail
    target = _landing(mail, event.target)
    if target is None:
        return Unappliable("neither the target nor INBOX is there")
    # In ascending order of source UID, whatever the order in which they are kept.
    uids = [uid for uid in sorted(source.messages) if ranges.contains(event.uids, uid)]
    copies = {
        target.uidnext + offset: msgspec.structs.replace(
            source.messages[uid], modseq=position, saved=position, origin=source.id, origin_uid=uid
        )
        for offset, uid in enumerate(uids)
    }
    mail = _with_box(
        mail,
        msgspec.structs.replace(
            target, uidnext=target.uidnext + len(uids), highestmodseq=position, messages={**target.messages, **copies}
        ),
    )
    # The source is looked up again, as it may be the target.
    return _without(mail, mail.boxes[event.source], uids, position) if event.moved else mail


def _expunged(mail: AccountMail, event: MessagesExpunged, position: int) -> Folded:
    box = mail.boxes.get(event.mailbox)
    if box is None:
        return mail
    uids = [
        uid
        for uid, message in box.messages.items()
        if ranges.contains(event.uids, uid) and (message.flags & DELETED or not event.only_deleted)
    ]
    return _without(mail, box, uids, position)


def _epoch_started(state: MailState, event: EpochStarted, position: int) -> MailState:
    gap = sum(max(0, gap) for _, _, gap in event.ended)
    fresh = sum(gap == UIDVALIDITY_FRESH for _, _, gap in event.ended)
    raised = gap + fresh * UID_GAP
    if not raised:
        return state
    accounts = {}
    for account, mail in state.accounts.items():
        last, boxes = mail.uidvalidity + raised, {}
        for box in mail.boxes.values():
            boxes[box.id] = msgspec.structs.replace(box, uidnext=box.uidnext + gap, highestmodseq=position)
        if fresh:
            # Each mailbox takes the next one, in the order of their ids.
            given = dict(zip(sorted(boxes), range(last + 1, last + 1 + len(boxes)), strict=True))
            boxes = {id: msgspec.structs.replace(box, uidvalidity=given[id]) for id, box in boxes.items()}
            last += len(boxes)
        accounts[account] = msgspec.structs.replace(mail, uidvalidity=last, boxes=boxes)
    return MailState(accounts, state.uidvalidity_base + raised)


def _with_box(mail: AccountMail, box: Box) -> AccountMail:
    return msgspec.structs.replace(mail, boxes={**mail.boxes, box.id: box})


def _without(mail: AccountMail, box: Box, uids: list[int], position: int) -> AccountMail:
    gone = set(uids)
    messages = {uid: message for uid, message in box.messages.items() if uid not in gone}
    expunged = {**box.expunged, **dict.fromkeys(uids, position)}
    return _with_box(mail, msgspec.structs.replace(box, highestmodseq=position, messages=messages, expunged=expunged))


FOLDS: dict[type, Callable[[AccountMail, Any, int], Folded]] = {
    MailboxesCreated: _created,
    MailboxesRenamed: _renamed,
    MailboxDeleted: _deleted,
    Subscribed: _subscribed,
    MessageAppended: _appended,
    FlagsChanged: _flags_changed,
    MessagesCopied: _copied,
    MessagesExpunged: _expunged,
}
