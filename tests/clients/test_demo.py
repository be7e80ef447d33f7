"""`angarium demo`: what a visitor runs first must end well, and leave nothing behind however it ends."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.faults.test_sites import bases
from tests.live import CLI, REPOSITORY

MESSAGES = 500
FAILOVER_S_MAX = 20.0
STOP_S_MAX = 90.0

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@contextmanager
def demo(folder: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """Running, with `folder` for its temporary files; killed at the end if it is still there."""
    process = subprocess.Popen(
        (*CLI, "demo", "--json", "--port-bases", ",".join(map(str, bases())), *options),
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_mail_outlives_a_site(tmp_path: Path) -> None:
    with demo(tmp_path, "--messages", str(MESSAGES)) as process:
        out, told = process.communicate()
    print(told)
    assert process.returncode == 0, told
    verdict = json.loads(out.splitlines()[-1])
    print(verdict)
    assert verdict["acknowledged"] >= MESSAGES
    assert verdict["present"] == verdict["acknowledged"]
    assert verdict["lost"] == verdict["doubled"] == verdict["uidvalidity_changes"] == 0
    assert verdict["alike"]
    assert 0 < verdict["seconds_without_service"] < FAILOVER_S_MAX
    for what in (
        "pune killed",
        "mail-pune-1",
        "took over after",
        "first acknowledged write",
        "pune's copy is level",
        "moved back",
    ):
        assert what in told, what
    assert not list(tmp_path.iterdir()), "nothing stays behind"


def test_an_interrupted_demo_stops_all_that_it_started(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "ready" in line:
                break
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) > 3, "supervisors and engines"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=STOP_S_MAX)
    assert process.returncode == 130, told
    assert "nothing runs on" in told
    assert not psutil.wait_procs(started, timeout=5)[1]
    assert not list(tmp_path.iterdir()), "nothing stays behind"
