"""Mailbox names on the wire: the modified UTF-7 of RFC 3501 §5.1.3, and UTF-8 where the client enabled it."""

import binascii
import re

_SHIFTED = re.compile(r"&([A-Za-z0-9+,]*)-")
_UNSAFE = re.compile(r"&|[^\x20-\x7e]+")


class NameUndecodable(ValueError):
    """The bytes are no mailbox name in the encoding that is in force."""


def decode(name: bytes, utf8: bool = False) -> str:
    """Raises NameUndecodable."""
    try:
        if utf8 or not name.isascii():
            # RFC 9051 §5.1: Net-Unicode, that is UTF-8; RFC 9755 §3: taken also of who has not asked for it in answers
            return name.decode("utf-8")
        text = name.decode("ascii")
    except UnicodeDecodeError as error:
        raise NameUndecodable("the mailbox name is not in the encoding in force") from error
    if "&" not in text:
        return text
    if "&" in _SHIFTED.sub("", text):
        raise NameUndecodable("'&' without its '-' in modified UTF-7")
    return _SHIFTED.sub(_unshift, text)


def _unshift(found: "re.Match[str]") -> str:
    encoded = found[1]
    if not encoded:
        return "&"  # RFC 3501 §5.1.3: "&-" is "&"
    try:
        data = binascii.a2b_base64(encoded.replace(",", "/") + "=" * (-len(encoded) % 4))
        return data.decode("utf-16-be")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise NameUndecodable("malformed modified UTF-7") from error


def encode(name: str, utf8: bool = False) -> bytes:
    """Never raises for a name of the domain (no lone surrogates)."""
    if utf8:
        return name.encode("utf-8")
    return _UNSAFE.sub(_shift, name).encode("ascii")


def _shift(found: "re.Match[str]") -> str:
    text = found[0]
    if text == "&":
        return "&-"
    return "&" + binascii.b2a_base64(text.encode("utf-16-be"), newline=False).decode().rstrip("=").replace("/", ",") + "-"
