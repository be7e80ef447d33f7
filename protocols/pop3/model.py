"""The language's nouns: what the parser makes of bytes, and what the writer makes bytes of."""

from typing import NamedTuple


class SyntaxRefused(Exception):
    """These bytes are not this language. `fatal`: what follows cannot be told apart any more, so the line drops."""

    def __init__(self, text: str, fatal: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.fatal = fatal


class Request(NamedTuple):
    """A command line: its word in upper case; the rest as it came, without the blank between them (RFC 1939 §7: a blank in
    the argument of PASS is one of the password)."""

    word: str
    argument: bytes

    def __repr__(self) -> str:
        return f"Request({self.word} …)"  # it may be a password


class Line(NamedTuple):
    """A line that answers a challenge of SASL (RFC 5034 §4)."""

    data: bytes

    def __repr__(self) -> str:
        return "Line(…)"


class Reply(NamedTuple):
    """The first line of an answer. `code`: in brackets before the text (RFC 2449 §8), empty = none."""

    ok: bool
    text: str
    code: str = ""
