"""The way between sites for sessions that are carried: who is let in at this site's door for sites, and how the others' are
reached. The certificates are those of the links, by the organisation's own authority (ops/decisions/sessions-are-carried.md).
"""

import asyncio
import ssl
from pathlib import Path
from typing import NamedTuple

import structlog
from cryptography import x509

from cluster.control.roster import Member
from node import certs
from node.backbone import BackboneConfig, ConfigRefused
from node.config import Config
from node.membership import current

log = structlog.get_logger("carrying")

HANDSHAKE_S_MAX = 10.0


LANGUAGES = ("imap", "pop3")  # by their names of RFC 7301; a release before POP3 was carried says none, and means IMAP


class _Contexts(NamedTuple):
    """`ways`: in the order of LANGUAGES."""

    door: ssl.SSLContext
    ways: tuple[ssl.SSLContext, ...]


class Sites:
    """The organisation's other sites. Raises OSError or ssl.SSLError at the start; a certificate that cannot be read later
    leaves the old one in force."""

    def __init__(self, config: Config, backbone: BackboneConfig) -> None:
        self._config = config
        self._backbone = backbone
        self._seen: tuple[int, int] | None = None  # of the roster's file, when it was last read
        self._contexts = _contexts(config)

    @property
    def door(self) -> ssl.SSLContext:
        return self._contexts.door

    @property
    def address(self) -> tuple[str, int] | None:
        """Where this site's own door is: where its links are, if it has keys of its own, else where its clients come. None =
        it was shut out."""
        own = _member(self._backbone, self._config.site)
        if own is None:
            return None
        return (self._config.bind if self._backbone.roster is None else own.host), own.carry_port

    def reload(self) -> None:
        """The certificate is read again: connections made from now on have it."""
        tls = self._config.tls
        try:
            _contexts(self._config)  # Tried apart first: a bad pair must not spoil what serves.
            for context in (self._contexts.door, *self._contexts.ways):
                context.load_verify_locations(tls.ca)
                context.load_cert_chain(tls.link_certificate, tls.link_key)
        except (OSError, ssl.SSLError) as error:
            log.error("the links' certificate could not be read; the old one stays", error=f"{type(error).__name__}: {error}")

    async def reach(self, site: str, wire: asyncio.Protocol, language: str) -> None:
        """Raises OSError."""
        member = _member(self._now(), site)
        if member is None:
            raise OSError(f"{site} is no site of the organisation, or not any more")
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: wire,
            member.host,
            member.carry_port,
            ssl=self._contexts.ways[LANGUAGES.index(language)],
            server_hostname=member.host,
            ssl_handshake_timeout=HANDSHAKE_S_MAX,
        )
        shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
        if self.named(shown) != site:
            transport.abort()
            raise OSError(f"what answers at {member.host}:{member.carry_port} is not {site}")

    def named(self, certificate: bytes) -> str | None:
        """By the key that the roster has of it; where sites were listed by hand by the name that the authority wrote."""
        try:
            shown = x509.load_der_x509_certificate(certificate)
            backbone = self._now()
            if backbone.roster is None:
                name = certs.site_of(shown)
                return name if name in backbone.sites else None
            pin = certs.pin_of(shown.public_key())
        except ValueError:
            return None
        return next((each.site for each in backbone.roster.members if each.role == "site" and each.pin == pin), None)

    def _now(self) -> BackboneConfig:
        """With the roster as it is noted on this machine now."""
        if self._backbone.roster is None:
            return self._backbone
        try:
            stat = self._config.roster_file.stat()
            if (seen := (stat.st_ino, stat.st_mtime_ns)) != self._seen:
                backbone = current(self._config).backbone
                if backbone is not None and backbone.roster is not None:
                    self._backbone, self._seen = backbone, seen
        except (OSError, ConfigRefused) as error:
            log.error("the roster cannot be read; what is known of it stays", error=str(error))
        return self._backbone


def _member(backbone: BackboneConfig, site: str) -> Member | None:
    return next((each for each in backbone.members if each.site == site and each.role == "site"), None)


def _contexts(config: Config) -> _Contexts:
    tls = config.tls
    door = _context(ssl.PROTOCOL_TLS_SERVER, tls.ca, tls.link_certificate, tls.link_key)
    ways = tuple(_context(ssl.PROTOCOL_TLS_CLIENT, tls.ca, tls.link_certificate, tls.link_key) for _ in LANGUAGES)
    door.set_alpn_protocols(LANGUAGES)
    for way, language in zip(ways, LANGUAGES, strict=True):
        way.set_alpn_protocols([language])
    return _Contexts(door, ways)


def _context(side: int, ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """Both sides show a certificate, and trust nobody but the organisation's own authority."""
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # both ends are ours
    context.check_hostname = False  # a site is known by its key, whatever name it is reached by
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca)
    context.load_cert_chain(certificate, key)
    if side == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # every connection shows its certificate anew
    return context
