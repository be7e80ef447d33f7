"""Pages by key: one more than the page is asked for, to know whether there is a next."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def page(found: Sequence[T], limit: int, key: Callable[[T], str]) -> tuple[tuple[T, ...], str | None]:
    """(the page, the cursor of the next or None). `found`: up to limit + 1."""
    assert len(found) <= limit + 1, "the port gave more than it was asked for"
    items = tuple(found[:limit])
    return items, key(items[-1]) if len(found) > limit else None
