"""Streams that are surely closed, so that work nobody watches any more stops; and several as one."""

import asyncio
from collections.abc import AsyncIterator, Sequence
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


async def merged(streams: Sequence[AsyncIterator[T]]) -> AsyncIterator[T]:
    """What any of them gives, as it comes; each in its own order, and none asked for more before its last was taken."""
    waiting = {asyncio.create_task(_next(stream)): stream for stream in streams}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                stream = waiting.pop(task)
                for item in task.result():
                    yield item
                    waiting[asyncio.create_task(_next(stream))] = stream
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for stream in streams:
            async with closed(stream):
                pass


async def _next(stream: AsyncIterator[T]) -> tuple[T] | tuple[()]:
    """The next one, or nothing at the end."""
    async for item in stream:
        return (item,)
    return ()
