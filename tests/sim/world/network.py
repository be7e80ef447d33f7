"""Sites' engines and what lies between them: who hears what, how late, and what gets lost.

Between two sites messages keep their order, as on the TCP connection that they share: one that is late holds up those behind
it. What is under way when a line is cut either waits in the kernels' buffers until a heal that comes soon, or is lost.
"""

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

import structlog

from cluster.log.connection import Arrived, Connection, Handler, Subscribed, Unreachable
from tests.sim.clock import OWNER, Owner, VirtualLoop
from tests.sim.engine import Answer, Streams

log = structlog.get_logger("sim.network")

HELD_S_MAX = 9.0  # a cut that is healed within it loses nothing: nobody noticed
INTEREST_S = 10.0  # so long a server believes that the other side of a cut still listens
NEAR_S = 0.0003
RECONNECT_S_MAX = 0.1

WITHIN_A_SITE = ("cp.", "ck.", "$KV.", "$JS.API.")  # denied by the leaf links, or of the server one is connected to
PLANE = "$JS.backbone.API."


class Mail(NamedTuple):
    """One message under way."""

    subject: str
    reply: str
    headers: Mapping[str, str]
    data: bytes


class Link:
    """One way between two sites."""

    def __init__(self) -> None:
        self.cut_at: float | None = None
        self.loses = False
        self.last_at = 0.0
        self.delay_s = 0.001
        self.held: list[tuple[Callable[[Mail], None], Mail]] = []


class Disk(NamedTuple):
    """One write that is not on the disk yet."""

    stream: str
    mail: Mail


class Server:
    """A site's engine. `life` changes with every start."""

    def __init__(self, network: "Network", site: str) -> None:
        self.network = network
        self.site = site
        self.up = True
        self.life = 1
        self.down_at = float("-inf")
        self.clock_step_ns = 0
        self.disk_s = 0.0005
        self.streams = Streams(f"site-{site}", self.now_ns, network.loop.time)
        self.subscribed: dict[str, list[SimSubscribed]] = {}
        self.connections: list[SimConnection] = []
        self._busy: dict[str, float] = {}
        self._pending: deque[Disk] = deque()

    def now_ns(self) -> int:
        return self.network.now_ns() + self.clock_step_ns

    @property
    def id(self) -> str:
        return f"{self.site}-life-{self.life}"

    def crash(self, survive: float) -> None:
        """`survive`: the share of what was on its way to the disk that got there."""
        self.up = False
        self.down_at = self.network.loop.time()
        for stream in self.streams.streams.values():
            stream.batches.clear()
        keep = int(len(self._pending) * survive)
        for disk in list(self._pending)[:keep]:
            found = self.streams.streams.get(disk.stream)
            if found is not None:
                self.streams.store(found, disk.mail.subject, disk.mail.headers, disk.mail.data)
        for stream in self.streams.streams.values():
            stream.batches.clear()
        self._pending.clear()
        self._busy.clear()
        self.subscribed.clear()
        for connection in list(self.connections):
            connection.line_lost()
        self.connections.clear()

    def start(self) -> None:
        """Nothing, if it runs."""
        if not self.up:
            self.up = True
            self.life += 1
            for each in self.network.inboxes.values():
                if each.site == self.site:
                    self.network.loop.at(
                        self.network.loop.now + self.network.chance.uniform(0, RECONNECT_S_MAX), each.line_found
                    )

    # -- what arrives --------------------------------------------------------------------------------------------------
    def listens(self, subject: str) -> bool:
        """Whether somebody here wants messages on it (not for inboxes)."""
        if subject in self.subscribed:
            return True
        if subject.startswith("$JS."):
            return subject.startswith((f"$JS.site-{self.site}.API.", "$JS.API."))
        return self.streams.taker(subject) is not None

    def arrive(self, mail: Mail) -> None:
        if not self.up:
            return
        subject = mail.subject
        for each in self.subscribed.get(subject, ()):
            each.take(mail)
        if subject.startswith("$JS."):
            self._asked(mail, subject.partition(".API.")[2])
        elif (stream := self.streams.taker(subject)) is not None:
            self._write(str(stream.config["name"]), mail)

    def _asked(self, mail: Mail, verb: str) -> None:
        if verb.startswith("$KV."):
            return self.arrive(mail._replace(subject=verb))
        answers = self.streams.api(verb, mail.data)
        for each in [Answer({"Status": "503"}, b"")] if answers is None else answers:
            self.network.send(self.site, Mail(mail.reply, "", each.headers, each.data))

    def _write(self, name: str, mail: Mail) -> None:
        loop = self.network.loop
        staged = "Nats-Batch-Id" in mail.headers and "Nats-Batch-Commit" not in mail.headers
        takes = 0.0 if staged else self.disk_s * self.network.chance.uniform(0.5, 2)
        at = self._busy[name] = max(self._busy.get(name, 0.0), loop.time()) + takes
        disk = Disk(name, mail)
        self._pending.append(disk)
        loop.at(at, self._written, self.life, disk)

    def _written(self, life: int, disk: Disk) -> None:
        if life != self.life or not self.up:
            return
        self._pending.remove(disk)
        stream, mail = self.streams.streams.get(disk.stream), disk.mail
        if stream is None:
            return
        answer = self.streams.store(stream, mail.subject, mail.headers, mail.data)
        if mail.reply:
            self.network.send(self.site, Mail(mail.reply, "", answer.headers, answer.data))


