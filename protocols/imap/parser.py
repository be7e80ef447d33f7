"""Bytes → requests. Owns its buffer, knows no socket; any split of the bytes gives the same values.

`feed(data)`, then `next()` until it says NeedMore. Ordinary commands come whole, as a Request. An APPEND comes as
Incoming (answer by `accept` or `refuse`), Pieces and UrlParts of its message, perhaps more Incoming (RFC 3502), and
IncomingDone; so does a REPLACE.
After AUTHENTICATE and IDLE the session asks for bare lines by `expect_line`. Raises SyntaxRefused and nothing else;
afterwards the parser stands behind the refused command and goes on.
"""

import re

import msgspec

from protocols.imap.append_grammar import LITERAL_END, Append
from protocols.imap.arguments import ARGUMENTS
from protocols.imap.grammar import Cursor
from protocols.imap.model import IncomingDone, Line, NeedMore, Nothing, Parsed, Piece, Request, SyntaxRefused

PIECE_BYTES_MAX = 64 * 1024
TAG_BYTES_MAX = 256
LITERALS_MAX = 1000  # of one command
LITERAL_TOTAL_FACTOR = 4  # all literals of a command may together be so many times the largest

_TAGGED = rb'[^\x00-\x20(){%*"\\+\x7f-\xff]{1,256}'
_APPEND = re.compile(_TAGGED + rb" +(?:APPEND|(?:UID +)?REPLACE +(?:\d{1,10}|\*)) ", re.IGNORECASE)
_WITHOUT_LITERAL = re.compile(rb" CATENATE \(", re.IGNORECASE)
_TAG = re.compile(b"(" + _TAGGED + b") ")


class Limits(msgspec.Struct, frozen=True):
    """`discard_bytes_max`: the longest literal without a pause (LITERAL+) that is read and thrown away; beyond it, goodbye."""

    line_bytes_max: int = 64 * 1024
    literal_bytes_max: int = 64 * 1024
    discard_bytes_max: int = 256 * 1024 * 1024


