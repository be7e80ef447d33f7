"""What a SASL exchange looks like on a wire of lines (RFC 4422): base64 both ways."""

import binascii
from collections.abc import Awaitable, Callable


class Cancelled(Exception):
    """The client sent "*" (RFC 9051 §6.2.2, RFC 5034 §4), or what is no base64; the text says which."""


def decoded(line: bytes) -> bytes:
    """Raises Cancelled."""
    if line == b"*":
        raise Cancelled("Cancelled.")
    if line == b"=":
        return b""  # an empty initial response (RFC 4959 §3, RFC 5034 §4)
    try:
        return binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error as error:
        raise Cancelled("That is no base64.") from error


async def answer(ask: Callable[[str], Awaitable[bytes]], challenge: str) -> bytes:
    """What the client says to a challenge. Raises Cancelled."""
    return decoded(await ask(binascii.b2a_base64(challenge.encode(), newline=False).decode()))
