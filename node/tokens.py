"""The join token: one line of text that an operator carries to a new machine."""

import base64
import binascii

import msgspec

PREFIX = "angarium-join-1."
TOKEN_CHARS_MAX = 4096


class TokenRefused(Exception):
    """The text says why this is no token."""


class JoinToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`ca`: hex SHA-256 of the authority's certificate. `site` empty = any name. `expires_at`: unix seconds."""

    host: str
    port: int
    ca: str
    id: str
    secret: str
    site: str
    expires_at: float

    def __repr__(self) -> str:
        return f"JoinToken({self.host}:{self.port}, …)"


def written(token: JoinToken) -> str:
    return PREFIX + base64.urlsafe_b64encode(msgspec.msgpack.encode(token)).decode().rstrip("=")


def read(text: str) -> JoinToken:
    """Raises TokenRefused."""
    text = "".join(text.split())  # a terminal may have broken it
    if not text.startswith(PREFIX) or len(text) > TOKEN_CHARS_MAX:
        raise TokenRefused(f"this is not a join token: it begins with {PREFIX} and is made by `angarium cluster token`")
    coded = text.removeprefix(PREFIX)
    try:
        return msgspec.msgpack.decode(base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)), type=JoinToken)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise TokenRefused("the join token is damaged: copy the whole line") from None
