"""The shapes in which a site answers questions: what views give and sessions take. protocols/port.py hands them on."""

import msgspec

from cluster.domain.mailbox import rights
from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.events import Ranges
from storage.uids import Uids


class Account(msgspec.Struct, frozen=True):
    """`credential`: how it signed in: password, token, or the label of an app password. `pop3_since`: unix seconds, only mail
    that arrived then or later is offered by POP3; 0 = all. `file_sent`: what it submits is filed in \\Sent."""

    id: int
    address: str
    name: str
    administrator: bool = False
    credential: str = "password"
    pop3_since: int = 0
    file_sent: bool = False


class ScramKeys(msgspec.Struct, frozen=True):
    """RFC 5802 §3. All bytes; `account` None where the name is unknown (then keys are made up, the same each time, so
    that nobody learns which names exist)."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes
    account: Account | None


class TokensTaken(msgspec.Struct, frozen=True):
    """What a client is told of the tokens with which one signs in here (RFC 7628 §3.2.2). `scope`: which they must have, empty =
    none in particular. `discovery`: where their issuer says how to get one, empty = it is not said."""

    scope: str = ""
    discovery: str = ""


class Done(msgspec.Struct, frozen=True):
    """A command's outcome. `position`: of its last event (0 = nothing had to change). `uidvalidity` of the mailbox in
    which `uids` were made (APPENDUID, COPYUID: in the order of `sources`), `sources` the UIDs that were really copied.
    `modified`: UIDs that UNCHANGEDSINCE spared."""

    position: int
    uidvalidity: int = 0
    uids: tuple[int, ...] = ()
    sources: tuple[int, ...] = ()
    modified: Ranges = ()


class Mailbox(msgspec.Struct, frozen=True):
    id: int
    name: str
    uidvalidity: int
    special_use: str
    subscribed: bool


class Named(msgspec.Struct, frozen=True):
    """What the name of a mailbox means to who says it: `name` in the tree of `account`. `reader`: who asks, 0 = the owner itself.
    `rights`: what the asker may do there (RFC 4314 §2.1), none where there is no such mailbox. `prefix`: stands before the
    owner's names as the asker says them."""

    account: int
    name: str
    reader: int = 0
    rights: str = rights.ALL
    prefix: str = ""

    @property
    def shown(self) -> str:
        """The name as the asker says it."""
        return self.prefix + self.name

    def may(self, needed: str) -> bool:
        return not self.reader or set(needed) <= set(self.rights)


class Status(msgspec.Struct, frozen=True):
    """`deleted_bytes`… sizes in bytes of RFC822.SIZE. `first_unseen` 0 = none."""

    mailbox: Mailbox
    messages: int
    unseen: int
    deleted: int
    size: int
    uidnext: int
    highestmodseq: int
    recent_from: int  # UIDs at or above it have not been announced as \\Recent to a revision-1 session (not replicated)


class Selected(msgspec.Struct, frozen=True):
    """A mailbox as it stands at `highestmodseq`: all its UIDs, ascending; `keywords` in use."""

    status: Status
    uids: Uids
    keywords: tuple[str, ...]
    first_unseen: int


class Flags(msgspec.Struct, frozen=True, gc=False):
    """`flags`: bits of cluster.domain.mailbox.events (SEEN…)."""

    uid: int
    flags: int
    keywords: tuple[str, ...]
    modseq: int


class Message(msgspec.Struct, frozen=True, gc=False):
    """A row for FETCH and SEARCH. `description`: mime.Description in MessagePack, empty where it was not asked for;
    `segments` too. `saved_at`: unix seconds when it came into this mailbox (SAVEDATE)."""

    uid: int
    flags: int
    keywords: tuple[str, ...]
    modseq: int
    size: int
    internal_at: int
    internal_zone: int
    saved_at: int
    sent: int | None
    email_id: bytes
    thread_id: int
    description: bytes = b""
    content: Content | None = None


class Having(msgspec.Struct, frozen=True):
    """What a message has: flags that are set, flags that are not (bits of cluster.domain.mailbox.events), the day of its
    internal date as it is written (days since 1970; first and last), a size above `larger` and below `smaller` (bytes of
    RFC822.SIZE). None: any."""

    present: int = 0
    absent: int = 0
    first_day: int | None = None
    last_day: int | None = None
    larger: int | None = None
    smaller: int | None = None


class Changes(msgspec.Struct, frozen=True):
    """What happened in a mailbox above a MODSEQ: messages that came or whose flags changed (as they are now), and UIDs
    that went (of all that ever were below uidnext). `uidvalidity` as it is now: after a home was lost with all that it said,
    UIDs begin anew. `gone`: the mailbox itself was deleted."""

    highestmodseq: int
    uidnext: int
    uidvalidity: int
    changed: tuple[Flags, ...] = ()
    vanished: Ranges = ()
    gone: bool = False


class Recipient(msgspec.Struct, frozen=True):
    """Where mail for an address goes: to accounts here (after aliases, groups, plus, catch-all; each once) and to
    addresses elsewhere. Both empty = no such address here."""

    address: str
    accounts: tuple[int, ...] = ()
    elsewhere: tuple[str, ...] = ()
    local_domain: bool = True


class SiteUnavailable(Exception):
    """The tables or a blob cannot be reached now; text is for the log. Sessions answer UNAVAILABLE and go on."""
