"""Listening for POP3: how its sessions begin."""

import asyncio

import structlog

from protocols.pop3.session import FOR_SITES, TOO_MANY, say, serve
from protocols.pop3.settings import Settings
from protocols.port import Site
from protocols.sessions import SESSION_ID_BYTES, Sessions
from protocols.wire import Wire

BACKLOG = 512

log = structlog.get_logger("pop3")


class Pop3Server(Sessions):
    """All POP3 sessions of one worker. One that is ended by `close` deletes nothing."""

    def __init__(self, site: Site, settings: Settings) -> None:
        super().__init__("pop3", BACKLOG, settings.handshake_s_max)
        self._site, self._settings = site, settings

    async def listen(self, host: str, port: int, *, implicit_tls: bool = False, reuse_port: bool = False) -> None:
        """`implicit_tls`: POP3S (RFC 8314 §3.1) with the settings' context, into which a new certificate may be loaded
        while it serves. Raises OSError where the port is taken."""
        context = self._settings.tls() if implicit_tls else None
        assert context is not None or not implicit_tls, "POP3S needs a certificate"
        await self.listen_with(lambda: self.door(tls=implicit_tls), host, port, context, reuse_port=reuse_port)

    def door(self, *, tls: bool = False) -> Wire:
        """A protocol for one connection; its session begins when the connection is made."""
        return _Door(self, tls)

    def opened_by_site(self, wire: Wire) -> None:
        """It came to the door at which only the organisation's other sites are let in, to carry a session to here."""
        wire.keep_alive()
        introducer = self._settings.site_of(wire.certificate)
        if introducer:
            self.opened(wire, True, introducer)
            return
        log.warning("refused at the door for sites: none of ours, or not any more", peer=wire.peer)
        say(wire, FOR_SITES)
        wire.close()

    def opened(self, wire: Wire, tls: bool, introducer: str = "") -> None:
        if len(self._sessions) >= self._settings.connections_max:
            say(wire, TOO_MANY)
            wire.close()
            return
        session = self._site.world.entropy(SESSION_ID_BYTES).hex()
        served = serve(wire, site=self._site, settings=self._settings, tls=tls, session=session, introducer=introducer)
        self.begin(wire, served)


class _Door(Wire):
    """A wire that tells its server that it is there."""

    def __init__(self, server: Pop3Server, tls: bool) -> None:
        super().__init__()
        self._server, self._tls = server, tls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.opened(self, self._tls)
