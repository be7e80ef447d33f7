"""An event loop whose time is virtual: nobody waits, the clock jumps to the next timer.

Everything on it is deterministic for a seed: sets of tasks and futures are ordered by number of creation, not by address,
and what would have to wait for ever says so at once.
"""

import asyncio
import contextlib
import gc
import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import Context, ContextVar, copy_context
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
        self._tasks: list[asyncio.Task[Any]] = []  # in order of creation; those that are done go now and then
        self._prune_at = 64

    def add(self, task: asyncio.Task[Any]) -> None:
        self._tasks.append(task)
        if len(self._tasks) >= self._prune_at:
            self._prune_at = 2 * len(self.living()) + 64

    def living(self) -> list[asyncio.Task[Any]]:
        self._tasks = [task for task in self._tasks if not task.done()]
        return self._tasks

    def kill(self) -> None:
        for task in list(self.living()):
            task.cancel()


class _Task(asyncio.Task[Any]):
    number: int

    def __hash__(self) -> int:
        return self.number


class _Future(asyncio.Future[Any]):
    number: int

    def __hash__(self) -> int:
        return self.number


class _Handle:
    """What asyncio.TimerHandle is, as far as anybody asks, in a third of the time."""

    __slots__ = ("_when", "args", "callback", "context")

    def __init__(
        self, callback: Callable[..., object] | None, args: tuple[Any, ...], context: Context | None, when: float
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self._when = when

    def cancel(self) -> None:
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self._when


class _Timeout:
    """asyncio.timeout, as far as anybody asks, in a third of the time: there are thousands a second."""

    __slots__ = ("_cancelling", "_expired", "_handle", "_seconds", "_task")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._expired = False

    def __aenter__(self) -> "_Timeout":
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        loop = asyncio.get_running_loop()
        self._handle = None if self._seconds is None else loop.call_later(self._seconds, self._expire)
        return self

    def __await__(self) -> Iterator[None]:
        return iter(())

    def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> "_Timeout":
        if self._handle is not None:
            self._handle.cancel()
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
        return self

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()


class VirtualLoop(asyncio.SelectorEventLoop):
    """Does not look for files: nobody here has one. Of what is due at the same time, what was asked for first comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.steps = 0  # how often anything ran
        self.failed: Callable[[BaseException], None] = self._failed  # what a callback raised
        self._numbers = itertools.count(1)
        self._soon: deque[_Handle] = deque()
        self._later: list[tuple[float, int, _Handle]] = []
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self.now

    # As in asyncio.BaseEventLoop, whose `run_forever` calls `_run_once` until it is told to stop.
    def _run_once(self) -> None:
        soon, later, pop = self._soon, self._later, heapq.heappop
        while not self._stopping:  # type: ignore[attr-defined]  # asyncio's own
            if not soon:
                while later and later[0][2].callback is None:
                    pop(later)
                if not later:
                    raise Stuck
                self.now, _, due = pop(later)
                soon.append(due)
            handle = soon.popleft()
            callback = handle.callback
            if callback is None:
                continue
            self.steps += 1
            try:
                if handle.context is None:
                    callback(*handle.args)
                else:
                    handle.context.run(callback, *handle.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.failed(error)

    def _failed(self, error: BaseException) -> None:
        self.call_exception_handler({"message": "a callback failed", "exception": error})

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        handle = _Handle(callback, args, copy_context() if context is None else context, self.now)
        self._soon.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # of one thread

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        handle = _Handle(callback, args, copy_context() if context is None else context, max(when, self.now))
        heapq.heappush(self._later, (handle._when, next(self._numbers), handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def at(self, when: float, callback: Callable[..., object], *args: object) -> None:
        """As call_at, in nobody's context, and for good: for the world itself."""
        when = max(when, self.now)
        heapq.heappush(self._later, (when, next(self._numbers), _Handle(callback, args, None, when)))

    def create_future(self) -> asyncio.Future[Any]:
        made = _Future(loop=self)
        made.number = next(self._numbers)
        return made

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        **options: Any,
    ) -> asyncio.Task[Any]:
        task: _Task = _Task.__new__(_Task)
        task.number = next(self._numbers)  # before asyncio keeps it in a set
        task.__init__(coro, loop=loop, **options)  # type: ignore[misc]
        owner = OWNER.get()
        if owner is not None:
            owner.add(task)
        return task


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    """Runs to its end on a new loop, with the garbage collector off: when it comes is nobody's business here. Whoever runs
    many keeps it off in between too (`littering`)."""
    loop = VirtualLoop()
    try:
        with _module_clocks(loop), littering():
            loop.run_until_complete(main(loop))
            leftover = sorted(asyncio.all_tasks(loop), key=hash)
            for task in leftover:
                task.cancel()
            if leftover:
                loop.run_until_complete(asyncio.wait(leftover, timeout=60))
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


@contextlib.contextmanager
def littering() -> Iterator[None]:
    """Without the garbage collector; what it finds at the end goes at once."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
            gc.collect()


@contextlib.contextmanager
def _module_clocks(loop: VirtualLoop) -> Iterator[None]:
    """The two clocks that only go forward, which code reads where it stands, show the loop's time meanwhile; and nobody can
    be seen in the machine's list of processes, where all of them are one."""
    monotonic, boot, proc, timeout = time.monotonic, time.clock_gettime, holder.PROC, asyncio.timeout
    time.monotonic = loop.time
    time.clock_gettime = lambda clock: loop.time()
    holder.PROC = Path("/nonexistent")
    vars(asyncio)["timeout"] = _Timeout
    try:
        yield
    finally:
        time.monotonic, time.clock_gettime, holder.PROC = monotonic, boot, proc
        vars(asyncio)["timeout"] = timeout
