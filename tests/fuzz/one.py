"""One target under libFuzzer, by atheris: `python -m tests.fuzz.one TARGET [options of libFuzzer] FOLDERS`. Where it calls itself again
(to merge a corpus), it calls the program that FUZZ_AGAIN names."""

import os
import sys

import atheris


def main() -> None:
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["protocols", "cluster", "storage", "node"]):
        from tests.fuzz.targets import TARGETS
    sys.argv[0] = os.environ["FUZZ_AGAIN"]
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
