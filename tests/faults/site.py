"""A demo site whose processes a test may kill: started by the command line, found by their pid files."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path

from node.config import Config, load, load_demo
from tests.live import CLI, REPOSITORY, port_base

START_S_MAX = 90.0
STOP_S_MAX = 60.0
POLL_S = 0.01


class Site:
    """`start`, then `kill` or `freeze` its parts by their names (`worker-0`, `nats`, `postgres`), then `stop`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.people = {person.address: person.password for person in load_demo(config.demo_file)}
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Returns when every listener answers."""
        ready = self.config.dir / "ready"
        ready.unlink(missing_ok=True)
        with (self.config.dir / "up.log").open("a") as log:
            self._process = subprocess.Popen(
                (*CLI, "up", str(self.config.dir), "--ready-file", str(ready), "--json"),
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(START_S_MAX):
            while not ready.exists():
                assert self._process.poll() is None, self.words()
                await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(self._process.wait, STOP_S_MAX)
            self._process = None

    def pid(self, part: str) -> int:
        """Raises FileNotFoundError while it is down."""
        return int((self.config.run_dir / f"{part}.pid").read_text().split()[0])

    async def running(self, part: str) -> int:
        """Its pid, when it is there."""
        async with asyncio.timeout(START_S_MAX):
            while True:
                try:
                    return self.pid(part)
                except (FileNotFoundError, IndexError):
                    await asyncio.sleep(POLL_S)

    async def kill(self, part: str) -> None:
        """`kill -9`; of `supervisor`: then everything has died, and is started again by hand."""
        if part != "supervisor":
            os.kill(await self.running(part), signal.SIGKILL)
            return
        assert self._process is not None
        self._process.kill()
        await asyncio.to_thread(self._process.wait)
        await self.start()

    def freeze(self, part: str) -> "Frozen":
        """The part and its children stand still until the block ends."""
        pid = self.pid(part)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return Frozen([pid, *map(int, children)])

    def words(self) -> str:
        return (self.config.dir / "up.log").read_text(errors="replace")[-6000:]

    def cli(self, *words: str) -> str:
        """What a verb prints. Raises AssertionError with its words where it fails."""
        done = subprocess.run(
            (*CLI, "--dir", str(self.config.dir), *words), cwd=REPOSITORY, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


class Frozen:
    def __init__(self, pids: list[int]) -> None:
        self._pids = pids

    def __enter__(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        for pid in self._pids:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue


def made(folder: Path, *, workers: int = 1) -> Site:
    """A site with two people that takes passwords from this machine in the clear."""
    words = (
        "init",
        str(folder),
        "--site",
        "test",
        "--domain",
        "example.org",
        "--port-base",
        str(port_base()),
        "--demo",
        "--alone",
    )
    subprocess.run((*CLI, *words), cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    file = folder / "angarium.toml"
    text = file.read_text()
    assert "# workers = 1" in text
    file.write_text(text.replace("# workers = 1", f"workers = {workers}"))
    return Site(load(folder))
