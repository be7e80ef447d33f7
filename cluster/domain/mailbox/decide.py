"""What may be done with an account's mail. `decide(state, command)` answers with facts or a refusal, and never raises.

Who calls loads the state first: for a command in TREE_COMMANDS a `Tree` with the mailboxes that `tree_needs` and
`tree_ids` name, the messages that `tree_reads` and `sent_again` name and what `weighs` asks, for the others a `MessagesState`
(`modseqs` only if
`reads_modseqs`). Whether the actor may do it at all is asked elsewhere.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from cluster.domain.decision import Decision
from cluster.domain.mailbox import annotations, names, ranges, rights
from cluster.domain.mailbox.commands import (
    AnyCommand,
    AppendMessage,
    ChangeFlags,
    CopyMessages,
    CreateMailbox,
    DeleteMailbox,
    Deliver,
    Expunge,
    GiveUpExpunged,
    NewMessage,
    OpenAccount,
    RenameMailbox,
    ReplaceMessage,
    RestoreMessages,
    SetAnnotations,
    SetRights,
    Subscribe,
)
from cluster.domain.mailbox.events import (
    ANSWERED,
    DELETED,
    DRAFT,
    FLAGGED,
    SEEN,
    AnnotationsChanged,
    ExpungedGivenUp,
    FlagMode,
    FlagsChanged,
    Made,
    MailboxDeleted,
    MailboxesCreated,
    MailboxesRenamed,
    MessageAppended,
    MessagesCopied,
    MessagesExpunged,
    MessagesRestored,
    Ranges,
    RightsChanged,
    Subscribed,
    appended_key,
    expunged_key,
    filed_key,
    messages_key,
    rights_key,
    tree_key,
)
from cluster.domain.mailbox.names import INBOX, STANDARD
from cluster.domain.mailbox.needs import adds as adds
from cluster.domain.mailbox.needs import annotates as annotates
from cluster.domain.mailbox.needs import comes_in as comes_in
from cluster.domain.mailbox.needs import reads_modseqs as reads_modseqs
from cluster.domain.mailbox.needs import reads_rights as reads_rights
from cluster.domain.mailbox.needs import sent_again as sent_again
from cluster.domain.mailbox.needs import tree_ids as tree_ids
from cluster.domain.mailbox.needs import tree_needs as tree_needs
from cluster.domain.mailbox.needs import tree_reads as tree_reads
from cluster.domain.mailbox.needs import tree_restores as tree_restores
from cluster.domain.mailbox.needs import weighs as weighs
from cluster.domain.mailbox.state import Entry, MessagesState, Tree
from cluster.domain.refusal import Reason, Refusal

MAILBOXES_PER_ACCOUNT_MAX = 20_000
SUBSCRIPTIONS_PER_ACCOUNT_MAX = 20_000
MESSAGES_PER_APPEND_MAX = 100
RANGES_PER_COMMAND_MAX = 100_000
RENAMED_BYTES_MAX = 2 << 20  # of new names in one RENAME: one fact, below the log's limit

ALL_FLAGS = SEEN | ANSWERED | FLAGGED | DELETED | DRAFT

Answer = Decision | Refusal


def decide(state: Tree | MessagesState, command: AnyCommand) -> Answer:
    return DECIDERS[type(command)](state, command)


def create(tree: Tree, command: CreateMailbox) -> Answer:
    name = names.wanted(command.name)
    # RFC 9051 §6.3.4: it is an error to create INBOX, or a mailbox that exists.
    if name == INBOX or name in tree.entries:
        return _exists(name)
    if refused := names.invalid(name) or names.elsewhere(name):
        return refused
    special_use = names.special_use(command.special_use)
    if special_use is None:
        # RFC 6154 §3: NO [USEATTR] where an attribute is not supported.
        return Refusal(Reason.SPECIAL_USE_INVALID, "No mailbox can be made for this use.", (command.special_use,))
    made = _made(tree, name, command.ids, special_use)
    if len(made) + tree.count > MAILBOXES_PER_ACCOUNT_MAX:
        return _too_many_mailboxes()
    return _of_tree(command.account, MailboxesCreated(made), depends=_inherited(tree, command.account, name))


def delete(tree: Tree, command: DeleteMailbox) -> Answer:
    """Mailboxes beneath it stay; LIST shows its name as \\NonExistent then (RFC 9051 §6.3.5)."""
    name = names.canonical(command.name)
    if name == INBOX:
        # RFC 9051 §6.3.5: INBOX cannot be deleted.
        return Refusal(Reason.MAILBOX_PROTECTED, "INBOX cannot be deleted.", (name,))
    entry = tree.entries.get(name)
    return _of_tree(command.account, MailboxDeleted(entry.id)) if entry else _no_such(name)


def rename(tree: Tree, command: RenameMailbox) -> Answer:
    old, new = names.canonical(command.old), names.wanted(command.new)
    entry = tree.entries.get(old)
    if entry is None:
        return _no_such(old)
    # RFC 9051 §6.3.6: it is an error to rename to a mailbox that exists.
    if new == INBOX or new in tree.entries:
        return _exists(new)
    if refused := names.invalid(new) or names.elsewhere(new):
        return refused
    if old == INBOX:
        return _rename_inbox(tree, command, entry.id, new)
    if names.is_beneath(new, old):
        return Refusal(Reason.MAILBOX_NAME_INVALID, "A mailbox cannot be moved beneath itself.", (new,))
    # RFC 9051 §6.3.6: mailboxes beneath it are renamed with it.
    moving = sorted(name for name in tree.entries if name == old or names.is_beneath(name, old))
    renamed = []
    for name in moving:
        becomes = new + name[len(old) :]
        if refused := names.invalid(becomes):
            return refused
        if becomes in tree.entries and not (becomes == old or names.is_beneath(becomes, old)):
            return _exists(becomes)
        renamed.append((tree.entries[name].id, becomes))
    if sum(len(becomes.encode()) for _, becomes in renamed) > RENAMED_BYTES_MAX:
        return Refusal(Reason.OVER_LIMIT, "Too many mailboxes are beneath it to rename all of them at once.", (old,))
    # RFC 9051 §6.3.6: superiors of the new name are made as by CREATE.
    made = _made(tree, new, command.ids)[:-1]
    if len(made) + tree.count > MAILBOXES_PER_ACCOUNT_MAX:
        return _too_many_mailboxes()
    first = (MailboxesCreated(made),) if made else ()
    depends = _inherited(tree, command.account, new) if made else ()
    return _of_tree(command.account, *first, MailboxesRenamed(tuple(renamed)), depends=depends)


def _rename_inbox(tree: Tree, command: RenameMailbox, inbox: int, new: str) -> Answer:
    # RFC 9051 §6.3.6: INBOX stays, its messages move to a new mailbox, and what is beneath it is not renamed.
    made = _made(tree, new, command.ids)
    if len(made) + tree.count > MAILBOXES_PER_ACCOUNT_MAX:
        return _too_many_mailboxes()
    moved = MessagesCopied(inbox, made[-1].mailbox, ranges.EVERY_UID, moved=True)
    return _of_tree(command.account, MailboxesCreated(made), moved, depends=_inherited(tree, command.account, new))


def subscribe(tree: Tree, command: Subscribe) -> Answer:
    """Also to a name that is not there: it may come again (RFC 9051 §6.3.7 lets the server choose)."""
    name = names.wanted(command.name)
    if command.subscribed == (name in tree.subscriptions):
        return Decision()
    if command.subscribed:
        if refused := names.invalid(name):
            return refused
        if len(tree.subscriptions) >= SUBSCRIPTIONS_PER_ACCOUNT_MAX:
            return Refusal(Reason.OVER_LIMIT, f"An account has at most {SUBSCRIPTIONS_PER_ACCOUNT_MAX} subscriptions.")
    return _of_tree(command.account, Subscribed(name, command.subscribed))


def append(tree: Tree, command: AppendMessage) -> Answer:
    name = names.canonical(command.mailbox)
    entry = tree.entries.get(name)
    if entry is None:
        return _no_such(name)
    if len(command.messages) > MESSAGES_PER_APPEND_MAX:
        return Refusal(Reason.OVER_LIMIT, f"At most {MESSAGES_PER_APPEND_MAX} messages can be appended at once.")
    events: list[MessageAppended] = []
    # RFC 3502 §6.3.11: all messages or none.
    for message in command.messages:
        event = _appended(entry.id, message)
        if isinstance(event, Refusal):
            return event
        events.append(event)
    return _refused(tree, command) or _own_copy(tree, command.account, entry, *events)


def replace(tree: Tree, command: ReplaceMessage) -> Answer:
    """RFC 8508 §3.4: decided on the message being there, so that of two who replace it at once one does."""
    name = names.canonical(command.mailbox)
    entry = tree.entries.get(name)
    if entry is None:
        return _no_such(name)
    if not any(entry.id == command.source for entry in tree.entries.values()):
        return _no_such("")
    if tree.messages is None or command.uid not in tree.messages.modseqs:
        return Refusal(Reason.NO_SUCH_ENTRY, "The message to be replaced is not there any more.")
    event = _appended(entry.id, command.message)
    if isinstance(event, Refusal):
        return event
    if refused := _refused(tree, command):
        return refused
    gone = MessagesExpunged(command.source, ((command.uid, command.uid),), only_deleted=False)
    decision = _own_copy(tree, command.account, entry, event, gone)
    return Decision(decision.events, (*decision.depends, messages_key(command.account, command.source)))


def _appended(mailbox: int, message: NewMessage) -> MessageAppended | Refusal:
    keywords = names.keywords(message.keywords)
    if isinstance(keywords, Refusal):
        return keywords
    flags = message.flags & ALL_FLAGS
    return MessageAppended(mailbox, message.content, message.internal_at, message.internal_zone, flags, keywords)


def _own_copy(tree: Tree, account: int, entry: Entry, *events: msgspec.Struct) -> Decision:
    """What the sender's mail program files takes the place of what was filed for it. `events`: of a client, for `entry`."""
    if entry.special_use != names.SENT:
        return _of_tree(account, *events)
    filed = ranges.compress(uid for uid, is_filed in tree.alike if is_filed)
    gone = (MessagesExpunged(entry.id, filed, only_deleted=False, replaced=True),) if filed else ()
    return _of_tree(account, *events, *gone, depends=(filed_key(account),))


