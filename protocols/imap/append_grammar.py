"""APPEND and REPLACE as they come, line by line (RFC 9051 §6.3.12, RFC 3502, RFC 4469 §5, RFC 8508 §5). The parser drives it."""

import re

from protocols.imap.grammar import Cursor
from protocols.imap.model import Incoming, IncomingDone, NeedMore, Parsed, SyntaxRefused, UrlPart

PARTS_MAX = 1_000  # of one message put together by CATENATE
URL_BYTES_MAX = 4 * 1024

LITERAL_END = re.compile(rb"(~?)\{(\d{1,20})(\+?)\}\Z")

NO_KEYWORDS: tuple[str, ...] = ()


class Append:
    """One APPEND or REPLACE on its way. `at`: where its line is read, None = behind a literal that ended it. `left`: of that
    literal. `offered`: the session has not said yet whether it wants the message. `largest`: of a text that CATENATE puts
    in, in bytes."""

    def __init__(self, tag: str, mailbox: str, replaces: tuple[bool, int] | None, at: Cursor, largest: int) -> None:
        self.tag, self.mailbox, self.replaces = tag, mailbox, replaces
        self._largest = largest
        self.at: Cursor | None = at
        self.left = self._size = self._count = self._parts = 0
        self.offered = self.refused = self.over = False
        self.url: bytearray | None = None
        self._waiting = self._wrapped = False
        self._step = self._head

    def step(self, at: Cursor) -> Parsed | None:
        """One thing of the line; None = look again. Raises SyntaxRefused."""
        return self._step(at)

    def accept(self) -> None:
        self.left, self._size, self.offered = self._size, 0, False

    def refuse(self) -> None:
        """If the client waits, the command is over; else what it sends is thrown away."""
        self.refused, self.offered = True, False
        self.left, self._size = 0 if self._waiting else self._size, 0
        self.over = self._waiting

    # -- what may stand there ----------------------------------------------------------------------------------------------
    def _head(self, at: Cursor) -> Parsed | None:
        """[flags SP] [date SP], then a literal, UTF8 (literal8) of RFC 6855 §4, or CATENATE (…).

        RFC 9755 §B.1 has no UTF8 item any more: clients written before it say it still."""
        bits, keywords, internal = 0, NO_KEYWORDS, None
        if at.peek(b"("):
            bits, keywords = at.flag_list()
            at.space()
        if at.peek(b'"'):
            internal = at.date_time()
            at.space()
        self._count += 1
        first, binary = self._count == 1, False
        self._waiting, self._size, self._parts = False, 0, 0
        catenated = at.peek_word() == "CATENATE"
        if catenated:
            at.word()
            at.need(b" (")
            self._step = self._part
        else:
            binary = self._literal(at)
            self._step = self._behind
        size, waiting = self._size, self._waiting
        head = Incoming(self.tag, self.mailbox, size, waiting, bits, keywords, internal, first, binary, catenated, self.replaces)
        self.offered = True
        if not self.refused:
            return head
        self.refuse()
        return None

    def _part(self, at: Cursor) -> Parsed | None:
        """RFC 4469 §5 cat-part, or the end of the list."""
        self._unwrap(at)
        if self._parts and at.took(b")"):
            self._step = self._behind
            return None
        if self._parts:
            at.space()
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise SyntaxRefused("too many parts", code="LIMIT")
        word = at.peek_word()
        if word == "URL":
            at.word()
            at.space()
            found = LITERAL_END.match(at.data, at.at)
            if found is None:
                url = at.astring()
                return None if self.refused else UrlPart(_url(url))
            if int(found[2]) > URL_BYTES_MAX:
                raise SyntaxRefused("the URL is too long", code="TOOBIG")
            self.url = bytearray()
        elif word == "TEXT":
            at.word()
            at.space()
        elif word != "UTF8":
            raise at.fail("URL or TEXT")
        self._literal(at)
        return self._started()

    def _behind(self, at: Cursor) -> Parsed | None:
        """Nothing, or the next message (RFC 3502)."""
        self._unwrap(at)
        spaces = 0
        while at.took(b" "):
            spaces += 1  # imapclient 4.1 sends two between the messages of RFC 3502
        if at.ended or not spaces:
            at.end()
            return IncomingDone(self.tag)
        if self.replaces is not None:
            raise SyntaxRefused("one message replaces one")  # RFC 8508 §4.7
        self._step = self._head
        return None

    # -- literals ----------------------------------------------------------------------------------------------------------
    def _literal(self, at: Cursor) -> bool:
        """The mark of a literal, which ends the line. True where it may hold what a literal may not (RFC 3516 §4.4)."""
        if at.peek_word() == "UTF8":
            at.word()
            at.need(b" (")
            if not at.peek(b"~"):
                raise at.fail("a literal8")
            self._wrapped = True
        found = LITERAL_END.match(at.data, at.at)
        if found is None:
            raise at.fail("the message as a literal")
        self._size, self._waiting, self.at = int(found[2]), not found[3], None
        return bool(found[1])

    def _started(self) -> NeedMore | None:
        """A literal within a message that is wanted begins at once; RFC 7888 §4: with "+" the client does not wait."""
        if self._size > self._largest:
            raise SyntaxRefused("the text is too large", code="TOOBIG")  # RFC 4469 §4.2
        self.left, self._size = self._size, 0
        if not self._waiting:
            return None
        if self.refused:
            self.left, self.over = 0, True
            return None
        return NeedMore(invite=True)

    def _unwrap(self, at: Cursor) -> None:
        if self._wrapped:
            at.need(b")")
            self._wrapped = False

    def take_url(self) -> UrlPart | None:
        """The URL that came as a literal, when it is whole."""
        assert self.url is not None
        url, self.url = bytes(self.url), None
        return None if self.refused else UrlPart(_url(url))


def _url(raw: bytes) -> str:
    """Raises SyntaxRefused."""
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError as error:
        raise SyntaxRefused("a URL is ASCII") from error  # RFC 3986 §2
