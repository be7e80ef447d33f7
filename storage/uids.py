"""UIDs of a mailbox in order, held once for all sessions of this process that see the same ones.

UIDs are 4 bytes each: one list a session would cost 4 MB for each that waits in a mailbox of a million messages. Sessions learn
of the same messages in the same order, at different times; so what comes is written behind one common array, of which each
session sees as much as it has heard of, and what goes makes a new array, that is found by whoever loses the same.
"""

import weakref
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import overload

SINGLES_MAX = 1024  # removed one by one; more, and the array is made anew


class _Common:
    """`numbers` only grows. `left`: what became of the first `count` of them without `lost`."""

    __slots__ = ("__weakref__", "count", "left", "lost", "numbers")
    count: int
    lost: tuple[int, ...]
    left: "weakref.ref[_Common] | None"

    def __init__(self, numbers: "array[int]") -> None:
        self.numbers = numbers
        self.count, self.lost, self.left = 0, (), None


class Uids(Sequence[int]):
    """A value to its owner: nobody else's `extend` or `remove` is seen in it. `like`: what is probably nearly the same, to be
    shared with."""

    __slots__ = ("_common", "_count")
    _common: _Common
    _count: int

    def __init__(self, numbers: "array[int] | None" = None, like: "Uids | None" = None) -> None:
        numbers = numbers if numbers is not None else array("I")
        self._count = len(numbers)
        if like is not None and like._shows(numbers):
            self._common = like._common
        else:
            self._common = _Common(numbers)

    def copy(self) -> "Uids":
        """Costs nothing."""
        made = Uids.__new__(Uids)
        made._common, made._count = self._common, self._count
        return made

    def shares(self, other: "Uids") -> bool:
        return self._common is other._common

    # -- what is there ---------------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> "array[int]": ...
    def __getitem__(self, at: int | slice) -> "int | array[int]":
        if isinstance(at, slice):
            return self._common.numbers[slice(*at.indices(self._count))]
        place = at + self._count if at < 0 else at
        if not 0 <= place < self._count:
            raise IndexError(at)
        return self._common.numbers[place]

    def __iter__(self) -> Iterator[int]:
        return islice(self._common.numbers, self._count)

    def left_of(self, uid: int) -> int:
        """How many are below `uid`."""
        return bisect_left(self._common.numbers, uid, 0, self._count)

    def up_to(self, uid: int) -> int:
        """How many are `uid` or below."""
        return bisect_right(self._common.numbers, uid, 0, self._count)

    # -- what comes and goes -----------------------------------------------------------------------------------------------
    def extend(self, uids: Sequence[int]) -> None:
        """All above the last."""
        new, common = array("I", uids), self._common
        if common.numbers[self._count : self._count + len(new)] == new:
            pass  # somebody has heard of them before
        elif self._count == len(common.numbers):
            common.numbers.extend(new)
        else:
            self._common = _Common(common.numbers[: self._count] + new)
        self._count += len(new)

    def remove(self, uids: Sequence[int]) -> None:
        """Ascending; all are there."""
        if not uids:
            return
        common, lost = self._common, tuple(uids)
        left = common.left() if common.left is not None and (common.count, common.lost) == (self._count, lost) else None
        if left is None:
            left = _Common(_without(common.numbers[: self._count], lost))
            common.count, common.lost, common.left = self._count, lost, weakref.ref(left)
        self._common, self._count = left, self._count - len(lost)

    def _shows(self, numbers: "array[int]") -> bool:
        """Whether these numbers may be shown from our common array, which then has them."""
        there = self._common.numbers
        if len(numbers) <= len(there):
            return there[: len(numbers)] == numbers
        if numbers[: len(there)] != there:
            return False
        there.extend(numbers[len(there) :])
        return True


def _without(numbers: "array[int]", lost: tuple[int, ...]) -> "array[int]":
    if len(lost) > SINGLES_MAX:
        gone = set(lost)
        return array("I", (uid for uid in numbers if uid not in gone))
    for uid in reversed(lost):
        del numbers[bisect_left(numbers, uid)]
    return numbers