class Parser:
    def __init__(self, limits: Limits | None = None) -> None:
        self.names_utf8 = False
        self._limits = limits or Limits()
        self._buffer = bytearray()
        self._scanned = 0  # of the buffer, without a line feed
        self._command = bytearray()  # what came of the command before the buffer
        self._literals = 0
        self._literal_bytes = 0
        self._left = 0  # of the literal being read
        self._skipping = False  # the rest of a line that was too long
        self._discarding: SyntaxRefused | None = None
        self._line_expected = False
        self._append: Append | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        self._buffer += data

    @property
    def empty(self) -> bool:
        """Nothing was sent ahead (after STARTTLS nothing may be)."""
        return not self._buffer and not self._command

    def take_rest(self) -> bytes:
        """What was sent ahead of the command that is answered now, for somebody else to read."""
        rest = bytes(self._command + self._buffer)
        self._command.clear()
        self._drop(len(self._buffer))
        return rest

    def expect_line(self) -> None:
        """The next line is no command."""
        self._line_expected = True

    def next(self) -> Parsed:
        while True:
            if self._append is not None:
                value = self._next_of_append(self._append)
                if value is None:
                    continue
                return value
            if self._left:
                if not self._take_literal():
                    return NeedMore()
                if self._discarding is not None:
                    continue
            line = self._take_line()
            if line is None:
                return NeedMore()
            if self._line_expected:
                self._line_expected = False
                return Line(line)
            answer = self._take_command_line(line)
            if answer is not None:
                return answer

    # -- ordinary commands -----------------------------------------------------------------------------------------------
    def _take_line(self) -> bytes | None:
        """One line without its end. A lone LF ends it as well: people type into terminals."""
        while True:
            end = self._buffer.find(b"\n", self._scanned)
            if self._skipping:
                self._drop(end + 1 if end >= 0 else len(self._buffer))
                if end < 0:
                    return None
                self._skipping = False
                continue
            size = (end if end >= 0 else len(self._buffer)) + len(self._command) - self._literal_bytes
            if size > self._limits.line_bytes_max:
                # No further than what has surely come by now, so that the split of the bytes makes no difference.
                start = (self._command[:TAG_BYTES_MAX] + self._buffer[:TAG_BYTES_MAX])[: self._limits.line_bytes_max]
                tag = _tag_of(start)
                self._skipping, self._line_expected = True, False
                self._reset()
                raise SyntaxRefused("the line is too long", tag=tag, code="TOOBIG")
            if end < 0:
                self._scanned = len(self._buffer)
                return None
            line = bytes(self._buffer[:end])
            self._drop(end + 1)
            return line.removesuffix(b"\r")

    def _take_command_line(self, line: bytes) -> Parsed | None:
        found = LITERAL_END.search(line)
        if self._discarding is not None:
            self._discard_on(self._discarding, found)
            return None
        self._command += line
        if found is None:
            if _WITHOUT_LITERAL.search(self._command) and _APPEND.match(self._command) and self._start_append(None):
                return None
            command = bytes(self._command)
            self._reset()
            return self._request(command) if command else None
        size, waiting = int(found[2]), not found[3]
        if _APPEND.match(self._command) and self._start_append(found):
            return None
        self._literals += 1
        self._literal_bytes += size + 2
        total = self._limits.literal_bytes_max * LITERAL_TOTAL_FACTOR
        if size > self._limits.literal_bytes_max or self._literal_bytes > total or self._literals > LITERALS_MAX:
            refused = SyntaxRefused("the literal is too long", tag=_tag_of(self._command), code="TOOBIG")
            self._reset()
            self._refuse_literal(refused, size, waiting)
            return None
        self._command += b"\r\n"
        self._left = size
        # RFC 7888 §4: with "+" the client sends on without waiting
        return NeedMore(invite=True) if waiting else None

    def _request(self, command: bytes) -> Request:
        at = Cursor(command, self.names_utf8)
        tag = ""
        try:
            tag = at.tag()
            at.space()
            word = at.word()
            if word == "UID":
                at.space()
                word = "UID " + at.word()
            read = ARGUMENTS.get(word)
            if read is None:
                raise SyntaxRefused(f"no such command: {word[:40]}")
            arguments = read(at)
            if isinstance(arguments, Nothing) and not at.ended:
                raise SyntaxRefused(f"{word} takes no arguments")
            at.end()
        except SyntaxRefused as refused:
            refused.tag = tag
            raise
        return Request(tag, word, arguments)

    # -- literals that are not wanted ------------------------------------------------------------------------------------
    def _refuse_literal(self, refused: SyntaxRefused, size: int, waiting: bool) -> None:
        """With a pause the client sends nothing and the command is over; else its bytes are read and thrown away."""
        if waiting:
            raise refused
        if size > self._limits.discard_bytes_max:
            refused.closing = True  # RFC 7888 §4: such a client is better cut off
            raise refused
        self._discarding, self._left = refused, size

    def _discard_on(self, refused: SyntaxRefused, found: "re.Match[bytes] | None") -> None:
        """A literal that is thrown away is over; `found`: the line behind it ends in another."""
        self._discarding = None
        if found is None:
            raise refused
        self._refuse_literal(refused, int(found[2]), waiting=not found[3])

    def _take_literal(self) -> bool:
        """True when the literal is whole."""
        size = min(self._left, len(self._buffer))
        if self._discarding is None:
            self._command += self._buffer[:size]
        self._drop(size)
        self._left -= size
        return not self._left

    def _drop(self, size: int) -> None:
        del self._buffer[:size]
        self._scanned = 0

    def _reset(self) -> None:
        self._command.clear()
        self._literals = self._literal_bytes = 0

    # -- APPEND -----------------------------------------------------------------------------------------------------------
    def _start_append(self, found: "re.Match[bytes] | None") -> bool:
        """The command is an APPEND or REPLACE, as far as it has come; False: its literal, if it ends in one, is the mailbox's
        name. Raises SyntaxRefused."""
        at = Cursor(bytes(self._command), self.names_utf8)
        tag = at.tag()
        try:
            word = _word(at)
            uid = word == "UID"
            if uid:
                word = _word(at)
            replaces = None
            if word == "REPLACE":
                while at.took(b" "):
                    pass
                replaces = (uid, at.message_number())
            at.space()
            if LITERAL_END.match(at.data, at.at):
                return False
            mailbox = at.mailbox()
            at.space()
        except SyntaxRefused as refused:
            refused.tag = tag
            self._reset()
            self._discard_on(refused, found)
            return True
        self._reset()
        self._append = Append(tag, mailbox, replaces, at, self._limits.discard_bytes_max)
        return True

    def accept(self) -> None:
        """The Incoming just given is wanted. If it was `waiting`, the session sends "+" now."""
        assert self._append is not None
        self._append.accept()

    def refuse(self) -> None:
        """It is not: if the client waits, the command is over; else what it sends is thrown away."""
        assert self._append is not None
        self._append.refuse()

    def _next_of_append(self, append: Append) -> Parsed | None:
        """None: look again."""
        assert not append.offered, "accept or refuse first"
        if append.refused and append.left > self._limits.discard_bytes_max:
            self._append = None
            raise SyntaxRefused("the message is too large", tag=append.tag, closing=True, code="TOOBIG")
        while append.left:
            if not self._buffer:
                return NeedMore()
            data = bytes(self._buffer[: min(append.left, PIECE_BYTES_MAX)])
            self._drop(len(data))
            append.left -= len(data)
            if append.url is not None:
                append.url += data
            elif not append.refused:
                return Piece(data)
        if append.over:
            self._append = None
            return IncomingDone(append.tag)
        at = append.at
        try:
            if append.url is not None:
                return append.take_url()
            if at is None:
                line = self._take_line()
                if line is None:
                    return NeedMore()
                at = append.at = Cursor(line, self.names_utf8)
            value = append.step(at)
        except SyntaxRefused as refused:
            self._append, refused.tag = None, append.tag
            if at is not None:
                self._discard_on(refused, LITERAL_END.search(at.data))
                return None
            raise
        if isinstance(value, IncomingDone):
            self._append = None
        return value


def _word(at: Cursor) -> str:
    while at.took(b" "):
        pass
    return at.word()


def _tag_of(command: bytes | bytearray) -> str:
    found = _TAG.match(command)
    return found[1].decode("ascii") if found else ""
