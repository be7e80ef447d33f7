"""What lies between sites: every connection from one to another goes through a line that a test cuts, delays or slows."""

import asyncio
import datetime
import random
import socket
import time
from collections.abc import Iterable
from itertools import permutations
from typing import NamedTuple

from node.config import STANDARD_PORTS, load
from node.init import renew_certificate
from tests.faults.site import Site

CLIENT, ROUTE, LEAF = 4223, 6222, 7422
READ_BYTES, SLOW_READ_BYTES = 1 << 16, 1 << 12
PIECES_MAX = 16
RECEIVE_BYTES = 1 << 16


class Line:
    """Carries every connection to `port` on to `target`; while it is cut nothing passes, and nobody is told.

    `delay_s`: how much later each byte arrives, in each direction, in order. `rate`: bytes a second in each direction, of all
    connections together, 0 = as fast as it goes. Both may change at any time. What is on its way is bounded: a sender is
    held up by what is not taken from it, as by a full window."""

    def __init__(
        self, port: int, target: int, host: str = "127.0.0.1", *, delay_s: float = 0.0, rate: float = 0.0
    ) -> None:
        self.port, self.delay_s, self.rate = port, delay_s, rate
        self._target = (host, target)
        self._whole = asyncio.Event()
        self._whole.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy_until = {True: 0.0, False: 0.0}
        self._socket = socket.socket()
        # Inherited by what is accepted: the kernel shall not hide megabytes before a slow line.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=self._socket)

    def cut(self) -> None:
        self._whole.clear()

    def heal(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()

    def _own(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._own(asyncio.create_task(self._carry(reader, writer)))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        try:
            there = socket.socket()
            there.setblocking(False)
            there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            await asyncio.get_running_loop().sock_connect(there, self._target)
            onward, out = await asyncio.open_connection(sock=there)
        except OSError:
            there.close()
            writer.close()
            return
        for source, sink, forth in ((reader, out, True), (onward, writer, False)):
            pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES_MAX)
            self._own(asyncio.create_task(self._take(source, pieces)))
            self._own(asyncio.create_task(self._give(pieces, sink, forth)))

    async def _take(self, source: asyncio.StreamReader, pieces: "asyncio.Queue[tuple[float, bytes]]") -> None:
        """Each piece with the moment at which it arrives; the empty one is the end."""
        data = b"begun"
        while data:
            try:
                data = await source.read(SLOW_READ_BYTES if self.rate else READ_BYTES)
            except OSError:
                data = b""
            await pieces.put((time.monotonic() + self.delay_s, data))

    async def _give(
        self, pieces: "asyncio.Queue[tuple[float, bytes]]", sink: asyncio.StreamWriter, forth: bool
    ) -> None:
        try:
            while True:
                due, data = await pieces.get()
                if self.rate:
                    due = self._busy_until[forth] = max(due, self._busy_until[forth]) + len(data) / self.rate
                if (ahead := due - time.monotonic()) > 0:
                    await asyncio.sleep(ahead)
                await self._whole.wait()
                if not data:
                    return
                sink.write(data)
                await sink.drain()
        except OSError:
            # Nobody takes it any more; the other end learns it by its own half.
            while (await pieces.get())[1]:
                pass
        finally:
            sink.close()


HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


class Links(NamedTuple):
    """`lines`: by who connects to whom, that of routes and that of leaf links."""

    lines: dict[tuple[str, str], tuple[Line, Line]]

    async def start(self) -> None:
        for line in self.of():
            await line.start()

    def close(self) -> None:
        for line in self.of():
            line.close()

    def of(self, *sites: str) -> list[Line]:
        """Of none: all. Of one: all that lead there or away. Of two: those between them."""
        return [line for pair, both in self.lines.items() if set(sites) <= set(pair) for line in both]

    def cut(self, *sites: str) -> None:
        for line in self.of(*sites):
            line.cut()

    def heal(self, *sites: str) -> None:
        for line in self.of(*sites):
            line.heal()

    def slow(self, *sites: str, delay_s: float = 0.0, rate: float = 0.0) -> None:
        """From now on, both ways; with neither they are as fast as they go."""
        for line in self.of(*sites):
            line.delay_s, line.rate = delay_s, rate


class Lined(NamedTuple):
    sites: list[Site]
    links: Links


def between(sites: list[Site]) -> Links:
    """Lines between all of them, in every direction: no site reaches another one but by a line. Before they start.

    Members of the backbone tell each other the ports of those that they know, at the address that they see them at, which
    is a line's, 127.0.0.1. What listens there itself would be reached past the lines, so each listens at another one."""
    taken = {
        site.config.port_base + offset for site in sites for offset in (*STANDARD_PORTS.values(), CLIENT, ROUTE, LEAF)
    }
    for site, host in zip(sites, HOSTS, strict=True):
        _readdressed(site, site, host, site.config.port_base)
        site.config = load(site.config.dir)
        renew_certificate(site.config, datetime.datetime.now(datetime.UTC))
    found = {}
    for here, there in permutations(sites, 2):
        found[here.config.site, there.config.site] = _laid(here, there, taken)
    return Links(found)


def _laid(here: Site, there: Site, taken: set[int]) -> tuple[Line, Line]:
    while True:
        base = random.SystemRandom().randrange(8_000, 25_000)
        ports = base + ROUTE, base + LEAF
        if taken & set(ports):
            continue
        try:
            host, its = member(there)
            both = Line(ports[0], its + ROUTE, host), Line(ports[1], its + LEAF, host)
        except OSError:
            continue
        taken.update(ports)
        _readdressed(here, there, "127.0.0.1", base)
        return both


def lines(site: Site, others: Iterable[Site]) -> list[Line]:
    """From a site to the other sites' members of the backbone, where it turns when its own is out of reach."""
    found = []
    for there in others:
        base = there.config.port_base
        _readdressed(site, there, "127.0.0.1", base + 1)
        found += [Line(base + 1 + offset, base + offset) for offset in (ROUTE, LEAF)]
    return found


def _readdressed(here: Site, there: Site, host: str, base: int) -> None:
    """In the configuration of `here`: where the other's member is."""
    file, line = here.config.dir / "angarium.toml", 'site = "{}"\nhost = "{}"\nport_base = {}\n'
    text, old = file.read_text(), line.format(there.config.site, "127.0.0.1", there.config.port_base)
    assert old in text
    file.write_text(text.replace(old, line.format(there.config.site, host, base)))


def member(site: Site) -> tuple[str, int]:
    """Where its member of the backbone listens, as host and port base."""
    assert site.config.backbone is not None
    own = site.config.backbone.of(site.config.site)
    return own.host, own.port_base
