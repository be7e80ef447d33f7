"""The server's certificate, read again on SIGHUP: new connections get the new one, sessions go on with what they have."""

import ssl
from pathlib import Path

import structlog

log = structlog.get_logger("tls")


class Certificates:
    """Raises OSError or ssl.SSLError at the start; a later one that cannot be read leaves the old in force."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._paths = (certificate, key)
        self._context = _context(*self._paths)

    def context(self) -> ssl.SSLContext:
        return self._context

    def reload(self) -> None:
        try:
            # Tried apart first: a bad pair must not spoil the context that serves.
            _context(*self._paths)
            self._context.load_cert_chain(*self._paths)
        except (OSError, ssl.SSLError) as error:
            log.error("the certificate could not be read; the old one stays", error=f"{type(error).__name__}: {error}")
            return
        log.info("certificate read again")


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996: nothing older
    context.load_cert_chain(certificate, key)
    return context