class Network:
    """`plane` takes what is for the control plane: (from which site, message). `watch` sees everything that is sent."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, sites: tuple[str, ...]) -> None:
        self.loop = loop
        self.chance = chance
        self.started_ns = 1_800_000_000_000_000_000
        self.servers = {site: Server(self, site) for site in sites}
        self.links = {(a, b): Link() for a in sites for b in sites}
        self.inboxes: dict[str, SimConnection] = {}
        self.plane: Callable[[str, Mail], None] = lambda site, mail: None
        self.watch: Callable[[str, Mail], None] = lambda site, mail: None
        self.late = 0.0  # how likely a message between sites is held up for seconds
        self.doubles = 0.0  # how likely one comes twice

    def now_ns(self) -> int:
        return self.started_ns + int(self.loop.time() * 1e9)

    # -- the links -----------------------------------------------------------------------------------------------------
    def is_whole(self, a: str, b: str) -> bool:
        return self.links[a, b].cut_at is None

    def both_ways(self, a: str, b: str) -> bool:
        return self.is_whole(a, b) and self.is_whole(b, a)

    def cut(self, a: str, b: str, *, loses: bool) -> None:
        link = self.links[a, b]
        if link.cut_at is None:
            link.cut_at, link.loses = self.loop.time(), loses

    def heal(self, a: str, b: str) -> None:
        link = self.links[a, b]
        if link.cut_at is None:
            return
        soon = self.loop.time() - link.cut_at <= HELD_S_MAX
        link.cut_at = None
        held, link.held = link.held, []
        for deliver, mail in held if soon else ():
            self.carry(a, b, deliver, mail)

    def carry(self, a: str, b: str, deliver: Callable[[Mail], None], mail: Mail) -> None:
        """Along the link, in order."""
        link = self.links[a, b]
        now = self.loop.time()
        takes = NEAR_S
        if a != b:
            takes = link.delay_s * self.chance.uniform(1, 1.5)
            if self.late and self.chance.random() < self.late:
                takes += self.chance.uniform(0.05, 4)
        link.last_at = at = max(link.last_at + 1e-6, now + takes)
        self.loop.at(at, self._landed, link, deliver, mail)
        if a != b and self.doubles and self.chance.random() < self.doubles:
            self.loop.at(at + self.chance.uniform(0, 3), self._landed, link, deliver, mail)

    def _landed(self, link: Link, deliver: Callable[[Mail], None], mail: Mail) -> None:
        if link.cut_at is None:
            deliver(mail)
        elif not link.loses:
            link.held.append((deliver, mail))

    # -- who hears what ------------------------------------------------------------------------------------------------
    def send(self, site: str, mail: Mail) -> None:
        """From somebody at the site's engine to all that listen anywhere."""
        self.watch(site, mail)
        subject = mail.subject
        if subject.startswith("_INBOX."):
            found = self.inboxes.get(subject.rpartition(".")[0])
            if found is not None:
                self.carry(site, found.site, found.answered, mail)
            return
        if subject.startswith(PLANE):
            return self.plane(site, mail)
        reached = False
        for name, server in self.servers.items():
            if name != site and subject.startswith(WITHIN_A_SITE):
                continue
            if self._interest(site, server, subject):
                self.carry(site, name, server.arrive, mail)
                reached = True
        if not reached and mail.reply:
            self.carry(site, site, lambda nobody: self._nobody(site, nobody), mail)

    def _interest(self, site: str, server: Server, subject: str) -> bool:
        """As the server of `site` believes."""
        if not server.listens(subject):
            return False
        cut_at = self.links[site, server.site].cut_at
        return server.up and (cut_at is None or self.loop.time() - cut_at < INTEREST_S)

    def _nobody(self, site: str, mail: Mail) -> None:
        found = self.inboxes.get(mail.reply.rpartition(".")[0])
        if found is not None:
            found.answered(Mail(mail.reply, "", {"Status": "503"}, b""))


