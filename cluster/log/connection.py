"""One client of the engine that survives everything. The only file that connects to NATS.

nats-py (Apache-2.0) is the engine's own client: the wire is simple, but reconnection, pings and TLS are not worth writing
again. Two of its habits are mended here: after some errors it stays closed for good (then it is built anew, with its
subscriptions), and requests under way when the line drops wait for their timeout (here they fail at once).
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

RECONNECT_WAIT_S = 0.1
CONNECT_S_MAX = 2
PING_EVERY_S = 5
PINGS_OUTSTANDING_MAX = 2
REQUEST_S_MAX = 5.0

log = structlog.get_logger("cluster.log.connection")


class Unreachable(Exception):
    """No answer: the engine is down, the line broke, or the time was up. What was asked may have been done."""


class NobodyThere(Unreachable):
    """The engine is there, and nobody listens to this subject."""


class Arrived(NamedTuple):
    """`headers`: as they came, `status`: of the engine's own replies ("404", "204"), or empty."""

    subject: str
    reply: str
    headers: Mapping[str, str]
    data: bytes
    status: str


Handler = Callable[[Arrived], Awaitable[None]]


class _Waiting:
    """One request under way. `many`: gathers messages until one that bears a status."""

    def __init__(self, many: bool) -> None:
        self.future: asyncio.Future[list[Arrived]] = asyncio.get_running_loop().create_future()
        self.many = many
        self.got: list[Arrived] = []

    def take(self, message: Arrived) -> None:
        self.got.append(message)
        if (not self.many or message.status) and not self.future.done():
            self.future.set_result(self.got)

    def fail(self, why: str) -> None:
        if not self.future.done():
            self.future.set_exception(Unreachable(why))


class Subscribed:
    """A subscription that outlives the client under it. `close` ends it."""

    def __init__(self, connection: "Connection", subject: str, handler: Handler, queue: str = "") -> None:
        self.subject = subject
        self.queue = queue
        self.handler = handler
        self.under: Any = None
        self._connection = connection

    async def close(self) -> None:
        await self._connection.unsubscribe(self)


