"""angarium.toml and secrets.toml, read once into frozen values. An unknown key, or a value of the wrong kind, is
refused with the file, the line and the key: a mistyped limit must not be a limit that is not there.
"""

import contextlib
import hashlib
import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote

import msgspec

from cluster.control.roster import Member as Member
from node.backbone import REPLICAS as REPLICAS
from node.backbone import ROSTER_NAME, BackboneConfig, read_roster
from node.backbone import ConfigRefused as ConfigRefused
from node.backbone import Secret as Secret
from node.limits import Limits
from node.oauth import OAuthFile, OAuthSecrets, trust
from storage.bearer import Trust

SOCKET_PATH_BYTES_MAX = 100  # sun_path holds 108 with its final NUL (unix(7)); a margin for the engine's own suffixes
PORT_BASE_MAX = 65535 - 4222
DATABASE_SOCKET_NAME = ".s.PGSQL.5432"

STANDARD_PORTS: dict[str, int] = {
    "smtp": 25, "submission": 587, "submissions": 465, "lmtp": 24, "imap": 143, "imaps": 993, "pop3": 110, "pop3s": 995,
    "http": 80, "https": 443, "nats": 4222,
}

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Ports(msgspec.Struct, frozen=True):
    """Where each language listens; 0 = not at all (nats: never 0)."""

    smtp: int
    submission: int
    submissions: int
    lmtp: int
    imap: int
    imaps: int
    pop3: int
    pop3s: int
    http: int
    https: int
    nats: int


class TlsConfig(msgspec.Struct, frozen=True):
    """PEM files. `ca` is what clients are told to trust; `ca_key` is read only to issue certificates."""

    ca: Path
    ca_key: Path
    certificate: Path
    key: Path
    link_certificate: Path  # between sites, always by the own authority, while the other may be a public one
    link_key: Path


class NatsConfig(msgspec.Struct, frozen=True):
    """How to reach the log's engine. `own`: the supervisor starts it. `system_password` is of its account SYS."""

    url: str
    user: str
    password: Secret
    own: bool
    domain: str
    system_password: Secret


class SmarthostConfig(msgspec.Struct, frozen=True):
    """Where mail for other domains goes. `tls`: starttls (required), implicit, or none."""

    host: str
    port: int
    tls: Literal["starttls", "implicit", "none"]
    user: str
    password: Secret


class RelayConfig(msgspec.Struct, frozen=True):
    """`through`: the site that sends this one's mail for other domains, by its own smarthost; empty = it is sent here."""

    through: str


class Config(msgspec.Struct, frozen=True):
    """All that a process of this node knows at start. Paths are absolute."""

    dir: Path
    site: str
    witness: bool  # nothing but a member of the backbone
    domain: str
    hostname: str
    bind: str
    port_base: int
    ports: Ports
    tls: TlsConfig
    nats: NatsConfig
    backbone: BackboneConfig | None  # None = this is the only site, for ever
    database_url: str
    database_own: bool
    workers: int
    worker_module: str
    limits: Limits
    plaintext_networks: tuple[Network, ...]
    imap_unauthenticate: bool
    imap_compress: bool
    smarthost: SmarthostConfig | None
    relay: RelayConfig
    oauth: Trust | None
    lmtp_socket: Path | None
    log_level: str
    log_format: Literal["auto", "json", "console"]
    api_token: Secret
    hmac_key: Secret

    @property
    def routes_elsewhere(self) -> bool:
        """Whether mail for other domains has a way out, here or at another site."""
        return self.smarthost is not None or bool(self.relay.through)

    @property
    def run_dir(self) -> Path:
        """Pid files, the lock and sockets of the running site."""
        return self.dir / "run"

    @property
    def log_dir(self) -> Path:
        return self.dir / "log"

    @property
    def blob_dir(self) -> Path:
        return self.dir / "blobs"

    @property
    def search_dir(self) -> Path:
        """May be removed: it is made again."""
        return self.dir / "search"

    @property
    def roster_file(self) -> Path:
        return self.dir / ROSTER_NAME

    @property
    def demo_file(self) -> Path:
        return self.dir / "demo.toml"

    @property
    def database_socket_dir(self) -> Path:
        return socket_dir(self.dir) / "pg"


