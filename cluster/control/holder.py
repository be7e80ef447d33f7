"""Which process holds a lease, told so that another process of the same machine can see whether it is still there."""

import os
from pathlib import Path

import msgspec

PROC = Path("/proc")


class Holder(msgspec.Struct, frozen=True):
    """`id`: random, of one start of one process. `boot` and `pids`: the kernel's boot id and the namespace that `pid`
    belongs to; empty where the system has none, then nothing can be told of that process from outside."""

    id: str
    node: str
    boot: str = ""
    pids: str = ""
    pid: int = 0
    started: int = 0


def this_process(id: str, node: str) -> Holder:
    pid = os.getpid()
    boot, pids, started = _boot(), _pids(), _started(pid)
    return Holder(id, node, boot, pids, pid, started or 0) if boot and pids and started else Holder(id, node)


def is_gone(holder: Holder) -> bool:
    """True only if it surely runs no more: same boot of the same machine, same pid namespace, and no such process."""
    if not holder.boot or holder.boot != _boot() or holder.pids != _pids():
        return False
    return _started(holder.pid) != holder.started


def _boot() -> str:
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pids() -> str:
    try:
        return os.readlink(PROC / "self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if it is not there, or is dead and only not yet reaped."""
    try:
        # proc(5): the name in brackets may hold anything, so count from its end: state is field 3, starttime field 22.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
