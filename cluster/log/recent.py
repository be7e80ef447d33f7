"""What this process's own appender wrote lately, so that followers in the same process need not ask the engine for it.

Holds only what is durable. Whoever finds nothing here reads the stream; both say the same.
"""

from collections import deque
from collections.abc import Sequence

from cluster.log.engine import Kept, Message

RECENT_BYTES_MAX = 8 << 20
TOGETHER_MAX = 400  # messages given at once; a single larger batch goes whole


class Recent:
    """Batches of one stream, each following on the one before."""

    def __init__(self) -> None:
        self._stream = ""
        self._batches: deque[tuple[list[Kept], int]] = deque()  # and their size in bytes
        self._bytes = 0

    def add(self, stream: str, first: int, messages: Sequence[Message]) -> None:
        """`first`: the sequence of the first of them."""
        kept = [Kept(at, message.subject, message.headers, message.data) for at, message in enumerate(messages, first)]
        if stream != self._stream or (self._batches and self._batches[-1][0][-1].sequence != first - 1):
            self.clear()
        if not kept:
            return
        self._stream = stream
        size = sum(len(message.data) for message in messages)
        self._batches.append((kept, size))
        self._bytes += size
        while self._bytes > RECENT_BYTES_MAX:
            self._bytes -= self._batches.popleft()[1]

    def after(self, stream: str, sequence: int) -> list[Kept]:
        """Some messages from `sequence` on, in order and without a gap; empty if that is not held."""
        if stream != self._stream:
            return []
        newer: list[list[Kept]] = []
        for kept, _ in reversed(self._batches):
            if kept[0].sequence <= sequence:
                # Together: whoever lags behind takes larger steps, and so comes nearer.
                found = kept[sequence - kept[0].sequence :]
                while newer and len(found) < TOGETHER_MAX:
                    found = found + newer.pop()
                return found
            newer.append(kept)
        return []

    def forget(self, sequence: int) -> None:
        """Batches that begin at or below it."""
        while self._batches and self._batches[0][0][0].sequence <= sequence:
            self._bytes -= self._batches.popleft()[1]

    def clear(self) -> None:
        self._batches.clear()
        self._bytes = 0