def _file(tree: Tree, command: Deliver) -> Answer:
    """Nothing, where it is there already, or the account has no \\Sent mailbox."""
    made = _standard(tree, command.ids)
    sent = next((entry.id for entry in tree.entries.values() if entry.special_use == names.SENT), 0)
    sent = sent or next((one.mailbox for one in made if one.special_use == names.SENT), 0)
    depends = (appended_key(command.account, sent),)
    if tree.alike or not sent:
        return Decision((), depends)
    first = (MailboxesCreated(made),) if made else ()
    filed = MessageAppended(sent, command.content, command.internal_at, flags=SEEN, keywords=(names.FILED,))
    return _of_tree(command.account, *first, filed, depends=depends)


def deliver(tree: Tree, command: Deliver) -> Answer:
    if command.sent:
        return _file(tree, command)
    made = _standard(tree, command.ids)
    ids = {name: entry.id for name, entry in tree.entries.items()} | {one.name: one.mailbox for one in made}
    mailbox = ids.get(names.canonical(command.mailbox), ids[INBOX])
    if refused := _refused(tree, command):
        return refused
    first = (MailboxesCreated(made),) if made else ()
    arrived = MessageAppended(mailbox, command.content, command.internal_at, delivered=True)
    return _of_tree(command.account, *first, arrived)


