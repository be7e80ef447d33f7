"""SEARCH, SORT and THREAD (RFC 9051 §6.4.4 and §9 search-key, RFC 5256 §5; RFC 5032, 7162, 8474, 8514 and 9394 for the words they
add)."""

from protocols.imap.grammar import Cursor
from protocols.imap.model import CancelUpdate, Key, MultiSearch, Partial, Search, Sort, SortKey, SyntaxRefused, Thread
from protocols.imap.sorting import SORT_WORDS

KEYS_MAX = 500
NESTING_MAX = 120  # a client that looks for many Message-IDs nests as many ORs
CHARSETS = frozenset(("UTF-8", "US-ASCII"))
RETURNS = frozenset(("MIN", "MAX", "ALL", "COUNT", "SAVE", "PARTIAL", "CONTEXT", "UPDATE"))
TAGS_MAX = 100
SORT_KEYS_MAX = 20
SOURCES_MAX = 1000
SOURCES = frozenset(("SELECTED", "INBOXES", "PERSONAL", "SUBSCRIBED"))  # RFC 5465 §6; RFC 7377 §2.2: not selected-delayed
NAMED_SOURCES = frozenset(("SUBTREE", "SUBTREE-ONE", "MAILBOXES"))
ALGORITHMS = frozenset(("ORDEREDSUBJECT", "REFERENCES"))

FLAG_KEYS = frozenset(
    ("ALL", "ANSWERED", "DELETED", "DRAFT", "FLAGGED", "NEW", "OLD", "RECENT", "SEEN", "UNANSWERED", "UNDELETED", "UNDRAFT",
     "UNFLAGGED", "UNSEEN", "SAVEDATESUPPORTED")
)  # fmt: skip
TEXT_KEYS = frozenset(("BCC", "BODY", "CC", "FROM", "SUBJECT", "TEXT", "TO"))
DATE_KEYS = frozenset(
    ("BEFORE", "ON", "SINCE", "SENTBEFORE", "SENTON", "SENTSINCE", "SAVEDBEFORE", "SAVEDON", "SAVEDSINCE")
)
NUMBER_KEYS = frozenset(("LARGER", "SMALLER", "OLDER", "YOUNGER"))
ID_KEYS = frozenset(("EMAILID", "THREADID"))


def search(at: Cursor, uid: bool) -> Search:
    at.space()
    returns, partial = _returns(at)
    charset = ""
    if at.peek_word() == "CHARSET":
        at.word()
        at.space()
        charset = _charset(at)
        if charset not in CHARSETS:
            return Search(uid, Key("ALL"), returns, charset)
        at.space()
    return Search(uid, _criteria(at), returns, charset, partial)


def cancel_update(at: Cursor) -> CancelUpdate:
    """RFC 5267 §6 cancelupdate."""
    tags: list[str] = []
    while at.took(b" "):
        tags.append(at.string().decode("ascii", "replace"))
        if len(tags) > TAGS_MAX:
            raise SyntaxRefused("too many tags", code="LIMIT")
    if not tags:
        raise at.fail("a tag")
    return CancelUpdate(tuple(tags))


def multi(at: Cursor) -> MultiSearch:
    """RFC 7377 §4 esearch: as UID SEARCH, in the mailboxes of IN (…)."""
    at.space()
    sources: list[tuple[str, tuple[str, ...]]] = []
    if at.peek_word() == "IN":
        at.word()
        at.need(b" (")
        while not sources or at.took(b" "):
            sources.append(_source(at))
            if len(sources) > SOURCES_MAX:
                raise SyntaxRefused("too many sources", code="LIMIT")
        at.need(b")")
        at.space()
    returns, partial = _returns(at)
    charset = ""
    if at.peek_word() == "CHARSET":
        at.word()
        at.space()
        charset = _charset(at)
        if charset not in CHARSETS:
            return MultiSearch(tuple(sources), Search(True, Key("ALL"), returns, charset))
        at.space()
    return MultiSearch(tuple(sources), Search(True, _criteria(at), returns, charset, partial))


def _source(at: Cursor) -> tuple[str, tuple[str, ...]]:
    word = at.word()
    if word in SOURCES:
        return word, ()
    if word not in NAMED_SOURCES:
        raise SyntaxRefused(f"no such source: {word}")
    at.space()
    return word, at.mailboxes()


def sort(at: Cursor, uid: bool) -> Sort:
    """RFC 5256 §5 sort, with RETURN (RFC 5267 §3)."""
    at.space()
    returns, partial = _returns(at)
    at.need(b"(")
    keys: list[SortKey] = []
    while not keys or at.took(b" "):
        word = at.word()
        reverse = word == "REVERSE"
        if reverse:
            at.space()
            word = at.word()
        if word not in SORT_WORDS or len(keys) >= SORT_KEYS_MAX:
            raise SyntaxRefused(f"cannot sort by {word}")
        keys.append(SortKey(word, reverse))
    at.need(b")")
    return Sort(tuple(keys), _in_charset(at, uid, returns, partial))


