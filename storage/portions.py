"""Things in order, cut into portions that are not too large."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def portions(things: Iterable[T], size_of: Callable[[T], int], size_max: int, count_max: int) -> Iterator[list[T]]:
    """Each of at most `count_max`, together not above `size_max`, or of one that is larger by itself."""
    portion: list[T] = []
    size = 0
    for thing in things:
        more = size_of(thing)
        if portion and (size + more > size_max or len(portion) == count_max):
            yield portion
            portion, size = [], 0
        portion.append(thing)
        size += more
    if portion:
        yield portion
