"""The arguments of every word of IMAP: one function each, one visible table. Cursor → what model.py names."""

from collections.abc import Callable

import msgspec

from cluster.domain.mailbox.events import FlagMode
from protocols.imap.fetch_grammar import fetch
from protocols.imap.grammar import Cursor
from protocols.imap.metadata_grammar import entries, get_metadata, set_metadata
from protocols.imap.model import (
    Acl,
    Arguments,
    Authenticate,
    Compress,
    Copy,
    Create,
    Enable,
    Expunge,
    Id,
    List,
    Login,
    Name,
    Nothing,
    Rename,
    Resync,
    Root,
    Select,
    SequenceSet,
    SetQuota,
    Status,
    Store,
    SyntaxRefused,
)
from protocols.imap.notify_grammar import notify
from protocols.imap.search_grammar import cancel_update, multi, search, sort, thread

ID_PAIRS_MAX = 30  # RFC 2971 §3.3
PATTERNS_MAX = 100
QUOTA_RESOURCES_MAX = 10
STATUS_ITEMS = frozenset(
    ("MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "DELETED", "SIZE", "HIGHESTMODSEQ", "MAILBOXID", "APPENDLIMIT",
     "DELETED-STORAGE")
)
SELECTION_OPTIONS = frozenset(("SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE"))
RETURN_OPTIONS = frozenset(("SUBSCRIBED", "CHILDREN", "SPECIAL-USE", "STATUS", "MYRIGHTS", "METADATA"))


def nothing(at: Cursor) -> Nothing:
    return Nothing()


def compress(at: Cursor) -> Compress:
    at.space()
    return Compress(at.word())


def login(at: Cursor) -> Login:
    at.space()
    user = at.astring()
    at.space()
    return Login(user, at.astring())


def authenticate(at: Cursor) -> Authenticate:
    at.space()
    mechanism = at.atom().decode("ascii").upper()
    # RFC 4959 §3: the initial response rides along
    return Authenticate(mechanism, at.astring() if at.took(b" ") else None)


def enable(at: Cursor) -> Enable:
    words = []
    while at.took(b" "):
        words.append(at.atom().decode("ascii").upper())
    if not words:
        raise at.fail("a capability")
    return Enable(tuple(words))


def identify(at: Cursor) -> Id:
    at.space()
    if at.peek_word() == "NIL":
        at.word()
        return Id(())
    at.need(b"(")
    pairs: list[tuple[bytes, bytes]] = []
    while not at.took(b")"):
        if pairs:
            at.space()
        if len(pairs) >= ID_PAIRS_MAX:
            raise SyntaxRefused("too many fields")
        field = at.string()
        at.space()
        pairs.append((field, at.nstring() or b""))
    return Id(tuple(pairs))


def select(at: Cursor) -> Select:
    at.space()
    mailbox = at.mailbox()
    condstore, resync = False, None
    if at.took(b" ("):
        while True:
            match at.word():
                case "CONDSTORE":
                    condstore = True  # RFC 7162 §3.1.8
                case "QRESYNC":
                    resync = _resync(at)
                case _:
                    raise SyntaxRefused("no such parameter of SELECT")
            if at.took(b")"):
                break
            at.space()
    return Select(mailbox, condstore, resync)


def _resync(at: Cursor) -> Resync:
    """RFC 7162 §3.2.5: (uidvalidity modseq [known-uids] [(sequence numbers, their uids)])."""
    at.need(b" (")
    uidvalidity = at.number()
    at.space()
    modseq = at.number64()
    known = None
    if at.peek(b" ") and not at.peek(b" ("):
        at.space()
        known = at.known_uids()
    matched = at.took(b" (")
    if matched:
        at.known_uids()
        at.space()
        at.known_uids()
        at.need(b")")
    at.need(b")")
    if uidvalidity == 0 or modseq == 0:
        raise SyntaxRefused("UIDVALIDITY and MODSEQ are above 0")
    return Resync(uidvalidity, modseq, known, matched)


