"""The pure part of signing in: PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login), SCRAM-SHA-256 (RFC 5802, 7677)."""

import base64
import binascii
import hashlib
import hmac
from typing import NamedTuple

from protocols.port import ScramKeys
from protocols.smtp.model import SyntaxRefused

MECHANISMS = ("SCRAM-SHA-256", "PLAIN", "LOGIN")
NAME_CHARS_MAX = 320
PASSWORD_CHARS_MAX = 1024


class Password(NamedTuple):
    name: str
    password: str

    def __repr__(self) -> str:
        return "Password(…)"


def decoded(line: bytes) -> bytes:
    """Base64 as RFC 4954 §4 wants it. Raises SyntaxRefused."""
    try:
        return base64.b64decode(line, validate=True)
    except binascii.Error:
        raise SyntaxRefused("That is not base64") from None


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def plain(message: bytes) -> Password | None:
    """RFC 4616 §2: authzid NUL authcid NUL passwd. None where it asks to act for another. Raises SyntaxRefused."""
    parts = _text(message).split("\0")
    if len(parts) != 3:
        raise SyntaxRefused("PLAIN has three parts")
    acting_for, name, password = parts
    return password_of(name, password) if acting_for in ("", name) else None


def login(name: bytes, password: bytes) -> Password:
    """Raises SyntaxRefused."""
    return password_of(_text(name), _text(password))


def password_of(name: str, password: str) -> Password:
    if not name or not password or len(name) > NAME_CHARS_MAX or len(password) > PASSWORD_CHARS_MAX:
        raise SyntaxRefused("The name or the password is empty or too long")
    return Password(name, password)


def _text(message: bytes) -> str:
    try:
        return message.decode("utf-8")
    except UnicodeDecodeError:
        raise SyntaxRefused("Not UTF-8") from None


class ScramFirst(NamedTuple):
    """RFC 5802 §7: client-first-message. `header`: gs2-header, which the final message repeats."""

    name: str
    nonce: str
    header: str
    bare: str


def scram_first(message: bytes) -> ScramFirst:
    """Raises SyntaxRefused; channel binding is not offered, so a client that insists on it is refused (§6)."""
    text = _text(message)
    parts = text.split(",", 2)
    if len(parts) != 3 or parts[0] not in ("n", "y"):
        raise SyntaxRefused("That is no first message of SCRAM")
    bare = parts[2]
    fields = bare.split(",")
    # RFC 5802 §5.1: m= is a mandatory extension; we know none.
    if len(fields) < 2 or not fields[0].startswith("n=") or not fields[1].startswith("r=") or len(fields[1]) < 10:
        raise SyntaxRefused("That is no first message of SCRAM")
    name = _unescaped(fields[0][2:])
    if parts[1] and (not parts[1].startswith("a=") or _unescaped(parts[1][2:]) != name):
        raise SyntaxRefused("Nobody signs in for another here")
    return ScramFirst(name, fields[1][2:], f"{parts[0]},{parts[1]},", bare)


def _unescaped(name: str) -> str:
    """RFC 5802 §5.1: `=2C` is a comma, `=3D` an equals sign, and no other `=` may stand."""
    plain_name = name.replace("=2C", ",").replace("=3D", "=")
    if name.count("=") != name.count("=2C") + name.count("=3D") or not plain_name or len(name) > NAME_CHARS_MAX:
        raise SyntaxRefused("That is no name of SCRAM")
    return plain_name


def scram_challenge(first: ScramFirst, keys: ScramKeys, nonce: str) -> str:
    """RFC 5802 §5.1: server-first-message."""
    return f"r={first.nonce}{nonce},s={encoded(keys.salt)},i={keys.iterations}"


def scram_proved(first: ScramFirst, keys: ScramKeys, challenge: str, message: bytes) -> str | None:
    """RFC 5802 §3: server-final-message where the client knows the password, else None. Raises SyntaxRefused."""
    without_proof, found, proof_text = _text(message).rpartition(",p=")
    fields = without_proof.split(",")
    if not found or len(fields) < 2 or not fields[0].startswith("c=") or not fields[1].startswith("r="):
        raise SyntaxRefused("That is no final message of SCRAM")
    proof = decoded(proof_text.encode("utf-8"))
    if decoded(fields[0][2:].encode("utf-8")) != first.header.encode() or len(proof) != hashlib.sha256().digest_size:
        return None
    if fields[1] != challenge.split(",", 1)[0]:
        return None
    signed = f"{first.bare},{challenge},{without_proof}".encode()
    signature = hmac.digest(keys.stored_key, signed, "sha256")
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    if not hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key):
        return None
    return "v=" + encoded(hmac.digest(keys.server_key, signed, "sha256"))
