"""COMPRESS=DEFLATE (RFC 4978): both directions of one session, in little memory.

What the client may refer back to is 32 KiB, which is its choice; zlib takes it only as it is filled. Our own window is 4 KiB,
and a compressor lives only while it is handed one flush of answers: that ends on a whole byte, and a new compressor refers to
nothing before it, so that to the client it is one stream (RFC 1951 §2). What is inflated comes in pieces of bounded size: who
sends zeros that grow a thousandfold is read no faster than anybody else.
"""

import zlib

INFLATED_BYTES_MAX = 64 * 1024
WINDOW_BITS = 12  # with MEMORY_LEVEL: 38 KB while an answer is squeezed; the defaults take 268
MEMORY_LEVEL = 5
LEVEL = 3  # 256 KiB in about 4 ms
CLIENT_WINDOW_BITS = 15


class DeflateBroken(Exception):
    """These bytes are no deflated stream."""


class Deflate:
    def __init__(self) -> None:
        self._in = zlib.decompressobj(-CLIENT_WINDOW_BITS)

    @property
    def waiting(self) -> bool:
        """More is to be inflated of what came."""
        return bool(self._in.unconsumed_tail)

    @property
    def ended(self) -> bool:
        """The client has said its last in this stream."""
        return self._in.eof

    @property
    def behind(self) -> bytes:
        """What came behind the end of the client's stream."""
        return self._in.unused_data

    def inflate(self, data: bytes = b"") -> bytes:
        """At most INFLATED_BYTES_MAX; the rest is `waiting`. Raises DeflateBroken."""
        try:
            return self._in.decompress(self._in.unconsumed_tail + data, INFLATED_BYTES_MAX)
        except zlib.error as error:
            raise DeflateBroken(str(error)) from error

    def deflate(self, data: bytes) -> bytes:
        """All of it, so that the client can read to the end."""
        out = _compressor()
        return out.compress(data) + out.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        """The end of our stream, by which the client knows where it is plain again."""
        return _compressor().flush(zlib.Z_FINISH)


def _compressor() -> "zlib._Compress":
    return zlib.compressobj(LEVEL, zlib.DEFLATED, -WINDOW_BITS, MEMORY_LEVEL)
