"""Facts about an account's mail. Past tense, frozen, added to and never edited; old versions are lifted in
cluster/codec.

UIDs are not in the facts that make messages: the fold gives them, in stream order, so every site gives the same
(design: identity comes from the log). Ids of mailboxes are 63-bit random numbers decided with the command.
"""

from enum import IntEnum

import msgspec

from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.names import FILED

SEEN, ANSWERED, FLAGGED, DELETED, DRAFT = 1, 2, 4, 8, 16
SYSTEM_FLAGS: dict[str, int] = {
    "\\Seen": SEEN,
    "\\Answered": ANSWERED,
    "\\Flagged": FLAGGED,
    "\\Deleted": DELETED,
    "\\Draft": DRAFT,
}


class Event(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of this noun's facts."""


class Made(msgspec.Struct, frozen=True, omit_defaults=True):
    """One mailbox that came to be. `special_use` is a RFC 6154 attribute with its backslash, or empty. `rights`: what it has
    of the mailbox above it, as (identifier, rights)."""

    mailbox: int
    name: str
    special_use: str = ""
    subscribed: bool = False
    rights: tuple[tuple[str, str], ...] = ()


class MailboxesCreated(Event, frozen=True, tag="MailboxesCreated.1"):
    """In order; each takes the account's next UIDVALIDITY."""

    made: tuple[Made, ...]


class MailboxesRenamed(Event, frozen=True, tag="MailboxesRenamed.1"):
    """(mailbox, new name) of the mailbox and all beneath it. Ids and UIDVALIDITY stay."""

    renamed: tuple[tuple[int, str], ...]


class MailboxDeleted(Event, frozen=True, tag="MailboxDeleted.1"):
    mailbox: int


class Subscribed(Event, frozen=True, tag="Subscribed.1"):
    name: str
    subscribed: bool


class MessageAppended(Event, frozen=True, tag="MessageAppended.1"):
    """A message came into a mailbox: appended by a client or delivered.

    `internal_at`: unix seconds; `internal_zone`: minutes east of UTC as the client gave it. `flags` are the owner's and
    everybody's; `seen_by`: another account that brought it and has read it, 0 = none.
    """

    mailbox: int
    content: Content
    internal_at: int
    internal_zone: int = 0
    flags: int = 0
    keywords: tuple[str, ...] = ()
    delivered: bool = False
    seen_by: int = 0


class FlagMode(IntEnum):
    ADD = 1
    REMOVE = 2
    REPLACE = 3


# UID sets ride as pairs (first, last), ascending, not touching.
Ranges = tuple[tuple[int, int], ...]


class FlagsChanged(Event, frozen=True, tag="FlagsChanged.1"):
    """UIDs that are not there when it is folded are passed over. \\Seen is the owner's (others: SeenChanged). `kept`: system
    flags that a REPLACE leaves as they are, for it is asked by somebody who may not change them."""

    mailbox: int
    uids: Ranges
    mode: FlagMode
    flags: int = 0
    keywords: tuple[str, ...] = ()
    kept: int = 0


class SeenChanged(Event, frozen=True, tag="SeenChanged.1"):
    """`account`, which is not the owner, has read these, or not. UIDs that are not there are passed over."""

    mailbox: int
    account: int
    uids: Ranges
    seen: bool = True


class RightsChanged(Event, frozen=True, tag="RightsChanged.1"):
    """What `identifier` (rights.py) may do with the mailbox from now on; no `rights`: it is named no more."""

    mailbox: int
    identifier: str
    rights: str = ""


class AnnotationsChanged(Event, frozen=True, tag="AnnotationsChanged.1"):
    """RFC 5464 annotations of a mailbox, or of the account itself (`mailbox` 0). `values`: entry → value, None = it is there
    no more. `by`: whose the /private ones are."""

    mailbox: int
    by: int
    values: tuple[tuple[str, bytes | None], ...]


class MessagesCopied(Event, frozen=True, tag="MessagesCopied.1"):
    """`moved`: they leave the source in the same fact (RFC 6851). UIDs not there are passed over, so that two people
    who move the same message at once move it once. In ascending order of source UID."""

    source: int
    target: int
    uids: Ranges
    moved: bool = False


class MessagesExpunged(Event, frozen=True, tag="MessagesExpunged.1"):
    """`only_deleted`: of these, those that have \\Deleted when it is folded (RFC 4315 §2.1 UID EXPUNGE and EXPUNGE).
    `replaced`: the same mail is there as another message, so that nobody misses these."""

    mailbox: int
    uids: Ranges
    only_deleted: bool = True
    replaced: bool = False


class MessagesRestored(Event, frozen=True, tag="MessagesRestored.1"):
    """Messages that were expunged come into `target` as new ones: with their content, INTERNALDATE, keywords and flags but
    \\Deleted. `places`: by the numbers under which the mailbox `source`, which may itself be gone, counts what went from it.
    Those that were restored or given up before are passed over. In ascending order of their numbers."""

    source: int
    target: int
    places: Ranges


class ExpungedGivenUp(Event, frozen=True, tag="ExpungedGivenUp.1"):
    """What of the account was expunged up to the position `upto` cannot be restored any more, and names no content."""

    upto: int


class EpochStarted(Event, frozen=True, tag="EpochStarted.1"):
    """A new home's first words in a partition. `ended`: every epoch that ended since the last one in history, as
    (epoch, last sequence in history, gap). Each gap (0 = the epoch ended clean) raises UIDNEXT of every mailbox by as
    much, and every account's UIDVALIDITY counter by UID_GAP. A mailbox whose UIDNEXT would pass UIDNEXT_RAISED_MAX begins
    anew instead."""

    ended: tuple[tuple[int, int, int], ...]


UIDS_AT_ONCE_MAX = 1 << 20
UID_GAP, UID_GAP_FORCED = 65_536, 16_777_216
UIDVALIDITY_FRESH = -1  # in place of a gap: nothing is known of the UIDs given, so every mailbox gets a new UIDVALIDITY
UIDNEXT_RAISED_MAX = 1 << 31  # half of RFC 9051 §2.3.1.1's 32 bits, so that as many are left for messages


class Reaffirmed(Event, frozen=True, tag="Reaffirmed.1"):
    """What a tail that was lost (of `tail_epoch`, up to sequence `tail_upto`) had told of these UIDs may lie in a client's
    cache: those that are there take this position as MODSEQ, the others count as vanished at it. Passed over where the
    mailbox has another UIDVALIDITY: there they name other messages, or none yet. `mailbox` 0: the account's tree."""

    mailbox: int
    uidvalidity: int = 0
    uids: Ranges = ()
    tail_epoch: int = 0
    tail_upto: int = 0


class TailSalvaged(Event, frozen=True, tag="TailSalvaged.1"):
    """Of the partition. All that the tail of `epoch` holds up to sequence `upto` was decided again or reported, and what
    it touched is reaffirmed: tokens from there may be clamped."""

    epoch: int
    upto: int


class TailDestroyed(Event, frozen=True, tag="TailDestroyed.1"):
    """Of the partition. An operator says that nobody will bring the rest of this epoch's tail: every message of the
    partition is reaffirmed, whatever the tail was."""

    epoch: int


class SalvageReported(Event, frozen=True, tag="SalvageReported.1"):
    """Of the partition. What stood at `position` in a tail could not be decided again, in whole or in part. `what`, `why`:
    a sentence for people. `event`: the envelope as it was, empty if it is large. Open until it is settled."""

    position: int
    noun: str
    entity: str
    what: str
    why: str
    event: bytes = b""


class SalvageSettled(Event, frozen=True, tag="SalvageSettled.1"):
    """Of the partition. An operator did what the report at `position` says (`applied`), or does not want it."""

    position: int
    applied: bool


PARTITION_ENTITY = "0"  # of facts that are of the partition, not of an account

AnyEvent = (
    MailboxesCreated | MailboxesRenamed | MailboxDeleted | Subscribed | MessageAppended | FlagsChanged | MessagesCopied
    | MessagesExpunged | MessagesRestored | ExpungedGivenUp | EpochStarted | Reaffirmed | TailSalvaged | TailDestroyed
    | SalvageReported | SalvageSettled | SeenChanged | RightsChanged | AnnotationsChanged
)  # fmt: skip


def changes(account: int, event: AnyEvent) -> tuple[str, ...]:
    """The keys whose last change the appender remembers, so that it can refuse what was decided on a stale state."""
    match event:
        case MailboxesCreated() | MailboxesRenamed() | MailboxDeleted() | Subscribed():
            return (tree_key(account),)
        case FlagsChanged() | MessagesExpunged() | SeenChanged():
            return (messages_key(account, event.mailbox),)
        case MessagesCopied():
            return (messages_key(account, event.source),)
        case MessageAppended() if not event.delivered:
            appended = appended_key(account, event.mailbox)
            return (appended, filed_key(account)) if FILED in event.keywords else (appended,)
        case RightsChanged():
            return (rights_key(account, event.mailbox),)
        case MessagesRestored() | ExpungedGivenUp():
            return (expunged_key(account),)
        case SalvageReported() | SalvageSettled():
            return (report_key(event.position),)
        case _:
            return ()


def uids_given(event: AnyEvent) -> int:
    """How many UIDs the fold gives for it at most, in one mailbox; a range may be open (all of INBOX is renamed), and no
    more than UIDS_AT_ONCE_MAX are reckoned with."""
    match event:
        case MessageAppended():
            return 1
        case MessagesCopied():
            return min(UIDS_AT_ONCE_MAX, sum(last - first + 1 for first, last in event.uids))
        case MessagesRestored():
            return min(UIDS_AT_ONCE_MAX, sum(last - first + 1 for first, last in event.places))
        case _:
            return 0


def tree_key(account: int) -> str:
    return f"tree/{account}"


def messages_key(account: int, mailbox: int) -> str:
    return f"messages/{account}/{mailbox}"


def appended_key(account: int, mailbox: int) -> str:
    """Changes with what clients bring, not with what is delivered."""
    return f"appended/{account}/{mailbox}"


def filed_key(account: int) -> str:
    """Changes when a message is filed for its sender."""
    return f"filed/{account}"


def rights_key(account: int, mailbox: int) -> str:
    return f"rights/{account}/{mailbox}"


def expunged_key(account: int) -> str:
    return f"expunged/{account}"


def report_key(position: int) -> str:
    return f"salvage/{position}"
