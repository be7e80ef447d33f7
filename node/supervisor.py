"""Runs a site: the engines, then the workers, each started again when it ends, all stopped in order.

    engines (together) → workers (together) → the ready file … SIGTERM … workers (drained) → PostgreSQL → nats-server

With several sites the member of the backbone is started before all and stopped after all.

One supervisor a site, by a lock on a file; what a killed one left behind is ended before anything starts.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec

from node.child import Child, ChildFailed, Spec, describe, end_leftovers
from node.config import Config, ConfigRefused, load, remove_short_sockets
from node.engines import nats, postgres
from node.membership import NO_MEMBER, Membership, is_shut_out

FIRST_TRIES_MAX = 3  # a program that has never been ready is given up, with its last words, after so many ends
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.1, 30.0
STEADY_S = 1.0  # whoever served that long starts again without delay
WORKER_READY_S_MAX = 300.0  # at start a worker may have tables to catch up
WORKER_STOP_GRACE_S = 5.0
LOCK_NAME = "supervisor.lock"


class StartFailed(Exception):
    """The site cannot run; the text is one line that says why and what to do."""


class Happening(msgspec.Struct, frozen=True):
    """Something to tell the operator. `what`: starting, ready, ended, stopping, stopped, leftover, refused, serving."""

    part: str
    what: str
    detail: str = ""
    seconds: float = 0.0
    pid: int = 0


Tell = Callable[[Happening], None]


class Part(msgspec.Struct, frozen=True):
    """A program to keep: its name, and what makes it ready to be started (run again before every start)."""

    name: str
    prepare: Callable[[], Awaitable[Spec]]


class Keeper:
    """Keeps one part running until it is told to stop. `first_ready` is done when it serves for the first time, or
    fails with StartFailed when it never will."""

    def __init__(self, part: Part, run_dir: Path, tell: Tell) -> None:
        self._part = part
        self._run_dir = run_dir
        self._tell = tell
        self._child: Child | None = None
        self._stopping = asyncio.Event()
        self.name = part.name
        self.first_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def keep(self) -> None:
        name, failures = self._part.name, 0
        while not self._stopping.is_set():
            self._tell(Happening(name, "starting"))
            reason, served_s = await self._run()
            if self._stopping.is_set():
                break
            failures = 1 if served_s > STEADY_S else failures + 1
            if not self.first_ready.done() and failures >= FIRST_TRIES_MAX:
                self.first_ready.set_exception(StartFailed(f"{name} does not start: {reason}: run `angarium doctor`"))
                break
            pause = min(BACKOFF_S_MIN * 2 ** (failures - 1), BACKOFF_S_MAX)
            self._tell(Happening(name, "ended", reason, seconds=pause))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def stop(self) -> None:
        self._stopping.set()
        if self._child is not None:
            self._tell(Happening(self._part.name, "stopping"))
            await self._child.stop()
            self._tell(Happening(self._part.name, "stopped"))

    async def ready(self) -> bool:
        """Returns when it serves for the first time, or False when it never will."""
        await asyncio.wait((self.first_ready,))
        return self.first_ready.exception() is None

    def send(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._child.send(number)

    async def _run(self) -> tuple[str, float]:
        """One life of the part: how it ended, and how many seconds it had served."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            spec = await self._part.prepare()
            if self._stopping.is_set():
                return "not needed", 0.0
            self._child = child = await Child.start(spec, self._run_dir)
        except (ChildFailed, OSError) as error:
            return str(error), 0.0
        try:
            if self._stopping.is_set():  # told to stop while it was being started
                await child.stop()
            await child.until_ready()
            ready = clock()
            self._tell(Happening(self._part.name, "ready", seconds=ready - began, pid=child.pid))
            if not self.first_ready.done():
                self.first_ready.set_result(None)
            return describe(await child.wait()), clock() - ready
        except ChildFailed as error:
            words = child.last_words.splitlines()
            return (f"{error}: {words[-1]}" if words else str(error)), 0.0
        finally:
            self._child = None


