"""The real world: the one place that asks the clock and the system's randomness."""

import os
import time


class SystemWorld:
    def now(self) -> float:
        return time.time()  # noqa: TID251

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def new_id(self) -> int:
        return (int.from_bytes(os.urandom(8), "big") >> 1) or 1

    def entropy(self, size: int) -> bytes:
        return os.urandom(size)
