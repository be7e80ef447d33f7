"""Which partitions could not be written a moment ago, so that not everybody who comes waits for the same silence."""

from collections.abc import Callable

from cluster.domain.refusal import Reason, Refusal

AWAY_S = 5.0  # so long nobody asks again


class Reach:
    """One a process. `monotonic`: seconds that only rise."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._failed_at: dict[str, float] = {}

    def is_away(self, partition: str) -> bool:
        failed_at = self._failed_at.get(partition)
        return failed_at is not None and self._monotonic() - failed_at < AWAY_S

    def failed(self, partition: str) -> None:
        """Nobody took the append in time. Whether it is in the log is not known."""
        self._failed_at[partition] = self._monotonic()

    def answered(self, partition: str) -> None:
        self._failed_at.pop(partition, None)


def out_of_reach(partition: str) -> Refusal:
    """What is for it may wait in a queue. The partition is named in `detail`."""
    return Refusal(Reason.UNAVAILABLE, f"{partition} cannot be written from here now; try again later.", (partition,))


def is_out_of_reach(refusal: Refusal) -> bool:
    return refusal.reason is Reason.UNAVAILABLE and bool(refusal.detail)
