"""Keys by which a site's engine proves who it is to the others' (nats nkeys): Ed25519, Base32 with a prefix and a CRC-16.
A page of arithmetic, so no package; the engine reads and checks them.
"""

import base64

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SEED, USER = 18 << 3, 20 << 3  # print as S and U


def make() -> tuple[str, str]:
    """(seed, which is secret, public key)."""
    key = Ed25519PrivateKey.generate()
    raw = serialization.Encoding.Raw
    seed = key.private_bytes(raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
    public = key.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
    # Of a seed the kind is told beside its own prefix: five bits of each byte.
    return _text(bytes([SEED | USER >> 5, (USER & 31) << 3]) + seed), _text(bytes([USER]) + public)


def valid(public: str) -> bool:
    """Whether this is a user's public key."""
    try:
        raw = base64.b32decode(public + "=" * (-len(public) % 8))
    except ValueError:
        return False
    return len(raw) == 35 and raw[0] == USER and raw[-2:] == _crc16(raw[:-2])


def _text(raw: bytes) -> str:
    return base64.b32encode(raw + _crc16(raw)).decode().rstrip("=")


def _crc16(data: bytes) -> bytes:
    """CRC-16/XMODEM, least byte first."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc.to_bytes(2, "little")
