"""Address lists of RFC 5322 §3.4 with the obsolete forms of §4.4, as the ENVELOPE of RFC 9051 §7.5.2 shows them.

Any bytes are read to something: RFC 6532 addresses, and what agents write instead of addresses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from cluster.formats.mime.model import ADDRESSES_MAX, Address

_TOKENS = re.compile(
    rb'([ \t\r\n]+)|"([^"\\]*(?:\\.[^"\\]*)*)(?:"|\\?\Z)|([<>,;:@])|(\[[^\[\]]*\]|[^ \t\r\n"<>,;:@(]+)|(.)', re.DOTALL
)
_WORD = rb'([^\s"\\<>,;:@()\[\]]+)'
_PLAIN = re.compile(
    rb'(?:(?:"([^"\\]*)"[ \t]*|([^"\\<>,;:@()\[\]]*))<' + _WORD + b"@" + _WORD + b">|" + _WORD + b"@" + _WORD + rb")\Z"
)
_NOT_PLAIN = re.compile(rb'["(\\:;\[]')
_PARENTHESIS = re.compile(rb"\\.|[()]", re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\x80-\U0010ffff]"  # RFC 5322 §3.2.3, RFC 6532 §3.2
_DOT_ATOM = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*\Z")

GROUP_END = Address(None, None, None, None)


class _Token(NamedTuple):
    kind: str  # "w" atom, quoted string or domain literal; "c" comment; else the special itself
    text: bytes
    spaced: bool  # white space stood before it


def parse_addresses(value: str | bytes) -> tuple[Address, ...]:
    """All addresses of a From, To… value, groups as their two markers; at most ADDRESSES_MAX."""
    if isinstance(value, str):
        value = value.encode("utf-8", "replace")
    if not value:
        return ()
    value = value.replace(b"\0", b"")
    if plain := _plain_addresses(value):
        return plain
    reader = _Reader()
    for token in _tokens(value):
        reader.take(token)
        if len(reader.found) >= ADDRESSES_MAX - 2:
            break
    return reader.finish()


def _plain_addresses(value: bytes) -> tuple[Address, ...]:
    """The short way for lists that hold nothing special, as nearly all do; empty when it does not lead there."""
    pieces = [value] if _NOT_PLAIN.search(value) else value.split(b",", ADDRESSES_MAX)
    if len(pieces) > ADDRESSES_MAX:
        return ()
    out: list[Address] = []
    for piece in pieces:
        found = _PLAIN.match(piece.strip(b" \t\r\n"))
        if found is None:
            return ()
        quoted, bare, mailbox, host, lone_mailbox, lone_host = found.groups()
        if lone_host:
            out.append(Address(None, None, lone_mailbox, lone_host))
        else:
            out.append(Address((quoted or bare or b"").strip() or None, None, mailbox, host))
    return tuple(out)


def parse_address(value: str | bytes) -> Address | None:
    """The first real mailbox of a value, as of From; `None` when there is none with a domain."""
    return next(iter(mailboxes(parse_addresses(value))), None)


def mailboxes(addresses: Sequence[Address]) -> tuple[Address, ...]:
    """Only those that mail can be sent to: no group markers, nothing without mailbox or domain."""
    return tuple(address for address in addresses if address.host and address.mailbox)


def addr_spec(address: Address) -> str:
    """``local@domain`` as text, the local part quoted where RFC 5322 §3.4.1 wants it."""
    local = (address.mailbox or b"").decode("utf-8", "replace")
    host = (address.host or b"").decode("utf-8", "replace")
    if not _DOT_ATOM.match(local):
        local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{local}@{host}" if host else local


def _tokens(value: bytes) -> list[_Token]:
    out: list[_Token] = []
    at, spaced, deaf = 0, False, False  # deaf: an unclosed comment was found, so no later one closes
    while found := _TOKENS.match(value, at):
        at = found.end()
        match found.lastindex:
            case 1:
                spaced = True
                continue
            case 2:
                text = found[2]
                out.append(_Token("w", _QUOTED_PAIR.sub(rb"\1", text) if b"\\" in text else text, spaced))
            case 3:
                out.append(_Token(found[3].decode("ascii"), found[3], spaced))
            case 4:
                out.append(_Token("w", found[4], spaced))
            case _:
                end = 0 if found[5] != b"(" or deaf else _comment_end(value, at)
                if end:
                    out.append(_Token("c", _QUOTED_PAIR.sub(rb"\1", value[at : end - 1]), spaced))
                    at = end
                elif found[5] == b"(":
                    deaf = True
                    out.append(_Token("w", b"(", spaced))
        spaced = False
    return out


def _comment_end(value: bytes, at: int) -> int:
    """The offset behind the parenthesis that closes the comment (comments nest, RFC 5322 §3.2.2), 0 if none does."""
    depth = 1
    for found in _PARENTHESIS.finditer(value, at):
        if found[0] == b"(":
            depth += 1
        elif found[0] == b")":
            depth -= 1
            if depth == 0:
                return found.end()
    return 0


def _phrase(tokens: Sequence[_Token]) -> bytes:
    out = b"".join((b" " if token.spaced else b"") + token.text for token in tokens)
    return out.strip()


def _joined(tokens: Sequence[_Token]) -> bytes:
    """A local part or domain: blanks around dots are obsolete syntax and go (RFC 5322 §4.4)."""
    out: list[bytes] = []
    for token in tokens:
        if token.spaced and out and not out[-1].endswith(b".") and not token.text.startswith(b"."):
            out.append(b" ")
        out.append(token.text)
    return b"".join(out)


class _Reader:
    """Takes tokens one by one and finds the addresses in them."""

    def __init__(self) -> None:
        self.found: list[Address] = []
        self.words: list[_Token] = []
        self.angle: list[_Token] | None = None
        self.in_angle = False
        self.comment: bytes | None = None
        self.in_group = False

    def take(self, token: _Token) -> None:
        if token.kind == "c":
            self.comment = self.comment or token.text.strip()
        elif self.in_angle:
            if token.kind == ">":
                self.in_angle = False
            elif token.kind == "," and not (self.angle and self.angle[0].kind == "@"):
                self.flush()  # never closed: only a source route holds commas
            elif self.angle is not None and token.kind != "<":
                self.angle.append(token)
        elif token.kind == "<":
            self.in_angle = True
            self.angle = [] if self.angle is None else self.angle
        elif token.kind == "," or token.kind == ";":
            self.flush()
            if token.kind == ";" and self.in_group:
                self.in_group = False
                self.found.append(GROUP_END)
        elif token.kind == ":" and not self.in_group and self.angle is None:
            # RFC 9051 §7.5.2: a NIL host with a mailbox starts a group
            self.found.append(Address(None, None, _phrase(self.words), None))
            self.in_group, self.words, self.comment = True, [], None
        elif token.kind != ">" and self.angle is None:
            self.words.append(token)

    def flush(self) -> None:
        words, angle, comment = self.words, self.angle, self.comment
        self.words, self.angle, self.comment, self.in_angle = [], None, None, False
        if angle is not None:
            name = _phrase(words) or comment or None
            adl: bytes | None = None
            if angle and angle[0].kind == "@":  # RFC 5322 §4.4: obs-route
                cut = next((i for i, token in enumerate(angle) if token.kind == ":"), -1)
                if cut > 0:
                    adl, angle = b"".join(token.text for token in angle[:cut]), angle[cut + 1 :]
            if angle or name:
                self.found.append(_address(name, adl, angle))
        elif words:
            self.found.append(_address(comment or None, None, words))

    def finish(self) -> tuple[Address, ...]:
        self.flush()
        if self.in_group:
            self.found.append(GROUP_END)
        return tuple(self.found)


def _address(name: bytes | None, adl: bytes | None, spec: list[_Token]) -> Address:
    at = next((i for i in range(len(spec) - 1, -1, -1) if spec[i].kind == "@"), -1)
    if at < 0:
        return Address(name, adl, _joined(spec), b"")
    return Address(name, adl, _joined(spec[:at]), _joined(spec[at + 1 :]).replace(b" ", b""))
