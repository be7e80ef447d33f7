"""One program that the supervisor runs: started by node/launch.py, awaited until it is ready, stopped by a ladder of
signals, its output kept in a bounded file.
"""

import asyncio
import contextlib
import os
import select
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

LAUNCHER = Path(__file__).with_name("launch.py")
LOG_BYTES_MAX = 5 * 1024 * 1024
TAIL_BYTES_MAX = 2048
READ_BYTES = 64 * 1024
PROBE_PAUSE_S_MIN, PROBE_PAUSE_S_MAX = 0.02, 0.5
PROBE_S_MAX = 5.0
LEFTOVER_S_MAX = 20.0


class ChildFailed(Exception):
    """The program could not be started or did not get ready; the text says why."""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a program.

    `launch`: options for node/launch.py. `death_signal`: what it gets when the supervisor dies, or was found dead.
    `stop`: signals in turn, each with the seconds that it has; SIGKILL comes last by itself.
    `answers`: whether it serves now, asked again and again; None: it writes the line `ready` to the descriptor that is
    given to it by `--ready-fd`. `log`: where its output goes; None: where ours goes.
    """

    name: str
    argv: tuple[str, ...]
    launch: tuple[str, ...] = ()
    death_signal: signal.Signals = signal.SIGKILL
    stop: tuple[tuple[signal.Signals, float], ...]
    answers: Callable[[], Awaitable[bool]] | None
    ready_s_max: float
    log: Path | None


class Child:
    """A running program. Made by `start`."""

    def __init__(self, spec: Spec, process: asyncio.subprocess.Process, pid_file: Path, ready_fd: int | None) -> None:
        self._spec = spec
        self._process = process
        self._pid_file = pid_file
        self._ready_fd = ready_fd
        self._log = LogFile(spec.log) if spec.log else None
        self._reader = asyncio.create_task(self._keep_output())
        self._end = asyncio.create_task(self._until_end())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def last_words(self) -> str:
        """The end of its output, for a message about its failure."""
        return self._log.tail if self._log else ""

    @classmethod
    async def start(cls, spec: Spec, run_dir: Path) -> "Child":
        """Raises ChildFailed if the program cannot be executed."""
        pid_file = run_dir / f"{spec.name}.pid"
        ready_fd, ready_end = os.pipe() if spec.answers is None else (None, None)
        argv = spec.argv if ready_end is None else (*spec.argv, "--ready-fd", str(ready_end))
        launcher = (sys.executable, "-I", "-S", str(LAUNCHER), "--pid-file", str(pid_file))
        bond = ("--parent", str(os.getpid()), "--death-signal", str(int(spec.death_signal)))
        try:
            process = await asyncio.create_subprocess_exec(
                *(*launcher, *bond, *spec.launch, "--", *argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if spec.log else None,
                stderr=asyncio.subprocess.STDOUT if spec.log else None,
                pass_fds=() if ready_end is None else (ready_end,),
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops its children in order
            )
        except OSError as error:
            if ready_fd is not None:
                os.close(ready_fd)
            raise ChildFailed(str(error)) from None
        finally:
            if ready_end is not None:
                os.close(ready_end)
        return cls(spec, process, pid_file, ready_fd)

    async def until_ready(self) -> None:
        """Returns when the program serves. Raises ChildFailed when it ended, or took too long and was stopped."""
        ready = asyncio.create_task(self._ready_line() if self._spec.answers is None else self._answers())
        done, _ = await asyncio.wait(
            (ready, self._end), timeout=self._spec.ready_s_max, return_when=asyncio.FIRST_COMPLETED
        )
        if ready in done and await ready:
            return
        ready.cancel()
        if self._end not in done and ready not in done:
            await self.stop()
            raise ChildFailed(f"was not ready after {self._spec.ready_s_max:.0f} s")
        raise ChildFailed(f"{describe(await self.wait())} before it was ready")

    async def wait(self) -> int:
        """Its exit code, minus the signal's number where one ended it."""
        return await asyncio.shield(self._end)

    def send(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self) -> None:
        """Ends the program: politely, then less so."""
        for number, seconds in (*self._spec.stop, (signal.SIGKILL, None)):
            self.send(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), seconds)
                return

    async def _until_end(self) -> int:
        code = await self._process.wait()
        # Grandchildren may hold the pipe a moment longer; what they say is not waited for.
        await asyncio.wait((self._reader,), timeout=0.2)
        self._reader.cancel()
        self._pid_file.unlink(missing_ok=True)
        if self._ready_fd is not None:
            os.close(self._ready_fd)
        return code

    async def _keep_output(self) -> None:
        stream = self._process.stdout
        while stream and self._log and (chunk := await stream.read(READ_BYTES)):
            self._log.write(chunk)

    async def _answers(self) -> bool:
        assert self._spec.answers is not None
        pause = PROBE_PAUSE_S_MIN
        while True:
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                if await asyncio.wait_for(self._spec.answers(), PROBE_S_MAX):
                    return True
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, PROBE_PAUSE_S_MAX)

    async def _ready_line(self) -> bool:
        """The worker's word, or the end of its pipe, whichever comes first."""
        assert self._ready_fd is not None
        loop, fd = asyncio.get_running_loop(), self._ready_fd
        readable: asyncio.Future[bool] = loop.create_future()

        def read() -> None:
            if not readable.done():
                readable.set_result(os.read(fd, 64).startswith(b"ready"))

        loop.add_reader(fd, read)
        try:
            return await readable
        finally:
            loop.remove_reader(fd)


class LogFile:
    """Appends to a file that is put aside as `.1` when it has grown; the last bytes are also kept in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tail = b""

    @property
    def tail(self) -> str:
        return self._tail.decode("utf-8", "replace").strip()

    def write(self, chunk: bytes) -> None:
        self._tail = (self._tail + chunk)[-TAIL_BYTES_MAX:]
        with contextlib.suppress(OSError):  # a full disk must not stop the engine that we listen to
            with self._path.open("ab") as file:
                file.write(chunk)
                size = file.tell()
            if size > LOG_BYTES_MAX:
                self._path.replace(self._path.with_name(self._path.name + ".1"))


def describe(code: int) -> str:
    """How a program ended, in words."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


def end_leftovers(run_dir: Path, signals: dict[str, signal.Signals]) -> list[str]:
    """Ends what an earlier supervisor of this site started and left behind (it was killed): exactly the processes that
    the pid files name, with the start times that they had. `signals`: by the file's stem; SIGKILL for others and for
    those that stay. Returns their names."""
    ended = []
    for pid_file in sorted(run_dir.glob("*.pid")):
        words = pid_file.read_text(encoding="ascii").split()
        if len(words) == 2 and words[0].isdigit() and began(int(words[0])) == words[1]:
            _end(int(words[0]), words[1], signals.get(pid_file.stem, signal.SIGKILL))
            ended.append(pid_file.stem)
        pid_file.unlink(missing_ok=True)
    return ended


def began(pid: int) -> str | None:
    """When a process began, in clock ticks since the machine did (proc(5), field 22 of stat); None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else fields[18]


def _end(pid: int, start: str, number: signal.Signals) -> None:
    """A descriptor names the process itself, so that a number given anew is not hit (pidfd_open(2))."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if began(pid) != start:
            return
        poll = select.poll()
        poll.register(process, select.POLLIN)
        for each in (number, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, each)
            if poll.poll(LEFTOVER_S_MAX * 1000):
                return
    finally:
        os.close(process)
