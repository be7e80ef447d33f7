"""The door by which time and chance come in, so that a test may set the clock."""

from typing import Protocol


class World(Protocol):
    def now(self) -> float:
        """Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; never steps."""
        ...

    def new_id(self) -> int:
        """63 random bits, never 0."""
        ...

    def entropy(self, size: int) -> bytes: ...