def create(at: Cursor) -> Create:
    at.space()
    mailbox = at.mailbox()
    uses: list[str] = []
    if at.took(b" ("):  # RFC 6154 §3
        if at.word() != "USE":
            raise SyntaxRefused("no such parameter of CREATE")
        at.need(b" (")
        while not at.took(b")"):
            if uses:
                at.space()
            at.need(b"\\")
            uses.append("\\" + at.atom().decode("ascii"))
        at.need(b")")
    return Create(mailbox, tuple(uses))


def name(at: Cursor) -> Name:
    at.space()
    return Name(at.mailbox())


def root(at: Cursor) -> Root:
    at.space()
    return Root(at.text())


def setquota(at: Cursor) -> SetQuota:
    """RFC 9208 §7 setquota-list."""
    name = root(at).root
    at.need(b" (")
    limits: list[tuple[str, int]] = []
    while not at.took(b")"):
        if limits:
            at.space()
        resource = at.word()
        at.space()
        limits.append((resource, at.number64()))
        if len(limits) > QUOTA_RESOURCES_MAX:
            raise SyntaxRefused("too many resources")
    return SetQuota(name, tuple(limits))


def acl(at: Cursor) -> Acl:
    at.space()
    mailbox = at.mailbox()
    at.space()
    try:
        identifier = at.astring().decode("utf-8")
    except UnicodeDecodeError as error:
        raise SyntaxRefused("an identifier is UTF-8") from error
    if not identifier.removeprefix("-"):
        raise SyntaxRefused("an identifier is not empty")  # RFC 4314 §3
    return Acl(mailbox, identifier)


def set_acl(at: Cursor) -> Acl:
    given = acl(at)
    at.space()
    return msgspec.structs.replace(given, rights=at.astring().decode("latin-1"))


def rename(at: Cursor) -> Rename:
    at.space()
    old = at.mailbox()
    at.space()
    return Rename(old, at.mailbox())


def lsub(at: Cursor) -> List:
    at.space()
    reference = at.mailbox()
    at.space()
    return List(reference, (at.list_mailbox(),))


def listing(at: Cursor) -> List:
    """RFC 5258 §6, RFC 9051 §6.3.9."""
    at.space()
    extended = False
    selection: frozenset[str] = frozenset()
    if at.took(b"("):
        extended, selection = True, _options(at, SELECTION_OPTIONS)[0]
        at.space()
    reference = at.mailbox()
    at.space()
    patterns: list[str] = []
    if at.took(b"("):
        extended = True
        while not patterns or at.took(b" "):
            patterns.append(at.list_mailbox())
        at.need(b")")
        if len(patterns) > PATTERNS_MAX:
            raise SyntaxRefused("too many patterns")
    else:
        patterns.append(at.list_mailbox())
    returns: frozenset[str] = frozenset()
    items: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    if at.took(b" "):
        if at.word() != "RETURN":
            raise at.fail("RETURN")
        at.need(b" (")
        extended = True
        returns, items, metadata = _options(at, RETURN_OPTIONS)
    if "RECURSIVEMATCH" in selection and not selection - {"RECURSIVEMATCH", "REMOTE"}:
        # RFC 5258 §3.1: RECURSIVEMATCH alone, or with REMOTE alone, is BAD
        raise SyntaxRefused("RECURSIVEMATCH needs something to match")
    return List(reference, tuple(patterns), selection, returns, items, extended, metadata)


def _options(
    at: Cursor, allowed: frozenset[str]
) -> tuple[frozenset[str], tuple[str, ...], tuple[str, ...]]:
    """The words up to ")", the items of STATUS, and the entries of METADATA."""
    words: set[str] = set()
    items: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    while not at.took(b")"):
        if words:
            at.space()
        word = at.word()
        if word not in allowed:
            raise SyntaxRefused(f"no such option: {word}")
        words.add(word)
        if word == "STATUS":
            at.space()
            items = _status_items(at)
        if word == "METADATA":
            at.space()
            metadata = entries(at)
    return frozenset(words), items, metadata


