"""One target under libFuzzer, by atheris: `python -m tests.fuzz.one TARGET [options of libFuzzer] FOLDERS`."""

import sys

import atheris


def main() -> None:
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["protocols", "cluster", "storage", "node"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
