"""curl, which speaks IMAP and SMTP one command at a time."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.place import PLAINTEXT_ADDRESS, Person, Place, said

MESSAGE = b"From: a@example.org\r\nSubject: by curl\r\n\r\nfirst line\r\n.dot\r\n..two\r\n"
LOGIN_DENIED = 67

Ask = Callable[..., str]


@pytest.fixture
def ask(curl: str, place: Place, person: Person) -> Ask:
    """curl as this person with the site's CA; the output."""

    def run(*arguments: str, status: int = 0) -> str:
        user = f"{person.address}:{person.password}"
        return said(curl, "-sS", "--max-time", "30", "--cacert", place.ca, "-u", user, *arguments, status=status)

    return run


def imaps(place: Place, rest: str = "") -> str:
    return f"imaps://localhost:{place.config.ports.imaps}/{rest}"


def test_imaps_list(ask: Ask, place: Place) -> None:
    lines = ask(imaps(place)).splitlines()
    assert '* LIST (\\HasNoChildren) "/" "INBOX"' in lines
    assert {line.rpartition(" ")[2] for line in lines} == {
        '"INBOX"', '"Archive"', '"Drafts"', '"Junk"', '"Sent"', '"Trash"'
    }  # fmt: skip


def test_imaps_upload_search_and_fetch(ask: Ask, place: Place, tmp_path: Path) -> None:
    file = tmp_path / "message"
    file.write_bytes(MESSAGE)
    ask("-T", str(file), imaps(place, "Archive"))
    assert ask(imaps(place, "Archive?SUBJECT%20curl")).strip() == "* SEARCH 1"
    assert ask(imaps(place, "Archive?SUBJECT%20nothing")).strip() == "* SEARCH"
    fetched = tmp_path / "fetched"
    for which in ("UID=1", "MAILINDEX=1"):
        ask("-o", str(fetched), imaps(place, f"Archive;{which}"))
        assert fetched.read_bytes() == MESSAGE
    ask("-o", str(fetched), imaps(place, "Archive;UID=1;SECTION=TEXT"))
    assert fetched.read_bytes() == MESSAGE.partition(b"\r\n\r\n")[2]
    assert "* STATUS" in ask("-X", "STATUS Archive (MESSAGES UIDNEXT)", imaps(place))
    assert "(\\Seen" in ask("-X", "STORE 1 +FLAGS (\\Seen)", imaps(place, "Archive"))


def test_uidvalidity_in_the_address_is_checked(ask: Ask, place: Place, tmp_path: Path) -> None:
    file = tmp_path / "message"
    file.write_bytes(MESSAGE)
    ask("-T", str(file), imaps(place, "INBOX"))
    ask(imaps(place, "INBOX;UIDVALIDITY=999999;UID=1"), status=78)
    status = ask("-X", "STATUS INBOX (UIDVALIDITY)", imaps(place))
    valid = status.rpartition("UIDVALIDITY ")[2].rstrip(")\r\n ")
    assert "by curl" in ask(imaps(place, f"INBOX;UIDVALIDITY={valid};UID=1"))


def test_smtps_and_starttls_send(ask: Ask, place: Place, person: Person, tmp_path: Path) -> None:
    file = tmp_path / "message"
    file.write_bytes(MESSAGE)
    ends = ("--mail-from", person.address, "--mail-rcpt", person.address, "-T", str(file))
    ask(*ends, f"smtps://localhost:{place.config.ports.submissions}/me.example")
    for mechanism in ("PLAIN", "LOGIN"):
        login = ("--ssl-reqd", "--login-options", f"AUTH={mechanism}")
        ask(*ends, *login, f"smtp://localhost:{place.config.ports.submission}/me.example")
    with place.imap(person) as client:
        place.until(client, 3)
        client.noop()
        bodies = client.fetch([1, 2, 3], ["BODY[TEXT]"])
    text = MESSAGE.partition(b"\r\n\r\n")[2]
    assert [bodies[n][b"BODY[TEXT]"] for n in (1, 2, 3)] == [text] * 3


def test_passwords_go_under_tls_only(ask: Ask, place: Place) -> None:
    address = f"imap://127.0.0.1:{place.config.ports.imap}/INBOX?ALL"
    ask(address, status=LOGIN_DENIED)
    assert ask("--ssl-reqd", address).strip() == "* SEARCH"
    assert ask("--interface", PLAINTEXT_ADDRESS, address).strip() == "* SEARCH"


def test_a_wrong_password_is_refused(curl: str, place: Place, person: Person) -> None:
    said(curl, "-sS", "--cacert", place.ca, "-u", f"{person.address}:wrong", imaps(place), status=LOGIN_DENIED)


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
def test_tokens(curl: str, place: Place, person: Person, tmp_path: Path, mechanism: str) -> None:
    """RFC 7628, in three languages; with one that has expired, refused."""
    file, ports = tmp_path / "message", place.config.ports
    file.write_bytes(MESSAGE)
    ends = ("--mail-from", person.address, "--mail-rcpt", person.address, "-T", str(file))

    def run(token: str, *arguments: str, status: int = 0) -> str:
        who = ("-u", f"{person.address}:", "--oauth2-bearer", token, "--login-options", f"AUTH={mechanism}")
        return said(curl, "-sS", "--max-time", "30", "--cacert", place.ca, *who, *arguments, status=status)

    good, old = place.issuer.token(person.address), place.issuer.token(person.address, exp=1)
    run(good, *ends, f"smtps://localhost:{ports.submissions}/me.example")
    with place.imap(person) as client:
        place.until(client, 1)
    assert run(good, imaps(place, "INBOX?ALL")).strip() == "* SEARCH 1"
    assert "by curl" in run(good, f"pop3s://localhost:{ports.pop3s}/1")
    run(old, *ends, f"smtps://localhost:{ports.submissions}/me.example", status=LOGIN_DENIED)
    for url in (imaps(place), f"pop3s://localhost:{ports.pop3s}/"):
        run(old, url, status=LOGIN_DENIED)
