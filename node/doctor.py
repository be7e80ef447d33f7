"""Looks a site over without changing it. Each check gives findings; one that is not well says what to do."""

import asyncio
import ctypes
import datetime
import errno
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from cluster.position import shown
from node.certs import Certificate, covers
from node.child import ChildFailed
from node.config import DATABASE_SOCKET_NAME, Config, ConfigRefused, load
from node.engines import nats, postgres
from node.supervisor import running_pid
from storage.bearer import Issuer, IssuerAway, Trust
from storage.postgres.folded import Waiting, read_waiting
from storage.postgres.pool import AWAY, Database
from storage.postgres.search_view import SearchState, SearchView

PROBE_S_MAX = 3.0
DISK_FREE_BYTES_MIN = 1024**3
DISK_FREE_SHARE_MIN = 0.05
FSYNC_S_WARN = 0.020  # group commit still gives a few hundred messages a second beyond it; people notice
FSYNC_TRIES = 9
RENEW_DAYS = 30
NATS_VERSION_MIN = (2, 14)
POSTGRES_VERSION_MIN = (15,)
SEARCH_SILENT_S_WARN = 1800.0
CLOCK_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)


class Finding(msgspec.Struct, frozen=True):
    check: str
    level: Literal["ok", "warning", "error"]
    text: str
    remedy: str = ""


def examine(directory: Path, now: datetime.datetime) -> list[Finding]:
    """All findings, in the order of the checks. Never raises for a sick site."""
    try:
        config = load(directory)
    except ConfigRefused as error:
        return [Finding("configuration", "error", str(error), "mend it, or make a site with `angarium init`")]
    findings = [Finding("configuration", "ok", f"site {config.site}, {config.domain}, {config.workers} worker(s)")]
    for check in CHECKS:
        findings += check(config, now)
    return findings


def check_secrets(config: Config, now: datetime.datetime) -> list[Finding]:
    exposed = [
        path
        for path in (config.dir / "secrets.toml", config.tls.key, config.tls.ca_key)
        if path.exists() and path.stat().st_mode & 0o077
    ]
    if not exposed:
        return [Finding("secrets", "ok", "readable by their owner only")]
    return [Finding("secrets", "error", f"{path} is readable by others", f"chmod 600 {path}") for path in exposed]


def check_ports(config: Config, now: datetime.datetime) -> list[Finding]:
    pid = running_pid(config.run_dir)
    doors = {name: port for name, port in msgspec.structs.asdict(config.ports).items() if port}
    nats_port = doors.pop("nats")
    places = [(name, config.bind, port) for name, port in doors.items()]
    if config.nats.own:
        places.append(("nats", "127.0.0.1", nats_port))
    judge = _answered if pid is not None else _free
    findings = [finding for name, host, port in places if (finding := judge(name, host, port)) is not None]
    state = f"the site is running (pid {pid})" if pid is not None else "the site is not running, its ports are free"
    return findings or [Finding("ports", "ok", state)]


def check_certificates(config: Config, now: datetime.datetime) -> list[Finding]:
    renew = f"angarium --dir {config.dir} certificate renew"
    try:
        certificate = Certificate(config.tls.certificate, config.tls.key)
    except (OSError, ValueError) as error:
        return [Finding("certificates", "error", f"{config.tls.certificate}: {error}", renew)]
    findings = []
    if not certificate.key_matches:
        findings.append(Finding("certificates", "error", "the key is not the certificate's", renew))
    if not covers(certificate.names, config.hostname):
        text = f"the certificate is for {', '.join(certificate.names)}, not for {config.hostname}"
        findings.append(Finding("certificates", "error", text, f"{renew}, or change site.hostname"))
    if now < certificate.valid_from:
        text = f"not valid before {certificate.valid_from:%Y-%m-%d %H:%M} UTC"
        findings.append(Finding("certificates", "error", text, "set this machine's clock"))
    days = (certificate.valid_until - now).days
    if days < RENEW_DAYS:
        level: Literal["warning", "error"] = "error" if days < 0 else "warning"
        findings.append(Finding("certificates", level, f"valid until {certificate.valid_until:%Y-%m-%d}", renew))
    return findings or [Finding("certificates", "ok", f"valid until {certificate.valid_until:%Y-%m-%d}")]


