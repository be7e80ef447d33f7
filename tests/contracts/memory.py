"""What a process really holds, as the kernel counts it."""

from pathlib import Path

_SELF = Path("/proc/self")


def restart_peak() -> int:
    """Bytes resident now; `peak` counts from here (proc(5): clear_refs 5)."""
    (_SELF / "clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """The most bytes resident since `restart_peak`."""
    return _status("VmHWM")


def _status(name: str) -> int:
    for line in (_SELF / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)