class SimSubscribed(Subscribed):
    """Hands on one message after the other, in the process that subscribed."""

    def __init__(self, connection: "SimConnection", subject: str, handler: Handler) -> None:
        super().__init__(connection, subject, handler)
        self.context = contextvars.copy_context()
        self.waiting: deque[Mail] = deque()
        self.busy = False

    def take(self, mail: Mail) -> None:
        self.waiting.append(mail)
        if not self.busy:
            self.busy = True
            self.context.run(asyncio.get_running_loop().create_task, self._pump())

    async def _pump(self) -> None:
        try:
            while self.waiting:
                mail = self.waiting.popleft()
                try:
                    await self.handler(Arrived(mail.subject, mail.reply, mail.headers, mail.data, ""))
                except Exception:
                    log.exception("handler failed", subject=self.subject)
        finally:
            self.busy = False


class SimConnection(Connection):
    """The real client's requests and answers, over the simulated wire."""

    def __init__(self, network: Network, site: str, owner: Owner) -> None:
        super().__init__("sim://engine", name=owner.name)
        self.network = network
        self.site = site
        self.owner = owner
        self.dead = False
        self._inbox = f"_INBOX.{owner.name}"
        self._line = False

    @property
    def connected(self) -> bool:
        return self._line and not self.dead

    @property
    def life(self) -> str:
        return self.server.id if self.connected else ""

    @property
    def server(self) -> Server:
        return self.network.servers[self.site]

    async def start(self, timeout_s: float = 30.0) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not self.server.up:  # noqa: ASYNC110  # as the real client, which can only try again
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise Unreachable("no engine") from None
        self.network.inboxes[self._inbox] = self
        self._attach_line()

    async def stop(self) -> None:
        self.kill()
        self._fail_all("stopped")

    def kill(self) -> None:
        """The process is gone, and its line with it."""
        self.dead = True
        self._line = False
        self._up.clear()
        self.network.inboxes.pop(self._inbox, None)
        if self in self.server.connections:
            self.server.connections.remove(self)
        for made in self._subscribed:
            self._detach(made)
        self._fail_all("killed")

    def line_lost(self) -> None:
        self._line = False
        self._up.clear()
        self._fail_all("connection lost")

    async def publish(
        self, subject: str, data: bytes = b"", headers: dict[str, str] | None = None, reply: str = ""
    ) -> None:
        if not self.connected:
            raise Unreachable("not connected")
        self.network.send(self.site, Mail(subject, reply, dict(headers or {}), bytes(data)))

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Subscribed:
        assert not queue, "queues are not played"
        made = SimSubscribed(self, subject, handler)
        self._subscribed.append(made)
        if self.connected:
            self._at_server(made)
        return made

    async def unsubscribe(self, made: Subscribed) -> None:
        if made in self._subscribed:
            self._subscribed.remove(made)
        self._detach(made)

    def answered(self, mail: Mail) -> None:
        waiting = self._waiting.get(mail.subject.rpartition(".")[2])
        if waiting is not None and self.connected:
            waiting.take(Arrived(mail.subject, mail.reply, mail.headers, mail.data, mail.headers.get("Status", "")))

    def line_found(self) -> None:
        """The engine has been started: what the client tries again and again succeeds."""
        if not self._line and not self.dead and self.server.up and self._inbox in self.network.inboxes:
            self._attach_line()

    def _attach_line(self) -> None:
        self._line = True
        self.server.connections.append(self)
        for made in self._subscribed:
            self._at_server(made)
        self._up.set()

    def _at_server(self, made: Subscribed) -> None:
        assert isinstance(made, SimSubscribed)
        self.server.subscribed.setdefault(made.subject, []).append(made)

    def _detach(self, made: Subscribed) -> None:
        listening = self.server.subscribed.get(made.subject, [])
        if made in listening:
            listening.remove(made)
        if not listening:
            self.server.subscribed.pop(made.subject, None)


def as_process(owner: Owner) -> contextvars.Context:
    """What runs in it belongs to `owner`."""
    context = contextvars.copy_context()
    context.run(OWNER.set, owner)
    return context
