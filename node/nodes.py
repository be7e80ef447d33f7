"""How many nodes this site runs: kept in its angarium.toml, and obeyed by the supervisor when it is told to look (SIGHUP).
Implements `storage.comings.Nodes`."""

import asyncio
import os
import re
import signal
import tomllib
from pathlib import Path

from node.config import Config, ConfigRefused, load
from node.supervisor import running_pid

FILE_NAME = "angarium.toml"
SECTION = re.compile(r"\s*\[\s*node\s*\]\s*(#.*)?$")
SETTING = re.compile(r"\s*workers\s*=\s*\d+")
REMARK = re.compile(r"\s*#\s*workers\s*=\s*\d+")


class Processes:
    def __init__(self, config: Config) -> None:
        self._config = config

    @property
    def count(self) -> int:
        """As the file says now; 0 = no supervisor of this site runs that could obey it."""
        if running_pid(self._config.run_dir) is None:
            return 0
        try:
            return load(self._config.dir).workers
        except ConfigRefused:
            return self._config.workers

    def runs(self, number: int) -> bool:
        return (self._config.run_dir / f"worker-{number}.pid").exists()

    async def keep(self, count: int, *, after_s: float = 0.0) -> None:
        """Written at once; obeyed after so long. Raises OSError, and ValueError where the file cannot be written so."""
        pid = running_pid(self._config.run_dir)
        if pid is None:
            raise ValueError("the supervisor of this site has ended")
        await asyncio.to_thread(_write, self._config.dir / FILE_NAME, count)
        asyncio.get_running_loop().call_later(after_s, os.kill, pid, signal.SIGHUP)


def with_workers(text: str, count: int) -> str:
    """The file with that setting, everything else as it was. Raises ValueError where that is not to be had."""
    lines = text.splitlines(keepends=True)
    begin = next((number for number, line in enumerate(lines) if SECTION.match(line)), None)
    if begin is None:
        changed = text + ("" if text.endswith("\n") or not text else "\n") + f"\n[node]\nworkers = {count}\n"
    else:
        ends = (number for number in range(begin + 1, len(lines)) if lines[number].lstrip().startswith("["))
        inside = range(begin + 1, next(ends, len(lines)))
        found = [(each, number) for each in (SETTING, REMARK) for number in inside if each.match(lines[number])]
        if found:
            pattern, number = found[0]
            lines[number] = pattern.sub(f"workers = {count}", lines[number], count=1)
        else:
            lines.insert(begin + 1, f"workers = {count}\n")
        changed = "".join(lines)
    before = tomllib.loads(text)
    try:
        after = tomllib.loads(changed)
    except tomllib.TOMLDecodeError:
        after = {}
    if after != before | {"node": before.get("node", {}) | {"workers": count}}:
        raise ValueError(f"write `workers = {count}` under [node] by hand: the file is not as it was made")
    return changed


def _write(path: Path, count: int) -> None:
    """Whole or not at all."""
    try:
        text = with_workers(path.read_text(), count)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, path.stat().st_mode & 0o777)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
