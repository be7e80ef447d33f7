"""Two sites in memory with a real line between them: people sign in at one, and their mail is at the other."""

import asyncio
import datetime
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from node import certs
from protocols.imap.server import ImapServer
from protocols.wire import Wire

NEAR, FAR = "north", "south"


class Pair(NamedTuple):
    """Of one site: for those who come, and for where it goes; certificate (PEM chain) and key beside."""

    door: ssl.SSLContext
    way: ssl.SSLContext


class Authority:
    """An organisation's own, which certifies its sites."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._now = datetime.datetime.now(datetime.UTC)
        self._made = certs.make_authority("test", self._now)
        (folder / "ca.pem").write_bytes(self._made[0])

    def pair(self, site: str) -> Pair:
        chain, key = certs.issue(*self._made, ("localhost", "127.0.0.1"), self._now, site)
        (self._folder / f"{site}.pem").write_bytes(chain)
        (self._folder / f"{site}.key").write_bytes(key)
        return Pair(*(self._context(side, site) for side in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)))

    def _context(self, side: int, site: str) -> ssl.SSLContext:
        context = ssl.SSLContext(side)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self._folder / "ca.pem")
        context.load_cert_chain(self._folder / f"{site}.pem", self._folder / f"{site}.key")
        return context


class Neighbours:
    """What a site knows of the others: protocols.imap.settings.Sites. `doors`: where each is."""

    def __init__(self, way: ssl.SSLContext, members: set[str]) -> None:
        self._way = way  # of one language
        self.members = members
        self.doors: dict[str, int] = {}

    async def reach(self, site: str, wire: asyncio.Protocol, language: str) -> None:
        if site not in self.doors:
            raise OSError(f"{site} is out of reach")
        await asyncio.get_running_loop().create_connection(lambda: wire, "127.0.0.1", self.doors[site], ssl=self._way)

    def named(self, certificate: bytes) -> str | None:
        name = certs.site_of(x509.load_der_x509_certificate(certificate))
        return name if name in self.members else None


async def door_of(
    server: ImapServer, context: ssl.SSLContext, others: Mapping[str, Callable[[Wire], None]] | None = None
) -> int:
    """Opens it, on a port that is free."""
    listener = await server.listen_to_sites("127.0.0.1", 0, context, others=others)
    return int(listener.sockets[0].getsockname()[1])
