"""The server's certificate, read again on SIGHUP: new connections get the new one, sessions go on with what they have."""

import ssl
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

log = structlog.get_logger("tls")


class Certificates:
    """Raises OSError or ssl.SSLError at the start; a later one that cannot be read leaves the old in force."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._paths = (certificate, key)
        self._context = _context(*self._paths)
        self._end_point = _end_point(certificate)

    def context(self) -> ssl.SSLContext:
        return self._context

    def end_point(self) -> bytes:
        """What a handshake of now is bound to (RFC 5929 §4.1): the certificate's hash, empty where none is defined."""
        return self._end_point

    def reload(self) -> None:
        try:
            # Tried apart first: a bad pair must not spoil the context that serves.
            _context(*self._paths)
            self._context.load_cert_chain(*self._paths)
            self._end_point = _end_point(self._paths[0])
        except (OSError, ssl.SSLError) as error:
            log.error("the certificate could not be read; the old one stays", error=f"{type(error).__name__}: {error}")
            return
        log.info("certificate read again")


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996: nothing older
    context.load_cert_chain(certificate, key)
    return context


def _end_point(certificate: Path) -> bytes:
    """RFC 5929 §4.1: by the hash of the signature's algorithm, SHA-256 in place of MD5 and SHA-1. Where a signature has no hash
    of its own, as Ed25519's, nothing is defined. Raises OSError."""
    try:
        shown = x509.load_pem_x509_certificate(certificate.read_bytes())
        algorithm = shown.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return b""
    if algorithm is None:
        return b""
    return shown.fingerprint(hashes.SHA256() if algorithm.name in ("md5", "sha1") else algorithm)
