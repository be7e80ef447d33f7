"""What has to be looked up for a command before it can be decided (decide.py)."""

from cluster.domain.mailbox import names
from cluster.domain.mailbox.commands import (
    AnyCommand,
    AppendMessage,
    ChangeFlags,
    CopyMessages,
    CreateMailbox,
    DeleteMailbox,
    Deliver,
    GiveUpExpunged,
    OpenAccount,
    RenameMailbox,
    ReplaceMessage,
    RestoreMessages,
    SetAnnotations,
    SetRights,
    Subscribe,
)
from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.events import Ranges
from cluster.domain.mailbox.names import STANDARD
from cluster.domain.mailbox.state import Tree
from cluster.domain.quota import Usage


def tree_needs(command: AnyCommand) -> tuple[str, ...] | None:
    """The names that a command's Tree must have where they exist; None = all of the account's."""
    match command:
        case CreateMailbox():
            name = names.wanted(command.name)
            return (*names.superiors(name), name)
        case DeleteMailbox():
            return (names.canonical(command.name),)
        case AppendMessage() | ReplaceMessage() | SetRights() | SetAnnotations():
            return (names.canonical(command.mailbox),)
        case CopyMessages():
            return (names.canonical(command.target),)
        case Deliver() if not command.sent:
            return tuple({name: None for name, _ in STANDARD} | {names.canonical(command.mailbox): None})
        case OpenAccount():
            return tuple(name for name, _ in STANDARD)
        case RestoreMessages():
            name = names.wanted(command.target) if command.ids else names.canonical(command.target)
            return (*names.superiors(name), name)
        case Subscribe() | GiveUpExpunged():
            return ()
        case _:
            return None


def annotates(command: AnyCommand) -> str | None:
    """The mailbox (empty = the account itself) of which a command's Tree must say what is annotated; None = of none."""
    return names.canonical(command.mailbox) if isinstance(command, SetAnnotations) else None


def tree_ids(command: AnyCommand) -> tuple[int, ...]:
    """The mailboxes that a command's Tree must have, by id, besides those of `tree_needs`."""
    return (command.source,) if isinstance(command, CopyMessages | ReplaceMessage) else ()


def tree_reads(command: AnyCommand) -> tuple[int, Ranges] | None:
    """(mailbox, UIDs) of the messages that a command's Tree must have, with their MODSEQs; None = none."""
    return (command.source, ((command.uid, command.uid),)) if isinstance(command, ReplaceMessage) else None


def sent_again(tree: Tree, command: AnyCommand) -> tuple[int, tuple[Content, ...]] | None:
    """(mailbox, messages): those of the mailbox that have the Message-ID of one of these messages are `Tree.alike`."""
    match command:
        case AppendMessage():
            contents = tuple(message.content for message in command.messages)
        case ReplaceMessage():
            contents = (command.message.content,)
        case Deliver() if command.sent:
            contents = (command.content,)
        case _:
            return None
    if isinstance(command, Deliver):
        entry = next((one for one in tree.entries.values() if one.special_use == names.SENT), None)
    else:
        entry = tree.entries.get(names.canonical(command.mailbox))
    return (entry.id, contents) if entry is not None and entry.special_use == names.SENT else None


def weighs(command: AnyCommand) -> tuple[int, Ranges] | None:
    """(mailbox, UIDs) of the messages that are there and whose size counts, where the account has a quota; None = none. Of a
    mailbox below 0: (its id with a minus, places) of those that can be restored."""
    match command:
        case CopyMessages(moved=False):
            return command.source, command.uids
        case ReplaceMessage():
            return command.source, ((command.uid, command.uid),)
        case RestoreMessages():
            return -command.source, command.places  # of what went from it
        case _:
            return None


def comes_in(command: AnyCommand) -> bool:
    """Whether it may add to what the account holds: then its Tree has `held`, where there is a quota. The copy of what
    somebody sent is taken always: it was sent."""
    if isinstance(command, Deliver):
        return not command.sent
    return isinstance(command, AppendMessage | CopyMessages | ReplaceMessage | RestoreMessages)


def adds(command: AnyCommand, weight: Usage) -> Usage:
    """To what the account holds. `weight`: of what `weighs` names."""
    match command:
        case Deliver():
            return Usage(command.content.size, 1)
        case AppendMessage():
            return Usage(sum(message.content.size for message in command.messages), len(command.messages))
        case ReplaceMessage():
            # What goes makes room for what comes.
            return Usage(command.message.content.size - weight.storage, 1 - weight.messages)
        case _:
            return weight  # and what is moved within the account is there already


def tree_restores(command: AnyCommand) -> tuple[int, Ranges] | None:
    """(mailbox, places) of what went, of which a command's Tree must have those that can be restored; None = nothing."""
    return (command.source, command.places) if isinstance(command, RestoreMessages) else None


def reads_modseqs(command: AnyCommand) -> bool:
    return isinstance(command, ChangeFlags) and command.unchanged_since is not None


def reads_rights(command: AnyCommand) -> bool:
    """Whether a command's Tree must have the rights of its mailboxes."""
    return isinstance(command, CreateMailbox | RenameMailbox | SetRights)
