"""What an account's mail consists of, as the fold has it, and what commands are decided on."""

from collections.abc import Mapping

import msgspec

from cluster.domain.mailbox.annotations import Annotated, Key
from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.events import Ranges, SalvageReported
from cluster.domain.quota import Held, Usage


class Msg(msgspec.Struct, frozen=True):
    """A message in a mailbox. `keywords` sorted. `saved`: position at which it came into this mailbox. `thread`:
    position at which its first copy came into the account. `origin`, `origin_uid`: the mailbox and UID that it was
    copied from, or 0. `seen`: account that is not the owner → (has it read it, position of that); it goes along with copies,
    so that a copy is as read as what it is a copy of."""

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
    seen: Mapping[int, tuple[bool, int]] = {}


class Gone(msgspec.Struct, frozen=True):
    """A message that is not in its mailbox any more, as it was. `at`: position at which it went; `moved`: it is there as
    another message: it was moved, or replaced by its like. `taken`: position at which it was restored or given up, 0 = it
    can be restored."""

    message: Msg
    uid: int
    at: int
    moved: bool = False
    taken: int = 0


class Box(msgspec.Struct, frozen=True):
    """A mailbox. `expunged`: UID → position at which it went (VANISHED, RFC 7162 §3.2.6). `vanished`: (first UID, last
    UID, position): those of them that are not there count as gone at that position."""

    id: int
    name: str
    uidvalidity: int
    highestmodseq: int
    special_use: str = ""
    uidnext: int = 1
    messages: Mapping[int, Msg] = {}
    expunged: Mapping[int, int] = {}
    vanished: tuple[tuple[int, int, int], ...] = ()
    rights: Mapping[str, str] = {}


class AccountMail(msgspec.Struct, frozen=True):
    """`uidvalidity`: the last that was given out. `names`: of each mailbox, its id. `gone`: of each mailbox, also of those
    that were deleted, what went from it, in that order (of what went at once: by UID): its places count from 1. `deleted`:
    of each mailbox that was, (name, UIDVALIDITY, position at which it went)."""

    uidvalidity: int
    boxes: Mapping[int, Box] = {}
    names: Mapping[str, int] = {}
    subscriptions: frozenset[str] = frozenset()
    gone: Mapping[int, tuple[Gone, ...]] = {}
    deleted: Mapping[int, tuple[str, int, int]] = {}
    annotations: Mapping[Key, bytes] = {}


class MailState(msgspec.Struct, frozen=True):
    """All accounts of a partition. `uidvalidity_base`: where an account without a fact yet starts counting: the gap of
    each unclean epoch, as the tail that was lost may have known the account. `salvaged`: epoch → sequence up to which its
    tail is salvaged. `reports`: position in a tail → what could not be salvaged of it."""

    accounts: Mapping[int, AccountMail] = {}
    uidvalidity_base: int = 0
    salvaged: Mapping[int, int] = {}
    reports: Mapping[int, "Report"] = {}


class Report(msgspec.Struct, frozen=True):
    """`state`: open, applied or dismissed."""

    told: SalvageReported
    state: str = "open"


class Entry(msgspec.Struct, frozen=True):
    """A mailbox as the tree knows it."""

    id: int
    uidvalidity: int = 0
    special_use: str = ""


class Tree(msgspec.Struct, frozen=True):
    """What structural commands are decided on. `entries` has the mailboxes that `decide.tree_needs` and `tree_ids` name
    (more does no harm). `count`: mailboxes of the account, wanted by CREATE and RENAME. `subscriptions`: all of the
    account's, wanted by Subscribe. `messages`: what `decide.tree_reads` names. `rights`: of each mailbox of `entries` that
    anybody has rights to, by identifier; wanted where `decide.reads_rights`. `alike`: what `decide.sent_again` asks for, as
    (UID, whether it was filed). `held`: of an account that has a quota, and with it `weight`: what the messages hold that
    `decide.weighs` names. `restorable`: of what `decide.tree_restores`
    names, the places that can be restored; None = the account never had the mailbox. `annotated`: of the mailbox that
    `decide.annotates` names."""

    entries: Mapping[str, Entry]
    count: int
    subscriptions: frozenset[str] = frozenset()
    messages: "MessagesState | None" = None
    rights: Mapping[int, Mapping[str, str]] = {}
    alike: tuple[tuple[int, bool], ...] = ()
    held: Held | None = None
    weight: Usage = Usage()
    restorable: Ranges | None = None
    annotated: Annotated = Annotated()


class MessagesState(msgspec.Struct, frozen=True):
    """What commands on messages are decided on. `modseqs`: of those of the asked UIDs that are there; wanted only by a
    ChangeFlags with `unchanged_since`, and by ReplaceMessage."""

    exists: bool
    modseqs: Mapping[int, int] = {}
