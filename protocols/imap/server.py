"""Listening, and the sessions of a worker: how they begin, and how they end when it stops."""

import asyncio
import socket
import ssl

import structlog

from protocols.imap.session import say_bye, serve
from protocols.imap.settings import Settings
from protocols.imap.wire import Wire
from protocols.port import Site

log = structlog.get_logger("imap")

BACKLOG = 1024
GOODBYE_S_MAX = 5
SESSION_ID_BYTES = 6


class ImapServer:
    """All IMAP sessions of one worker. `listen` as often as there are ports; `stop` once."""

    def __init__(self, site: Site, settings: Settings) -> None:
        self._site, self._settings = site, settings
        self._servers: list[asyncio.Server] = []
        self._sessions: dict[asyncio.Task[None], Wire] = {}

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    async def listen(
        self,
        host: str = "",
        port: int = 0,
        *,
        implicit_tls: ssl.SSLContext | None = None,
        reuse_port: bool = False,
        sock: socket.socket | None = None,
    ) -> asyncio.Server:
        """`implicit_tls`: IMAPS (RFC 8314 §3.2); new certificates loaded into the same context serve at the next handshake."""
        loop = asyncio.get_running_loop()
        tls = implicit_tls is not None
        where = {"sock": sock} if sock is not None else {"host": host, "port": port, "reuse_port": reuse_port}
        server = await loop.create_server(
            lambda: _Door(self, tls),
            **where,
            ssl=implicit_tls,
            backlog=BACKLOG,
            ssl_handshake_timeout=self._settings.handshake_s_max if tls else None,
        )
        self._servers.append(server)
        return server

    def opened(self, wire: Wire, tls: bool) -> None:
        if len(self._sessions) >= self._settings.connections_max:
            say_bye(wire, "[UNAVAILABLE] Too many connections.")
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

    async def stop(self) -> None:
        """No new connections; each session finishes the command that it is at and says BYE (RFC 9051 §7.1.5), within
        GOODBYE_S_MAX. Returns when all have ended."""
        for server in self._servers:
            server.close()
        sessions = dict(self._sessions)
        for wire in sessions.values():
            wire.stop()
        if sessions:
            _, late = await asyncio.wait(sessions, timeout=GOODBYE_S_MAX)
            for task in late:
                task.cancel()  # without BYE: it may be in the middle of a literal
            if late:
                await asyncio.wait(late)


class _Door(Wire):
    """A wire that tells its server that it is there."""

    def __init__(self, server: ImapServer, tls: bool) -> None:
        super().__init__()
        self._server, self._tls = server, tls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.opened(self, self._tls)


async def listen(
    site: Site,
    settings: Settings,
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None = None,
    *,
    reuse_port: bool = False,
) -> ImapServer:
    """One port and its sessions, for whoever needs no more."""
    server = ImapServer(site, settings)
    await server.listen(host, port, implicit_tls=ssl_context, reuse_port=reuse_port)
    return server
