"""Bytes → requests. Owns its buffer and never sees a socket. Any split of the bytes gives the same requests (only a
message's pieces are cut where the bytes came in); any bytes at all raise nothing but SyntaxRefused.

After an answer that changes what comes next, the session says so: `expect_data`, `expect_chunk`, `expect_answer`.
"""

from enum import Enum

from protocols.smtp.model import Answer, Command, Piece, Request, SyntaxRefused

COMMAND_BYTES_MAX = 2048  # RFC 5321 §4.5.3.1.4: 512, and what SIZE, BODY, SMTPUTF8 and AUTH= add to it
LINE_BYTES_MAX = 12288  # RFC 4954 §4: of AUTH's initial response and answers
RUNAWAY_BYTES_MAX = 1 << 20  # of one line, thrown away until its end is met; then the line drops
END_OF_DATA = b"\r\n.\r\n"


class Mode(Enum):
    COMMAND = 0
    ANSWER = 1
    DATA = 2
    CHUNK = 3


class LineEnds:
    """Whether every CR and LF belongs to a CRLF, over pieces that may be cut between the two."""

    def __init__(self) -> None:
        self._after_cr = False

    def clean(self, data: bytes, last: bool) -> bool:
        """False if this piece shows a bare CR or LF."""
        if not data:
            return not (last and self._after_cr)
        feeds, returns = data.count(b"\n"), data.count(b"\r")
        if not feeds and not returns:
            bare, self._after_cr = self._after_cr, False
            return not bare
        pairs = data.count(b"\r\n")
        if self._after_cr:
            if data[0] != 0x0A:
                return False
            feeds -= 1
        self._after_cr = data[-1] == 0x0D
        if self._after_cr:
            if last:
                return False
            returns -= 1
        return feeds == pairs == returns


class Parser:
    def __init__(self) -> None:
        self._buffer = bytearray()
        self._mode = Mode.COMMAND
        self._searched = 0  # so far there is no LF in the buffer
        self._thrown_away = 0  # bytes of a line that is too long
        self._fresh = True  # nothing of the message has been passed on: it stands at the start of a line
        self._left = 0
        self._ends = LineEnds()
        self._last_chunk = False

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def expect_data(self) -> None:
        """A message follows, up to <CRLF>.<CRLF>."""
        self._mode, self._fresh = Mode.DATA, True

    def expect_chunk(self, size: int, first: bool, last: bool) -> None:
        """`size` bytes follow (RFC 3030 §2), the message's first or last ones."""
        self._mode, self._left, self._last_chunk = Mode.CHUNK, size, last
        if first:
            self._ends = LineEnds()

    def expect_answer(self) -> None:
        self._mode = Mode.ANSWER

    def next(self) -> Request | None:
        """None = more bytes are needed. Raises SyntaxRefused; the refused line is consumed."""
        if self._mode is Mode.DATA:
            return self._data()
        if self._mode is Mode.CHUNK:
            return self._chunk()
        return self._line()

    def _line(self) -> Command | Answer | None:
        buffer = self._buffer
        end = buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(buffer)
            self._throw_away_runaway()
            return None
        line = bytes(buffer[: end + 1])
        del buffer[: end + 1]
        length, self._searched, self._thrown_away = len(line) + self._thrown_away, 0, 0
        mode, self._mode = self._mode, Mode.COMMAND
        if length > RUNAWAY_BYTES_MAX:
            raise SyntaxRefused("Line too long", fatal=True)
        if length > LINE_BYTES_MAX + 2:
            raise SyntaxRefused("Line too long")
        # RFC 5321 §2.3.8: CR and LF come as CRLF only.
        if not line.endswith(b"\r\n") or line.find(b"\r") != length - 2:
            raise SyntaxRefused("Lines end with CRLF; a bare CR or LF is refused")
        if mode is Mode.ANSWER:
            return Answer(line[:-2])
        word, _, rest = line[:-2].partition(b" ")
        verb = word.rstrip(b"\t").upper()
        if length > COMMAND_BYTES_MAX + 2 and verb != b"AUTH":
            raise SyntaxRefused("Line too long")
        if not verb.isalpha():
            raise SyntaxRefused("Command not recognised")
        return Command(verb.decode("ascii"), rest.strip(b" \t"))

    def _throw_away_runaway(self) -> None:
        """Keeps a line without end from filling the memory. Raises SyntaxRefused (fatal) when it goes on for ever."""
        length = len(self._buffer)
        if length > LINE_BYTES_MAX + 2:
            self._thrown_away += length - 1
            del self._buffer[: length - 1]  # the last byte may be the CR of its CRLF
            self._searched = 1
            if self._thrown_away > RUNAWAY_BYTES_MAX:
                raise SyntaxRefused("Line too long", fatal=True)

    def _data(self) -> Piece | None:
        buffer = self._buffer
        if self._fresh:
            start = bytes(buffer[:3])
            if start == b".\r\n":
                del buffer[:3]
                self._mode = Mode.COMMAND
                return Piece(b"", True, True)
            if b".\r\n".startswith(start):
                return None
            if start[0] == 0x2E:
                del buffer[:1]  # RFC 5321 §4.5.2: a leading dot is stuffing
            self._fresh = False
        # RFC 5321 §4.1.1.4: only <CRLF>.<CRLF> ends a message; anything alike is content, and refused after the end.
        end = buffer.find(END_OF_DATA)
        if end >= 0:
            data = bytes(buffer[: end + 2])
            del buffer[: end + 5]
            self._mode = Mode.COMMAND
        else:
            ready = len(buffer) - _undecided(buffer)
            if ready <= 0:
                return None
            data = bytes(buffer[:ready])
            del buffer[:ready]
        # A piece is never cut inside a CRLF: a CR at the end is undecided.
        pairs = data.count(b"\r\n")
        clean = data.count(b"\n") == pairs == data.count(b"\r")
        if b"\r\n." in data:
            data = data.replace(b"\r\n.", b"\r\n")
        return Piece(data, end >= 0, clean)

    def _chunk(self) -> Piece | None:
        size = min(self._left, len(self._buffer))
        if not size and self._left:
            return None
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._left -= size
        last = not self._left
        if last:
            self._mode = Mode.COMMAND
        return Piece(data, last, self._ends.clean(data, last and self._last_chunk))


def _undecided(buffer: bytearray) -> int:
    """How many bytes at the end may be the start of an end of data."""
    for size in (4, 3, 2, 1):
        if buffer.endswith(END_OF_DATA[:size]):
            return size
    return 0
