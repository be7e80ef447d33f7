"""What somebody who is not the owner may do with an account's mail (RFC 4314 §4): checked, and turned into facts that leave
alone what is the owner's.

The state is loaded as for the owner (decide.py), a ChangeFlags' `modseqs` as this reader sees them. Who may do it depends on
the rights: what is decided here rests on their keys too, so that who has just lost a right does not use it once more.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cluster.domain.decision import Decision
from cluster.domain.mailbox import annotations, names, rights
from cluster.domain.mailbox import decide as owners
from cluster.domain.mailbox.commands import (
    AnyCommand,
    AppendMessage,
    ChangeFlags,
    CopyMessages,
    CreateMailbox,
    DeleteMailbox,
    Expunge,
    NewMessage,
    RenameMailbox,
    ReplaceMessage,
    SetAnnotations,
    SetRights,
)
from cluster.domain.mailbox.decide import ALL_FLAGS, Answer
from cluster.domain.mailbox.events import (
    DELETED,
    SEEN,
    FlagMode,
    FlagsChanged,
    MessageAppended,
    SeenChanged,
    rights_key,
)
from cluster.domain.mailbox.state import MessagesState, Tree
from cluster.domain.refusal import Reason, Refusal

WRITTEN = ALL_FLAGS & ~SEEN & ~DELETED  # system flags of the right "w"


class Reader(msgspec.Struct, frozen=True):
    """`account`: who asks. `granted`: mailbox of the owner → what it may do there; those without are left out."""

    account: int
    granted: Mapping[int, str]

    def may(self, mailbox: int, needed: str) -> bool:
        return set(needed) <= set(self.granted.get(mailbox, ""))

    def refusal(self, mailbox: int) -> Refusal:
        """RFC 4314 §6: what somebody may not even see is not there for them."""
        if rights.LOOKUP in self.granted.get(mailbox, ""):
            return Refusal(Reason.NOT_PERMITTED, "Its owner does not let you do this.")
        return NO_SUCH_MAILBOX


NO_SUCH_MAILBOX = Refusal(Reason.NO_SUCH_MAILBOX, "There is no such mailbox.")


def decide(state: Tree | MessagesState, command: AnyCommand, reader: Reader) -> Answer:
    """What is not for others is NOT_PERMITTED."""
    decider = DECIDERS.get(type(command))
    if decider is None:
        return Refusal(Reason.NOT_PERMITTED, "This is for the owner alone.")
    return decider(state, command, reader)


def _create(tree: Tree, command: CreateMailbox, reader: Reader) -> Answer:
    """RFC 4314 §4: "k" on the nearest mailbox above that there is; what lies at the top is the owner's."""
    above = owners.nearest(tree, names.wanted(command.name))
    if above is None or not reader.may(above.id, rights.CREATE):
        return reader.refusal(above.id if above else 0)
    # What a mailbox is for is the owner's to say.
    answer = owners.create(tree, msgspec.structs.replace(command, special_use=""))
    return _resting(answer, command.account, above.id)


def _delete(tree: Tree, command: DeleteMailbox, reader: Reader) -> Answer:
    entry = tree.entries.get(names.canonical(command.name))
    if entry is None or not reader.may(entry.id, rights.DELETE):
        return reader.refusal(entry.id if entry else 0)
    return _resting(owners.delete(tree, command), command.account, entry.id)


def _rename(tree: Tree, command: RenameMailbox, reader: Reader) -> Answer:
    """RFC 4314 §4: "x" on what is renamed, and on all beneath it, for that goes along; "k" above the new name."""
    old = names.canonical(command.old)
    entry = tree.entries.get(old)
    if entry is None or old == names.INBOX or not reader.may(entry.id, rights.DELETE):
        return reader.refusal(entry.id if entry else 0)
    above = owners.nearest(tree, names.wanted(command.new))
    if above is None or not reader.may(above.id, rights.CREATE):
        return reader.refusal(above.id if above else 0)
    moving = [one.id for name, one in tree.entries.items() if name == old or names.is_beneath(name, old)]
    if not all(reader.may(mailbox, rights.DELETE) for mailbox in moving):
        return Refusal(Reason.NOT_PERMITTED, "Its owner does not let you rename all that is beneath it.")
    return _resting(owners.rename(tree, command), command.account, above.id, *moving)


