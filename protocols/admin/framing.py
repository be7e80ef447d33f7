"""A body of several messages, read as it comes: a line of JSON for each, and then its bytes."""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from protocols.admin.moving import LINE_BYTES_MAX, PIECE_S_MAX, Announced

_decoder = msgspec.json.Decoder(Announced)


class Malformed(Exception):
    """The body is not what was agreed. The text is for people."""


class Frames:
    """`announced`, then the pieces of that message by `pieces`, to the end; and so on until `announced` gives None."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = bytearray()
        self._left = 0

    async def announced(self) -> Announced | None:
        """Raises Malformed."""
        assert self._left == 0, "the message before was not read to its end"
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > LINE_BYTES_MAX:
                raise Malformed(f"a line of more than {LINE_BYTES_MAX} bytes where a message should be announced")
            if not await self._more():
                if self._buffer:
                    raise Malformed("the body ends in the middle of a line")
                return None
        try:
            found = _decoder.decode(bytes(self._buffer[:end]))
        except msgspec.MsgspecError as error:
            raise Malformed(f"no message is announced by this line: {error}") from None
        del self._buffer[: end + 1]
        self._left = found.size
        return found

    async def pieces(self) -> AsyncIterator[bytes]:
        """Raises Malformed."""
        while self._left:
            if not self._buffer and not await self._more():
                raise Malformed(f"the body ends {self._left} bytes before the message does")
            piece = bytes(self._buffer[: self._left])
            del self._buffer[: len(piece)]
            self._left -= len(piece)
            yield piece

    async def _more(self) -> bool:
        try:
            chunk = await asyncio.wait_for(anext(self._chunks, None), PIECE_S_MAX)
        except TimeoutError:
            raise Malformed(f"nothing of the body came for {PIECE_S_MAX:.0f} s") from None
        if chunk is None:
            return False
        self._buffer += chunk
        return True
