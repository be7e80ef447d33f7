"""The other half of CI's seeds: test_sim.py."""

import pytest

from tests.sim.seeds import HALF_SEEDS, spread


@pytest.mark.timeout(900)
def test_every_further_seed_holds() -> None:
    told = spread(HALF_SEEDS, HALF_SEEDS, jobs=1)
    print(told)
    assert not told.broken, str(told)