def check_links(config: Config, now: datetime.datetime) -> list[Finding]:
    """To the other sites: the certificate by which they know this one, and whether they are reached."""
    backbone = config.backbone
    if backbone is None:
        return []
    renew = f"angarium --dir {config.dir} certificate renew"
    if backbone.roster is None:
        return _check_listed(config, renew)
    if backbone.roster.find(config.site) is None:
        return [Finding("links", "error", "this site was shut out", "the others do not let it in any more: make another one")]
    try:
        certificate = Certificate(config.tls.link_certificate, config.tls.link_key)
    except (OSError, ValueError) as error:
        return [Finding("links", "error", f"{config.tls.link_certificate}: {error}", renew)]
    days, until = (certificate.valid_until - now).days, f"valid until {certificate.valid_until:%Y-%m-%d}"
    findings = [Finding("links", "error" if days < 0 else "warning", until, renew)] if days < RENEW_DAYS else []
    for site in backbone.formed:
        member = backbone.of(site)
        if site != config.site and _answered("links", member.host, member.leaf_port) is not None:
            text = f"{site} ({member.host}:{member.leaf_port}) is not reached"
            findings.append(Finding("links", "warning", text, "is it up, and the port open from here?"))
    for member in backbone.members:
        if member.site != config.site and member.role == "site":
            if _answered("links", member.host, member.carry_port) is not None:
                text = f"{member.site} takes no sessions ({member.host}:{member.carry_port} is not reached)"
                findings.append(Finding("links", "warning", text, "is it up, and the port open from here?"))
    return findings or [Finding("links", "ok", until)]


def _check_listed(config: Config, renew: str) -> list[Finding]:
    """Of sites that were listed by hand the others know this one by the name in its certificate alone."""
    try:
        named = Certificate(config.tls.link_certificate, config.tls.link_key).site
    except (OSError, ValueError) as error:
        return [Finding("links", "error", f"{config.tls.link_certificate}: {error}", renew)]
    if named != config.site:
        text = f"the certificate is not for site {config.site}: the others take no sessions from here"
        return [Finding("links", "warning", text, renew)]
    return []


def check_disk(config: Config, now: datetime.datetime) -> list[Finding]:
    usage = shutil.disk_usage(config.dir)
    free = f"{usage.free / 1024**3:.1f} GiB free"
    if usage.free < max(DISK_FREE_BYTES_MIN, int(usage.total * DISK_FREE_SHARE_MIN)):
        remedy = f"make room on the disk of {config.dir}: mail is refused when it is full"
        space = Finding("disk", "error", free, remedy)
    else:
        space = Finding("disk", "ok", free)
    try:
        latency = fsync_s(config.dir)
    except OSError as error:
        return [space, Finding("disk", "error", f"cannot write: {error}", f"make {config.dir} writable")]
    text = f"fsync takes {latency * 1000:.1f} ms"
    if latency <= FSYNC_S_WARN:
        return [space, Finding("disk", "ok", text)]
    remedy = "every acknowledgement waits for it: move the site to a faster disk"
    return [space, Finding("disk", "warning", text, remedy)]


def fsync_s(folder: Path) -> float:
    """The median time of writing 4 KiB and waiting for the disk, in seconds. Raises OSError."""
    path, times = folder / ".fsync-probe", []
    try:
        with path.open("wb", buffering=0) as file:
            for _ in range(FSYNC_TRIES):
                file.write(bytes(4096))
                began = time.perf_counter()
                os.fsync(file.fileno())
                times.append(time.perf_counter() - began)
    finally:
        path.unlink(missing_ok=True)
    return median(times)


def check_engines(config: Config, now: datetime.datetime) -> list[Finding]:
    running = running_pid(config.run_dir) is not None
    return asyncio.run(_engines(config, running))


