"""The doors of a worker: which languages listen where."""

import asyncio
import errno
from collections.abc import Awaitable, Callable

import structlog

from cluster.offers import Offer
from node.assembly import Assembly
from node.carrying import Sites
from node.management import Management
from node.tls import Certificates
from protocols.admin import server as admin
from protocols.admin.session import application
from protocols.autoconfig import session as autoconfig
from protocols.imap import server as imap
from protocols.imap.parser import Limits as ImapLimits
from protocols.imap.settings import Settings as ImapSettings
from protocols.pop3.server import Pop3Server
from protocols.pop3.settings import Settings as Pop3Settings
from protocols.smtp import server as smtp
from protocols.smtp.model import Role
from protocols.smtp.settings import Settings as SmtpSettings

log = structlog.get_logger("listeners")


class Listeners:
    """`sites`: the others, if there may ever be any."""

    def __init__(self, parts: Assembly, certificates: Certificates, sites: Sites | None, management: Management) -> None:
        self._parts = parts
        self._sites = sites
        self._management = management
        self._certificates = certificates
        self._stops: list[Callable[[], Awaitable[None]]] = []

    async def start(self) -> None:
        """Raises OSError where a port is taken."""
        await self._start_smtp()
        pop3 = await self._start_pop3()
        await self._start_imap(pop3)
        await self._start_admin()

    async def stop(self) -> None:
        """All at once: each lets its sessions finish what they are at."""
        stops, self._stops = self._stops, []
        await asyncio.gather(*(stop() for stop in stops))

    async def _start_smtp(self) -> None:
        config, site = self._parts.config, self._parts.site
        settings = SmtpSettings(
            hostname=config.hostname,
            postmaster=f"postmaster@{config.domain}",
            routes_elsewhere=config.routes_elsewhere,
            plaintext_networks=config.plaintext_networks,
            message_bytes_max=config.limits.message_bytes_max,
            recipients_max=config.limits.smtp_recipients_max,
            hops_max=config.limits.smtp_hops_max,
            bad_commands_max=config.limits.bad_requests_max,
            connections_max=config.limits.connections_max,
            connections_per_peer_max=config.limits.connections_address_max,
            command_s_max=config.limits.smtp_idle_s_max,
            sign_in_s_max=config.limits.sign_in_s_max,
            grace_s_max=config.limits.drain_s_max,
        )
        doors = [
            (Role.MX, config.ports.smtp),
            (Role.SUBMISSION, config.ports.submission),
            (Role.SUBMISSIONS, config.ports.submissions),
            (Role.LMTP, config.ports.lmtp),
        ]
        servers: list[smtp.Server] = []
        for role, port in doors:
            if port:
                server = await smtp.listen(
                    site,
                    settings,
                    (config.bind, port),
                    role=role,
                    tls_context=self._certificates.context,
                    reuse_port=True,
                )
                servers.append(server)
        if config.lmtp_socket is not None and self._parts.name.endswith("-0"):
            servers.append(await smtp.listen(site, settings, config.lmtp_socket, role=Role.LMTP))
        self._stops.extend(server.close for server in servers)
        self._count("smtp", lambda: sum(server.connections for server in servers))

    async def _start_imap(self, pop3: Pop3Server) -> None:
        config, site = self._parts.config, self._parts.site
        settings = ImapSettings(
            hostname=config.hostname,
            node=self._parts.name,
            message_bytes_max=config.limits.message_bytes_max,
            plaintext_networks=config.plaintext_networks,
            tls=self._certificates.context,
            end_point=self._certificates.end_point,
            unauthenticate=config.imap_unauthenticate,
            compress=config.imap_compress,
            sites=self._sites,
            bad_commands_max=config.limits.bad_requests_max,
            sign_in_s_max=config.limits.sign_in_s_max,
            idle_s_max=config.limits.imap_idle_s_max,
            connections_max=config.limits.connections_max,
            limits=ImapLimits(
                line_bytes_max=config.limits.imap_line_bytes_max, literal_bytes_max=config.limits.imap_literal_bytes_max
            ),
        )
        server = imap.ImapServer(site, settings)
        self._stops.append(server.close)
        self._count("imap", lambda: server.sessions)
        for port, implicit in ((config.ports.imap, False), (config.ports.imaps, True)):
            if port:
                await server.listen(config.bind, port, implicit_tls=implicit, reuse_port=True)
        if self._sites is not None and self._sites.address is not None:
            await self._listen_to_sites(server, pop3, self._sites, *self._sites.address)

    async def _listen_to_sites(
        self, server: imap.ImapServer, pop3: Pop3Server, sites: Sites, host: str, port: int
    ) -> None:
        others = {"pop3": pop3.opened_by_site}
        try:
            await server.listen_to_sites(host, port, sites.door, reuse_port=True, others=others)
        except OSError as error:
            if error.errno == errno.EADDRINUSE or host == self._parts.config.bind:
                raise
            # Behind another machine's address; only this site's members of the backbone must have their own.
            log.warning("the door for sites is where clients come", address=host, why=str(error))
            await server.listen_to_sites(self._parts.config.bind, port, sites.door, reuse_port=True, others=others)

    async def _start_pop3(self) -> Pop3Server:
        config = self._parts.config
        settings = Pop3Settings(
            hostname=config.hostname,
            node=self._parts.name,
            plaintext_networks=config.plaintext_networks,
            tls=self._certificates.context,
            sites=self._sites,
            bad_commands_max=config.limits.bad_requests_max,
            sign_in_s_max=config.limits.sign_in_s_max,
            idle_s_max=config.limits.pop3_idle_s_max,
            connections_max=config.limits.connections_max,
        )
        server = Pop3Server(self._parts.site, settings)
        self._stops.append(server.close)
        self._count("pop3", lambda: server.sessions)
        for port, implicit in ((config.ports.pop3, False), (config.ports.pop3s, True)):
            if port:
                await server.listen(config.bind, port, implicit_tls=implicit, reuse_port=True)
        return server

    async def _start_admin(self) -> None:
        config = self._parts.config
        app = application(self._management.parts)
        autoconfig.add_routes(app, self._asked_how)
        server = await admin.start(
            app,
            config.bind,
            config.ports.http or None,
            config.ports.https or None,
            self._certificates.context(),
        )
        self._stops.append(server.stop)

    def _asked_how(self) -> autoconfig.Door:
        """To set a mail program up."""
        config, offered = self._parts.config, self._management.parts.door.offers()
        # Of a site that is not among them any more nothing is offered.
        home = next((offer for offer in offered if offer.site == config.site), Offer(config.site, config.hostname, {}))
        return autoconfig.Door(self._management.administration, offered, home, self._parts.world.now())

    def _count(self, protocol: str, sessions: Callable[[], int]) -> None:
        self._management.metrics.sessions.labels(protocol).set_function(sessions)
