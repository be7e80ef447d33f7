"""`make sim`: plays SEEDS seeds (500) from FROM on (0), spread over processes; `SEED=n make sim` replays one and prints its
trace. Every seed is one world (world/world.py); the first broken invariant ends it."""

import os
import sys

from tests.sim.seeds import played_here, spread
from tests.sim.world.world import played

JOBS = os.cpu_count() or 1


def replay(seed: int) -> bool:
    world = played(seed)
    print("\n".join(world.lines))
    for each in world.violations:
        print(f"seed {seed}: {each}")
    print(f"seed {seed}: {world.acknowledged} commands acknowledged in {world.loop.time():.0f} s of its own time")
    return not world.violations


if len(sys.argv) == 4:
    played_here(*(int(each) for each in sys.argv[1:]))
elif "SEED" in os.environ:
    sys.exit(not replay(int(os.environ["SEED"])))
else:
    told = spread(int(os.environ.get("FROM", "0")), int(os.environ.get("SEEDS", "500")), JOBS)
    print(told)
    sys.exit(bool(told.broken))
