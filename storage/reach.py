"""Which partitions could not be written a moment ago, so that not everybody who comes waits for the same silence."""

from collections.abc import Callable

from cluster.domain.refusal import Reason, Refusal

AWAY_S = 5.0  # so long nobody asks again
UNHEARD_S = 60.0  # so long if nobody is heard who leads it


class Reach:
    """One a process. `monotonic`: seconds that only rise. `is_led`: whether somebody is heard who leads a partition."""

    def __init__(self, monotonic: Callable[[], float], is_led: Callable[[str], bool] = lambda _: True) -> None:
        self._monotonic = monotonic
        self.is_led = is_led
        self._failed_at: dict[str, float] = {}

    def is_away(self, partition: str) -> bool:
        failed_at = self._failed_at.get(partition)
        if failed_at is None:
            return False
        since = self._monotonic() - failed_at
        return since < AWAY_S or (since < UNHEARD_S and not self.is_led(partition))

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