class DemoPerson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody whom the first start of a demo site makes an account for."""

    address: str
    name: str
    password: str


# The files as they are written; Config is what they mean.


class _Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    domain: str
    hostname: str = ""
    witness: bool = False


class _Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bind: str = "127.0.0.1"
    port_base: int = 0
    lmtp_socket: str = "lmtp.sock"


class _OwnPorts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    smtp: int | None = None
    submission: int | None = None
    submissions: int | None = None
    lmtp: int | None = None
    imap: int | None = None
    imaps: int | None = None
    pop3: int | None = None
    pop3s: int | None = None
    http: int | None = None
    https: int | None = None
    nats: int | None = None


class _Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ca: str = "tls/ca.pem"
    ca_key: str = "tls/ca.key"
    certificate: str = "tls/server.pem"
    key: str = "tls/server.key"
    link_certificate: str = "tls/link.pem"
    link_key: str = "tls/link.key"


class _Engines(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nats_url: str = ""
    database_url: str = ""


class _Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    workers: int = 1
    worker_module: str = "node.worker"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"


class _Security(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    plaintext_networks: tuple[str, ...] = ()
    imap_unauthenticate: bool = True  # off where a proxy that knows no UNAUTHENTICATE stands before us (RFC 8437 §8)
    imap_compress: bool = True


class _Smarthost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    host: str
    port: int = 587
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    user: str = ""


class _Relay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    through: str = ""


class _Backbone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    member: tuple[Member, ...]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    site: _Site
    listen: _Listen = _Listen()
    ports: _OwnPorts = _OwnPorts()
    tls: _Tls = _Tls()
    engines: _Engines = _Engines()
    node: _Node = _Node()
    limits: Limits = Limits()
    security: _Security = _Security()
    smarthost: _Smarthost | None = None
    relay: _Relay = _Relay()
    oauth: OAuthFile | None = None
    backbone: _Backbone | None = None


class _NatsSecrets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    password: str
    system_password: str = ""
    user: str = "angarium"


class _BackboneSecrets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    route_password: str = ""
    leaf_password: str = ""
    client_password: str = ""
    leaf_seed: str = ""


class _SmarthostSecrets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    password: str = ""


class _Secrets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    api_token: str
    hmac_key: str
    nats: _NatsSecrets
    smarthost: _SmarthostSecrets = _SmarthostSecrets()
    oauth: OAuthSecrets = OAuthSecrets()
    backbone: _BackboneSecrets = _BackboneSecrets()


class _Demo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    person: tuple[DemoPerson, ...]


def load(directory: Path) -> Config:
    """The configuration of the site in `directory`. Raises ConfigRefused."""
    home = directory.absolute()
    file = _read(home / "angarium.toml", _File)
    secrets = _read(home / "secrets.toml", _Secrets)
    _check(home / "angarium.toml", file)
    ports = _ports(file)
    own_nats, own_database = not file.engines.nats_url, not file.engines.database_url
    return Config(
        dir=home,
        site=file.site.name,
        witness=file.site.witness,
        domain=file.site.domain.lower(),
        hostname=file.site.hostname or f"mail.{file.site.domain}",
        bind=file.listen.bind,
        port_base=file.listen.port_base,
        ports=ports,
        tls=_tls(home, file.tls),
        nats=NatsConfig(
            url=file.engines.nats_url or f"nats://127.0.0.1:{ports.nats}",
            user=secrets.nats.user,
            password=Secret(secrets.nats.password),
            own=own_nats,
            domain=f"site-{file.site.name}",
            system_password=Secret(secrets.nats.system_password),
        ),
        backbone=_backbone(home, file, secrets),
        database_url=file.engines.database_url or _own_database_url(home),
        database_own=own_database,
        workers=file.node.workers or os.cpu_count() or 1,
        worker_module=file.node.worker_module,
        limits=file.limits,
        plaintext_networks=tuple(ipaddress.ip_network(text) for text in file.security.plaintext_networks),
        imap_unauthenticate=file.security.imap_unauthenticate,
        imap_compress=file.security.imap_compress,
        smarthost=_smarthost(file, secrets),
        relay=RelayConfig(file.relay.through),
        oauth=trust(home / "angarium.toml", file.oauth, secrets.oauth),
        lmtp_socket=_lmtp_socket(home, file.listen.lmtp_socket),
        log_level=file.node.log_level,
        log_format=file.node.log_format,
        api_token=Secret(secrets.api_token),
        hmac_key=Secret(secrets.hmac_key),
    )


def load_demo(path: Path) -> tuple[DemoPerson, ...]:
    """The people of a demo site, none where it is not one. Raises ConfigRefused."""
    return _read(path, _Demo).person if path.exists() else ()


def socket_dir(home: Path) -> Path:
    """Where the site's unix sockets live: its run folder, or a short folder of its own where that path is too long for
    a socket. Every process of the site derives the same one."""
    near = home / "run"
    if len(os.fsencode(near / "pg" / DATABASE_SOCKET_NAME)) < SOCKET_PATH_BYTES_MAX:
        return near
    return Path("/tmp") / f"angarium-{os.geteuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"


def remove_short_sockets(home: Path) -> None:
    """The short folder goes with the site's run; one with anything but our empty folder in it stays."""
    short = socket_dir(home)
    if short != home / "run":
        with contextlib.suppress(OSError):
            (short / "pg").rmdir()
            short.rmdir()


