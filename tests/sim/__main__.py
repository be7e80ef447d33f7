"""`make sim`: plays SEEDS seeds (500) from FROM on (0), spread over processes; `SEED=n make sim` replays one and prints its
trace. Every seed is one world (world/world.py); the first broken invariant ends it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.sim.world.world import played

JOBS = os.cpu_count() or 1


def replay(seed: int) -> bool:
    world = played(seed)
    print("\n".join(world.lines))
    for each in world.violations:
        print(f"seed {seed}: {each}")
    said = len(world.checks.truth.acknowledged)
    print(f"seed {seed}: {said} commands acknowledged in {world.loop.time():.0f} s of its own time")
    return not world.violations


def share(first: int, end: int, step: int) -> bool:
    """Every `step`th seed; one line for each that breaks something."""
    said, broken = 0, 0
    for seed in range(first, end, step):
        world = played(seed)
        said += len(world.checks.truth.acknowledged)
        if world.violations:
            broken += 1
            print(f"seed {seed}: {world.violations[0]}\n    SEED={seed} make sim", flush=True)
    print(f"said {said}", flush=True)
    return not broken


def spread(first: int, count: int) -> bool:
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    parts = [
        subprocess.Popen(
            (sys.executable, "-m", "tests.sim", str(first + n), str(first + count), str(JOBS)),
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for n in range(JOBS)
    ]
    said = sum(_printed(part) for part in parts)
    held = all([part.wait() == 0 for part in parts])
    verdict = "all hold" if held else "SOME BREAK"
    seconds = time.perf_counter() - began
    print(f"{count} seeds from {first}: {verdict}; {said} commands acknowledged, {seconds:.0f} s")
    return held


def _printed(part: "subprocess.Popen[str]") -> int:
    """Hands on what it prints; how many commands were acknowledged."""
    said = 0
    for line in _lines(part):
        if line.startswith("said "):
            said = int(line.removeprefix("said "))
        else:
            print(line, end="", flush=True)
    return said


def _lines(part: "subprocess.Popen[str]") -> Iterator[str]:
    assert part.stdout is not None
    yield from part.stdout


if len(sys.argv) == 4:
    sys.exit(not share(*(int(each) for each in sys.argv[1:])))
elif "SEED" in os.environ:
    sys.exit(not replay(int(os.environ["SEED"])))
else:
    sys.exit(not spread(int(os.environ.get("FROM", "0")), int(os.environ.get("SEEDS", "500"))))
