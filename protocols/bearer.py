"""Tokens instead of passwords on the wire, without I/O: OAUTHBEARER (RFC 7628) and XOAUTH2, the form of it that Google and Microsoft
document and that clients knew first."""

import re
from typing import NamedTuple

import msgspec

from protocols.port import TokensTaken

TOKEN_BYTES_MAX = 8192  # as SASL's lines allow; those with many groups in them have some 4,000
NAME_CHARS_MAX = 320
INVALID, SCOPE = "invalid_token", "insufficient_scope"  # RFC 6750 §3.1

# RFC 7628 §3.1: gs2-header kvsep *kvpair kvsep; of channel binding there is none
_OAUTHBEARER = re.compile(rb"[ny],(?:a=([^,\x00\x01]*))?,\x01((?:[A-Za-z]+=[^\x00\x01]*\x01)*)\x01", re.DOTALL)
_XOAUTH2 = re.compile(rb"user=([^\x00\x01]*)\x01((?:[A-Za-z]+=[^\x00\x01]*\x01)*)\x01", re.DOTALL)
# RFC 6750 §2.1: b64token. Nothing behind the word: the client asks what it needs (RFC 7628 §4.3).
_BEARER = re.compile(rb"(?:bearer +([A-Za-z0-9._~+/-]+=*))?", re.IGNORECASE)


class BearerRefused(Exception):
    """The client's message is none of this mechanism."""


class Given(NamedTuple):
    """`address`: whom the client wants to be, empty = whom the token names. `token` empty: none."""

    address: str
    token: str

    def __repr__(self) -> str:
        return f"Given({self.address!r}, …)"


def oauthbearer(message: bytes) -> Given:
    """RFC 7628 §3.1. Raises BearerRefused."""
    found = _OAUTHBEARER.fullmatch(message)
    if found is None:
        raise BearerRefused("malformed")
    name = _name(found[1] or b"")
    if re.search("=(?!2C|3D)", name):
        raise BearerRefused("a stray '='")  # RFC 5801 §4: saslname
    return Given(name.replace("=2C", ",").replace("=3D", "="), _token(found[2]))


def xoauth2(message: bytes) -> Given:
    """Raises BearerRefused."""
    found = _XOAUTH2.fullmatch(message)
    if found is None or not found[1]:
        raise BearerRefused("malformed")
    return Given(_name(found[1]), _token(found[2]))


def challenge(taken: TokensTaken, status: str) -> str:
    """RFC 7628 §3.2.2: why it failed, and what token would do."""
    told = {"status": status}
    if taken.scope:
        told["scope"] = taken.scope
    if taken.discovery:
        told["openid-configuration"] = taken.discovery
    return msgspec.json.encode(told).decode()


def old_challenge(taken: TokensTaken, status: str) -> str:
    """As clients of XOAUTH2 expect it: a status of HTTP."""
    return msgspec.json.encode(
        {"status": "403" if status == SCOPE else "401", "schemes": "Bearer", "scope": taken.scope}
    ).decode()


def _name(given: bytes) -> str:
    try:
        name = given.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BearerRefused("not UTF-8") from error
    if len(name) > NAME_CHARS_MAX:
        raise BearerRefused("the name is too long")
    return name


def _token(pairs: bytes) -> str:
    """RFC 7628 §3.1: of the pairs only `auth` says who it is; host, port and the rest are the client's."""
    values = [value for key, _, value in (pair.partition(b"=") for pair in pairs.split(b"\x01")) if key.lower() == b"auth"]
    found = _BEARER.fullmatch(values[0]) if len(values) == 1 and len(values[0]) <= TOKEN_BYTES_MAX else None
    if found is None:
        raise BearerRefused("not one token of the scheme Bearer")
    return (found[1] or b"").decode("ascii")
