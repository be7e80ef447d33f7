"""The nouns of IMAP: requests as the parser makes them, and the reply that ends each.

Mailbox names are str, decoded (modified UTF-7 or UTF-8), not yet canonical. Flags are (bits, keywords) as in the domain.
"""

from typing import Literal

import msgspec

from cluster.domain.mailbox.events import FlagMode, Ranges

STAR = 0  # "*" in a set: the highest number in use


class SequenceSet(msgspec.Struct, frozen=True):
    """RFC 9051 §9 sequence-set: pairs (first, last) as written, STAR for "*". `saved`: it is "$" (RFC 5182 §2.1)."""

    pairs: tuple[tuple[int, int], ...] = ()
    saved: bool = False


class Nothing(msgspec.Struct, frozen=True):
    """A request without arguments."""


class Login(msgspec.Struct, frozen=True):
    user: bytes
    password: bytes

    def __repr__(self) -> str:
        return "Login(…)"  # a secret never in a log


class Authenticate(msgspec.Struct, frozen=True):
    """`initial`: the base64 of RFC 4959 (b"=" is an empty one), or None."""

    mechanism: str
    initial: bytes | None

    def __repr__(self) -> str:
        return f"Authenticate({self.mechanism})"


class Enable(msgspec.Struct, frozen=True):
    capabilities: tuple[str, ...]


class Id(msgspec.Struct, frozen=True):
    pairs: tuple[tuple[bytes, bytes], ...]


class Compress(msgspec.Struct, frozen=True):
    """`algorithm` in upper case."""

    algorithm: str


class Resync(msgspec.Struct, frozen=True):
    """RFC 7162 §3.2.5. `known` None: not told. The sequence match data is a hint for servers that forget; this one does not.
    `matched`: there was some."""

    uidvalidity: int
    modseq: int
    known: Ranges | None
    matched: bool = False


class Select(msgspec.Struct, frozen=True):
    mailbox: str
    condstore: bool = False
    resync: Resync | None = None


class Create(msgspec.Struct, frozen=True):
    mailbox: str
    special_uses: tuple[str, ...] = ()


class Name(msgspec.Struct, frozen=True):
    mailbox: str


class Root(msgspec.Struct, frozen=True):
    """RFC 9208 §4.1.1: the name of a quota root."""

    root: str


class GetMetadata(msgspec.Struct, frozen=True):
    """RFC 5464 §4.2. `mailbox` empty: the server. `size_max` None = no limit; `depth` -1 = all that is beneath."""

    mailbox: str
    entries: tuple[str, ...]
    size_max: int | None = None
    depth: int = 0


class SetMetadata(msgspec.Struct, frozen=True):
    """RFC 5464 §4.3. A value of None takes the entry away."""

    mailbox: str
    values: tuple[tuple[str, bytes | None], ...]


class SetQuota(msgspec.Struct, frozen=True):
    """RFC 9208 §4.1.3. `limits`: (resource in upper case, limit)."""

    root: str
    limits: tuple[tuple[str, int], ...]


class Acl(msgspec.Struct, frozen=True):
    """RFC 4314 §3. `rights`: of SETACL, as the client said them."""

    mailbox: str
    identifier: str
    rights: str = ""


class Rename(msgspec.Struct, frozen=True):
    old: str
    new: str


class List(msgspec.Struct, frozen=True):
    """`selection`, `returns`: upper case. `extended`: any of RFC 5258's syntax was used. `status`: items of RFC 5819;
    `metadata`: entries of RFC 9590."""

    reference: str
    patterns: tuple[str, ...]
    selection: frozenset[str] = frozenset()
    returns: frozenset[str] = frozenset()
    status: tuple[str, ...] = ()
    extended: bool = False
    metadata: tuple[str, ...] = ()


class Status(msgspec.Struct, frozen=True):
    mailbox: str
    items: tuple[str, ...]


# RFC 9394 §4 partial-range, low and high: 1 is the first; below 0 it counts from the last, which is -1.
Partial = tuple[int, int]


class Section(msgspec.Struct, frozen=True):
    """RFC 9051 §6.4.5.1. `fields` only with HEADER.FIELDS and HEADER.FIELDS.NOT, as the client wrote them."""

    path: tuple[int, ...] = ()
    kind: Literal["", "HEADER", "TEXT", "MIME", "HEADER.FIELDS", "HEADER.FIELDS.NOT"] = ""
    fields: tuple[bytes, ...] = ()


class FetchItem(msgspec.Struct, frozen=True):
    """`word`: FLAGS, UID…; BODY with a section is "BODY[]", BINARY "BINARY[]", and "BINARY.SIZE[]". `partial`: (first byte, how
    many). `label`: how the reply names it, as bytes."""

    word: str
    label: bytes
    section: Section | None = None
    partial: tuple[int, int] | None = None
    peek: bool = True


class Fetch(msgspec.Struct, frozen=True):
    uid: bool
    messages: SequenceSet
    items: tuple[FetchItem, ...]
    changed_since: int | None = None
    vanished: bool = False
    partial: Partial | None = None


class Store(msgspec.Struct, frozen=True):
    uid: bool
    messages: SequenceSet
    mode: FlagMode
    flags: int
    keywords: tuple[str, ...]
    silent: bool = False
    unchanged_since: int | None = None


