"""Listening, and the sessions of a worker: how they begin, and how they end when it stops."""

import asyncio

import structlog

from protocols.pop3.session import TOO_MANY, say, serve
from protocols.pop3.settings import Settings
from protocols.port import Site
from protocols.wire import Wire

log = structlog.get_logger("pop3")

BACKLOG = 512
GOODBYE_S_MAX = 5
SESSION_ID_BYTES = 6


class Pop3Server:
    """All POP3 sessions of one worker. `listen` as often as there are ports; `close` once."""

    def __init__(self, site: Site, settings: Settings) -> None:
        self._site, self._settings = site, settings
        self._servers: list[asyncio.Server] = []
        self._sessions: dict[asyncio.Task[None], Wire] = {}

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    @property
    def port(self) -> int:
        """Of the first listener: where port 0 has led to."""
        return int(self._servers[0].sockets[0].getsockname()[1])

    async def listen(self, host: str, port: int, *, implicit_tls: bool = False, reuse_port: bool = False) -> None:
        """`implicit_tls`: POP3S (RFC 8314 §3.1) with the settings' context, into which a new certificate may be loaded
        while it serves. Raises OSError where the port is taken."""
        context = self._settings.tls() if implicit_tls else None
        assert context is not None or not implicit_tls, "POP3S needs a certificate"
        server = await asyncio.get_running_loop().create_server(
            lambda: self.door(tls=implicit_tls),
            host,
            port,
            ssl=context,
            reuse_port=reuse_port,
            backlog=BACKLOG,
            ssl_handshake_timeout=self._settings.handshake_s_max if context is not None else None,
        )
        self._servers.append(server)

    def door(self, *, tls: bool = False) -> Wire:
        """A protocol for one connection; its session begins when the connection is made."""
        return _Door(self, tls)

    def opened(self, wire: Wire, tls: bool) -> None:
        if len(self._sessions) >= self._settings.connections_max:
            say(wire, TOO_MANY)
            wire.close()
            return
        session = self._site.world.entropy(SESSION_ID_BYTES).hex()
        task = asyncio.get_running_loop().create_task(
            serve(wire, site=self._site, settings=self._settings, tls=tls, session=session)
        )
        self._sessions[task] = wire
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._sessions[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("session ended badly", error=repr(error))

    async def close(self) -> None:
        """No new connections; each session finishes the command that it is at, within GOODBYE_S_MAX, and deletes nothing.
        Returns when all have ended."""
        for server in self._servers:
            server.close()
        sessions = dict(self._sessions)
        for wire in sessions.values():
            wire.stop()
        if sessions:
            _, late = await asyncio.wait(sessions, timeout=GOODBYE_S_MAX)
            for task in late:
                task.cancel()  # without a word: it may be in the middle of a message
            if late:
                await asyncio.wait(late)


class _Door(Wire):
    """A wire that tells its server that it is there."""

    def __init__(self, server: Pop3Server, tls: bool) -> None:
        super().__init__()
        self._server, self._tls = server, tls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.opened(self, self._tls)
