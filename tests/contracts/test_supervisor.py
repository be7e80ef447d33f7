"""The supervisor keeps a site running whatever is killed, and ends it in order: with real engines, and a worker that
serves nobody."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from node.child import LAUNCHER, began

REPOSITORY = Path(__file__).parents[2]
WAIT_S_MAX = 60.0
CLI = (sys.executable, "-c", "from node.cli import main; main()")


@dataclass
class Site:
    """A site of two workers, and the supervisor that runs it; `way`: launcher options that it is started with."""

    directory: Path
    way: tuple[str, ...] = ()
    heard: list[dict[str, object]] = field(default_factory=list)
    _process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    @property
    def ready_file(self) -> Path:
        return self.directory / "ready"

    def command(self) -> tuple[str, ...]:
        up = (*CLI, "up", str(self.directory), "--ready-file", str(self.ready_file), "--json")
        return (sys.executable, "-I", "-S", str(LAUNCHER), *self.way, "--", *up) if self.way else up

    async def start(self) -> None:
        self.heard.clear()
        self._process = await asyncio.create_subprocess_exec(
            *self.command(), cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    async def until(self, part: str, what: str) -> int:
        """Waits until this is heard and gives the pid that was named with it."""
        assert self.process.stdout is not None
        while line := await asyncio.wait_for(self.process.stdout.readline(), WAIT_S_MAX):
            self.heard.append(json.loads(line))
            if self.heard[-1]["part"] == part and self.heard[-1]["what"] == what:
                return int(str(self.heard[-1]["pid"]))
        assert self.process.stderr is not None
        raise AssertionError(f"never heard {part} {what}: {await self.process.stderr.read()!r}, {self.heard}")

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        out, _ = await asyncio.wait_for(self.process.communicate(), WAIT_S_MAX)
        self.heard += [json.loads(line) for line in out.splitlines()]
        return self.process.returncode or 0

    def pid(self, part: str) -> int:
        return int((self.directory / "run" / f"{part}.pid").read_text().split()[0])


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def free_port_base() -> int:
    """One with which the log's engine has a free port: the only one that is listened on here. It lies below those that
    the system gives to outgoing connections, so that it is still free when it is used."""
    while True:
        base = 6000 + secrets.randbelow(20000)
        with socket.socket() as door, contextlib.suppress(OSError):
            door.bind(("127.0.0.1", base + 4222))
            return base


def make(directory: Path) -> Site:
    arguments = ("init", str(directory), "--site", "north", "--domain", "example.org", "--alone", "--port-base")
    subprocess.run((*CLI, *arguments, str(free_port_base())), cwd=REPOSITORY, env=environment(), check=True)
    file = directory / "angarium.toml"
    fake = '[node]\nworkers = 2\nworker_module = "tests.contracts.supervised_worker"\n'
    file.write_text(file.read_text().replace("[node]\n", fake))
    return Site(directory)


Maker = Callable[[Path], Awaitable[Site]]


@pytest.fixture
async def started() -> AsyncIterator[Maker]:
    """Starts sites and waits until they serve; afterwards stops what a failed test left running."""
    sites: list[Site] = []

    async def start(directory: Path, way: tuple[str, ...] = ()) -> Site:
        site = make(directory)
        site.way = way
        sites.append(site)
        await site.start()
        await site.until("site", "serving")
        return site

    yield start
    for site in sites:
        if site.process.returncode is None:
            await site.end()


async def gone(pid: int) -> None:
    """Waits until a process is no more, or is only waiting to be collected by a parent that is not us."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), WAIT_S_MAX)
        finally:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)


async def test_sigterm_stops_workers_then_tables_then_log(started: Maker, tmp_path: Path) -> None:
    site = await started(tmp_path / "site")
    assert site.ready_file.read_text().strip() == str(site.process.pid)
    pids = [site.pid(part) for part in ("nats", "postgres", "worker-0", "worker-1")]
    assert await site.end() == 0
    stopped = [happening["part"] for happening in site.heard if happening["what"] == "stopped"]
    assert sorted(map(str, stopped[:2])) == ["worker-0", "worker-1"] and stopped[2:] == ["postgres", "nats"]
    # The workers found both engines alive while they drained.
    assert sorted(str(h["part"]) for h in site.heard if h["what"] == "drained") == ["worker-0", "worker-1"]
    assert not site.ready_file.exists()
    assert [began(pid) for pid in pids] == [None] * 4
    assert list((site.directory / "run").glob("*.pid")) == []


async def test_whatever_is_killed_starts_again(started: Maker, tmp_path: Path) -> None:
    site = await started(tmp_path / "site")
    for part in ("nats", "postgres", "worker-1"):
        before = site.pid(part)
        os.kill(before, signal.SIGKILL)
        await site.until(part, "ended")
        assert "SIGKILL" in str(site.heard[-1]["detail"])
        assert await site.until(part, "ready") != before
    assert await site.end() == 0


