"""The language's nouns. What the parser makes of bytes, and what the writer makes bytes of."""

from enum import Enum
from typing import NamedTuple

import msgspec


class SyntaxRefused(Exception):
    """These bytes are not this language. `fatal`: what follows cannot be told apart any more, so the line drops."""

    def __init__(self, text: str, fatal: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.fatal = fatal


class Role(Enum):
    MX = "mx"
    SUBMISSION = "submission"
    SUBMISSIONS = "submissions"
    LMTP = "lmtp"

    @property
    def signs_in(self) -> bool:
        return self in (Role.SUBMISSION, Role.SUBMISSIONS)


class Command(NamedTuple):
    """A command line: its first word in upper case, the rest without surrounding blanks."""

    verb: str
    argument: bytes


class Answer(NamedTuple):
    """A line that answers a 334 challenge (RFC 4954 §4)."""

    line: bytes


class Piece(NamedTuple):
    """A piece of a message, dots unstuffed; may be empty. `clean`: every CR and LF in it belongs to a CRLF."""

    data: bytes
    last: bool
    clean: bool


Request = Command | Answer | Piece


class Reply(NamedTuple):
    """`enhanced` is empty where RFC 2034 §3 wants none. Every line is printable ASCII, or UTF-8 where asked for."""

    code: int
    enhanced: str
    lines: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        return self.code < 400


class Path(msgspec.Struct, frozen=True):
    """A reverse-path or forward-path (RFC 5321 §4.1.2), unquoted. Both empty: the null reverse-path `<>`. An empty
    domain alone: `<Postmaster>`."""

    local: str
    domain: str

    @property
    def null(self) -> bool:
        return not self.local and not self.domain

    @property
    def ascii(self) -> bool:
        return self.local.isascii() and self.domain.isascii()