def open_account(tree: Tree, command: OpenAccount) -> Answer:
    made = _standard(tree, command.ids)
    return _of_tree(command.account, MailboxesCreated(made)) if made else Decision()


def copy(tree: Tree, command: CopyMessages) -> Answer:
    name = names.canonical(command.target)
    target = tree.entries.get(name)
    if target is None:
        return _no_such(name)
    if not any(entry.id == command.source for entry in tree.entries.values()):
        return _no_such("")
    uids = _uids(command.uids)
    if isinstance(uids, Refusal):
        return uids
    if not uids:
        return Decision()
    if refused := _refused(tree, command):
        return refused
    return _of_tree(command.account, MessagesCopied(command.source, target.id, uids, command.moved))


def change_flags(state: MessagesState, command: ChangeFlags) -> Answer:
    if not state.exists:
        return _no_such("")
    uids, keywords = _uids(command.uids), names.keywords(command.keywords)
    if isinstance(uids, Refusal):
        return uids
    if isinstance(keywords, Refusal):
        return keywords
    flags, modified, depends = command.flags & ALL_FLAGS, (), ()  # type: int, Ranges, tuple[str, ...]
    if command.unchanged_since is not None:
        # RFC 7162 §3.1.3: those changed since are passed over and named; the others are changed all the same.
        since = command.unchanged_since
        asked = {uid: modseq for uid, modseq in state.modseqs.items() if ranges.contains(uids, uid)}
        modified = ranges.compress(uid for uid, modseq in asked.items() if modseq > since)
        uids = ranges.compress(uid for uid, modseq in asked.items() if modseq <= since)
        depends = (messages_key(command.account, command.mailbox),)
    changes_something = command.mode is FlagMode.REPLACE or flags or keywords
    if not uids or not changes_something:
        return Decision((), depends, modified)
    event = FlagsChanged(command.mailbox, uids, command.mode, flags, keywords)
    return Decision(((str(command.account), event),), depends, modified)


