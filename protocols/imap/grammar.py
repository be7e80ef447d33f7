"""RFC 9051 §9 in small pieces: a cursor over one whole command (its literals in place) and the things read at it.

Every method reads what it is named for and moves on, or raises SyntaxRefused.
"""

import re

from cluster.domain.mailbox.events import SYSTEM_FLAGS, Ranges
from cluster.domain.mailbox.ranges import UID_MAX, normalise
from cluster.formats import mime
from protocols.imap import utf7
from protocols.imap.model import STAR, Partial, SequenceSet, SyntaxRefused

NUMBER64_MAX = (1 << 63) - 1
NUMBER32_MAX = (1 << 32) - 1
SET_PAIRS_MAX = 20_000
FLAGS_MAX = 128
MAILBOXES_MAX = 1000

_TAG = re.compile(rb'[^\x00-\x20(){%*"\\+\x7f-\xff]{1,256}')
_ATOM = re.compile(rb'[^\x00-\x20(){%*"\\\]\x7f-\xff]+')
_ASTRING = re.compile(rb'[^\x00-\x20(){%*"\\\x7f-\xff]+')
_LIST_MAILBOX = re.compile(rb'[^\x00-\x20(){"\\\x7f-\xff]+')
_QUOTED = re.compile(rb'"((?:[^"\\\r\n\x00]|\\["\\])*)"')
_LITERAL = re.compile(rb"(~?)\{(\d{1,20})\+?\}\r\n")
_NUMBER = re.compile(rb"\d{1,20}")
_WORD = re.compile(rb"[A-Za-z0-9.=+$-]+")
_SET = re.compile(rb"(?:\d{1,10}|\*)(?::(?:\d{1,10}|\*))?(?:,(?:\d{1,10}|\*)(?::(?:\d{1,10}|\*))?)*")
_SEQ_NUMBER = re.compile(rb"\d{1,10}|\*")
_PARTIAL = re.compile(rb"(\d{1,10}):(\d{1,10})|(-\d{1,10}):(-\d{1,10})")
_FLAG = re.compile(rb'\\?[^\x00-\x20(){%*"\\\]\x7f-\xff]+')
_UNQUOTE = re.compile(rb"\\(.)")
_DATE = re.compile(rb'"?(\d{1,2})-([A-Za-z]{3})-(\d{4})"?')


