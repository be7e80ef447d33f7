"""Each planted bug is found within some seeds. Whoever changes the world's faults looks for new ones to begin with."""

import pytest

from tests.sim.planted import PLANTS, planted
from tests.sim.world.world import played

SEEDS_MAX = 60


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    with planted(name) as plant:
        for seed in range(plant.seed, plant.seed + SEEDS_MAX):
            world = played(seed, plant.stress)
            if world.violations and world.violations[0].invariant in plant.caught_by:
                return
    raise AssertionError(f"{SEEDS_MAX} seeds and nobody noticed")