def check_release(config: Config, now: datetime.datetime) -> list[Finding]:
    """Whether the tables wait for an event that only a newer release knows."""
    if running_pid(config.run_dir) is None:
        return []
    try:
        waiting = asyncio.run(asyncio.wait_for(_waiting(config), PROBE_S_MAX))
    except (*AWAY, TimeoutError):
        return []  # The check of the engines says so.
    return [
        Finding(
            "release",
            "error",
            f"{each.partition} waits at {shown(each.position)} for a newer release: event {each.event}",
            "upgrade this node: what came before is served, what comes after is safe in the log",
        )
        for each in waiting
    ]


async def _waiting(config: Config) -> list[Waiting]:
    database = Database(config.database_url)
    await database.start(PROBE_S_MAX)
    try:
        return await read_waiting(database)
    finally:
        await database.stop()


def check_search(config: Config, now: datetime.datetime) -> list[Finding]:
    """How far the search index has come. It is never an error: what is not in it is read."""
    if running_pid(config.run_dir) is None:
        return []
    try:
        state = asyncio.run(asyncio.wait_for(_search_state(config), PROBE_S_MAX))
    except (*AWAY, TimeoutError):
        return []  # The check of the engines says so.
    text = f"{state.indexed:,} messages indexed, {state.waiting:,} to come, {state.size_bytes / 1024**2:,.1f} MiB"
    if state.at and now.timestamp() - state.at > SEARCH_SILENT_S_WARN:
        silent = f"{text}; it has not gone on for {(now.timestamp() - state.at) / 60:.0f} minutes"
        remedy = f"searches read the messages meanwhile: look for `search` in {config.log_dir}"
        return [Finding("search", "warning", silent, remedy)]
    return [Finding("search", "ok", text)]


async def _search_state(config: Config) -> SearchState:
    database = Database(config.database_url)
    await database.start(PROBE_S_MAX)
    try:
        return await SearchView(database).state()
    finally:
        await database.stop()


def check_issuer(config: Config, now: datetime.datetime) -> list[Finding]:
    if config.oauth is None:
        return []
    try:
        asyncio.run(_issuer_reached(config.oauth))
    except IssuerAway as away:
        remedy = "nobody signs in by a token until it answers: mend [oauth] in angarium.toml, or the way to the issuer"
        return [Finding("issuer", "error", str(away), remedy)]
    return [Finding("issuer", "ok", f"tokens of {config.oauth.issuer} can be judged")]


async def _issuer_reached(trust: Trust) -> None:
    issuer = Issuer(trust, time.monotonic)
    try:
        await issuer.reached()
    finally:
        await issuer.close()


def check_clock(config: Config, now: datetime.datetime) -> list[Finding]:
    made = datetime.datetime.fromtimestamp((config.dir / "angarium.toml").stat().st_mtime, datetime.UTC)
    if now < made - datetime.timedelta(minutes=5):
        text = f"it shows {now:%Y-%m-%d %H:%M} UTC, before this site was made"
        return [Finding("clock", "error", text, "set the clock and run NTP")]
    # adjtimex(2): with modes = 0 it only reports; struct timex is 208 bytes on 64-bit Linux.
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    if state == CLOCK_UNSYNCHRONISED:
        text = "nothing keeps this machine's clock in step"
        return [Finding("clock", "warning", text, "run chrony or systemd-timesyncd: mail carries these times")]
    return [Finding("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC")]


def _free(name: str, host: str, port: int) -> Finding | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
        except OSError as error:
            return Finding("ports", "error", f"{name}: {host}:{port}: {error.strerror}", _remedy(error, port))
    return None


def _remedy(error: OSError, port: int) -> str:
    if error.errno == errno.EACCES:
        return "ports below 1024 need root or CAP_NET_BIND_SERVICE: or choose listen.port_base"
    if error.errno == errno.EADDRINUSE:
        return f"another program has it (ss -ltnp 'sport = :{port}' names it): stop it, or set another port in [ports]"
    return "set listen.bind to an address of this machine"


