"""Search criteria (RFC 9051 §6.4.4 and §9 search-key; RFC 5032, 7162, 8474, 8514 for the words they add)."""

from protocols.imap.grammar import Cursor
from protocols.imap.model import Key, Search, SyntaxRefused

KEYS_MAX = 500
NESTING_MAX = 120  # a client that looks for many Message-IDs nests as many ORs
CHARSETS = frozenset(("UTF-8", "US-ASCII"))
RETURNS = frozenset(("MIN", "MAX", "ALL", "COUNT", "SAVE"))

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
    returns: frozenset[str] | None = None
    if at.peek_word() == "RETURN":
        at.word()
        returns = _returns(at)
        at.space()
    charset = ""
    if at.peek_word() == "CHARSET":
        at.word()
        at.space()
        charset = at.astring().decode("ascii", "replace").upper()
        if charset not in CHARSETS:
            # RFC 9051 §6.4.4: the answer is NO with what is supported, so the command gives it, whatever follows
            at.at = len(at.data)
            return Search(uid, Key("ALL"), returns, charset)
        at.space()
    reader = _Keys(at)
    keys = [reader.key(0)]
    while at.took(b" "):
        keys.append(reader.key(0))
    return Search(uid, keys[0] if len(keys) == 1 else Key("AND", keys=tuple(keys)), returns, charset)


def _returns(at: Cursor) -> frozenset[str]:
    at.need(b" (")
    words: set[str] = set()
    while not at.took(b")"):
        if words:
            at.space()
        word = at.word()
        if word not in RETURNS:
            raise SyntaxRefused(f"no such RETURN option: {word}")
        words.add(word)
    # RFC 4731 §3.1: an empty list is ALL
    return frozenset(words or ("ALL",))


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
        if at.peek(b"$") or at.peek(b"*") or at.peek_digit():
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