class Cursor:
    """`names_utf8`: how mailbox names are encoded now."""

    def __init__(self, data: bytes, names_utf8: bool = False) -> None:
        self.data, self.at, self.names_utf8 = data, 0, names_utf8

    def fail(self, wanted: str) -> SyntaxRefused:
        return SyntaxRefused(f"expected {wanted}")

    # -- signs ---------------------------------------------------------------------------------------------------------
    def peek(self, sign: bytes) -> bool:
        return self.data.startswith(sign, self.at)

    def took(self, sign: bytes) -> bool:
        if self.data.startswith(sign, self.at):
            self.at += len(sign)
            return True
        return False

    def need(self, sign: bytes) -> None:
        if not self.took(sign):
            raise self.fail(f"{sign.decode('ascii')!r}")

    def space(self) -> None:
        if not self.took(b" "):
            raise self.fail("a space")

    def end(self) -> None:
        while self.took(b" "):  # a blank at the end harms nobody
            pass
        if self.at != len(self.data):
            raise self.fail("the end of the command")

    @property
    def ended(self) -> bool:
        return self.at >= len(self.data)

    # -- words ---------------------------------------------------------------------------------------------------------
    def _token(self, pattern: "re.Pattern[bytes]", wanted: str) -> bytes:
        found = pattern.match(self.data, self.at)
        if found is None:
            raise self.fail(wanted)
        self.at = found.end()
        return found[0]

    def tag(self) -> str:
        return self._token(_TAG, "a tag").decode("ascii")

    def atom(self) -> bytes:
        return self._token(_ATOM, "an atom")

    def word(self) -> str:
        """A keyword of the language, in upper case."""
        return self._token(_WORD, "a word").decode("ascii").upper()

    def peek_word(self) -> str:
        found = _WORD.match(self.data, self.at)
        return found[0].decode("ascii").upper() if found else ""

    def string(self) -> bytes:
        """quoted / literal."""
        found = _QUOTED.match(self.data, self.at)
        if found is not None:
            self.at = found.end()
            if not found[1].isascii():
                _utf8_only(found[1])
            return _UNQUOTE.sub(rb"\1", found[1]) if b"\\" in found[1] else found[1]
        found = _LITERAL.match(self.data, self.at)
        if found is None:
            raise self.fail("a string")
        start = found.end()
        value = self.data[start : start + int(found[2])]
        self.at = start + len(value)
        if b"\0" in value and not found[1]:
            raise SyntaxRefused("a NUL in a literal")  # RFC 9051 §9: CHAR8 is any OCTET but NUL
        return value

    def astring(self) -> bytes:
        found = _ASTRING.match(self.data, self.at)
        if found is None:
            return self.string()
        self.at = found.end()
        return found[0]

    def nstring(self) -> bytes | None:
        if self.data[self.at : self.at + 3].upper() == b"NIL" and not _ATOM.match(self.data, self.at + 3):
            self.at += 3
            return None
        return self.string()

    def text(self) -> str:
        """An astring in UTF-8."""
        try:
            return self.astring().decode("utf-8")
        except UnicodeDecodeError as error:
            raise SyntaxRefused("the string is not UTF-8", code="BADCHARSET (US-ASCII UTF-8)") from error

    def peek_digit(self) -> bool:
        return self.data[self.at : self.at + 1].isdigit()

    # -- numbers -------------------------------------------------------------------------------------------------------
    def number(self, largest: int = NUMBER32_MAX) -> int:
        value = int(self._token(_NUMBER, "a number"))
        if value > largest:
            raise SyntaxRefused("the number is too large")
        return value

    def number64(self) -> int:
        return self.number(NUMBER64_MAX)

    def message_number(self) -> int:
        """RFC 9051 §9 seq-number; STAR for "*"."""
        return _set_number(self._token(_SEQ_NUMBER, "a message number"))

    def sequence_set(self) -> SequenceSet:
        if self.took(b"$"):
            return SequenceSet(saved=True)  # RFC 5182 §2.1
        pairs: list[tuple[int, int]] = []
        for piece in self._token(_SET, "a sequence set").split(b","):
            first, _, last = piece.partition(b":")
            low = _set_number(first)
            pairs.append((low, _set_number(last) if last else low))
        if len(pairs) > SET_PAIRS_MAX:
            raise SyntaxRefused("the sequence set is too long")
        return SequenceSet(tuple(pairs))

    def known_uids(self) -> Ranges:
        """RFC 7162 §7: a sequence-set without "*"."""
        asked = self.sequence_set()
        if asked.saved or any(STAR in pair for pair in asked.pairs):
            raise SyntaxRefused('"*" and "$" cannot stand here')
        return normalise(asked.pairs)

    def partial(self) -> Partial:
        """RFC 9394 §4 partial-range, in the order low, high, whichever way it was written."""
        found = _PARTIAL.match(self.data, self.at)
        if found is None:
            raise self.fail("a range of results")
        self.at = found.end()
        ends = sorted(int(end) for end in (found[1] or found[3], found[2] or found[4]))
        if any(not 1 <= abs(end) <= NUMBER32_MAX for end in ends):
            raise SyntaxRefused("results are counted from 1 to 4294967295")
        return ends[0], ends[1]

    # -- mailboxes, flags, dates -----------------------------------------------------------------------------------------
    def mailbox(self) -> str:
        return self._name(self.astring())

    def mailboxes(self) -> tuple[str, ...]:
        """RFC 5465 §8 one-or-more-mailbox."""
        if not self.took(b"("):
            return (self.mailbox(),)
        found: list[str] = []
        while not found or self.took(b" "):
            found.append(self.mailbox())
            if len(found) > MAILBOXES_MAX:
                raise SyntaxRefused("too many mailboxes", code="LIMIT")
        self.need(b")")
        return tuple(found)

    def list_mailbox(self) -> str:
        found = _LIST_MAILBOX.match(self.data, self.at)
        if found is None:
            return self._name(self.string())
        self.at = found.end()
        return self._name(found[0])

    def _name(self, raw: bytes) -> str:
        try:
            return utf7.decode(raw, self.names_utf8)
        except utf7.NameUndecodable as error:
            raise SyntaxRefused(str(error)) from error

    def flag_list(self) -> tuple[int, tuple[str, ...]]:
        self.need(b"(")
        if self.took(b")"):
            return 0, ()
        given = self.flags()
        self.need(b")")
        return given

    def flags(self) -> tuple[int, tuple[str, ...]]:
        """(bits, keywords) of one flag or several with blanks between."""
        bits, keywords = 0, []
        while True:
            name = self._token(_FLAG, "a flag").decode("ascii")
            if not name.startswith("\\"):
                keywords.append(name)
            elif (bit := _SYSTEM_FLAGS.get(name.lower())) is not None:
                bits |= bit
            else:
                raise SyntaxRefused(f"no such flag: {name}")
            if len(keywords) > FLAGS_MAX:
                raise SyntaxRefused("too many flags")
            if not self.took(b" "):
                return bits, tuple(keywords)

    def date(self) -> int:
        """Days since 1970-01-01."""
        found = _DATE.match(self.data, self.at)
        if found is None or found[0].startswith(b'"') != found[0].endswith(b'"'):
            raise self.fail("a date")
        self.at = found.end()
        moment = mime.parse_internaldate(b"%02d-%s-%s 00:00:00 +0000" % (int(found[1]), found[2], found[3]))
        if moment is None:
            raise SyntaxRefused("no such date")
        return moment[0] // 86_400

    def date_time(self) -> tuple[int, int]:
        """(unix seconds, zone in minutes east)."""
        found = _QUOTED.match(self.data, self.at)
        moment = mime.parse_internaldate(found[1]) if found else None
        if found is None or moment is None:
            raise self.fail("a date and time")
        self.at = found.end()
        return moment


# RFC 9051 §2.3.2. \Recent cannot be set; clients that copy flags send it along in APPEND and STORE, and mean no harm.
_SYSTEM_FLAGS = {name.lower(): bit for name, bit in SYSTEM_FLAGS.items()} | {"\\recent": 0}


def _utf8_only(quoted: bytes) -> None:
    """RFC 9755 §3: bytes above ASCII stand in a quoted string only as UTF-8. Raises SyntaxRefused."""
    try:
        quoted.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SyntaxRefused("a quoted string that is not UTF-8") from error


def _set_number(digits: bytes) -> int:
    if digits == b"*":
        return STAR
    value = int(digits)
    if not 1 <= value <= UID_MAX:  # RFC 9051 §9: nz-number
        raise SyntaxRefused("a message number is from 1 to 4294967295")
    return value
