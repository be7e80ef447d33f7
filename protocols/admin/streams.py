"""Streams that are surely closed, so that work nobody watches any more stops."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def closed(stream: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Closes a generator when the block is left, not when the collector finds it."""
    try:
        yield stream
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