def expunge(state: MessagesState, command: Expunge) -> Answer:
    if not state.exists:
        return _no_such("")
    uids = _uids(command.uids)
    if isinstance(uids, Refusal):
        return uids
    if not uids:
        return Decision()
    return Decision(((str(command.account), MessagesExpunged(command.mailbox, uids, command.only_deleted)),))


def set_rights(tree: Tree, command: SetRights) -> Answer:
    """RFC 4314 §3.1, §3.2."""
    name = names.canonical(command.mailbox)
    entry = tree.entries.get(name)
    if entry is None:
        return _no_such(name)
    if rights.bare(command.identifier) == str(command.account):
        return Refusal(Reason.NOT_PERMITTED, "The owner may do everything with it, always.", (name,))
    known = tree.rights.get(entry.id, {})
    was = known.get(command.identifier, "")
    now = rights.modified(was, command.mode, command.rights)
    if now == was:
        return Decision()
    if not was and len(known) >= rights.IDENTIFIERS_PER_MAILBOX_MAX:
        limit = rights.IDENTIFIERS_PER_MAILBOX_MAX
        return Refusal(Reason.OVER_LIMIT, f"At most {limit} identifiers may have rights to a mailbox: make a group.")
    changed = RightsChanged(entry.id, command.identifier, now)
    return _of_tree(command.account, changed, depends=(rights_key(command.account, entry.id),))


def restore(tree: Tree, command: RestoreMessages) -> Answer:
    """Decided on what can be restored still, so that what two restore at once comes back once."""
    name = names.wanted(command.target) if command.ids else names.canonical(command.target)
    target = tree.entries.get(name)
    if tree.restorable is None or (target is None and not command.ids):
        return _no_such(name)
    if not tree.restorable:
        return Decision()
    if len(tree.restorable) > RANGES_PER_COMMAND_MAX:
        return Refusal(Reason.OVER_LIMIT, f"At most {RANGES_PER_COMMAND_MAX} ranges of messages can be named at once.")
    made: tuple[Made, ...] = ()
    if target is None:
        if refused := names.invalid(name) or names.elsewhere(name):
            return refused
        made = _made(tree, name, command.ids)
        if len(made) + tree.count > MAILBOXES_PER_ACCOUNT_MAX:
            return _too_many_mailboxes()
    if refused := _refused(tree, command):
        return refused
    first = (MailboxesCreated(made),) if made else ()
    restored = MessagesRestored(command.source, target.id if target else made[-1].mailbox, tree.restorable)
    decision = _of_tree(command.account, *first, restored)
    return Decision(decision.events, (*decision.depends, expunged_key(command.account)))