def _answered(name: str, host: str, port: int) -> Finding | None:
    there = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    try:
        socket.create_connection((there, port), PROBE_S_MAX).close()
    except OSError as error:
        remedy = "the site starts or is stuck: look at its output, then restart it"
        return Finding("ports", "error", f"{name}: {host}:{port} does not answer ({error})", remedy)
    return None


async def _engines(config: Config, running: bool) -> list[Finding]:
    findings = []
    if config.nats.own:
        findings.append(_version("nats-server", nats.binary, NATS_VERSION_MIN))
    if config.database_own:
        findings.append(_version("postgres", lambda: str(postgres.binaries() / "postgres"), POSTGRES_VERSION_MIN))
    if running or not config.nats.own:
        findings.append(await _reachable_log(config))
    if running and config.database_own:
        findings.append(await _reachable_tables(config))
    if not config.database_own:
        findings.append(_reachable_elsewhere(config))
    return findings


def _version(name: str, find: Callable[[], str], least: tuple[int, ...]) -> Finding:
    try:
        done = subprocess.run([find(), "--version"], capture_output=True, text=True, timeout=PROBE_S_MAX, check=True)
        words = next(word for word in done.stdout.split() if word.lstrip("v")[:1].isdigit()).lstrip("v")
        version = tuple(int(part) for part in words.split(".") if part.isdigit())
    except ChildFailed as error:
        return Finding("engines", "error", str(error), "install it, or give the URL of one that you run in [engines]")
    except (OSError, subprocess.SubprocessError, StopIteration) as error:
        return Finding("engines", "error", f"{name} does not run: {error}", "install its package again")
    if version < least:
        wanted = ".".join(map(str, least))
        return Finding("engines", "error", f"{name} {words} is too old", f"install {wanted} or newer")
    return Finding("engines", "ok", f"{name} {words}")


async def _reachable_log(config: Config) -> Finding:
    place = urlsplit(config.nats.url)
    host, port = place.hostname or "127.0.0.1", place.port or 4222
    user, password = place.username or config.nats.user, place.password or config.nats.password
    try:
        well = await asyncio.wait_for(nats.answers(host, port, user, password), PROBE_S_MAX)
    except (OSError, EOFError, TimeoutError) as error:
        text = f"nats-server at {host}:{port} does not answer: {error}"
        return Finding("engines", "error", text, _look("nats", config))
    if well:
        return Finding("engines", "ok", f"nats-server at {host}:{port} lets us in and keeps streams")
    remedy = "set its user and password in secrets.toml, and JetStream in its configuration"
    return Finding("engines", "error", f"nats-server at {host}:{port} does not let us in, or keeps no streams", remedy)


async def _reachable_tables(config: Config) -> Finding:
    path = config.database_socket_dir / DATABASE_SOCKET_NAME
    try:
        if await asyncio.wait_for(postgres.answers(path), PROBE_S_MAX):
            return Finding("engines", "ok", "PostgreSQL lets us in")
        reason = "it refuses"
    except (OSError, EOFError, TimeoutError) as error:
        reason = str(error)
    return Finding("engines", "error", f"PostgreSQL at {path} does not answer: {reason}", _look("postgres", config))


def _reachable_elsewhere(config: Config) -> Finding:
    """The operator's own PostgreSQL: whether somebody listens there. Signing in is left to the workers."""
    try:
        place = urlsplit(config.database_url)
        host, port = place.hostname, place.port or 5432
        if host is None:
            return Finding("engines", "ok", "PostgreSQL on a unix socket of the operator's")
        socket.create_connection((host, port), PROBE_S_MAX).close()
    except (OSError, ValueError) as error:
        return Finding("engines", "error", f"engines.database_url: {error}", "start that server, or mend the URL")
    return Finding("engines", "ok", f"PostgreSQL at {host}:{port} listens")


def _look(name: str, config: Config) -> str:
    return f"read {config.log_dir / name}.log; `angarium up` starts it again when it dies"


Check = Callable[[Config, datetime.datetime], list[Finding]]
CHECKS: tuple[Check, ...] = (
    check_secrets, check_ports, check_certificates, check_links, check_disk, check_engines, check_release, check_search,
    check_issuer, check_clock,
)  # fmt: skip
