"""TLS at every door: verified against the site's CA, STARTTLS and implicit, no password before it, certificates renewed
while sessions go on."""

import datetime
import imaplib
import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest

from node.init import renew_certificate
from tests.clients.conftest import Ran
from tests.clients.place import CLIENT_S_MAX, PLAINTEXT_ADDRESS, Person, Place

SMTP_DOORS = ("smtp", "submission")
IMPLICIT_DOORS = ("imaps", "pop3s", "submissions")


@pytest.fixture(autouse=True)
def version(ran: Ran) -> None:
    ran("Python's ssl", ssl.OPENSSL_VERSION)


def port(place: Place, door: str) -> int:
    return int(getattr(place.config.ports, door))


@pytest.mark.parametrize("door", SMTP_DOORS)
def test_starttls_of_smtp(place: Place, door: str) -> None:
    with smtplib.SMTP("localhost", port(place, door), timeout=CLIENT_S_MAX) as server:
        assert server.starttls(context=place.trust())[0] == 220
        assert isinstance(server.sock, ssl.SSLSocket) and server.sock.version() == "TLSv1.3"
        assert server.ehlo("me.example")[0] == 250


def test_starttls_of_imap(place: Place) -> None:
    with imaplib.IMAP4("localhost", port(place, "imap"), CLIENT_S_MAX) as client:
        assert client.starttls(place.trust())[0] == "OK"
        assert client.noop()[0] == "OK"


@pytest.mark.parametrize("door", IMPLICIT_DOORS)
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_implicit_tls_is_verified(place: Place, door: str, name: str) -> None:
    with secured(place, door, place.trust(), name) as connection:
        assert connection.recv(4) in (b"* OK", b"+OK ", b"220 ")
    with pytest.raises(ssl.SSLCertVerificationError):
        with secured(place, door, ssl.create_default_context()):
            pass
    with pytest.raises(ssl.SSLCertVerificationError):
        with secured(place, door, place.trust(), "elsewhere.example"):
            pass


@pytest.mark.parametrize("door", IMPLICIT_DOORS)
def test_nothing_older_than_tls_1_2(place: Place, door: str) -> None:
    context = place.trust()
    context.maximum_version = context.minimum_version = ssl.TLSVersion.TLSv1_2
    with secured(place, door, context) as connection:
        assert connection.version() == "TLSv1.2"
    old = place.trust()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        with secured(place, door, old):
            pass


def test_no_password_before_tls(place: Place, person: Person) -> None:
    with imaplib.IMAP4("127.0.0.1", port(place, "imap"), CLIENT_S_MAX) as client:
        assert "LOGINDISABLED" in client.capabilities
        assert not any(word.startswith("AUTH=") for word in client.capabilities)
        with pytest.raises(imaplib.IMAP4.error, match="PRIVACYREQUIRED"):
            client.login(person.address, person.password)
    with smtplib.SMTP("127.0.0.1", port(place, "submission"), timeout=CLIENT_S_MAX) as server:
        server.ehlo("me.example")
        assert not server.has_extn("auth")
        assert server.docmd("AUTH", "PLAIN AGEAYg==")[0] in (503, 504, 530, 538)


def test_a_network_that_was_named_may(place: Place, person: Person) -> None:
    with socket.create_connection(
        ("127.0.0.1", port(place, "imap")), CLIENT_S_MAX, source_address=(PLAINTEXT_ADDRESS, 0)
    ) as connection:
        stream = connection.makefile("rwb")
        greeting = stream.readline()
        assert b"LOGINDISABLED" not in greeting and b"AUTH=PLAIN" in greeting
        stream.write(f'a LOGIN {person.address} "{person.password}"\r\n'.encode())
        stream.flush()
        assert stream.readline().startswith(b"a OK")
    with smtplib.SMTP(
        "127.0.0.1", port(place, "submission"), timeout=CLIENT_S_MAX, source_address=(PLAINTEXT_ADDRESS, 0)
    ) as server:
        assert server.login(person.address, person.password)[0] == 235


@pytest.mark.parametrize("door", ["imap", "smtp", "submission"])
def test_what_was_sent_ahead_in_the_clear_is_never_obeyed(place: Place, door: str) -> None:
    """The command injection of STARTTLS (CVE-2011-0411): bytes behind the command do not become part of the session."""
    with socket.create_connection(("localhost", port(place, door)), CLIENT_S_MAX) as connection:
        stream = connection.makefile("rwb")
        stream.readline()
        if door != "imap":
            stream.write(b"EHLO me.example\r\n")
            stream.flush()
            while not stream.readline().startswith(b"250 "):
                pass
        stream.write(b"a STARTTLS\r\nb CAPABILITY\r\n" if door == "imap" else b"STARTTLS\r\nNOOP\r\n")
        stream.flush()
        heard = b""
        try:
            while line := stream.readline():
                heard += line
                if line.startswith((b"a OK", b"220 ")):
                    break
            with place.trust().wrap_socket(connection, server_hostname="localhost") as wrapped:
                wrapped.settimeout(CLIENT_S_MAX)
                wrapped.sendall(b"c LOGOUT\r\n" if door == "imap" else b"QUIT\r\n")
                while piece := wrapped.recv(4096):
                    heard += piece
        except OSError:
            pass  # dropped, as it may be
        for obeyed in (b"CAPABILITY", b"b OK", b"b BAD", b"250 "):
            assert obeyed not in heard


@pytest.mark.parametrize("door", [*IMPLICIT_DOORS, "imap"])
def test_a_new_certificate_on_sighup_without_dropping_a_session(place: Place, person: Person, door: str) -> None:
    with place.imap(person) as client:
        before = certificate(place, door)
        renew_certificate(place.config, datetime.datetime.now(datetime.UTC))
        assert certificate(place, door) == before, "it was not told yet"
        place.reload()
        end = monotonic() + CLIENT_S_MAX
        while certificate(place, door) == before:
            assert monotonic() < end, "the new certificate is not served"
        assert client.noop()


@contextmanager
def secured(place: Place, door: str, context: ssl.SSLContext, name: str = "localhost") -> Iterator[ssl.SSLSocket]:
    with socket.create_connection(("127.0.0.1", port(place, door)), CLIENT_S_MAX) as plain:
        with context.wrap_socket(plain, server_hostname=name) as wrapped:
            yield wrapped


def certificate(place: Place, door: str) -> Any:
    """The serial number that a new connection is shown."""
    if door == "imap":
        with imaplib.IMAP4("localhost", port(place, door), CLIENT_S_MAX) as client:
            client.starttls(place.trust())
            shown: Any = client.socket().getpeercert()  # type: ignore[attr-defined]
            return shown["serialNumber"]
    with secured(place, door, place.trust()) as connection:
        shown = connection.getpeercert()
        return shown["serialNumber"]
