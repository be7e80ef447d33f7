"""The arguments of MAIL and RCPT (RFC 5321 §4.1.2, §4.1.1.11), of EHLO (§4.1.1.1) and of BDAT (RFC 3030 §2)."""

import ipaddress
import re

from protocols.smtp.model import Path, SyntaxRefused

ADDRESS_OCTETS_MAX = 320  # RFC 5321 §4.5.3.1.1–2: a local part of 64, a domain of 255
HELLO_OCTETS_MAX = 255
CHUNK_DIGITS_MAX = 12

_ATEXT = r"[0-9A-Za-z!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]"
_DOT_STRING = rf"{_ATEXT}+(?:\.{_ATEXT}+)*"
_QUOTED = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e\u0080-\U0010ffff]|\\[\x20-\x7e])*"'
# Underscores are no part of a domain by RFC 5321 §2.3.5; hosts that have one are met all the same.
_LABEL = r"[0-9A-Za-z_\u0080-\U0010ffff](?:[0-9A-Za-z_\-\u0080-\U0010ffff]*[0-9A-Za-z_\u0080-\U0010ffff])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_LITERAL = r"\[[\x21-\x5a\x5e-\x7e]+\]"
_ROUTE = rf"(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?"

_DOT_STRING_ONLY = re.compile(_DOT_STRING)
_PATH = re.compile(rf"<{_ROUTE}(?P<local>{_DOT_STRING}|{_QUOTED})@(?P<domain>{_DOMAIN}|{_LITERAL})>")
_POSTMASTER = re.compile(r"<postmaster>", re.IGNORECASE)
_PAIR = re.compile(r"\\(.)")
# RFC 5321 §4.1.2: esmtp-param = esmtp-keyword ["=" esmtp-value]
_PARAMETER = re.compile(r"([0-9A-Za-z][0-9A-Za-z\-]*)(?:=([\x21-\x3c\x3e-\x7e\u0080-\U0010ffff]+))?")

Parameters = dict[str, str | None]


def reverse_path(argument: bytes) -> tuple[Path, Parameters]:
    """`FROM:<path> parameters`. Raises SyntaxRefused."""
    text = _after(argument, "FROM:")
    if text.startswith("<>"):
        return Path("", ""), _parameters(text[2:])
    path, rest = _path(text)
    return path, _parameters(rest)


def forward_path(argument: bytes) -> tuple[Path, Parameters]:
    """`TO:<path> parameters`, and `<Postmaster>` without a domain (§4.1.1.3). Raises SyntaxRefused."""
    text = _after(argument, "TO:")
    if found := _POSTMASTER.match(text):
        return Path("postmaster", ""), _parameters(text[found.end() :])
    path, rest = _path(text)
    return path, _parameters(rest)


def _after(argument: bytes, word: str) -> str:
    try:
        text = argument.decode("utf-8")
    except UnicodeDecodeError:
        raise SyntaxRefused("Not UTF-8") from None
    if text[: len(word)].upper() != word:
        raise SyntaxRefused(f"Say {word}<address>")
    return text[len(word) :].lstrip(" ")  # a blank here is wrong (§3.3), common, and plain


def _path(text: str) -> tuple[Path, str]:
    found = _PATH.match(text)
    if found is None:
        raise SyntaxRefused("That is no address in angle brackets")
    local, domain = found["local"], found["domain"]
    if len(local.encode()) + 1 + len(domain.encode()) > ADDRESS_OCTETS_MAX:
        raise SyntaxRefused("The address is too long")
    if local[0] == '"':
        local = _PAIR.sub(r"\1", local[1:-1])
        if not local:
            raise SyntaxRefused("The local part is empty")
    if domain[0] == "[":
        _check_literal(domain[1:-1])
    # RFC 5321 Appendix C: a source route is accepted and ignored.
    return Path(local, domain), text[found.end() :]


def _check_literal(literal: str) -> None:
    """RFC 5321 §4.1.3. General literals are none that we know a meaning of."""
    try:
        if literal[:5].upper() == "IPV6:":
            ipaddress.IPv6Address(literal[5:])
        else:
            ipaddress.IPv4Address(literal)
    except ValueError:
        raise SyntaxRefused("That is no address literal") from None


def _parameters(text: str) -> Parameters:
    if not text:
        return {}
    if text[0] != " ":
        raise SyntaxRefused("A blank is missing after the address")
    found: Parameters = {}
    for word in text.split(" "):
        if not word:
            continue
        match = _PARAMETER.fullmatch(word)
        if match is None or match[1].upper() in found:
            raise SyntaxRefused("The parameters are not valid")
        found[match[1].upper()] = match[2]
    return found


def written_address(path: Path) -> str:
    """As RFC 5321 §4.1.2 writes it: the local part quoted only where it must be. Empty for the null path."""
    if path.null:
        return ""
    local = path.local
    if not _DOT_STRING_ONLY.fullmatch(local):
        local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{local}@{path.domain}" if path.domain else local


def hello(argument: bytes) -> str:
    """The name by which a client greets. It is not checked against anything (§4.1.4), only kept printable, as it goes
    into trace fields. Raises SyntaxRefused."""
    name = argument.split(b" ", 1)[0]
    if not name or len(name) > HELLO_OCTETS_MAX:
        raise SyntaxRefused("Say your name")
    try:
        text = name.decode("ascii")
    except UnicodeDecodeError:
        raise SyntaxRefused("That is no name of a host") from None
    if not text.isprintable() or any(char in text for char in '()<>\\";,@'):
        raise SyntaxRefused("That is no name of a host")
    return text


def chunk(argument: bytes) -> tuple[int, bool]:
    """`size [LAST]`. Raises SyntaxRefused, fatal: nobody knows how many bytes follow."""
    size, _, last = argument.partition(b" ")
    if not size.isdigit() or len(size) > CHUNK_DIGITS_MAX or last.strip().upper() not in (b"", b"LAST"):
        raise SyntaxRefused("Say BDAT size [LAST]", fatal=True)
    return int(size), bool(last)
