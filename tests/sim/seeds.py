"""Many seeds, in processes of their own: the simulation turns off what a test run wants (the garbage collector), and sets
of strings must have the order in which a replay has them."""

import gc
import os
import subprocess
import sys
import time
from typing import NamedTuple

from tests.live import REPOSITORY
from tests.sim.clock import littering
from tests.sim.world.world import played

COLLECT_EVERY_SEEDS = 20
HALF_SEEDS = 250  # of those that CI plays: test_sim.py and test_sim_too.py


class Told(NamedTuple):
    """`broken`: a line for each seed that broke something, with what replays it, and for each process that failed."""

    seeds: int
    acknowledged: int
    broken: tuple[str, ...]
    seconds: float
    cpu_s: float

    def __str__(self) -> str:
        verdict = "SOME BREAK" if self.broken else "all hold"
        figures = f"{self.acknowledged} commands acknowledged, {self.seconds:.0f} s ({self.cpu_s:.0f} s of CPU)"
        return "\n".join((*self.broken, f"{self.seeds} seeds: {verdict}; {figures}"))


def played_here(first: int, end: int, step: int) -> None:
    """Every `step`th seed, and what became of it on standard output."""
    acknowledged = 0
    gc.collect()
    gc.freeze()  # What is here by now stays: nobody need look at it again and again.
    with littering():
        for count, seed in enumerate(range(first, end, step), 1):
            world = played(seed)
            acknowledged += world.acknowledged
            if world.violations:
                print(f"SEED={seed} make sim: {world.violations[0]}", flush=True)
            if count % COLLECT_EVERY_SEEDS == 0:
                del world
                gc.collect()
    print(f"acknowledged {acknowledged} {time.process_time():.2f}", flush=True)


def spread(first: int, count: int, jobs: int) -> Told:
    """Plays them in so many processes beside each other."""
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    parts = [
        subprocess.Popen(
            (sys.executable, "-m", "tests.sim", str(first + n), str(first + count), str(jobs)),
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=REPOSITORY,
        )
        for n in range(jobs)
    ]
    broken: list[str] = []
    acknowledged, cpu_s = 0, 0.0
    try:
        for part in parts:
            *lines, last = part.communicate()[0].splitlines() or ("",)
            broken += lines
            if last.startswith("acknowledged ") and part.returncode == 0:
                _, said, took = last.split()
                acknowledged, cpu_s = acknowledged + int(said), cpu_s + float(took)
            else:
                broken.append(f"a process ended with {part.returncode}: {last}")
    finally:
        for part in parts:
            part.kill()  # nothing, if it has ended
    return Told(count, acknowledged, tuple(broken), time.perf_counter() - began, cpu_s)
