"""Bytes → requests. Owns its buffer and never sees a socket. Any split of the bytes gives the same requests; any bytes at
all raise nothing but SyntaxRefused.
"""

import re

from protocols.pop3.model import Line, Request, SyntaxRefused

COMMAND_BYTES_MAX = 255  # RFC 2449 §4: with its CRLF
ANSWER_BYTES_MAX = 12288  # RFC 5034 §4: the limit of commands is not one of SASL's answers; RFC 4954 §4 gives a figure
AUTH = b"AUTH "
RUNAWAY_BYTES_MAX = 1 << 20  # of one line, thrown away until its end is met; then the line drops

_COMMAND = re.compile(rb"([A-Za-z0-9-]{1,16})(?: (.*))?", re.DOTALL)


class Parser:
    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0  # so far there is no LF in the buffer
        self._thrown_away = 0  # bytes of a line that is too long
        self._answer = False

    def feed(self, data: bytes) -> None:
        self._buffer += data

    @property
    def empty(self) -> bool:
        return not self._buffer and not self._thrown_away

    def take_rest(self) -> bytes:
        """What was sent ahead of the command that is answered now, for somebody else to read."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return rest

    def expect_answer(self) -> None:
        """The next line answers a challenge."""
        self._answer = True

    def next(self) -> Request | Line | None:
        """None = more bytes are needed. Raises SyntaxRefused."""
        # RFC 5034 §4 would have a long initial response sent as an answer; programs that were written by the description of XOAUTH2
        # send it with AUTH, and tokens are long.
        long = self._answer or self._buffer[: len(AUTH)].upper() == AUTH
        limit = ANSWER_BYTES_MAX if long else COMMAND_BYTES_MAX
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            if self._thrown_away or len(self._buffer) > limit:
                self._throw_away(len(self._buffer))
            return None
        whole = end + 1
        if self._thrown_away or whole > limit:
            self._throw_away(whole)
            self._thrown_away, self._answer = 0, False
            raise SyntaxRefused("The line is too long.")
        # A bare LF ends a line as well: nothing in a line of this language could make two readers of it disagree.
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[:whole]
        self._searched = 0
        if self._answer:
            self._answer = False
            return Line(line)
        found = _COMMAND.fullmatch(line)
        if found is None or b"\0" in line:
            raise SyntaxRefused("That is no command.")
        return Request(found[1].decode("ascii").upper(), found[2] or b"")

    def _throw_away(self, size: int) -> None:
        del self._buffer[:size]
        self._searched = 0
        self._thrown_away += size
        if self._thrown_away > RUNAWAY_BYTES_MAX:
            raise SyntaxRefused("The line does not end.", fatal=True)
