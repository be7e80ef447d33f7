"""Programs that take mail away: poplib, curl, mpop, fetchmail."""

import mailbox
import platform
import poplib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.conftest import Ran
from tests.clients.place import CLIENT_S_MAX, Person, Place, found, said

DOTS = b"From: a@example.org\r\nSubject: dots\r\n\r\nfirst line\r\n.dot\r\n..two\r\n.\r\n"
ACCENTS = b"From: a@example.org\r\nSubject: =?utf-8?q?Zw=C3=B6lf?=\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + (
    "Boxkämpfer\r\n".encode() * 2000
)
BARE = b"From: a@example.org\nSubject: bare line feeds\n\n.\nend"

Ask = Callable[..., str]


@pytest.fixture
def ask(curl: str, place: Place, person: Person) -> Ask:
    """curl as this person with the site's CA; the output."""

    def run(*arguments: str, status: int = 0) -> str:
        user = f"{person.address}:{person.password}"
        return said(curl, "-sS", "--max-time", "30", "--cacert", place.ca, "-u", user, *arguments, status=status)

    return run


@pytest.mark.parametrize("door", ["pop3s", "pop3"])
def test_poplib(place: Place, person: Person, ran: Ran, door: str) -> None:
    ran("poplib of Python", platform.python_version())
    place.append(person, [DOTS, ACCENTS, BARE])
    client: poplib.POP3
    if door == "pop3s":
        client = poplib.POP3_SSL("localhost", place.config.ports.pop3s, context=place.trust(), timeout=CLIENT_S_MAX)
    else:
        client = poplib.POP3("localhost", place.config.ports.pop3, timeout=CLIENT_S_MAX)
        client.stls(place.trust())
    client.user(person.address)
    client.pass_(person.password)
    assert {"TOP", "UIDL", "PIPELINING"} <= set(client.capa())
    sizes = [int(line.split()[1]) for line in client.list()[1]]
    messages = [b"\r\n".join(client.retr(number)[1]) + b"\r\n" for number in (1, 2, 3)]
    assert messages == [DOTS, ACCENTS, BARE.replace(b"\n", b"\r\n") + b"\r\n"]
    # RFC 1939 §11
    assert sizes == [len(message) for message in messages] and client.stat() == (3, sum(sizes))
    ids = client.uidl()[1]
    client.dele(2)
    client.quit()
    with place.imap(person) as other:
        assert other.search() == [1, 3] and other.folder_status("INBOX", ["UNSEEN"]) == {b"UNSEEN": 2}
        uidvalidity = other.folder_status("INBOX", ["UIDVALIDITY"])[b"UIDVALIDITY"]
    assert ids == [b"%d %d.%d" % (number, uidvalidity, number) for number in (1, 2, 3)]


def test_curl(ask: Ask, place: Place, person: Person, tmp_path: Path) -> None:
    place.append(person, [DOTS, ACCENTS])
    where = f"pop3s://localhost:{place.config.ports.pop3s}/"
    assert ask(where).split() == ["1", str(len(DOTS)), "2", str(len(ACCENTS))]
    fetched = tmp_path / "fetched"
    ask("-o", str(fetched), f"{where}1")
    assert fetched.read_bytes() == DOTS
    plain = f"pop3://localhost:{place.config.ports.pop3}/"
    assert ask("--ssl-reqd", "-X", "TOP 2 1", plain).startswith("From: a@example.org")
    assert "1 " in ask("--ssl-reqd", "-X", "UIDL", plain)
    ask("-I", "-X", "DELE 1", where)
    with place.imap(person) as client:
        assert client.search() == [2]


def test_curl_with_a_wrong_password(curl: str, place: Place, person: Person) -> None:
    where = f"pop3s://localhost:{place.config.ports.pop3s}/"
    said(curl, "-sS", "--cacert", place.ca, "-u", f"{person.address}:wrong", where, status=67)


def test_mpop_takes_each_message_once(place: Place, person: Person, ran: Ran, tmp_path: Path) -> None:
    """It pipelines, goes by UIDL, and leaves mail on the server if told to."""
    mpop = found("mpop", "mpop")
    ran("mpop", said(mpop, "--version").splitlines()[0])
    place.append(person, [DOTS, ACCENTS, BARE])
    taken = mailbox.Maildir(tmp_path / "Maildir")
    password = tmp_path / "password"
    password.write_text(person.password)
    command = (
        mpop, "--file=", "--host=localhost", f"--port={place.config.ports.pop3s}", "--tls", "--tls-starttls=off",
        f"--tls-trust-file={place.ca}", f"--user={person.address}", f"--passwordeval=cat {password}",
        f"--delivery=maildir,{tmp_path / 'Maildir'}", f"--uidls-file={tmp_path / 'uidls'}", "--received-header=off", "--quiet",
    )  # fmt: skip
    said(*command, "--keep=on", "--auth=scram-sha-256")
    assert len(taken) == 3
    said(*command, "--keep=on", "--auth=plain")
    assert len(taken) == 3
    bodies = {message.get_payload() for message in taken}
    assert "first line\n.dot\n..two\n.\n" in bodies and ".\nend\n" in bodies
    place.append(person, [DOTS])
    said(*command, "--keep=off", "--auth=user")
    assert len(taken) == 4
    with place.imap(person) as client:
        assert client.search() == []


def test_fetchmail_takes_all_and_leaves_nothing(place: Place, person: Person, ran: Ran, tmp_path: Path) -> None:
    fetchmail = found("fetchmail", "fetchmail")
    ran("fetchmail", said(fetchmail, "--version").partition("This is ")[2].splitlines()[0])
    place.append(person, [DOTS, ACCENTS])
    out = tmp_path / "out"
    out.mkdir()
    settings = tmp_path / "fetchmailrc"
    settings.write_text(
        f'poll localhost service {place.config.ports.pop3} protocol pop3 uidl\n'
        f'  user "{person.address}" password "{person.password}"\n'
        f'  sslproto "tls1.2+" sslcertck sslcertfile "{place.ca}"\n'
        f'  mda "cat > $(mktemp {out}/XXXXXX)" nokeep\n'
    )
    settings.chmod(0o600)
    said(fetchmail, "-f", str(settings), "-i", str(tmp_path / "ids"), "--pidfile", str(tmp_path / "pid"), "--nosyslog")
    taken = [file.read_bytes() for file in out.iterdir()]
    assert len(taken) == 2 and any(b"first line" in data and b"\n.dot" in data for data in taken)
    with place.imap(person) as client:
        assert client.search() == []
