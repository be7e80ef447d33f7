"""What the machine says of itself: processor time and memory of the site's processes, the disk's pace."""

import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import psutil

SYNC_BYTES = 10_240
SYNCS = 100


class Cpu(NamedTuple):
    """Seconds of processor time so far. `nats`: the member of the backbone too, where there is one."""

    worker: float
    nats: float
    postgres: float

    def since(self, before: "Cpu") -> "Cpu":
        return Cpu(*(now - then for now, then in zip(self, before, strict=True)))

    def ms_each(self, count: int) -> str:
        parts = ", ".join(f"{name} {value * 1000 / count:.3g}" for name, value in self._asdict().items())
        return f"CPU ms each: {parts}"


def cpu(run_dir: Path) -> Cpu:
    workers = sum(cpu_s(_pid(file)) for file in run_dir.glob("worker-*.pid"))
    engines = sum(cpu_s(_pid(file)) for name in ("nats", "backbone") if (file := run_dir / f"{name}.pid").exists())
    return Cpu(workers, engines, cpu_s(_pid(run_dir / "postgres.pid")))


def pss_bytes(run_dir: Path) -> dict[str, int]:
    """Of each part of the site with its children, the supervisor too: shared pages are counted by their part."""
    found = {file.stem: _pss(_tree(_pid(file))) for file in sorted(run_dir.glob("*.pid"))}
    supervisor = int((run_dir / "supervisor.lock").read_text())
    return found | {"supervisor": _pss([psutil.Process(supervisor)])}


def sync_ms(folder: Path) -> float:
    """Median of appending 10 KB to a file and fdatasync."""
    took = []
    path = folder / "sync.probe"
    with path.open("ab", buffering=0) as file:
        for _ in range(SYNCS):
            data = os.urandom(SYNC_BYTES)
            began = time.perf_counter()
            file.write(data)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(took) * 1000


def name() -> str:
    model = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ":"
    )
    return f"{os.cpu_count()} × {model.partition(':')[2].strip() or platform.machine()}"


def commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(("git", *words), capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "node", "protocols", "storage", "cluster")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _pid(file: Path) -> int:
    return int(file.read_text().split()[0])


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_s(pid: int) -> float:
    """Of a process and all its children, those that have ended too."""
    total = 0.0
    for process in _tree(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _pss(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total
