"""The beginning of a message for TOP (RFC 1939 §7): its header, the empty line, and so many lines of its body. Pure."""


class Beginning:
    """Over pieces in which every line ends with CRLF, and none is cut between CR and LF (as Stuffing gives them)."""

    def __init__(self, lines: int) -> None:
        self.done = False
        self._left = lines
        self._header = True
        self._line_start = True

    def of(self, piece: bytes) -> bytes:
        """What of this piece belongs to it; nothing any more once it is `done`."""
        start = 0
        if self._header:
            start = self._body_start(piece)
            self._line_start = piece.endswith(b"\n") if piece else self._line_start
            if start < 0:
                return piece
            self._header = False
        count = piece.count(b"\n", start)
        if count < self._left:
            self._left -= count
            return piece
        self.done = True
        end = start
        for _ in range(self._left):
            end = piece.index(b"\n", end) + 1
        return piece[:end]

    def _body_start(self, piece: bytes) -> int:
        """-1 = the header goes on beyond this piece."""
        if self._line_start and piece.startswith(b"\r\n"):
            return 2
        found = piece.find(b"\r\n\r\n")
        return found + 4 if found >= 0 else -1
