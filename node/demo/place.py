"""The demo's sites: folders under one roof, each run by `angarium up` as in life, and killed as a power cut would."""

import asyncio
import contextlib
import datetime
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from node.child import Child, Spec
from node.config import STANDARD_PORTS, Config, DemoPerson, Member, load_demo
from node.engines.nats import BACKBONE_NAME
from node.init import Plan, make_site

NAMES = ("pune", "mumbai", "dr")
PORT_BASES = (9000, 17000, 25000)
DOMAIN = "example.org"
HOST = "127.0.0.1"
START_S_MAX, STOP_S_MAX = 180.0, 60.0
CLI = (sys.executable, "-P", "-c", "from node.cli import main; main()")


class DemoFailed(Exception):
    """It cannot go on; the text is one line that says why."""


class DemoSite:
    """One site. `state`: down, starting, up, cut off, killed."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.name = config.site
        self.state = "down"
        self._child: Child | None = None

    async def start(self) -> None:
        """Returns when every listener answers. Raises DemoFailed."""
        ready = self.config.dir / "ready"
        ready.unlink(missing_ok=True)

        async def answers() -> bool:
            return ready.exists()

        spec = Spec(
            name=self.name,
            argv=(*CLI, "up", str(self.config.dir), "--ready-file", str(ready), "--json"),
            death_signal=signal.SIGTERM,
            stop=((signal.SIGTERM, STOP_S_MAX),),
            answers=answers,
            ready_s_max=START_S_MAX,
            log=self.config.dir / "up.log",
        )
        self.state = "starting"
        try:
            self._child = await Child.start(spec, self.config.dir)
            await self._child.until_ready()
        except Exception as error:
            words = self._child.last_words.splitlines() if self._child is not None else []
            raise DemoFailed(f"{self.name} does not start: {error}: {words[-1] if words else ''}") from error
        self.state = "up"

    def cut_off(self) -> None:
        """Its member of the backbone stands still: nothing goes to the other sites any more, and nobody is told."""
        pid = int((self.config.run_dir / f"{BACKBONE_NAME}.pid").read_text(encoding="ascii").split()[0])
        os.kill(pid, signal.SIGSTOP)
        self.state = "cut off"

    async def kill(self) -> int:
        """Ends all of its processes at once, none of which may tidy up. Returns how many there were."""
        assert self._child is not None
        whole = psutil.Process(self._child.pid)
        processes = [whole, *whole.children(recursive=True)]
        # Stopped first: the kernel tells the children of a killed parent, and not one is to hear of it.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        self.state = "killed"
        await self._child.wait()
        self._child = None
        return len(processes)

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.stop()
            self._child = None
        self.state = "down"

    def stage(self) -> str:
        """What the site said last while it starts."""
        for line in reversed(self._child.last_words.splitlines() if self._child is not None else []):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                said = json.loads(line)
                return f"{said['part']} {said['what']}"
        return ""

    def salvaged(self) -> tuple[int, int, int]:
        """Commands of lost tails, by the site's own log: decided again, in history already, reported."""
        again = known = reported = 0
        for line in (self.config.dir / "up.log").read_text(encoding="utf-8", errors="replace").splitlines():
            if "salvage ends" in line:
                with contextlib.suppress(ValueError):
                    said = json.loads(line)
                    again, known, reported = (
                        total + int(said.get(name, 0))
                        for total, name in ((again, "again"), (known, "known"), (reported, "reported"))
                    )
        return again, known, reported


class Sites:
    """All three, the first one's first: it is where people are at home."""

    def __init__(self, folder: Path, port_bases: tuple[int, ...], now: datetime.datetime) -> None:
        """Raises DemoFailed, ConfigRefused, OSError."""
        _refuse_taken(port_bases)
        members = tuple(Member(name, HOST, base) for name, base in zip(NAMES, port_bases, strict=True))
        self.folder = folder
        self.all = [DemoSite(make_site(_plan(folder, member, members), now)) for member in members]

    @property
    def first(self) -> DemoSite:
        return self.all[0]

    @property
    def people(self) -> tuple[DemoPerson, ...]:
        return load_demo(self.first.config.demo_file)

    async def stop(self) -> None:
        await asyncio.gather(*(site.stop() for site in self.all))


def _plan(folder: Path, member: Member, members: tuple[Member, ...]) -> Plan:
    first = member == members[0]
    return Plan(
        folder / member.site,
        member.site,
        DOMAIN,
        f"{member.site}.{DOMAIN}",
        port_base=member.port_base,
        demo=first,
        members=members if first else (),
        like=None if first else folder / members[0].site,
    )


def ports(base: int) -> Iterator[int]:
    """All that a site of several listens on."""
    member = Member("", HOST, base)
    yield from (base + port for port in STANDARD_PORTS.values())
    yield from (member.client_port, member.route_port, member.leaf_port, member.carry_port)


def _refuse_taken(port_bases: tuple[int, ...]) -> None:
    every = [port for base in port_bases for port in ports(base)]
    if len(set(every)) != len(every) or not all(0 < port < 1 << 16 for port in every):
        raise DemoFailed("the sites' ports would collide: choose other --port-bases, at most 57000, 10000 apart")
    for port in every:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise DemoFailed(f"port {port}: {os.strerror(error.errno or 0)}: choose other --port-bases") from None
