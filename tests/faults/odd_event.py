"""A worker that writes one event which nobody can read, its own site neither."""

import msgspec

from cluster import codec
from cluster.domain.actor import Actor
from node.worker import main

POISON = b"that is poison"

_real = codec.encode


def _encode(event: msgspec.Struct, *, at_us: int, by: Actor, command: bytes, n: int = 0, cause: bytes = b"") -> bytes:
    payload = _real(event, at_us=at_us, by=by, command=command, n=n, cause=cause)
    return b"\xc1" + payload if POISON in payload else payload


if __name__ == "__main__":
    codec.encode = _encode
    main()
