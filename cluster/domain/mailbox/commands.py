"""What may be asked of an account's mail. `account` is whose mail; who asks is the actor.

Ids of mailboxes to be made come with the command (63-bit random, from the World), so that decide stays pure.
"""

import msgspec

from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.events import FlagMode, Ranges


class Command(msgspec.Struct, frozen=True):
    account: int


class CreateMailbox(Command, frozen=True):
    """Superiors that are missing are made too (RFC 9051 §6.3.4); `ids` has one for each level of `name`."""

    name: str
    ids: tuple[int, ...]
    special_use: str = ""


class DeleteMailbox(Command, frozen=True):
    name: str


class RenameMailbox(Command, frozen=True):
    """INBOX keeps its name: its messages move to the new mailbox (RFC 9051 §6.3.6). `ids`: one for each level of
    `new`."""

    old: str
    new: str
    ids: tuple[int, ...]


class Subscribe(Command, frozen=True):
    name: str
    subscribed: bool


class AppendMessage(Command, frozen=True):
    """RFC 9051 §6.3.12. Several in one command: all or none (RFC 3502)."""

    mailbox: str
    messages: tuple["NewMessage", ...]


class NewMessage(msgspec.Struct, frozen=True):
    content: Content
    internal_at: int
    internal_zone: int = 0
    flags: int = 0
    keywords: tuple[str, ...] = ()


class ReplaceMessage(Command, frozen=True):
    """RFC 8508: a message comes into `mailbox`, and the one of `uid` goes from the mailbox `source`; both or neither."""

    source: int
    uid: int
    mailbox: str
    message: NewMessage


class Deliver(Command, frozen=True):
    """One account's share of a delivery. `mailbox` falls back to INBOX if it is not there. `ids`: six, for the
    mailboxes of an account that gets its first mail (INBOX and the special-use ones). `sent`: its owner has sent it, and it is
    filed in the \\Sent mailbox, unless it is there."""

    content: Content
    internal_at: int
    ids: tuple[int, ...]
    mailbox: str = "INBOX"
    sent: bool = False


class OpenAccount(Command, frozen=True):
    """Makes INBOX, Sent, Drafts, Trash, Junk, Archive where the account has no INBOX yet; else nothing. Six `ids`."""

    ids: tuple[int, ...]


class ChangeFlags(Command, frozen=True):
    """`unchanged_since`: RFC 7162 §3.1.3: those above it are spared (Decision.modified); None = no condition."""

    mailbox: int
    uids: Ranges
    mode: FlagMode
    flags: int = 0
    keywords: tuple[str, ...] = ()
    unchanged_since: int | None = None


class CopyMessages(Command, frozen=True):
    source: int
    target: str
    uids: Ranges
    moved: bool = False


class RestoreMessages(Command, frozen=True):
    """Of what was expunged from the mailbox `source`, living or deleted, the places that can be restored come into `target`.
    `ids`: one for each level of `target`, which is made where it is not there; () = it must be there."""

    source: int
    places: Ranges
    target: str
    ids: tuple[int, ...] = ()


class GiveUpExpunged(Command, frozen=True):
    """What was expunged up to the position `upto` is not offered any more."""

    upto: int


class Expunge(Command, frozen=True):
    mailbox: int
    uids: Ranges
    only_deleted: bool = True


class SetAnnotations(Command, frozen=True):
    """RFC 5464 §4.3: all or none. `mailbox` empty: the account's own. `by`: whose the /private ones are. `values`: entry as
    annotations.py has it → value, None = away with it."""

    mailbox: str
    by: int
    values: tuple[tuple[str, bytes | None], ...]


class SetRights(Command, frozen=True):
    """RFC 4314 §3.1, §3.2. `identifier` as rights.py has it, `rights` in their one order."""

    mailbox: str
    identifier: str
    mode: FlagMode
    rights: str


AnyCommand = (
    CreateMailbox | DeleteMailbox | RenameMailbox | Subscribe | AppendMessage | Deliver | OpenAccount | ChangeFlags
    | CopyMessages | Expunge | ReplaceMessage | SetRights | RestoreMessages | GiveUpExpunged | SetAnnotations
)  # fmt: skip
