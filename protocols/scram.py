"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), the server's side, without I/O. The channel binding of -PLUS is
tls-server-end-point (RFC 5929 §4): the server's certificate, hashed.

Written here: the library's server object asks for keys by a blocking callback in mid-exchange, and this is forty lines.
"""

import binascii
import hashlib
import hmac
import re

import msgspec

from protocols.port import ScramKeys

NAME_BYTES_MAX = 1024

END_POINT = "tls-server-end-point"

_FIRST = re.compile(r"([ny]|p=[A-Za-z0-9.-]+),(?:a=([^,]*))?,(n=([^,]+),r=([\x21-\x2b\x2d-\x7e]+)(?:,.*)?)\Z", re.DOTALL)
_FINAL = re.compile(r"(c=([A-Za-z0-9+/=]+),r=([\x21-\x2b\x2d-\x7e]+)(?:,(?!p=)[^,]*)*),p=([A-Za-z0-9+/=]+)\Z", re.DOTALL)


class ScramRefused(Exception):
    """The client's message is no SCRAM."""


class ClientFirst(msgspec.Struct, frozen=True):
    """`header`: gs2-header, to be repeated in the final message, with `binding` behind it. `bare`:
    client-first-message-bare."""

    header: str
    name: str
    authorize: str
    nonce: str
    bare: str
    binding: bytes = b""


def client_first(data: bytes, end_point: bytes = b"", *, plus: bool = False) -> ClientFirst:
    """`end_point`: what the channel is bound to, of a server that offers -PLUS on it; empty = it does not. `plus`: the
    mechanism is -PLUS. Raises ScramRefused."""
    if len(data) > NAME_BYTES_MAX * 2:
        raise ScramRefused("too long")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ScramRefused("not UTF-8") from error
    found = _FIRST.match(text)
    if found is None:
        # RFC 5802 §5: "m=" asks for an extension that nobody knows
        raise ScramRefused("malformed")
    flag = found[1]
    if flag.startswith("p=") is not plus:
        raise ScramRefused("channel binding goes with -PLUS")  # RFC 5802 §6
    if flag == "y" and end_point:
        # RFC 5802 §6: the client would bind and thinks that we cannot: somebody has taken -PLUS from our list
        raise ScramRefused("channel binding is offered here, and was hidden from the client")
    if plus and (flag != f"p={END_POINT}" or not end_point):
        raise ScramRefused("no such channel binding")
    header = text[: found.start(3)]
    return ClientFirst(header, _name(found[4]), _name(found[2] or ""), found[5], found[3], end_point if plus else b"")


def _name(text: str) -> str:
    """RFC 5802 §5.1: "," and "=" ride as =2C and =3D."""
    if re.search("=(?!2C|3D)", text):
        raise ScramRefused("a stray '='")
    return text.replace("=2C", ",").replace("=3D", "=")


def server_first(first: ClientFirst, keys: ScramKeys, nonce: bytes) -> str:
    """`nonce`: fresh random bytes of ours."""
    salt = binascii.b2a_base64(keys.salt, newline=False).decode()
    ours = binascii.b2a_base64(nonce, newline=False).decode().replace("=", "").replace(",", "")
    return f"r={first.nonce}{ours},s={salt},i={keys.iterations}"


def server_final(first: ClientFirst, challenge: str, keys: ScramKeys, data: bytes) -> str | None:
    """`v=…` if the client knows the password, else None. Raises ScramRefused."""
    try:
        found = _FINAL.match(data.decode("utf-8"))
        if found is None:
            raise ScramRefused("malformed")
        binding, proof = binascii.a2b_base64(found[2]), binascii.a2b_base64(found[4])
    except (UnicodeDecodeError, binascii.Error) as error:
        raise ScramRefused("malformed") from error
    nonce = challenge[2:].partition(",")[0]
    # RFC 5802 §5: the nonce and the gs2-header are what was agreed on, or somebody stands between
    if not hmac.compare_digest(found[3].encode(), nonce.encode()) or binding != first.header.encode() + first.binding:
        raise ScramRefused("not the nonce or the binding that was agreed on")
    message = f"{first.bare},{challenge},{found[1]}".encode()
    signature = hmac.digest(keys.stored_key, message, "sha256")
    if len(proof) != len(signature):
        return None
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    if not hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key) or keys.account is None:
        return None
    verifier = hmac.digest(keys.server_key, message, "sha256")
    return "v=" + binascii.b2a_base64(verifier, newline=False).decode()
