"""Three whole sites hold what they promise, whatever a seed does to them. Half of CI's seeds; the other half lies in a file of
its own, so that two workers play them beside each other."""

import os
import subprocess
import sys

import pytest

from tests.live import REPOSITORY
from tests.sim.seeds import HALF_SEEDS, spread


@pytest.mark.timeout(900)
def test_every_seed_holds() -> None:
    told = spread(0, HALF_SEEDS, jobs=1)
    print(told)
    assert not told.broken, str(told)
    assert told.acknowledged > 5 * HALF_SEEDS, "clients hardly hear OK: what does this prove?"


def test_a_seed_is_played_twice_alike() -> None:
    def trace(hashes: str) -> str:
        environment = {**os.environ, "SEED": "5", "PYTHONHASHSEED": hashes}
        done = subprocess.run(
            (sys.executable, "-m", "tests.sim"), env=environment, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE
        )
        return done.stdout.decode()

    first, second = trace("1"), trace("2")
    assert first == second
    assert "hears OK" in first
