"""swaks, the Swiss army knife for SMTP."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.place import MESSAGE_BYTES_MAX, STRANGER, Person, Place, said

MAIL_REFUSED, RCPT_REFUSED, MESSAGE_REFUSED, AUTH_REFUSED = 23, 24, 26, 28  # swaks(1), EXIT CODES

Talk = Callable[..., str]


@pytest.fixture
def talk(swaks: str, place: Place) -> Talk:
    def run(*arguments: str, status: int = 0) -> str:
        return said(swaks, "--timeout", "30", *arguments, status=status)

    return run


def tls(place: Place, port: int) -> tuple[str, ...]:
    return ("--server", "localhost", "--port", str(port), "--tls", "--tls-verify", "--tls-ca-path", place.ca)


def login(person: Person, mechanism: str) -> tuple[str, ...]:
    return ("--auth", mechanism, "-au", person.address, "-ap", person.password, "-f", person.address)


def has(place: Place, person: Person, count: int) -> bool:
    """So many messages arrive in INBOX, and no more than that."""
    with place.imap(person) as client:
        place.until(client, count)
        return place.count(client) == count


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_submission_under_starttls(talk: Talk, place: Place, person: Person, mechanism: str) -> None:
    other = place.person()
    heard = talk(*tls(place, place.config.ports.submission), *login(person, mechanism), "-t", other.address)
    assert "=== TLS started" in heard and "<~  250 2.0.0" in heard
    assert has(place, other, 1)


def test_submission_under_implicit_tls(talk: Talk, place: Place, person: Person) -> None:
    port = place.config.ports.submissions
    where = tuple("--tls-on-connect" if word == "--tls" else word for word in tls(place, port))
    talk(*where, *login(person, "PLAIN"), "-t", person.address)
    assert has(place, person, 1)


def test_what_submission_offers(talk: Talk, place: Place, person: Person) -> None:
    """No AUTH in the clear, no CRAM at all (only what a salted verifier can serve)."""
    heard = talk(*tls(place, place.config.ports.submission), "--quit-after", "EHLO")
    clear, _, secured = heard.partition("=== TLS started")
    assert "STARTTLS" in clear and "AUTH" not in clear
    assert "AUTH PLAIN SCRAM-SHA-256 OAUTHBEARER XOAUTH2 LOGIN" in secured and "STARTTLS" not in secured
    heard = talk(*tls(place, place.config.ports.submission), *login(person, "CRAM-MD5"), "-t", STRANGER, status=AUTH_REFUSED)
    assert "*** Auth not attempted" in heard


def test_a_wrong_password_is_refused(talk: Talk, place: Place, person: Person) -> None:
    wrong = Person(person.address, "wrong")
    heard = talk(
        *tls(place, place.config.ports.submission), *login(wrong, "PLAIN"), "-t", person.address, status=AUTH_REFUSED
    )
    assert "<~* 535 5.7.8" in heard


def test_mail_for_people_here_comes_in_by_the_mx_port(talk: Talk, place: Place, person: Person) -> None:
    port = place.config.ports.smtp
    talk("--server", "127.0.0.1", "--port", str(port), "-f", STRANGER, "-t", person.address)
    heard = talk(*tls(place, port), "-f", STRANGER, "-t", person.address)
    assert "=== TLS started" in heard
    assert "AUTH" not in heard  # nobody signs in on the port of the MX
    assert has(place, person, 2)


@pytest.mark.parametrize("sender", [STRANGER, "postmaster@example.org", "<>"])
def test_no_open_relay(talk: Talk, place: Place, sender: str) -> None:
    where = ("--server", "127.0.0.1", "--port", str(place.config.ports.smtp), "-f", sender)
    for target in ("victim@elsewhere.example", '"victim@elsewhere.example"@example.org', "victim%elsewhere.example@example.org"):
        heard = talk(*where, "-t", target, status=RCPT_REFUSED)
        assert "<** 5" in heard, heard


def test_nobody_submits_without_signing_in(talk: Talk, place: Place, person: Person) -> None:
    heard = talk(*tls(place, place.config.ports.submission), "-f", person.address, "-t", person.address, status=MAIL_REFUSED)
    assert "<~* 530 5.7.0" in heard


def test_lmtp_on_the_unix_socket_answers_for_each(talk: Talk, place: Place, person: Person) -> None:
    other = place.person()
    where = ("--socket", str(place.config.lmtp_socket), "--protocol", "LMTP", "-f", STRANGER)
    heard = talk(*where, "-t", f"{person.address},{other.address}")
    assert heard.count("<-  250 2.0.0") == 2
    heard = talk(*where, "-t", f"{person.address},nobody@example.org")
    assert "<** 550 5.1.1" in heard and heard.count("<-  250 2.0.0") == 1
    assert has(place, person, 2) and has(place, other, 1)


def test_a_message_too_big_is_refused(talk: Talk, place: Place, person: Person, tmp_path: Path) -> None:
    where = ("--server", "127.0.0.1", "--port", str(place.config.ports.smtp), "-f", STRANGER, "-t", person.address)
    file = tmp_path / "big"
    file.write_bytes(b"Subject: big\n\n" + (b"z" * 70 + b"\n") * (MESSAGE_BYTES_MAX // 72 - 100))
    heard = talk(*where, "--data", f"@{file}")
    assert f"SIZE {MESSAGE_BYTES_MAX}" in heard
    file.write_bytes(b"Subject: big\n\n" + (b"z" * 70 + b"\n") * (MESSAGE_BYTES_MAX // 72 + 100))
    heard = talk(*where, "--data", f"@{file}", status=MESSAGE_REFUSED)
    assert "<** 552 5.3.4" in heard
    assert has(place, person, 1)
