"""Listening, and the sessions of a worker: how they begin, and how they end when it stops."""

import asyncio
import ssl
from collections.abc import Callable

import structlog

from protocols.imap.session import say_bye, serve
from protocols.imap.settings import Settings
from protocols.port import Site
from protocols.wire import Wire

log = structlog.get_logger("imap")

BACKLOG = 1024
GOODBYE_S_MAX = 5
SESSION_ID_BYTES = 6


class ImapServer:
    """All IMAP sessions of one worker. `listen` as often as there are ports; `close` once."""

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

    async def listen(self, host: str, port: int, *, implicit_tls: bool = False, reuse_port: bool = False) -> asyncio.Server:
        """`implicit_tls`: IMAPS (RFC 8314 §3.2) with the settings' context, into which a new certificate may be loaded
        while it serves. Raises OSError where the port is taken."""
        context = self._settings.tls() if implicit_tls else None
        assert context is not None or not implicit_tls, "IMAPS needs a certificate"
        return await self._listen(host, port, context, lambda: self.door(tls=implicit_tls), reuse_port)

    async def listen_to_sites(
        self, host: str, port: int, context: ssl.SSLContext, *, reuse_port: bool = False
    ) -> asyncio.Server:
        """The door through which the organisation's other sites carry sessions to here, and nobody else comes in. `context`
        demands a certificate. Raises OSError where the port is taken."""
        assert context.verify_mode is ssl.CERT_REQUIRED, "the door for sites asks who it is"
        return await self._listen(host, port, context, lambda: _Door(self, True, for_sites=True), reuse_port)

    async def _listen(
        self, host: str, port: int, context: ssl.SSLContext | None, door: Callable[[], Wire], reuse_port: bool
    ) -> asyncio.Server:
        server = await asyncio.get_running_loop().create_server(
            door,
            host,
            port,
            ssl=context,
            reuse_port=reuse_port,
            backlog=BACKLOG,
            ssl_handshake_timeout=self._settings.handshake_s_max if context is not None else None,
        )
        self._servers.append(server)
        return server

    def door(self, *, tls: bool = False) -> Wire:
        """A protocol for one connection; its session begins when the connection is made."""
        return _Door(self, tls)

    def opened(self, wire: Wire, tls: bool, *, for_sites: bool = False) -> None:
        introducer = ""
        if for_sites:
            wire.keep_alive()
            introducer = self._settings.site_of(wire.certificate)
            if not introducer:
                log.warning("refused at the door for sites: none of ours, or not any more", peer=wire.peer)
                say_bye(wire, "This door is for sites of the organisation.")
                wire.close()
                return
        if len(self._sessions) >= self._settings.connections_max:
            say_bye(wire, "[UNAVAILABLE] Too many connections.")
            wire.close()
            return
        session = self._site.world.entropy(SESSION_ID_BYTES).hex()
        task = asyncio.get_running_loop().create_task(
            serve(wire, site=self._site, settings=self._settings, tls=tls, session=session, introducer=introducer)
        )
        self._sessions[task] = wire
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._sessions[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("session ended badly", error=repr(error))

    async def close(self) -> None:
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

    def __init__(self, server: ImapServer, tls: bool, *, for_sites: bool = False) -> None:
        super().__init__()
        self._server, self._tls, self._for_sites = server, tls, for_sites

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.opened(self, self._tls, for_sites=self._for_sites)


async def listen(
    site: Site, settings: Settings, host: str, port: int, *, implicit_tls: bool = False, reuse_port: bool = False
) -> ImapServer:
    """A server with one port. Raises OSError where it is taken."""
    server = ImapServer(site, settings)
    await server.listen(host, port, implicit_tls=implicit_tls, reuse_port=reuse_port)
    return server
