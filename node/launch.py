"""Becomes another program: writes a pid file, binds its life to its parent's, puts off root, then executes it.

Run as a script by the supervisor, before every engine and worker. It exists because PostgreSQL refuses to run as root,
and because what must be done between fork and exec is not safe in a process with an event loop. It uses the standard
library only, so that it starts in 15 ms and leaves nothing behind.

Two ways to put off root, both tried by the supervisor with `--probe`:
- `--user N`: become uid N, and keep one capability (capabilities(7)), to pass through folders closed to others;
  works in containers too.
- `--namespace N`: a user namespace (user_namespaces(7)) in which our uid is called N, and files keep their owner.
"""

import argparse
import ctypes
import os
import signal
import sys

PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 28, 1 << 2
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
CAPABILITY_VERSION_3 = 0x20080522
CLONE_NEWUSER = 0x10000000


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--user", type=int)
    parser.add_argument("--namespace", type=int)
    parser.add_argument("--probe", action="append", default=[], help="exit 0 if every such path can be used")
    parser.add_argument("--pid-file")
    parser.add_argument("--parent", type=int, help="the parent's pid; exit if it is gone")
    parser.add_argument("--death-signal", type=int, default=int(signal.SIGKILL))
    parser.add_argument("command", nargs=argparse.REMAINDER, help="after --: an absolute path and its arguments")
    options = parser.parse_args()
    if options.pid_file:
        _write_pid_file(options.pid_file)
    libc = ctypes.CDLL(None, use_errno=True)
    if options.user is not None:
        _become(libc, options.user)
    elif options.namespace is not None:
        _rename(libc, options.namespace)
    if options.probe:
        sys.exit(0 if all(os.access(path, os.R_OK | os.X_OK) for path in options.probe) else 1)
    if options.parent is not None:
        # After the change of user, which clears it (prctl(2)); then look, because the parent may have gone before.
        _must(libc.prctl(PR_SET_PDEATHSIG, options.death_signal, 0, 0, 0))
        if os.getppid() != options.parent:
            sys.exit(1)
    command = options.command[1:]  # without the --
    os.execv(command[0], command)


def _write_pid_file(path: str) -> None:
    """Our pid, which the program keeps, and when it began: a number is used again, the two together are not."""
    with open("/proc/self/stat", encoding="ascii") as stat:
        began = stat.read().rpartition(")")[2].split()[19]  # proc(5): field 22, counted from the state, field 3
    with open(f"{path}.new", "w", encoding="ascii") as file:
        file.write(f"{os.getpid()} {began}\n")
    os.replace(f"{path}.new", path)


def _become(libc: ctypes.CDLL, user: int) -> None:
    """Uid and gid `user`, no groups, and of all capabilities only the weakest that passes closed folders."""
    with open("/proc/self/status", encoding="ascii") as status:
        held = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    capability = next((c for c in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE) if held >> c & 1), None)
    # PostgreSQL looks for its programs by access(2), which counts no capability unless this is set (capabilities(7)).
    libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    _must(libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    mask = 0 if capability is None else 1 << capability
    sets = (_Sets * 2)(_Sets(mask, mask, mask), _Sets(0, 0, 0))
    _must(libc.capset(ctypes.byref(_Header(CAPABILITY_VERSION_3, 0)), sets))
    if capability is not None:
        _must(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))


def _rename(libc: ctypes.CDLL, user: int) -> None:
    """A user namespace with one user and one group: ours, called `user` inside."""
    uid, gid = os.geteuid(), os.getegid()
    _must(libc.unshare(CLONE_NEWUSER))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {uid} 1"), ("gid_map", f"{user} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _must(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


if __name__ == "__main__":
    main()
