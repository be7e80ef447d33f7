"""Listening for IMAP: how its sessions begin."""

import asyncio
import ssl
from collections.abc import Callable, Mapping

import structlog

from protocols.imap.session import say_bye, serve
from protocols.imap.settings import Settings
from protocols.port import Site
from protocols.sessions import SESSION_ID_BYTES, Sessions
from protocols.wire import Wire

log = structlog.get_logger("imap")

BACKLOG = 1024


class ImapServer(Sessions):
    """All IMAP sessions of one worker. Those that are ended by `close` say BYE (RFC 9051 §7.1.5)."""

    def __init__(self, site: Site, settings: Settings) -> None:
        super().__init__("imap", BACKLOG, settings.handshake_s_max)
        self._site, self._settings = site, settings
        self._others: Mapping[str, Callable[[Wire], None]] = {}

    async def listen(self, host: str, port: int, *, implicit_tls: bool = False, reuse_port: bool = False) -> asyncio.Server:
        """`implicit_tls`: IMAPS (RFC 8314 §3.2) with the settings' context, into which a new certificate may be loaded
        while it serves. Raises OSError where the port is taken."""
        context = self._settings.tls() if implicit_tls else None
        assert context is not None or not implicit_tls, "IMAPS needs a certificate"
        return await self.listen_with(lambda: self.door(tls=implicit_tls), host, port, context, reuse_port=reuse_port)

    async def listen_to_sites(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext,
        *,
        reuse_port: bool = False,
        others: Mapping[str, Callable[[Wire], None]] | None = None,
    ) -> asyncio.Server:
        """The door through which the organisation's other sites carry sessions to here, and nobody else comes in. `context`
        demands a certificate. `others`: whose sessions are of another language, by its name (RFC 7301). Raises OSError where the
        port is taken."""
        self._others = others or {}
        assert context.verify_mode is ssl.CERT_REQUIRED, "the door for sites asks who it is"
        return await self.listen_with(
            lambda: _Door(self, True, for_sites=True), host, port, context, reuse_port=reuse_port
        )

    def door(self, *, tls: bool = False) -> Wire:
        """A protocol for one connection; its session begins when the connection is made."""
        return _Door(self, tls)

    def opened(self, wire: Wire, tls: bool, *, for_sites: bool = False) -> None:
        introducer = ""
        if for_sites and (other := self._others.get(wire.language)) is not None:
            other(wire)
            return
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
        served = serve(wire, site=self._site, settings=self._settings, tls=tls, session=session, introducer=introducer)
        self.begin(wire, served)


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