def thread(at: Cursor, uid: bool) -> Thread:
    """RFC 5256 §5 thread."""
    at.space()
    algorithm = at.word()
    if algorithm not in ALGORITHMS:
        raise SyntaxRefused(f"no such algorithm: {algorithm}")
    return Thread(algorithm, _in_charset(at, uid, None, None))


def _in_charset(at: Cursor, uid: bool, returns: frozenset[str] | None, partial: Partial | None) -> Search:
    """RFC 5256 §5 search-criteria: the charset must be there."""
    at.space()
    charset = _charset(at)
    if charset not in CHARSETS:
        return Search(uid, Key("ALL"), returns, charset)
    at.space()
    return Search(uid, _criteria(at), returns, charset, partial)


def _charset(at: Cursor) -> str:
    """RFC 9051 §6.4.4: the answer to an unknown one is NO with what is supported, so the command gives it, whatever follows."""
    charset = at.astring().decode("ascii", "replace").upper()
    if charset not in CHARSETS:
        at.at = len(at.data)
    return charset


def _criteria(at: Cursor) -> Key:
    reader = _Keys(at)
    keys = [reader.key(0)]
    while at.took(b" "):
        keys.append(reader.key(0))
    return keys[0] if len(keys) == 1 else Key("AND", keys=tuple(keys))


def _returns(at: Cursor) -> tuple[frozenset[str] | None, Partial | None]:
    if at.peek_word() != "RETURN":
        return None, None
    at.word()
    at.need(b" (")
    words: set[str] = set()
    partial: Partial | None = None
    while not at.took(b")"):
        if words:
            at.space()
        word = at.word()
        if word not in RETURNS:
            raise SyntaxRefused(f"no such RETURN option: {word}")
        if word == "PARTIAL":
            if partial is not None:
                raise SyntaxRefused("PARTIAL is said twice")  # RFC 9394 §3.1
            at.space()
            partial = at.partial()
        words.add(word)
    if {"PARTIAL", "ALL"} <= words:
        raise SyntaxRefused("PARTIAL and ALL exclude each other")  # RFC 9394 §3.1
    at.space()
    # RFC 4731 §3.1: an empty list is ALL
    return frozenset(words or ("ALL",)), partial


class _Keys:
    def __init__(self, at: Cursor) -> None:
        self.at, self.count = at, 0

    def key(self, depth: int) -> Key:
        at = self.at
        self.count += 1
        if self.count > KEYS_MAX or depth > NESTING_MAX:
            raise SyntaxRefused("the search is too deep or too long", code="LIMIT")
        if at.took(b"("):
            keys = [self.key(depth + 1)]
            while at.took(b" "):
                keys.append(self.key(depth + 1))
            at.need(b")")
            return keys[0] if len(keys) == 1 else Key("AND", keys=tuple(keys))
        if at.peek(b"$"):
            return Key("UID", messages=at.sequence_set())  # RFC 5182 §2.1: it names messages, by no number
        if at.peek(b"*") or at.peek_digit():
            return Key("SEQUENCE", messages=at.sequence_set())
        return self._worded(at.word(), depth)

    def _worded(self, word: str, depth: int) -> Key:
        at = self.at
        if word in FLAG_KEYS:
            return Key(word)
        at.space()
        if word in TEXT_KEYS:
            return Key(word, text=at.text().casefold())
        if word in DATE_KEYS:
            return Key(word, number=at.date())
        if word in NUMBER_KEYS:
            return Key(word, number=at.number64())
        if word in ID_KEYS:  # RFC 8474 §6
            return Key(word, text=at.atom().decode("ascii"))
        match word:
            case "KEYWORD" | "UNKEYWORD":
                return Key(word, text=at.atom().decode("ascii").lower())
            case "HEADER":
                field = at.astring()
                at.space()
                return Key(word, text=at.text().casefold(), field=field.lower())
            case "UID":
                return Key("UID", messages=at.sequence_set())
            case "MODSEQ":
                return Key("MODSEQ", number=self._modseq())
            case "NOT":
                return Key("NOT", keys=(self.key(depth + 1),))
            case "OR":
                first = self.key(depth + 1)
                at.space()
                return Key("OR", keys=(first, self.key(depth + 1)))
        raise SyntaxRefused(f"no such search key: {word}")

    def _modseq(self) -> int:
        """RFC 7162 §3.1.5: MODSEQ [entry-name entry-type] value. Flags share one MODSEQ here, so the entry says no more."""
        at = self.at
        if at.peek(b'"'):
            at.string()
            at.space()
            if at.word() not in ("PRIV", "SHARED", "ALL"):
                raise at.fail("priv, shared or all")
            at.space()
        return at.number64()