def valid_site_name(name: str) -> bool:
    return re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name) is not None


def valid_domain(domain: str) -> bool:
    """RFC 1035 §2.3.1 labels, at least two; a name in another script is written in its A-labels (RFC 5890 §2.3.2.1)."""
    label = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    return len(domain) <= 253 and re.fullmatch(rf"{label}(\.{label})+", domain) is not None


def _own_database_url(home: Path) -> str:
    return f"postgresql://angarium@/angarium?host={quote(str(socket_dir(home) / 'pg'), safe='/')}"


def _lmtp_socket(home: Path, path: str) -> Path | None:
    """A relative path is one beside the site's other sockets; empty = no such socket."""
    return socket_dir(home) / path if path else None


def _ports(file: _File) -> Ports:
    chosen = msgspec.structs.asdict(file.ports)
    base = file.listen.port_base
    return Ports(**{name: base + std if chosen[name] is None else chosen[name] for name, std in STANDARD_PORTS.items()})


def _tls(home: Path, files: _Tls) -> TlsConfig:
    paths = {name: home / path for name, path in msgspec.structs.asdict(files).items()}
    if not paths["link_certificate"].exists():  # of a site alone, or of sites that were listed by hand
        paths |= {"link_certificate": paths["certificate"], "link_key": paths["key"]}
    return TlsConfig(**paths)


def _backbone(home: Path, file: _File, secrets: _Secrets) -> BackboneConfig | None:
    """Raises ConfigRefused."""
    path, listed = home / "angarium.toml", file.backbone.member if file.backbone is not None else ()
    for member in listed:
        if not 0 <= member.port_base <= 65535 - 7422:
            raise ConfigRefused(f"{path}: backbone.member.port_base must be between 0 and {65535 - 7422}")
    passwords = {name: Secret(text) for name, text in msgspec.structs.asdict(secrets.backbone).items()}
    roster = read_roster(home / ROSTER_NAME)
    if roster is not None:
        if not passwords["client_password"] or not (passwords["leaf_seed"] or file.site.witness):
            raise ConfigRefused(f"{home / 'secrets.toml'}: [backbone] needs client_password and leaf_seed")
        # What is written by hand is how this site reaches the others, whatever the others say.
        reached = {member.site: member for member in listed}
        members = tuple(
            msgspec.structs.replace(each, host=reached[each.site].host, port_base=reached[each.site].port_base)
            if each.site in reached
            else each
            for each in roster.members
        )
        return BackboneConfig(members, roster, **passwords)
    if file.backbone is None:
        return None
    sites = [member.site for member in listed]
    if len(set(sites)) != len(sites) or not all(valid_site_name(site) for site in sites):
        raise ConfigRefused(f"{path}: backbone.member.site must be names of sites, each one once, not {', '.join(sites)}")
    if file.site.name not in sites:
        raise ConfigRefused(f"{path}: no backbone.member is this site, {file.site.name}")
    if len(sites) != REPLICAS:
        raise ConfigRefused(f"{path}: a backbone has {REPLICAS} members, not {len(sites)}: with two neither can decide alone")
    if not all(passwords[name] for name in ("route_password", "leaf_password", "client_password")):
        raise ConfigRefused(f"{home / 'secrets.toml'}: [backbone] needs route_password, leaf_password, client_password")
    return BackboneConfig(listed, None, **passwords)


