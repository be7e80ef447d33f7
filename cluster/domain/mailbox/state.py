"""What the facts add up to. `evolve` is the meaning of this noun's events; the tables of a site hold the same.

What every event does, beyond what its name says:
- A mailbox that an event names gets its position as HIGHESTMODSEQ (MODSEQ is the position), whether or not a message
  changed: at creation, rename, append, change of flags, copy (target; source too when moved), expunge and restoring.
  `Subscribed`, `RightsChanged`, `ExpungedGivenUp` and clean epochs touch none.
- A message that is new or really changes gets the position as MODSEQ; one whose flags stay the same keeps the one it
  has (RFC 7162 §3.1.3 permits it).
- UIDs that are not there are passed over; so is an event on a mailbox that is not there, except that what was
  acknowledged is not lost: an append or copy into a mailbox that went goes to the account's INBOX.
- What salvage reaffirms takes the position as MODSEQ although nothing in it changed; UIDs of it that are not there
  count as vanished at it.
- What cannot be given a meaning gives `Unappliable`, the same at every site, and changes nothing.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from cluster.domain.decision import Unappliable as Unappliable
from cluster.domain.mailbox import ranges
from cluster.domain.mailbox.annotations import Annotated, changed
from cluster.domain.mailbox.events import (
    DELETED,
    SEEN,
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
    Reaffirmed,
    RightsChanged,
    SalvageReported,
    SalvageSettled,
    SeenChanged,
    Subscribed,
    TailDestroyed,
    TailSalvaged,
)
from cluster.domain.mailbox.names import INBOX
from cluster.domain.mailbox.shapes import AccountMail as AccountMail
from cluster.domain.mailbox.shapes import Box as Box
from cluster.domain.mailbox.shapes import Entry as Entry
from cluster.domain.mailbox.shapes import Gone as Gone
from cluster.domain.mailbox.shapes import MailState as MailState
from cluster.domain.mailbox.shapes import MessagesState as MessagesState
from cluster.domain.mailbox.shapes import Msg as Msg
from cluster.domain.mailbox.shapes import Report as Report
from cluster.domain.mailbox.shapes import Tree as Tree
from cluster.position import SEQUENCE_MAX


def evolve(state: MailState, account: int, event: AnyEvent, position: int) -> MailState | Unappliable:
    """The state after `event` of `account` (any number, if it is of the partition) at `position`."""
    match event:
        case EpochStarted():
            return _epoch_started(state, event, position)
        case TailDestroyed():
            return _destroyed(state, event, position)
        case TailSalvaged():
            return _salvaged(state, event.epoch, event.upto)
        case SalvageReported():
            return msgspec.structs.replace(state, reports={event.position: Report(event), **state.reports})
        case SalvageSettled():
            return _settled(state, event)
    mail = state.accounts.get(account) or AccountMail(state.uidvalidity_base)
    after = FOLDS[type(event)](mail, event, position)
    if isinstance(after, Unappliable):
        return after
    return msgspec.structs.replace(state, accounts={**state.accounts, account: after})


def tree_of(
    state: MailState,
    account: int,
    reads: tuple[int, Ranges] | None = None,
    restores: tuple[int, Ranges] | None = None,
) -> Tree:
    """The whole tree; the messages (mailbox, UIDs) that `decide.tree_reads` names, and the places that `tree_restores`."""
    mail = state.accounts.get(account) or AccountMail(state.uidvalidity_base)
    entries = {box.name: Entry(box.id, box.uidvalidity, box.special_use) for box in mail.boxes.values()}
    messages = messages_of(state, account, *reads) if reads is not None else None
    rights = {box.id: box.rights for box in mail.boxes.values() if box.rights}
    places = restorable(mail, *restores) if restores is not None else None
    return Tree(entries, len(entries), mail.subscriptions, messages, rights, restorable=places)


def restorable(mail: AccountMail, mailbox: int, places: Ranges) -> Ranges | None:
    """Those of the places that can be restored; None = there is no such mailbox, and never was."""
    if mailbox not in mail.gone:
        return () if mailbox in mail.boxes else None
    return ranges.compress(
        n
        for n, one in enumerate(mail.gone[mailbox], 1)
        if ranges.contains(places, n) and not one.moved and not one.taken
    )


def annotated_of(state: MailState, account: int, name: str) -> Annotated:
    """Of the mailbox of that name, or the account itself."""
    mail = state.accounts.get(account) or AccountMail(state.uidvalidity_base)
    mailbox = mail.names.get(name, -1) if name else 0
    sizes = {(whose, entry): len(v) for (of, whose, entry), v in mail.annotations.items() if of == mailbox}
    return Annotated(sizes, sum(map(len, mail.annotations.values())))


def messages_of(state: MailState, account: int, mailbox: int, uids: Ranges, reader: int = 0) -> MessagesState:
    """`reader`: as another account than the owner sees them."""
    mail = state.accounts.get(account)
    box = mail.boxes.get(mailbox) if mail else None
    if box is None:
        return MessagesState(exists=False)
    return MessagesState(
        True,
        {uid: as_read_by(one, reader).modseq for uid, one in box.messages.items() if ranges.contains(uids, uid)},
    )


def as_read_by(message: Msg, reader: int) -> Msg:
    """As another account than the owner (0) sees it: with its own \\Seen, and a MODSEQ that rises with that."""
    if not reader:
        return message
    seen, modseq = message.seen.get(reader, (False, 0))
    flags = message.flags | SEEN if seen else message.flags & ~SEEN
    return msgspec.structs.replace(message, flags=flags, modseq=max(message.modseq, modseq))


def flagged(message: Msg, event: FlagsChanged, position: int) -> Msg:
    """The message with its flags changed; the very same if they were like that already."""
    match event.mode:
        case FlagMode.ADD:
            flags, words = message.flags | event.flags, set(message.keywords) | set(event.keywords)
        case FlagMode.REMOVE:
            flags, words = message.flags & ~event.flags, set(message.keywords) - set(event.keywords)
        case FlagMode.REPLACE:
            flags, words = event.flags | message.flags & event.kept, set(event.keywords)
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
        boxes[made.mailbox] = Box(
            made.mailbox, made.name, uidvalidity, position, made.special_use, rights=dict(made.rights)
        )
        names[made.name] = made.mailbox
        if made.subscribed:
            subscriptions.add(made.name)
    return msgspec.structs.replace(
        mail, uidvalidity=uidvalidity, boxes=boxes, names=names, subscriptions=frozenset(subscriptions)
    )


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
    mail = _without(mail, mail.boxes[event.mailbox], sorted(mail.boxes[event.mailbox].messages), position)
    boxes, names = dict(mail.boxes), dict(mail.names)
    box = boxes.pop(event.mailbox)
    del names[box.name]
    deleted = {**mail.deleted, box.id: (box.name, box.uidvalidity, position)}
    # RFC 5464 §4.1: they go with their mailbox; a new name changes nothing about them.
    left = {key: value for key, value in mail.annotations.items() if key[0] != event.mailbox}
    return msgspec.structs.replace(mail, boxes=boxes, names=names, deleted=deleted, annotations=left)


def _annotated(mail: AccountMail, event: AnnotationsChanged, position: int) -> Folded:
    if event.mailbox and event.mailbox not in mail.boxes:
        return mail
    after = changed(mail.annotations, event.mailbox, event.by, event.values)
    return msgspec.structs.replace(mail, annotations=after)


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
    seen = {event.seen_by: (True, position)} if event.seen_by else {}
    message = Msg(
        event.content,
        event.internal_at,
        event.internal_zone,
        event.flags,
        keywords,
        position,
        position,
        position,
        seen=seen,
    )
    return _with_box(
        mail,
        msgspec.structs.replace(
            box, uidnext=box.uidnext + 1, highestmodseq=position, messages={**box.messages, box.uidnext: message}
        ),
    )


def _flags_changed(mail: AccountMail, event: FlagsChanged, position: int) -> Folded:
    return _messages_changed(mail, event, position, lambda message: flagged(message, event, position))


def _seen_changed(mail: AccountMail, event: SeenChanged, position: int) -> Folded:
    return _messages_changed(mail, event, position, lambda message: _read(message, event, position))


def _messages_changed(
    mail: AccountMail, event: FlagsChanged | SeenChanged, position: int, changed: Callable[[Msg], Msg]
) -> Folded:
    box = mail.boxes.get(event.mailbox)
    if box is None:
        return mail
    messages = {
        uid: changed(message) if ranges.contains(event.uids, uid) else message for uid, message in box.messages.items()
    }
    return _with_box(mail, msgspec.structs.replace(box, highestmodseq=position, messages=messages))


def _read(message: Msg, event: SeenChanged, position: int) -> Msg:
    if message.seen.get(event.account, (False, 0))[0] == event.seen:
        return message
    return msgspec.structs.replace(message, seen={**message.seen, event.account: (event.seen, position)})


def _rights_changed(mail: AccountMail, event: RightsChanged, position: int) -> Folded:
    box = mail.boxes.get(event.mailbox)
    if box is None:
        return mail
    rights = {identifier: given for identifier, given in box.rights.items() if identifier != event.identifier}
    if event.rights:
        rights[event.identifier] = event.rights
    return _with_box(mail, msgspec.structs.replace(box, rights=rights))


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
            source.messages[uid],
            modseq=position,
            saved=position,
            origin=source.id,
            origin_uid=uid,
            seen={reader: (seen, position) for reader, (seen, _) in source.messages[uid].seen.items()},
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
    return _without(mail, mail.boxes[event.source], uids, position, moved=True) if event.moved else mail


def _expunged(mail: AccountMail, event: MessagesExpunged, position: int) -> Folded:
    box = mail.boxes.get(event.mailbox)
    if box is None:
        return mail
    uids = [
        uid
        for uid, message in sorted(box.messages.items())
        if ranges.contains(event.uids, uid) and (message.flags & DELETED or not event.only_deleted)
    ]
    return _without(mail, box, uids, position, moved=event.replaced)


def _restored(mail: AccountMail, event: MessagesRestored, position: int) -> Folded:
    gone = mail.gone.get(event.source, ())
    wanted = [n for n, one in enumerate(gone, 1) if ranges.contains(event.places, n) and not one.taken]
    target = _landing(mail, event.target)
    if target is None:
        return Unappliable("neither the target nor INBOX is there")
    restored = {
        target.uidnext + offset: msgspec.structs.replace(
            gone[n - 1].message,
            flags=gone[n - 1].message.flags & ~DELETED,
            modseq=position,
            saved=position,
            origin=event.source,
            origin_uid=n,
            seen={},
        )
        for offset, n in enumerate(wanted)
    }
    mail = _with_box(
        mail,
        msgspec.structs.replace(
            target,
            uidnext=target.uidnext + len(wanted),
            highestmodseq=position,
            messages={**target.messages, **restored},
        ),
    )
    if (source := mail.boxes.get(event.source)) is not None:
        mail = _with_box(mail, msgspec.structs.replace(source, highestmodseq=position))
    return _taken(mail, event.source, set(wanted), position)


def _given_up(mail: AccountMail, event: ExpungedGivenUp, position: int) -> Folded:
    for mailbox, gone in mail.gone.items():
        over = {n for n, one in enumerate(gone, 1) if one.at <= event.upto and not one.taken}
        mail = _taken(mail, mailbox, over, position)
    return mail


def _taken(mail: AccountMail, mailbox: int, places: set[int], position: int) -> AccountMail:
    gone = tuple(
        msgspec.structs.replace(one, taken=position) if n in places else one
        for n, one in enumerate(mail.gone.get(mailbox, ()), 1)
    )
    return msgspec.structs.replace(mail, gone={**mail.gone, mailbox: gone}) if gone else mail


def _reaffirmed(mail: AccountMail, event: Reaffirmed, position: int) -> Folded:
    box = mail.boxes.get(event.mailbox)
    if box is None or box.uidvalidity != event.uidvalidity:
        return mail
    uids = ranges.limit(event.uids, 1, box.uidnext - 1)
    return _with_box(mail, _again(box, uids, position)) if uids else mail


def _again(box: Box, uids: Ranges, position: int) -> Box:
    messages = {
        uid: msgspec.structs.replace(message, modseq=position) if ranges.contains(uids, uid) else message
        for uid, message in box.messages.items()
    }
    vanished = (*box.vanished, *((first, last, position) for first, last in uids))
    return msgspec.structs.replace(box, highestmodseq=position, messages=messages, vanished=vanished)


def _destroyed(state: MailState, event: TailDestroyed, position: int) -> MailState:
    accounts = {}
    for account, mail in state.accounts.items():
        boxes = {
            box.id: _again(box, ((1, box.uidnext - 1),), position) if box.uidnext > 1 else box
            for box in mail.boxes.values()
        }
        accounts[account] = msgspec.structs.replace(mail, boxes=boxes)
    return _salvaged(msgspec.structs.replace(state, accounts=accounts), event.epoch, SEQUENCE_MAX)


def _salvaged(state: MailState, epoch: int, upto: int) -> MailState:
    return msgspec.structs.replace(state, salvaged={**state.salvaged, epoch: max(upto, state.salvaged.get(epoch, 0))})


def _settled(state: MailState, event: SalvageSettled) -> MailState:
    report = state.reports.get(event.position)
    if report is None:
        return state
    settled = msgspec.structs.replace(report, state="applied" if event.applied else "dismissed")
    return msgspec.structs.replace(state, reports={**state.reports, event.position: settled})


def _epoch_started(state: MailState, event: EpochStarted, position: int) -> MailState:
    unclean = [gap for _, _, gap in event.ended if gap]
    if not unclean:
        return state
    gap, fresh = sum(max(0, gap) for gap in unclean), UIDVALIDITY_FRESH in unclean
    raised = UID_GAP * len(unclean)
    accounts = {}
    for account, mail in state.accounts.items():
        last, boxes = mail.uidvalidity + raised, {}
        # In the order of their ids: those that need a new UIDVALIDITY take the account's next ones.
        for box in sorted(mail.boxes.values(), key=lambda box: box.id):
            begins = box.uidnext + gap > UIDNEXT_RAISED_MAX
            last += fresh or begins
            boxes[box.id] = msgspec.structs.replace(
                _renumbered(box) if begins else box,
                uidvalidity=last if fresh or begins else box.uidvalidity,
                uidnext=len(box.messages) + 1 if begins else box.uidnext + gap,
                highestmodseq=position,
            )
        begun = {box.id for box in mail.boxes.values() if box.uidnext + gap > UIDNEXT_RAISED_MAX}
        gone = {mailbox: went for mailbox, went in mail.gone.items() if mailbox not in begun}
        accounts[account] = msgspec.structs.replace(mail, uidvalidity=last, boxes=boxes, gone=gone)
    return msgspec.structs.replace(state, accounts=accounts, uidvalidity_base=state.uidvalidity_base + raised)


def _renumbered(box: Box) -> Box:
    """RFC 9051 §2.3.1.1: with a new UIDVALIDITY, UIDs begin at 1; the order of messages stays."""
    messages = {n: box.messages[uid] for n, uid in enumerate(sorted(box.messages), 1)}
    return msgspec.structs.replace(box, messages=messages, expunged={}, vanished=())


def _with_box(mail: AccountMail, box: Box) -> AccountMail:
    return msgspec.structs.replace(mail, boxes={**mail.boxes, box.id: box})


def _without(mail: AccountMail, box: Box, uids: list[int], position: int, *, moved: bool = False) -> AccountMail:
    """`uids`: ascending."""
    leaving = set(uids)
    messages = {uid: message for uid, message in box.messages.items() if uid not in leaving}
    expunged = {**box.expunged, **dict.fromkeys(uids, position)}
    went = (*mail.gone.get(box.id, ()), *(Gone(box.messages[uid], uid, position, moved) for uid in uids))
    mail = msgspec.structs.replace(mail, gone={**mail.gone, box.id: went})
    return _with_box(mail, msgspec.structs.replace(box, highestmodseq=position, messages=messages, expunged=expunged))


FOLDS: dict[type, Callable[[AccountMail, Any, int], Folded]] = {
    MailboxesCreated: _created,
    MailboxesRenamed: _renamed,
    MailboxDeleted: _deleted,
    Subscribed: _subscribed,
    MessageAppended: _appended,
    FlagsChanged: _flags_changed,
    SeenChanged: _seen_changed,
    RightsChanged: _rights_changed,
    AnnotationsChanged: _annotated,
    MessagesCopied: _copied,
    MessagesExpunged: _expunged,
    MessagesRestored: _restored,
    ExpungedGivenUp: _given_up,
    Reaffirmed: _reaffirmed,
}