class Copy(msgspec.Struct, frozen=True):
    uid: bool
    messages: SequenceSet
    mailbox: str


class Expunge(msgspec.Struct, frozen=True):
    """`messages`: of UID EXPUNGE."""

    messages: SequenceSet | None = None


class Key(msgspec.Struct, frozen=True):
    """A search key (RFC 9051 §6.4.4). `word` in upper case; AND, OR and NOT have `keys`. `text`: casefolded. `number`: a size,
    a MODSEQ, seconds, or days since 1970-01-01 for dates."""

    word: str
    text: str = ""
    number: int = 0
    field: bytes = b""
    messages: SequenceSet | None = None
    keys: tuple["Key", ...] = ()


class Search(msgspec.Struct, frozen=True):
    """`returns` None: no RETURN was said (the reply is SEARCH in revision 1). `charset`: "" when none was said. `partial`: of
    RETURN (PARTIAL …)."""

    uid: bool
    key: Key
    returns: frozenset[str] | None = None
    charset: str = ""
    partial: Partial | None = None


class CancelUpdate(msgspec.Struct, frozen=True):
    tags: tuple[str, ...]


class SortKey(msgspec.Struct, frozen=True):
    """RFC 5256 §5 sort-key; `word` in upper case."""

    word: str
    reverse: bool = False


class Sort(msgspec.Struct, frozen=True):
    keys: tuple[SortKey, ...]
    search: Search


class MultiSearch(msgspec.Struct, frozen=True):
    """RFC 7377. `sources`: (filter in upper case, mailboxes) of RFC 5465 §6, as they were said."""

    sources: tuple[tuple[str, tuple[str, ...]], ...]
    search: Search


class EventGroup(msgspec.Struct, frozen=True):
    """RFC 5465 §8. `filter`, `events`: in upper case; no events = NONE. `mailboxes`: as they were said. `items`: what is fetched
    of a message that comes."""

    filter: str
    mailboxes: tuple[str, ...]
    events: frozenset[str]
    items: tuple[FetchItem, ...] = ()


class Notify(msgspec.Struct, frozen=True):
    """RFC 5465 §3.1. `groups` None: NOTIFY NONE. `status`: how the mailboxes stand is to be told at once."""

    groups: tuple[EventGroup, ...] | None
    status: bool = False


class Thread(msgspec.Struct, frozen=True):
    """`algorithm` in upper case."""

    algorithm: str
    search: Search


Arguments = (
    Nothing | Login | Authenticate | Enable | Id | Select | Create | Name | Rename | List | Status | Fetch | Store | Copy | Expunge
    | Search | Sort | Thread | MultiSearch | CancelUpdate | Compress | Root | SetQuota | Acl | GetMetadata | SetMetadata
    | Notify
)  # fmt: skip


class Request(msgspec.Struct, frozen=True):
    """`word`: in upper case, with "UID " before it for those."""

    tag: str
    word: str
    arguments: Arguments


class Incoming(msgspec.Struct, frozen=True):
    """The head of one message of an APPEND. The parser waits for `accept` or `refuse`. `first` False: a further message of
    MULTIAPPEND. `internal`: (unix seconds, zone minutes) or None. `waiting`: the client waits for "+". `binary`: a literal8.
    `catenated`: it comes as Pieces and UrlParts, its size is not known (0). `replaces`: (by UID, number or STAR) of REPLACE."""

    tag: str
    mailbox: str
    size: int
    waiting: bool
    flags: int = 0
    keywords: tuple[str, ...] = ()
    internal: tuple[int, int] | None = None
    first: bool = True
    binary: bool = False
    catenated: bool = False
    replaces: tuple[bool, int] | None = None


class UrlPart(msgspec.Struct, frozen=True):
    """RFC 4469 §3: here stands what the URL names."""

    url: str


class Piece(msgspec.Struct, frozen=True):
    """Bytes of the message accepted last."""

    data: bytes


class IncomingDone(msgspec.Struct, frozen=True):
    """The APPEND is complete. `refused`: at least one message of it was."""

    tag: str


class Line(msgspec.Struct, frozen=True):
    """What `expect_line` asked for: an answer to a SASL challenge, or DONE."""

    data: bytes

    def __repr__(self) -> str:
        return "Line(…)"


class NeedMore(msgspec.Struct, frozen=True):
    """`invite`: the client waits for "+" before it sends a literal."""

    invite: bool = False


Parsed = Request | Incoming | Piece | UrlPart | IncomingDone | Line | NeedMore


class Reply(msgspec.Struct, frozen=True):
    """The tagged end of a command. `code`: what stands in brackets, without them."""

    state: Literal["OK", "NO", "BAD"]
    text: str
    code: str = ""


class SyntaxRefused(Exception):
    """These bytes are not IMAP. `tag` "" where none could be read; `closing`: the rest cannot be made sense of, so goodbye;
    `code` for the reply."""

    def __init__(self, text: str, *, tag: str = "", closing: bool = False, code: str = "") -> None:
        super().__init__(text)
        self.text, self.tag, self.closing, self.code = text, tag, closing, code