async def test_a_second_start_is_refused_with_the_pid(started: Maker, tmp_path: Path) -> None:
    site = await started(tmp_path / "site")
    second = await asyncio.create_subprocess_exec(
        *site.command(), cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _, complaint = await asyncio.wait_for(second.communicate(), WAIT_S_MAX)
    assert second.returncode == 1
    assert complaint.count(b"\n") == 1 and f"pid {site.process.pid}".encode() in complaint
    assert site.ready_file.exists()
    assert await site.end() == 0


@pytest.mark.long
async def test_a_killed_supervisor_blocks_no_later_start(started: Maker, tmp_path: Path) -> None:
    # The path is too long for a socket, so that the short folder is shown too.
    site = await started(tmp_path / ("a-long-name-" * 6) / ("b" * 60))
    pids = [site.pid(part) for part in ("nats", "postgres", "worker-0", "worker-1")]
    await site.end(signal.SIGKILL)
    await site.start()
    await site.until("site", "serving")
    assert set(pids).isdisjoint(site.pid(part) for part in ("nats", "postgres", "worker-0", "worker-1"))
    for pid in pids:
        await gone(pid)
    assert await site.end() == 0


@pytest.mark.long
async def test_leftovers_are_ended_and_strangers_are_not(started: Maker, tmp_path: Path) -> None:
    site = make(tmp_path / "site")
    run = site.directory / "run"
    run.mkdir()
    left, stranger = (subprocess.Popen((sys.executable, "-c", "input()"), stdin=subprocess.PIPE) for _ in range(2))
    with left, stranger:
        (run / "worker-0.pid").write_text(f"{left.pid} {began(left.pid)}\n")
        (run / "worker-1.pid").write_text(f"{stranger.pid} 1\n")  # its number, but not its beginning
        await site.start()
        await site.until("site", "serving")
        assert left.wait(WAIT_S_MAX) == -signal.SIGKILL
        assert stranger.poll() is None
        stranger.kill()
    assert [h["part"] for h in site.heard if h["what"] == "leftover"] == ["worker-0"]
    assert await site.end() == 0


async def test_sighup_reaches_every_worker(started: Maker, tmp_path: Path) -> None:
    site = await started(tmp_path / "site")
    site.process.send_signal(signal.SIGHUP)
    # Whichever is heard first, the other may have spoken before it.
    await site.until("worker-0", "reloaded")
    told = [h["pid"] for h in site.heard if h["what"] == "reloaded"]
    if len(told) == 1:
        told.append(await site.until("worker-1", "reloaded"))
    assert set(told) == {site.pid("worker-0"), site.pid("worker-1")}
    assert await site.end() == 0


async def test_what_cannot_start_is_given_up_with_its_reason(tmp_path: Path) -> None:
    site = make(tmp_path / "site")
    base = int((site.directory / "angarium.toml").read_text().partition("port_base = ")[2].split()[0])
    with socket.create_server(("127.0.0.1", base + 4222)):
        await site.start()
        out, complaint = await asyncio.wait_for(site.process.communicate(), WAIT_S_MAX)
    assert site.process.returncode == 1
    assert complaint.count(b"\n") == 1
    assert b"nats does not start" in complaint and b"address already in use" in complaint
    assert b'"serving"' not in out and not site.ready_file.exists()


def ways() -> list[tuple[str, ...]]:
    """Users that this machine lets us be: root may be a plain one, and anybody may be a root who has no other user."""
    possible: list[tuple[str, ...]] = [("--user", "65534")] if os.geteuid() == 0 else []
    probe = (sys.executable, "-I", "-S", str(LAUNCHER), "--namespace", "0", "--probe", "/")
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        possible.append(("--namespace", "0"))
    return possible


@pytest.mark.parametrize("way", ways(), ids=" ".join)
@pytest.mark.long
async def test_other_users_can_run_a_site_too(tmp_path: Path, way: tuple[str, ...]) -> None:
    site = make(tmp_path / "site")
    site.way = way
    if way[0] == "--user":
        for path in (site.directory, *site.directory.rglob("*")):
            os.chown(path, int(way[1]), int(way[1]))
    for _ in range(2):  # the second start finds the database and its owner
        await site.start()
        await site.until("site", "serving")
        assert await site.end() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_programs_in_a_closed_folder_are_found_by_access(tmp_path: Path) -> None:
    """PostgreSQL asks access(2) whether it may run its own programs: a clone in root's closed folder must do."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "program"
    program.write_bytes(b"#!/bin/sh\n")
    program.chmod(0o755)
    launch = (sys.executable, "-I", "-S", str(LAUNCHER), "--user", "65534")
    probed = subprocess.run((*launch, "--probe", str(program)), check=False)
    asked = subprocess.run((*launch, "--", "/usr/bin/test", "-x", str(program)), check=False)
    assert (probed.returncode, asked.returncode) == (0, 0)
    program.chmod(0o700)
    assert subprocess.run((*launch, "--probe", str(program)), check=False).returncode == 1
