"""`python -m tests.fuzz`: fuzzes every target for its share of the minutes, and keeps what showed new ways through the code.

Ends with 1 where something was found: each finding is a file, and `python -m tests.fuzz --replay FILE` plays it again.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path
from time import monotonic

from tests.fuzz import corpus

ROOT = Path(__file__).parents[2]
WORK = ROOT / "var" / "fuzz"
INPUT_S_MAX = 10  # for one input: more is a finding
MEMORY_MB_MAX = 1_500
INPUT_BYTES_MAX = 2_000
# How much of the time each gets, where not 1.
SHARES = {"imap": 4, "imap_session": 6, "message": 4, "header_words": 2, "facts": 0.5, "signing_in": 0.5, "autodiscover": 0.5}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--target", action="append")
    parser.add_argument("--replay", type=Path, help="a finding: TARGET-… in var/fuzz")
    given = parser.parse_args()
    from tests.fuzz.targets import TARGETS

    if given.replay is not None:
        TARGETS[given.replay.name.partition("-")[0]](given.replay.read_bytes())
        print("nothing is wrong with it")
        return 0
    names = given.target or list(TARGETS)
    whole = sum(SHARES.get(name, 1) for name in names)
    failed = [name for name in names if not _fuzzed(name, given.minutes * 60 * SHARES.get(name, 1) / whole)]
    print(f"{len(names) - len(failed)} targets without a finding, {len(failed)} with one: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def _fuzzed(name: str, seconds: float) -> bool:
    """Whether nothing was found."""
    folder, less = WORK / name, WORK / f"{name}.less"
    for where in (folder, less):
        where.mkdir(parents=True, exist_ok=True)
        for old in where.iterdir():
            old.unlink()
    for number, data in enumerate([*corpus.kept(name), *corpus.seeds(name)]):
        (folder / f"{number:05}").write_bytes(data)
    dictionary = WORK / f"{name}.dict"
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in sorted(corpus.words(name))))
    limits = (f"-timeout={INPUT_S_MAX}", f"-rss_limit_mb={MEMORY_MB_MAX}", f"-artifact_prefix={WORK}/{name}-")
    begun = monotonic()
    done = _libfuzzer(
        name, *limits, f"-max_total_time={max(1, round(seconds))}", f"-max_len={INPUT_BYTES_MAX}", f"-dict={dictionary}",
        "-print_final_stats=1", str(folder),
    )  # fmt: skip
    runs = next((line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line), "?")
    print(f"{name}: {runs} inputs in {monotonic() - begun:.0f} s", flush=True)
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-3000:], sep="\n", flush=True)
        return False
    merged = _libfuzzer(name, *limits, "-merge=1", str(less), str(folder))
    if not merged.returncode:
        corpus.keep(name, [path.read_bytes() for path in less.iterdir()])
    return not merged.returncode


def _libfuzzer(name: str, *options: str) -> "subprocess.CompletedProcess[str]":
    command = (sys.executable, "-m", "tests.fuzz.one", name)
    again = WORK / f"{name}.sh"
    again.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    again.chmod(0o755)
    environment = {**os.environ, "FUZZ_AGAIN": str(again)}
    return subprocess.run((*command, *options), cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace")


def _escaped(word: bytes) -> str:
    return "".join(chr(byte) if byte < 0x80 and chr(byte).isalnum() else f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    sys.exit(main())
