"""The worker of a machine whose clock is two hours ahead of everybody's."""

import time

from node.worker import main
from node.world import SystemWorld

AHEAD_S = 7200.0


def _now(self: SystemWorld) -> float:
    return time.time() + AHEAD_S  # noqa: TID251


if __name__ == "__main__":
    SystemWorld.now = _now  # type: ignore[method-assign]
    main()
