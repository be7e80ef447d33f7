"""imaplib and smtplib: what a script without any dependency uses."""

import imaplib
import platform
import smtplib
from email.message import EmailMessage

import pytest

from tests.clients.conftest import Ran
from tests.clients.place import CLIENT_S_MAX, STRANGER, Person, Place


@pytest.fixture(autouse=True)
def version(ran: Ran) -> None:
    ran("imaplib and smtplib of Python", platform.python_version())


def letter(person: Person) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Bcc"] = person.address, person.address, "hidden@example.org"
    message["Subject"] = "Zwölf Boxkämpfer"
    message.set_content("jagen Viktor quer über den Deich\n.\n..\n")
    message.add_attachment(bytes(range(256)) * 2000, "application", "octet-stream", filename="größe.bin")
    return message


def test_a_letter_with_an_attachment_there_and_back(place: Place, person: Person) -> None:
    with place.submission(person) as server:
        assert server.send_message(letter(person), to_addrs=[person.address]) == {}
    with imaplib.IMAP4("localhost", place.config.ports.imap, CLIENT_S_MAX) as client:
        assert "STARTTLS" in client.capabilities and "LOGINDISABLED" in client.capabilities
        client.starttls(place.trust())
        assert "STARTTLS" not in client.capabilities and "LOGINDISABLED" not in client.capabilities
        client.login(person.address, person.password)
        while client.select("INBOX") == ("OK", [b"0"]):
            pass  # the tables follow the log
        assert client.uid("SEARCH", "SUBJECT", '"Boxk"') == ("OK", [b"1"])
        whole = content(client, "RFC822")
        assert b"\r\nBcc:" not in whole and b"\r\nMessage-ID: <" in whole and b"\r\nDate: " in whole
        assert b"\r\n.\r\n..\r\n" in content(client, "BODY.PEEK[1]")
        assert content(client, "BINARY.PEEK[2]") == bytes(range(256)) * 2000


def content(client: imaplib.IMAP4, item: str) -> bytes:
    """The literal that a fetch of message 1 gives."""
    found = client.fetch("1", f"({item})")[1][0]
    assert isinstance(found, tuple)
    return found[1]


def test_imaplib_word_by_word(place: Place, person: Person) -> None:
    with imaplib.IMAP4_SSL("localhost", place.config.ports.imaps, ssl_context=place.trust(), timeout=CLIENT_S_MAX) as client:
        client.authenticate("PLAIN", lambda _: f"\0{person.address}\0{person.password}".encode())
        assert client.create("Work")[0] == client.subscribe("Work")[0] == "OK"
        assert client.append("Work", "(\\Seen)", '"01-Jan-2020 00:00:00 +0000"', b"Subject: a\r\n\r\nb\r\n")[0] == "OK"
        assert client.select("Work", readonly=True) == ("OK", [b"1"])
        assert client.store("1", "+FLAGS", "\\Deleted")[0] == "NO"
        assert client.select("Work") == ("OK", [b"1"])
        (line,) = client.fetch("1", "(INTERNALDATE)")[1]
        assert line == b'1 (INTERNALDATE " 1-Jan-2020 00:00:00 +0000")'
        assert client.check()[0] == "OK"
        assert client.uid("COPY", "1", "Archive")[0] == "OK"
        assert client.store("1", "+FLAGS.SILENT", "\\Deleted")[0] == "OK"
        assert client.expunge() == ("OK", [b"1"])
        assert client.status("Archive", "(MESSAGES UNSEEN)") == ("OK", [b'"Archive" (MESSAGES 1 UNSEEN 0)'])
        assert client.lsub()[0] == client.namespace()[0] == client.unselect()[0] == "OK"
        assert client.delete("Work")[0] == "OK"
        assert client.select("Work")[0] == "NO"


def test_smtplib_talks_to_the_mx(place: Place, person: Person) -> None:
    with smtplib.SMTP("localhost", place.config.ports.smtp, timeout=CLIENT_S_MAX) as server:
        server.ehlo("elsewhere.example")
        assert server.has_extn("8bitmime") and server.has_extn("smtputf8") and server.has_extn("chunking")
        assert server.starttls(context=place.trust())[0] == 220
        server.ehlo("elsewhere.example")
        assert not server.has_extn("starttls") and not server.has_extn("auth")
        refused = server.sendmail(STRANGER, [person.address, "nobody@example.org"], b"Subject: to two\r\n\r\nx\r\n")
        assert list(refused) == ["nobody@example.org"] and refused["nobody@example.org"][0] == 550
        assert server.noop()[0] == 250 and server.rset()[0] == 250
        assert server.verify(person.address)[0] == 252  # RFC 5321 §3.5.3: nobody is told who lives here
    with place.imap(person) as client:
        place.until(client, 1)