def _smarthost(file: _File, secrets: _Secrets) -> SmarthostConfig | None:
    if file.smarthost is None:
        return None
    there = file.smarthost
    return SmarthostConfig(there.host, there.port, there.tls, there.user, Secret(secrets.smarthost.password))


def _read(path: Path, kind: type[T]) -> T:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigRefused(f"{path} is not there: make a site with `angarium init`, or name its folder") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigRefused(f"{path} cannot be read: {error}") from None
    try:
        return msgspec.convert(tomllib.loads(text), kind, strict=True)
    except tomllib.TOMLDecodeError as error:
        raise ConfigRefused(f"{path}: not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise ConfigRefused(f"{path}{_line_of(text, str(error))}: {error}") from None


def _line_of(text: str, complaint: str) -> str:
    """`:12` if the complaint names a key that stands in the text, else nothing."""
    where = re.search(r"at `\$\.?([\w.]*)", complaint)
    unknown = re.search(r"unknown field `([^`]+)`", complaint)
    path = [part for part in (where.group(1) if where else "").split(".") if part]
    if unknown:
        path.append(unknown.group(1))
    if not path:
        return ""
    key, section = path[-1], ".".join(path[:-1])
    inside = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([\w.]+)\s*\]+", line)
        if header:
            inside = header.group(1)
            if inside == ".".join(path):
                return f":{number}"
        elif inside == section and re.match(rf"\s*{re.escape(key)}\s*=", line):
            return f":{number}"
    return ""


def _check(path: Path, file: _File) -> None:
    """What the types alone cannot say. Raises ConfigRefused."""
    if not valid_site_name(file.site.name):
        raise ConfigRefused(f"{path}: site.name must be lower-case letters, digits and dashes, not {file.site.name!r}")
    if not valid_domain(file.site.domain):
        raise ConfigRefused(f"{path}: site.domain must be a domain like example.org, not {file.site.domain!r}")
    if not 0 <= file.listen.port_base <= PORT_BASE_MAX:
        raise ConfigRefused(f"{path}: listen.port_base must be between 0 and {PORT_BASE_MAX}")
    if not 0 <= file.node.workers <= 64:
        raise ConfigRefused(f"{path}: node.workers must be between 0 (one for each core) and 64")
    for name, port in msgspec.structs.asdict(file.ports).items():
        if port is not None and not (1 if name == "nats" else 0) <= port <= 65535:
            raise ConfigRefused(f"{path}: ports.{name} must be a port number" + (", or 0 for none" * (name != "nats")))
    for member in file.backbone.member if file.backbone is not None else ():
        for name, port in member.ports.items():
            if name not in STANDARD_PORTS or not 0 <= port <= 65535:
                raise ConfigRefused(f"{path}: backbone.member.ports: {name} = {port} is no language with its port, or 0 for none")
    _check_relay(path, file)
    for name, value in msgspec.structs.asdict(file.limits).items():
        if value <= 0:
            raise ConfigRefused(f"{path}: limits.{name} must be above 0")
    try:
        ipaddress.ip_address(file.listen.bind)
    except ValueError:
        raise ConfigRefused(f"{path}: listen.bind must be an address like 0.0.0.0, not {file.listen.bind!r}") from None
    for text in file.security.plaintext_networks:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise ConfigRefused(f"{path}: security.plaintext_networks: {error}") from None


def _check_relay(path: Path, file: _File) -> None:
    """Raises ConfigRefused."""
    through = file.relay.through
    if through and file.smarthost is not None:
        raise ConfigRefused(f"{path}: mail for other domains goes by [smarthost] or by relay.through, not by both")
    if through and (not valid_site_name(through) or through == file.site.name):
        raise ConfigRefused(f"{path}: relay.through must be the name of another site, not {through!r}")