def _append(tree: Tree, command: AppendMessage, reader: Reader) -> Answer:
    entry = tree.entries.get(names.canonical(command.mailbox))
    if entry is None or not reader.may(entry.id, rights.INSERT):
        return reader.refusal(entry.id if entry else 0)
    allowed = tuple(_allowed(message, reader, entry.id) for message in command.messages)
    answer = owners.append(_alone(tree), msgspec.structs.replace(command, messages=allowed))
    return _resting(_read_by(answer, command.messages, reader, entry.id), command.account, entry.id)


def _replace(tree: Tree, command: ReplaceMessage, reader: Reader) -> Answer:
    """RFC 8508 §3.4: as for APPEND there, and as for STORE \\Deleted and EXPUNGE here."""
    entry = tree.entries.get(names.canonical(command.mailbox))
    if entry is None or not reader.may(entry.id, rights.INSERT):
        return reader.refusal(entry.id if entry else 0)
    if not reader.may(command.source, GONE):
        return reader.refusal(command.source)
    message = _allowed(command.message, reader, entry.id)
    answer = owners.replace(_alone(tree), msgspec.structs.replace(command, message=message))
    answer = _read_by(answer, (command.message,), reader, entry.id)
    return _resting(answer, command.account, entry.id, command.source)


def _alone(tree: Tree) -> Tree:
    """What was filed for its owner makes room for the owner's own copy, and for nobody else's."""
    return msgspec.structs.replace(tree, alike=())


def _allowed(message: NewMessage, reader: Reader, mailbox: int) -> NewMessage:
    """RFC 4314 §4 APPEND: flags without the right to set them are left out, and \\Seen is never the owner's."""
    flags = message.flags & _mask(reader, mailbox)
    return msgspec.structs.replace(
        message, flags=flags, keywords=message.keywords if reader.may(mailbox, rights.WRITE) else ()
    )


def _read_by(answer: Answer, given: tuple[NewMessage, ...], reader: Reader, mailbox: int) -> Answer:
    """Who brings a message with \\Seen has read it itself."""
    if isinstance(answer, Refusal) or not reader.may(mailbox, rights.SEEN):
        return answer
    brought = iter(given)
    events = tuple(
        (entity, msgspec.structs.replace(event, seen_by=reader.account))
        if isinstance(event, MessageAppended) and next(brought).flags & SEEN
        else (entity, event)
        for entity, event in answer.events
    )
    return msgspec.structs.replace(answer, events=events)


def _copy(tree: Tree, command: CopyMessages, reader: Reader) -> Answer:
    """Flags and who has read it go along; who may not set all of them brings copies otherwise (APPEND)."""
    target = tree.entries.get(names.canonical(command.target))
    if target is None or not reader.may(target.id, rights.INSERT):
        return reader.refusal(target.id if target else 0)
    if not reader.may(target.id, KEPT) or not reader.may(command.source, rights.READ):
        return reader.refusal(target.id)
    # RFC 6851 §4.1: as for COPY, STORE \Deleted and EXPUNGE
    if command.moved and not reader.may(command.source, GONE):
        return reader.refusal(command.source)
    return _resting(owners.copy(tree, command), command.account, target.id, command.source)


def _expunge(state: MessagesState, command: Expunge, reader: Reader) -> Answer:
    if not reader.may(command.mailbox, rights.EXPUNGE if command.only_deleted else GONE):
        return reader.refusal(command.mailbox)
    return _resting(owners.expunge(state, command), command.account, command.mailbox)


def _set_rights(tree: Tree, command: SetRights, reader: Reader) -> Answer:
    entry = tree.entries.get(names.canonical(command.mailbox))
    if entry is None or not reader.may(entry.id, rights.ADMINISTER):
        return reader.refusal(entry.id if entry else 0)
    return _resting(owners.set_rights(tree, command), command.account, entry.id)