class Connection:
    """`url`: one or several, comma-separated. `inbox`: a token under which alone this one's answers come, where that is
    all that may be heard. Every call raises Unreachable and nothing else when the engine is away."""

    def __init__(
        self,
        url: str,
        user: str = "",
        password: str = "",
        *,
        name: str = "angarium",
        inbox: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._servers = [part.strip() for part in url.split(",")]
        self._options: dict[str, Any] = {"name": name}
        if user:
            self._options |= {"user": user, "password": password}
        if tls is not None:
            self._options["tls"] = tls
        self._client: Client | None = None
        self._closed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._subscribed: list[Subscribed] = []
        self._waiting: dict[str, _Waiting] = {}
        self._inbox = f"_INBOX.{inbox}{'.' * bool(inbox)}{os.urandom(9).hex()}"
        self._token = 0
        self._stopping = False
        self._up = asyncio.Event()

    async def start(self, timeout_s: float = 30.0) -> None:
        """Raises Unreachable if the engine does not answer in time or refuses us."""
        await self._build(timeout_s)
        inbox = Subscribed(self, f"{self._inbox}.*", self._answered)
        self._subscribed.append(inbox)
        await self._attach(inbox)
        self._keeper = asyncio.create_task(self._keep(), name="nats connection")

    async def stop(self) -> None:
        self._stopping = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._client is not None and not self._client.is_closed:
            with contextlib.suppress(Exception):  # It is going down: what the client thinks of that interests nobody.
                await self._client.close()
        self._fail_all("stopped")

    async def ready(self) -> None:
        """Returns when the line is up."""
        await self._up.wait()

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    @property
    def life(self) -> str:
        """Which start of the engine this is: another one after each, empty while it is away."""
        return str(self._client._server_info.get("server_id", "")) if self.connected and self._client else ""

    async def publish(
        self, subject: str, data: bytes = b"", headers: dict[str, str] | None = None, reply: str = ""
    ) -> None:
        client = self._client
        if client is None or not client.is_connected:
            raise Unreachable("not connected")
        try:
            await client.publish(subject, data, reply=reply, headers=headers)
        except (nats.errors.Error, OSError) as error:
            raise Unreachable(str(error) or type(error).__name__) from error

    async def request(
        self, subject: str, data: bytes = b"", headers: dict[str, str] | None = None, timeout_s: float = REQUEST_S_MAX
    ) -> Arrived:
        """Raises NobodyThere, Unreachable."""
        answer = (await self._ask(_Waiting(many=False), subject, data, headers, timeout_s))[0]
        if answer.status == "503":
            raise NobodyThere(subject)
        return answer

    async def collect(self, subject: str, data: bytes = b"", timeout_s: float = REQUEST_S_MAX) -> list[Arrived]:
        """Every message that answers, up to and with the first that bears a status."""
        answers = await self._ask(_Waiting(many=True), subject, data, None, timeout_s)
        if answers[-1].status == "503":
            raise NobodyThere(subject)
        return answers

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Subscribed:
        """`handler` is called for one message after the other and must not wait for long. `queue`: of all that name the
        same one, one gets each message."""
        made = Subscribed(self, subject, handler, queue)
        self._subscribed.append(made)
        await self._attach(made)
        return made

    async def serve(self, subject: str, answer: Handler, queue: str) -> None:
        """Until it is cancelled: every message is answered in a task of its own, by one of those in the queue group."""
        async with asyncio.TaskGroup() as group:

            async def arrived(message: Arrived) -> None:
                group.create_task(_run(answer, message))

            subscribed = await self.subscribe(subject, arrived, queue=queue)
            try:
                await asyncio.Event().wait()
            finally:
                await subscribed.close()

    async def unsubscribe(self, made: Subscribed) -> None:
        if made in self._subscribed:
            self._subscribed.remove(made)
        if made.under is not None and self.connected:
            with contextlib.suppress(nats.errors.Error, OSError):
                await made.under.unsubscribe()
        made.under = None

    async def _ask(
        self, waiting: _Waiting, subject: str, data: bytes, headers: dict[str, str] | None, timeout_s: float
    ) -> list[Arrived]:
        self._token += 1
        token = str(self._token)
        self._waiting[token] = waiting
        try:
            await self.publish(subject, data, headers, reply=f"{self._inbox}.{token}")
            async with asyncio.timeout(timeout_s):
                return await waiting.future
        except TimeoutError:
            raise Unreachable(f"no answer within {timeout_s:g} s: {subject}") from None
        finally:
            del self._waiting[token]
            waiting.future.cancel()

    async def _answered(self, message: Arrived) -> None:
        waiting = self._waiting.get(message.subject.rpartition(".")[2])
        if waiting is not None:
            waiting.take(message)

    async def _attach(self, made: Subscribed) -> None:
        async def arrived(message: Msg) -> None:
            headers = message.headers or {}
            try:
                await made.handler(
                    Arrived(message.subject, message.reply, headers, message.data, headers.get("Status", ""))
                )
            except Exception:
                log.exception("handler failed", subject=made.subject)

        assert self._client is not None
        try:
            made.under = await self._client.subscribe(made.subject, queue=made.queue, cb=arrived)
        except nats.errors.Error:
            made.under = None  # The client is closed: whoever builds it anew attaches this too.

    async def _build(self, timeout_s: float) -> None:
        client = Client()
        try:
            async with asyncio.timeout(timeout_s):
                await client.connect(
                    self._servers,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # any seconds will do
                    connect_timeout=CONNECT_S_MAX,
                    ping_interval=PING_EVERY_S,
                    max_outstanding_pings=PINGS_OUTSTANDING_MAX,
                    pending_size=0,  # While the line is down nothing is kept back to be sent later: the caller decides.
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_reconnected,
                    closed_cb=self._on_closed,
                    **self._options,
                )
        except (TimeoutError, nats.errors.Error, OSError) as error:
            with contextlib.suppress(Exception):
                await client.close()
            raise Unreachable(str(error) or f"no engine at {self._shown()} within {timeout_s:g} s") from error
        self._client = client
        self._closed.clear()
        self._up.set()

    async def _keep(self) -> None:
        while True:
            await self._closed.wait()
            self._fail_all("connection closed")
            try:
                await self._build(timeout_s=30.0)
            except Unreachable as error:
                log.warning("cannot reach the engine", servers=self._shown(), error=str(error))
                await asyncio.sleep(RECONNECT_WAIT_S * 5)
            except Exception:
                # Our bug; a process that never connects again is worse.
                log.exception("cannot reach the engine", servers=self._shown())
                await asyncio.sleep(RECONNECT_WAIT_S * 5)
                continue
            for made in list(self._subscribed):
                await self._attach(made)
            log.info("client built anew", servers=self._shown())

    def _fail_all(self, why: str) -> None:
        for waiting in list(self._waiting.values()):
            waiting.fail(why)

    def _shown(self) -> str:
        """Without what stands before an @: it may be a secret."""
        return ",".join(server.rpartition("@")[2].removeprefix("nats://") for server in self._servers)

    async def _on_error(self, error: Exception) -> None:
        log.debug("engine", error=type(error).__name__, text=str(error))

    async def _on_disconnected(self) -> None:
        self._up.clear()
        self._fail_all("connection lost")
        if not self._stopping:
            log.warning("connection to the engine lost", servers=self._shown())

    async def _on_reconnected(self) -> None:
        self._up.set()
        log.info("connected to the engine again", servers=self._shown())

    async def _on_closed(self) -> None:
        self._up.clear()
        if not self._stopping:
            log.warning("client closed itself", servers=self._shown())
        self._closed.set()


async def _run(answer: Handler, message: Arrived) -> None:
    await answer(message)