def give_up(tree: Tree, command: GiveUpExpunged) -> Answer:
    return Decision(((str(command.account), ExpungedGivenUp(command.upto)),))


def set_annotations(tree: Tree, command: SetAnnotations) -> Answer:
    name = names.canonical(command.mailbox)
    entry = tree.entries.get(name)
    if name and entry is None:
        return _no_such(name)
    if refused := annotations.refused(command.values, command.by, tree.annotated):
        return refused
    if not command.values:
        return Decision()
    return _of_tree(command.account, AnnotationsChanged(entry.id if entry else 0, command.by, command.values))


DECIDERS: dict[type, Callable[[Any, Any], Answer]] = {
    CreateMailbox: create,
    DeleteMailbox: delete,
    RenameMailbox: rename,
    Subscribe: subscribe,
    AppendMessage: append,
    Deliver: deliver,
    OpenAccount: open_account,
    CopyMessages: copy,
    ChangeFlags: change_flags,
    Expunge: expunge,
    ReplaceMessage: replace,
    SetAnnotations: set_annotations,
    SetRights: set_rights,
    RestoreMessages: restore,
    GiveUpExpunged: give_up,
}
TREE_COMMANDS = frozenset(DECIDERS) - {ChangeFlags, Expunge}


def _refused(tree: Tree, command: AnyCommand) -> Refusal | None:
    return None if tree.held is None else tree.held.refuses(adds(command, tree.weight))


def _of_tree(account: int, *events: msgspec.Struct, depends: tuple[str, ...] = ()) -> Decision:
    return Decision(tuple((str(account), event) for event in events), (tree_key(account), *depends))


def _made(tree: Tree, name: str, ids: tuple[int, ...], special_use: str = "") -> tuple[Made, ...]:
    """The missing superiors of `name`, then `name` itself. RFC 4314 §4 CREATE: with the rights of the one above them."""
    above = nearest(tree, name)
    inherited = tuple(sorted(tree.rights.get(above.id, {}).items())) if above is not None else ()
    missing = [
        Made(mailbox, superior, subscribed=superior == INBOX, rights=inherited)
        for mailbox, superior in zip(ids, names.superiors(name), strict=False)
        if superior not in tree.entries
    ]
    return (*missing, Made(ids[name.count(names.SEPARATOR)], name, special_use, rights=inherited))


def nearest(tree: Tree, name: str) -> Entry | None:
    """The nearest mailbox above a name that there is."""
    return next((tree.entries[one] for one in reversed(names.superiors(name)) if one in tree.entries), None)


def _inherited(tree: Tree, account: int, name: str) -> tuple[str, ...]:
    """What has to stay as it is for what is made of the name to have the rights of the mailbox above it."""
    above = nearest(tree, name)
    return (rights_key(account, above.id),) if above is not None else ()


def _standard(tree: Tree, ids: tuple[int, ...]) -> tuple[Made, ...]:
    """The mailboxes of an account that has no INBOX yet."""
    if INBOX in tree.entries:
        return ()
    return tuple(
        Made(mailbox, name, special_use, subscribed=True)
        for mailbox, (name, special_use) in zip(ids, STANDARD, strict=True)
        if name not in tree.entries
    )


def _uids(given: Ranges) -> Ranges | Refusal:
    if len(given) > RANGES_PER_COMMAND_MAX:
        return Refusal(Reason.OVER_LIMIT, f"At most {RANGES_PER_COMMAND_MAX} ranges of messages can be named at once.")
    return ranges.limit(ranges.normalise(given), 1, ranges.UID_MAX)


def _no_such(name: str) -> Refusal:
    return Refusal(Reason.NO_SUCH_MAILBOX, "There is no such mailbox.", (name,) if name else ())


def _exists(name: str) -> Refusal:
    return Refusal(Reason.MAILBOX_EXISTS, "A mailbox of this name is there already.", (name,))


def _too_many_mailboxes() -> Refusal:
    return Refusal(Reason.OVER_LIMIT, f"An account has at most {MAILBOXES_PER_ACCOUNT_MAX} mailboxes.")