def _annotate(tree: Tree, command: SetAnnotations, reader: Reader) -> Answer:
    """RFC 5464 §3.3: who may read a mailbox may note something about it for himself, and who may write it for everybody."""
    entry = tree.entries.get(names.canonical(command.mailbox))
    private = all(annotations.whose(name, reader.account) for name, _ in command.values)
    if entry is None or not reader.may(entry.id, rights.READ if private else rights.WRITE):
        return reader.refusal(entry.id if entry else 0)
    answer = owners.set_annotations(tree, msgspec.structs.replace(command, by=reader.account))
    return _resting(answer, command.account, entry.id)


def _change_flags(state: MessagesState, command: ChangeFlags, reader: Reader) -> Answer:
    """RFC 4314 §4 STORE: what of it this reader may change is changed, and it is refused only where that is nothing."""
    mask = _mask(reader, command.mailbox)
    written, seeing = reader.may(command.mailbox, rights.WRITE), reader.may(command.mailbox, rights.SEEN)
    replacing = command.mode is FlagMode.REPLACE
    flags = command.flags & mask
    own = seeing and (replacing or command.flags & SEEN)
    if not own and not (mask if replacing else flags or written and command.keywords):
        nothing = not (command.flags or command.keywords or replacing)
        return Decision() if nothing and reader.may(command.mailbox, rights.READ) else reader.refusal(command.mailbox)
    answer = owners.change_flags(state, command)
    if isinstance(answer, Refusal):
        return answer
    facts: list[tuple[str, msgspec.Struct]] = []
    for entity, event in answer.events:
        assert isinstance(event, FlagsChanged)
        facts.extend((entity, one) for one in _shared(event, flags, mask, written))
        if own:
            seen = bool(command.flags & SEEN) and command.mode is not FlagMode.REMOVE
            facts.append((entity, SeenChanged(command.mailbox, reader.account, event.uids, seen)))
    return _resting(msgspec.structs.replace(answer, events=tuple(facts)), command.account, command.mailbox)


def _shared(event: FlagsChanged, flags: int, mask: int, written: bool) -> list[FlagsChanged]:
    """What is changed for everybody."""
    keywords = event.keywords if written else ()
    if event.mode is not FlagMode.REPLACE:
        return [msgspec.structs.replace(event, flags=flags, keywords=keywords)] if flags or keywords else []
    if written:
        return [msgspec.structs.replace(event, flags=flags, kept=ALL_FLAGS & ~mask)]
    # Without "w" no keyword may go either.
    parts = ((FlagMode.ADD, flags), (FlagMode.REMOVE, mask & ~flags))
    return [FlagsChanged(event.mailbox, event.uids, mode, some) for mode, some in parts if some]


def _mask(reader: Reader, mailbox: int) -> int:
    """The system flags that it may change for everybody."""
    deleted = DELETED if reader.may(mailbox, rights.DELETE_MESSAGES) else 0
    return deleted | (WRITTEN if reader.may(mailbox, rights.WRITE) else 0)


def _resting(answer: Answer, account: int, *mailboxes: int) -> Answer:
    if isinstance(answer, Refusal):
        return answer
    keys = tuple(rights_key(account, mailbox) for mailbox in mailboxes)
    return msgspec.structs.replace(answer, depends=tuple(dict.fromkeys((*answer.depends, *keys))))


GONE = rights.DELETE_MESSAGES + rights.EXPUNGE
KEPT = rights.SEEN + rights.WRITE + rights.DELETE_MESSAGES

DECIDERS: dict[type, Callable[[Any, Any, Reader], Answer]] = {
    CreateMailbox: _create,
    DeleteMailbox: _delete,
    RenameMailbox: _rename,
    AppendMessage: _append,
    ReplaceMessage: _replace,
    CopyMessages: _copy,
    Expunge: _expunge,
    ChangeFlags: _change_flags,
    SetRights: _set_rights,
    SetAnnotations: _annotate,
}
