"""Sets of UIDs as ranges: pairs (first, last), ascending, not touching. `((1, 3), (7, 7))` is {1, 2, 3, 7}.

Only `compress` and `normalise` take what is not in that form; all others need it and give it back.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from cluster.domain.mailbox.events import Ranges

UID_MAX = (1 << 32) - 1  # RFC 9051 §2.3.1.1: UIDs are 32 bits, never 0
EVERY_UID: Ranges = ((1, UID_MAX),)


def compress(uids: Iterable[int]) -> Ranges:
    """The ranges of these UIDs, which may come in any order and more than once."""
    out: list[tuple[int, int]] = []
    first = last = -2
    for uid in sorted(uids):
        if uid <= last:
            continue
        if uid != last + 1:
            if last >= 0:
                out.append((first, last))
            first = uid
        last = uid
    if last >= 0:
        out.append((first, last))
    return tuple(out)


def normalise(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """Any pairs (first, last) in any order, overlapping or touching, either way round (RFC 9051 §9: 4:2 is 2:4)."""
    out: list[tuple[int, int]] = []
    for first, last in sorted((min(pair), max(pair)) for pair in pairs):
        if out and first <= out[-1][1] + 1:
            if last > out[-1][1]:
                out[-1] = (out[-1][0], last)
        else:
            out.append((first, last))
    return tuple(out)


def expand(ranges: Ranges) -> Iterator[int]:
    """Each UID, ascending."""
    for first, last in ranges:
        yield from range(first, last + 1)


def contains(ranges: Ranges, uid: int) -> bool:
    at = bisect_right(ranges, uid, key=lambda pair: pair[0]) - 1
    return at >= 0 and uid <= ranges[at][1]


def count(ranges: Ranges) -> int:
    """How many UIDs."""
    return sum(last - first + 1 for first, last in ranges)


def union(a: Ranges, b: Ranges) -> Ranges:
    return normalise((*a, *b))


def intersect(a: Ranges, b: Ranges) -> Ranges:
    out: list[tuple[int, int]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        first, last = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if first <= last:
            out.append((first, last))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return tuple(out)


def subtract(a: Ranges, b: Ranges) -> Ranges:
    """What is in `a` and not in `b`."""
    out: list[tuple[int, int]] = []
    j = 0
    for first, last in a:
        while j < len(b) and b[j][1] < first:
            j += 1
        k, start = j, first
        while k < len(b) and b[k][0] <= last:
            if start < b[k][0]:
                out.append((start, b[k][0] - 1))
            start = b[k][1] + 1
            k += 1
        if start <= last:
            out.append((start, last))
    return tuple(out)


def limit(ranges: Ranges, first: int, last: int) -> Ranges:
    """The part from `first` to `last`, both included."""
    return intersect(ranges, ((first, last),)) if first <= last else ()