async def supervise(config: Config, tell: Tell, ready_file: Path | None = None) -> None:
    """Runs the site until SIGTERM or SIGINT; returns when all is stopped. Raises StartFailed."""
    if is_shut_out(config):
        raise StartFailed(f"{NO_MEMBER}: delete its folder; on that machine a new site may join under another name")
    for folder in (config.run_dir, config.log_dir):
        folder.mkdir(exist_ok=True, mode=0o700)
    with lock(config.run_dir):
        signals = dict.fromkeys((nats.NAME, nats.BACKBONE_NAME), nats.DEATH_SIGNAL) | {postgres.NAME: postgres.DEATH_SIGNAL}
        for name in await asyncio.to_thread(end_leftovers, config.run_dir, signals):
            tell(Happening(name, "leftover", "an earlier start was killed; what it left was ended"))
        try:
            with _signals() as (stop, reload):
                await _run_site(config, tell, ready_file, stop, reload)
        finally:
            remove_short_sockets(config.dir)


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Held while a supervisor lives, whatever ends it. Raises StartFailed if another one holds it."""
    descriptor = os.open(run_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 32, 0).decode().strip()
            raise StartFailed(f"this site is running already, as pid {pid}: stop that one first (kill {pid})") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def running_pid(run_dir: Path) -> int | None:
    """The pid of the supervisor that runs this site, None if none does."""
    try:
        descriptor = os.open(run_dir / LOCK_NAME, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.pread(descriptor, 32, 0).decode().strip() or 0) or None
    finally:
        os.close(descriptor)
    return None


def worker_parts(config: Config) -> list[Part]:
    """A worker promises: it writes the line `ready` to the descriptor of --ready-fd when every listener answers, drains
    on SIGTERM and exits 0, and reads the certificates again on SIGHUP."""

    def part(index: int) -> Part:
        name = f"worker-{index}"
        command = (sys.executable, "-P", "-m", config.worker_module, str(config.dir), "--index", str(index))
        spec = Spec(
            name=name,
            argv=command,
            stop=((signal.SIGTERM, config.limits.drain_s_max + WORKER_STOP_GRACE_S),),
            answers=None,
            ready_s_max=WORKER_READY_S_MAX,
            log=None,
        )

        async def prepare() -> Spec:
            return spec

        return Part(name, prepare)

    return [part(index) for index in range(config.workers)]


def keeps_alone(config: Config) -> bool:
    """Whether the control plane lies in a member of the backbone that this site needs no other for."""
    return config.backbone is not None and config.backbone.roster is not None and not config.backbone.clustered(config.site)


def engine_parts(config: Config) -> list[Part]:
    """Those that are ours, as they are without other sites, in the order in which they stop reversed."""
    backbone, parts = config.backbone, []
    if backbone is not None and keeps_alone(config):
        parts.append(Part(nats.BACKBONE_NAME, lambda: nats.prepare_backbone(config, backbone)))
    if config.nats.own:
        parts.append(Part(nats.NAME, lambda: nats.prepare(config)))
    if config.database_own:
        parts.append(Part(postgres.NAME, lambda: postgres.prepare(config)))
    return parts


class _Site:
    """The parts of a site that runs, floor by floor, and their tasks."""

    def __init__(self, config: Config, tell: Tell, group: asyncio.TaskGroup) -> None:
        self._config, self._tell, self._group = config, tell, group
        self.membership = Membership(config, self._keep_prepared, lambda part, what: tell(Happening(part, what)))
        self.engines: list[Keeper] = []
        self.workers: list[Keeper] = []

    async def start(self, stop: asyncio.Event) -> bool:
        """True when all serve, False when the operator stopped us before. Raises StartFailed."""
        # The member of the backbone stands before the site's engine, which else would link itself to another's.
        member = self.membership.start_member()
        if isinstance(member, Keeper) and not await _first_ready([member], stop):
            return False
        if self._config.witness:
            return True
        engine = self.membership.start_log()
        if isinstance(engine, Keeper):
            self.engines.append(engine)
        if self._config.database_own:
            self.engines.append(self._keep(Part(postgres.NAME, lambda: postgres.prepare(self._config))))
        if not await _first_ready(self.engines, stop):
            return False
        self.workers += [self._keep(part) for part in worker_parts(self._config)]
        return await _first_ready(self.workers, stop)

    async def stop(self) -> None:
        await asyncio.gather(*(keeper.stop() for keeper in self.workers))
        for keeper in reversed(self.engines):
            await keeper.stop()
        await self.membership.stop()

    async def obey(self) -> None:
        """As many workers as the file says now: the next ones are started, or the last ones stopped."""
        try:
            count = load(self._config.dir).workers
        except ConfigRefused as error:
            self._tell(Happening("site", "refused", f"as many workers as before: {error}"))
            return
        if self._config.witness:
            return
        for part in worker_parts(msgspec.structs.replace(self._config, workers=count))[len(self.workers) :]:
            self._add(self._keep(part))
        surplus = self.workers[count:]
        await asyncio.gather(*(keeper.stop() for keeper in surplus))
        self.workers = [keeper for keeper in self.workers if keeper not in surplus]

    def _add(self, keeper: Keeper) -> None:
        """One that never serves is dropped, and tried again when we are told to look again."""

        def given_up(ready: asyncio.Future[None]) -> None:
            if not ready.cancelled() and (error := ready.exception()) is not None:
                self._tell(Happening(keeper.name, "refused", str(error)))
                self.workers = [each for each in self.workers if each is not keeper]

        self.workers.append(keeper)
        keeper.first_ready.add_done_callback(given_up)

    def _keep_prepared(self, name: str, prepare: Callable[[], Awaitable[Spec]]) -> Keeper:
        return self._keep(Part(name, prepare))

    def _keep(self, part: Part) -> Keeper:
        keeper = Keeper(part, self._config.run_dir, self._tell)
        self._group.create_task(keeper.keep())
        return keeper


@contextlib.contextmanager
def _signals() -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """(stop, reload): set by SIGTERM or SIGINT, and by SIGHUP."""
    loop = asyncio.get_running_loop()
    events = {signal.SIGTERM: asyncio.Event(), signal.SIGHUP: asyncio.Event()}
    handlers = {signal.SIGTERM: events[signal.SIGTERM], signal.SIGINT: events[signal.SIGTERM]}
    handlers[signal.SIGHUP] = events[signal.SIGHUP]
    for number, event in handlers.items():
        loop.add_signal_handler(number, event.set)
    try:
        yield events[signal.SIGTERM], events[signal.SIGHUP]
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


async def _run_site(
    config: Config, tell: Tell, ready_file: Path | None, stop: asyncio.Event, reload: asyncio.Event
) -> None:
    failure: StartFailed | None = None
    async with asyncio.TaskGroup() as group:
        site = _Site(config, tell, group)
        try:
            if await site.start(stop):
                _write_ready_file(ready_file)
                tell(Happening("site", "serving"))
                await _until_stopped(stop, reload, site)
        except StartFailed as error:
            failure = error
        finally:
            _remove_ready_file(ready_file)
            await site.stop()
    if failure is not None:
        raise failure


async def _first_ready(keepers: list[Keeper], stop: asyncio.Event) -> bool:
    """True when all serve, False when the operator stopped us before. Raises StartFailed."""
    stopped = asyncio.create_task(stop.wait())
    all_ready = asyncio.gather(*(keeper.first_ready for keeper in keepers))
    try:
        await asyncio.wait((stopped, all_ready), return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            all_ready.cancel()
            return False
        await all_ready
        return True
    finally:
        stopped.cancel()


async def _until_stopped(stop: asyncio.Event, reload: asyncio.Event, site: _Site) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_forward_reloads(reload, site)),
            group.create_task(site.membership.run()),
        ]
        await stop.wait()
        for task in tasks:
            task.cancel()


async def _forward_reloads(reload: asyncio.Event, site: _Site) -> None:
    while True:
        await reload.wait()
        reload.clear()
        site.membership.reload()
        for keeper in site.workers:
            keeper.send(signal.SIGHUP)
        await site.obey()


def _write_ready_file(path: Path | None) -> None:
    """Whole or not at all: whoever waits for it may read it at once."""
    if path is not None:
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(f"{os.getpid()}\n", encoding="ascii")
        fresh.replace(path)


def _remove_ready_file(path: Path | None) -> None:
    if path is not None:
        path.unlink(missing_ok=True)
