"""Programs that copy mail to a disk: offlineimap, both ways; getmail, by IMAP and POP3."""

import configparser
import mailbox
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import Ran
from tests.clients.place import Person, Place, found, said

MESSAGE = b"From: a@elsewhere.example\r\nMessage-ID: <%s@x>\r\nSubject: %s\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\n\r\nText.\r\n"
GETMAIL = Path(sys.executable).parent / "getmail"  # the package getmail6, of the test dependencies

KEEP = "import mailbox, sys; mailbox.Maildir(sys.argv[1]).add(sys.stdin.buffer.read())"


def message(name: str) -> bytes:
    return MESSAGE % (name.encode(), name.encode())


def settings(path: Path, **sections: dict[str, object]) -> Path:
    """A file of sections with keys; `_` in a section's name is a blank."""
    file = configparser.RawConfigParser()
    file.optionxform = str  # type: ignore[assignment,method-assign]
    file.read_dict({name.replace("_", " "): keys for name, keys in sections.items()})
    with path.open("w") as out:
        file.write(out)
    return path


def subjects(folder: Path) -> dict[str, mailbox.MaildirMessage]:
    return {str(one["Subject"]): one for one in mailbox.Maildir(folder, create=False)}


@pytest.fixture
def offlineimap(ran: Ran) -> str:
    path = found("offlineimap", "offlineimap3")
    ran("offlineimap", said(path, "--version").strip())
    return path


def test_offlineimap_both_ways(offlineimap: str, place: Place, person: Person, tmp_path: Path) -> None:
    near = tmp_path / "mail"
    file = settings(
        tmp_path / "offlineimaprc",
        general={"accounts": "A", "metadata": tmp_path / "metadata", "ui": "quiet"},
        Account_A={"localrepository": "Near", "remoterepository": "Far"},
        Repository_Near={"type": "Maildir", "localfolders": near, "sync_deletes": "yes"},
        Repository_Far={
            "type": "IMAP", "remotehost": "localhost", "remoteport": place.config.ports.imaps, "ssl": "yes",
            "sslcacertfile": place.ca, "remoteuser": person.address, "remotepass": person.password, "usecompression": "yes",
        },
    )  # fmt: skip
    place.append(person, [message("one"), message("two"), message("three")])
    with place.imap(person) as client:
        client.create_folder("Projets/Été")
        client.append("Projets/Été", message("summer"), [b"\\Flagged"])
        client.add_flags([2], [b"\\Seen"])
    sync = (offlineimap, "-c", str(file), "-o")
    said(*sync)
    here = subjects(near / "INBOX")
    assert set(here) == {"one", "two", "three"} and here["two"].get_flags() == "S"
    [project] = [path.parent for path in near.rglob("cur") if "&AMk-t" in path.parent.name]  # modified UTF-7
    assert subjects(project).keys() == {"summer"}
    inbox = mailbox.Maildir(near / "INBOX", create=False)
    for key, one in inbox.items():
        if one["Subject"] == "one":
            one.set_flags("FS")
            inbox[key] = one
        elif one["Subject"] == "three":
            del inbox[key]
    inbox.add(mailbox.MaildirMessage(message("four").replace(b"\r\n", b"\n")))
    place.append(person, [message("five")])
    said(*sync)
    assert subjects(near / "INBOX").keys() == {"one", "two", "four", "five"}
    picture = sorted(path.name for path in near.rglob("*:2,*"))
    said(*sync)
    assert sorted(path.name for path in near.rglob("*:2,*")) == picture, "the third run moved something"
    with place.imap(person) as client:
        rows = client.fetch(client.search(), ["ENVELOPE", "FLAGS"])
        flags = {row[b"ENVELOPE"].subject: set(row[b"FLAGS"]) - {b"\\Recent"} for row in rows.values()}
    assert flags == {b"one": {b"\\Flagged", b"\\Seen"}, b"two": {b"\\Seen"}, b"four": set(), b"five": set()}


@pytest.mark.parametrize("kind", ["imap", "pop3"])
def test_getmail_takes_each_message_once(place: Place, person: Person, ran: Ran, tmp_path: Path, kind: str) -> None:
    if not GETMAIL.exists():
        pytest.skip("getmail is not here: pip install getmail6")
    ran("getmail", said(str(GETMAIL), "--version").strip())
    taken = tmp_path / "taken"
    mailbox.Maildir(taken)
    port = place.config.ports.imaps if kind == "imap" else place.config.ports.pop3s
    retriever: dict[str, object] = {
        "type": "SimpleIMAPSSLRetriever" if kind == "imap" else "SimplePOP3SSLRetriever", "server": "localhost", "port": port,
        "username": person.address, "password": person.password, "ca_certs": place.ca,
    }  # fmt: skip
    settings(
        tmp_path / "getmailrc",
        retriever=retriever,
        # its own Maildir takes nothing from root
        destination={
            "type": "MDA_external", "path": sys.executable, "arguments": repr(("-c", KEEP, str(taken))), "allow_root_commands": "true"
        },
        options={"read_all": "false", "delivered_to": "false", "received": "false"},
    )
    place.append(person, [message("one"), message("two")])
    command = (str(GETMAIL), "--getmaildir", str(tmp_path), "--rcfile", "getmailrc")
    said(*command)
    assert subjects(taken).keys() == {"one", "two"}
    place.append(person, [message("three")])
    said(*command)
    assert len(mailbox.Maildir(taken)) == 3 and "three" in subjects(taken)
    said(*command, "--delete")
    with place.imap(person) as client:
        assert place.count(client) == 0
