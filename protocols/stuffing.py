"""A message's bytes → the bytes that go after DATA (RFC 5321 §4.5.2) and after RETR (RFC 1939 §3), over any pieces."""

import re

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class Stuffing:
    """Dots doubled at the start of lines; a bare CR or LF becomes CRLF, so that we smuggle nothing either (§2.3.8)."""

    def __init__(self) -> None:
        self._held = b""  # a CR whose LF may come in the next piece
        self._line_start = True

    def stuffed(self, piece: bytes) -> bytes:
        data = self._held + piece
        self._held = b""
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        return self._lines(data)

    def end(self) -> bytes:
        """What is left, a CRLF where the last line has none, and the end of the message."""
        rest = self._lines(b"\r\n" if self._held else b"")
        self._held = b""
        return rest + (b".\r\n" if self._line_start else b"\r\n.\r\n")

    def _lines(self, data: bytes) -> bytes:
        if not data:
            return b""
        pairs = data.count(b"\r\n")
        if not data.count(b"\n") == pairs == data.count(b"\r"):
            data = _BARE.sub(b"\r\n", data)
        out = data.replace(b"\n.", b"\n..")
        if self._line_start and out.startswith(b"."):
            out = b"." + out
        self._line_start = out.endswith(b"\n")
        return out
