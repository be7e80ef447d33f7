"""How many rounds, and from which seed: a failure prints what replays it."""

import os
import random

ROUNDS_VARIABLE = "ANGARIUM_FAULT_ROUNDS"
SEED_VARIABLE = "ANGARIUM_FAULT_SEED"


def rounds() -> int:
    return int(os.environ.get(ROUNDS_VARIABLE, "1"))


def seeds() -> list[int]:
    """ANGARIUM_FAULT_SEED replays one; else new ones every time."""
    fixed = os.environ.get(SEED_VARIABLE)
    if fixed is not None:
        return [int(fixed)]
    chance = random.SystemRandom()
    return [chance.randrange(1 << 32) for _ in range(rounds())]
