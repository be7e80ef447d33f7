"""An event loop whose time is virtual: nobody waits, the clock jumps to the next timer.

Everything on it is deterministic for a seed: sets of tasks and futures are ordered by number of creation, not by address,
and what would have to wait for ever says so at once.
"""

import asyncio
import contextlib
import gc
import itertools
import selectors
import time
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from cluster.control import holder

# Whatever runs belongs to one of these: a process of a site, a client, or nobody (the world itself).
OWNER: ContextVar["Owner | None"] = ContextVar("owner", default=None)


class Stuck(Exception):
    """Nothing is left that could ever happen."""


class Owner:
    """Keeps the tasks of one simulated process, so that it can be killed: it gets no further word in."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tasks: dict[int, asyncio.Task[Any]] = {}  # by number, in order of creation

    def kill(self) -> None:
        for task in list(self.tasks.values()):
            task.cancel()


class _Never(selectors.SelectSelector):
    """Moves the clock instead of waiting. There are no files but the loop's own wake-up pipe, which nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck
        if timeout > 0:
            self.now += timeout
        return []


class _Task(asyncio.Task[Any]):
    def __init__(self, coro: Any, number: int, **options: Any) -> None:
        self.number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.number


class _Future(asyncio.Future[Any]):
    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Never()
        super().__init__(self._virtual)
        self._numbers = itertools.count(1)
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self._virtual.now

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(next(self._numbers), self)

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        **options: Any,
    ) -> asyncio.Task[Any]:
        number = next(self._numbers)
        task = _Task(coro, number, loop=loop, **options)
        owner = OWNER.get()
        if owner is not None:
            owner.tasks[number] = task
            task.add_done_callback(lambda _: owner.tasks.pop(number, None))
        return task


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    """Runs to its end on a new loop, with the garbage collector off: when it comes is nobody's business here."""
    loop = VirtualLoop()
    was_on = gc.isenabled()
    gc.disable()
    try:
        with _module_clocks(loop):
            loop.run_until_complete(main(loop))
            leftover = sorted(asyncio.all_tasks(loop), key=hash)
            for task in leftover:
                task.cancel()
            if leftover:
                loop.run_until_complete(asyncio.wait(leftover, timeout=60))
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
        if was_on:
            gc.enable()
            gc.collect()


@contextlib.contextmanager
def _module_clocks(loop: VirtualLoop) -> Iterator[None]:
    """The two clocks that only go forward, which code reads where it stands, show the loop's time meanwhile; and nobody can
    be seen in the machine's list of processes, where all of them are one."""
    monotonic, boot, proc = time.monotonic, time.clock_gettime, holder.PROC
    time.monotonic = loop.time
    time.clock_gettime = lambda clock: loop.time()
    holder.PROC = Path("/nonexistent")
    try:
        yield
    finally:
        time.monotonic, time.clock_gettime, holder.PROC = monotonic, boot, proc