def _status_items(at: Cursor) -> tuple[str, ...]:
    at.need(b"(")
    items: list[str] = []
    while not items or at.took(b" "):
        item = at.word()
        if item not in STATUS_ITEMS:
            raise SyntaxRefused(f"no such status item: {item}")
        if item not in items:
            items.append(item)
    at.need(b")")
    return tuple(items)


def status(at: Cursor) -> Status:
    at.space()
    mailbox = at.mailbox()
    at.space()
    return Status(mailbox, _status_items(at))


def store(at: Cursor, uid: bool) -> Store:
    at.space()
    messages = at.sequence_set()
    at.space()
    unchanged = None
    if at.took(b"("):  # RFC 7162 §3.1.3
        if at.word() != "UNCHANGEDSINCE":
            raise SyntaxRefused("no such parameter of STORE")
        at.space()
        unchanged = at.number64()
        at.need(b") ")
    mode = FlagMode.ADD if at.took(b"+") else FlagMode.REMOVE if at.took(b"-") else FlagMode.REPLACE
    word = at.word()
    if word not in ("FLAGS", "FLAGS.SILENT"):
        raise at.fail("FLAGS")
    at.space()
    bits, keywords = at.flag_list() if at.peek(b"(") else at.flags()
    return Store(uid, messages, mode, bits, keywords, word == "FLAGS.SILENT", unchanged)


def copy(at: Cursor, uid: bool) -> Copy:
    at.space()
    messages = at.sequence_set()
    at.space()
    return Copy(uid, messages, at.mailbox())


def uid_expunge(at: Cursor) -> Expunge:
    at.space()
    messages: SequenceSet = at.sequence_set()
    return Expunge(messages)


ARGUMENTS: dict[str, Callable[[Cursor], Arguments]] = {
    "CAPABILITY": nothing,
    "NOOP": nothing,
    "LOGOUT": nothing,
    "ID": identify,
    "STARTTLS": nothing,
    "UNAUTHENTICATE": nothing,
    "COMPRESS": compress,
    "AUTHENTICATE": authenticate,
    "LOGIN": login,
    "ENABLE": enable,
    "SELECT": select,
    "EXAMINE": select,
    "CREATE": create,
    "DELETE": name,
    "RENAME": rename,
    "SUBSCRIBE": name,
    "UNSUBSCRIBE": name,
    "LIST": listing,
    "LSUB": lsub,
    "NAMESPACE": nothing,
    "GETQUOTA": root,
    "GETQUOTAROOT": name,
    "SETQUOTA": setquota,
    "SETACL": set_acl,
    "DELETEACL": acl,
    "GETACL": name,
    "LISTRIGHTS": acl,
    "MYRIGHTS": name,
    "STATUS": status,
    "GETMETADATA": get_metadata,
    "SETMETADATA": set_metadata,
    "IDLE": nothing,
    "NOTIFY": notify,
    "CHECK": nothing,
    "CLOSE": nothing,
    "UNSELECT": nothing,
    "EXPUNGE": lambda at: Expunge(),
    "UID EXPUNGE": uid_expunge,
    "SEARCH": lambda at: search(at, uid=False),
    "UID SEARCH": lambda at: search(at, uid=True),
    "CANCELUPDATE": cancel_update,
    "ESEARCH": multi,
    "SORT": lambda at: sort(at, uid=False),
    "UID SORT": lambda at: sort(at, uid=True),
    "THREAD": lambda at: thread(at, uid=False),
    "UID THREAD": lambda at: thread(at, uid=True),
    "FETCH": lambda at: fetch(at, uid=False),
    "UID FETCH": lambda at: fetch(at, uid=True),
    "STORE": lambda at: store(at, uid=False),
    "UID STORE": lambda at: store(at, uid=True),
    "COPY": lambda at: copy(at, uid=False),
    "UID COPY": lambda at: copy(at, uid=True),
    "MOVE": lambda at: copy(at, uid=False),
    "UID MOVE": lambda at: copy(at, uid=True),
}  # APPEND is read by the parser itself, as its messages are streamed.
