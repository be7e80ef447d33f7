"""Which releases run together: n and n−1, so that a system of several sites is brought up to date site by site."""

import re


def together(one: str, other: str) -> bool:
    """Whether two versions like 1.4.2 are of the same release or of neighbours: their second numbers tell."""
    first, second = _release(one), _release(other)
    return first is not None and second is not None and first[0] == second[0] and abs(first[1] - second[1]) <= 1


def _release(version: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else None
