"""A certificate authority of the site's own and the server certificate that it signs (RFC 5280), for sites that have no
other. `cryptography` does the work: X.509 and its encodings are not written twice.
"""

import datetime
import hashlib
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
SERVER_DAYS = 820  # Apple's systems refuse longer ones, also of an authority that the user added
SITE_URI = "angarium://site/"  # with the site's name after it, in the alternative names of its certificate (RFC 5280 §4.2.1.6)
BACKDATE = datetime.timedelta(hours=1)  # clients' clocks are not ours


def make_authority(site: str, now: datetime.datetime) -> tuple[bytes, bytes]:
    """A new authority as PEM: (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    owner = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Angarium")
    name = x509.Name([owner, x509.NameAttribute(NameOID.COMMON_NAME, f"{site} CA")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(name, name, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)


def issue(
    authority: bytes, authority_key: bytes, names: tuple[str, ...], now: datetime.datetime, site: str = ""
) -> tuple[bytes, bytes]:
    """A server certificate (PEM chain, key) for `names`, which are host names or addresses; the first is its subject.
    It also serves as a client certificate, because sites authenticate to each other with it: then `site` is its name."""
    key = ec.generate_private_key(ec.SECP256R1())
    return sign(authority, authority_key, key.public_key(), names, now, site), _key_pem(key)


def sign(
    authority: bytes,
    authority_key: bytes,
    public: ec.EllipticCurvePublicKey,
    names: tuple[str, ...],
    now: datetime.datetime,
    site: str = "",
) -> bytes:
    """The certificate chain (PEM) for a key that somebody else has. Raises ValueError."""
    issuer = x509.load_pem_x509_certificate(authority)
    issuer_key = serialization.load_pem_private_key(authority_key, None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority's key is not an elliptic-curve key")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, (site or names[0])[:64])])
    alternatives = [_general_name(name) for name in names]
    if site:
        alternatives.append(x509.UniformResourceIdentifier(SITE_URI + site))
    issuer_public = issuer_key.public_key()
    certificate = (
        _builder(subject, issuer.subject, public, now, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_public), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + authority


def make_request(name: str, old: bytes | None = None) -> tuple[bytes, bytes]:
    """A key, a new one unless there is an old one (PEM), and what is sent to have it certified (RFC 2986): (request, key)
    as PEM. What the certificate is for is said beside it, and decided by who signs. Raises ValueError."""
    key = serialization.load_pem_private_key(old, None) if old is not None else ec.generate_private_key(ec.SECP256R1())
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic-curve key")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM), _key_pem(key)


def requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """The key of a request, whose sender has shown that it is his. Raises ValueError."""
    read = x509.load_pem_x509_csr(request)
    public = read.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise ValueError("the key is not an elliptic-curve key on P-256")
    if not read.is_signature_valid:
        raise ValueError("the request is not signed with the key that it names")
    return public


def fingerprint(certificate: bytes) -> str:
    """Hex SHA-256 of a certificate (PEM; of a chain the first). Raises ValueError."""
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()


def pin(certificate: bytes) -> str:
    """Hex SHA-256 of a certificate's public key (DER): stays when it is renewed for the same key. Raises ValueError."""
    return pin_of(x509.load_pem_x509_certificate(certificate).public_key())


def pin_of(public: object) -> str:
    """Raises ValueError for a key of a kind that no site has."""
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise ValueError("not an elliptic-curve key")
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public.public_bytes(*form)).hexdigest()


def site_of(certificate: x509.Certificate) -> str:
    """Of which site it is, empty = of none. Raises ValueError."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris = found.get_values_for_type(x509.UniformResourceIdentifier)
    return next((uri.removeprefix(SITE_URI) for uri in uris if uri.startswith(SITE_URI)), "")


class Certificate:
    """What a check needs to know of a certificate and its key on disk. Raises OSError or ValueError if unreadable."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = x509.load_pem_x509_certificate(certificate.read_bytes())
        self._key = serialization.load_pem_private_key(key.read_bytes(), None)

    @property
    def valid_from(self) -> datetime.datetime:
        return self._certificate.not_valid_before_utc

    @property
    def valid_until(self) -> datetime.datetime:
        return self._certificate.not_valid_after_utc

    @property
    def key_matches(self) -> bool:
        form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        return self._certificate.public_key().public_bytes(*form) == self._key.public_key().public_bytes(*form)

    @property
    def site(self) -> str:
        """Of which site it is, empty = of none."""
        return site_of(self._certificate)

    @property
    def names(self) -> tuple[str, ...]:
        """Host names and addresses of the subject alternative name (RFC 9525 §6: nothing else counts)."""
        try:
            found = self._certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return ()
        return (*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress)))


def covers(names: tuple[str, ...], host: str) -> bool:
    """Whether a certificate for `names` serves `host`; a wildcard stands for one whole label (RFC 9525 §6.3)."""
    wanted = host.lower()
    wildcard = f"*.{wanted.partition('.')[2]}"
    return any(name.lower() in (wanted, wildcard) for name in names)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    start = now - BACKDATE
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
