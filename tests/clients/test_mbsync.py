"""mbsync (isync) keeps a Maildir and an account the same, both ways, over a thousand messages."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.clients.place import Person, Place, said
from tests.mbsync import ACCOUNT, configuration

MESSAGES = 1000
STANDARD = ("Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash")


class Maildir:
    """The near side: files whose name ends in `:2,` and flags."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def files(self, mailbox: str) -> list[Path]:
        found = [path for sub in ("new", "cur") for path in (self.home / mailbox / sub).iterdir()]
        return sorted(found, key=lambda path: path.name)

    def subjects(self, mailbox: str) -> dict[bytes, Path]:
        """Every message by its Subject, which here is unique in its mailbox."""
        found = {}
        for path in self.files(mailbox):
            subject = path.read_bytes().partition(b"Subject: ")[2].partition(b"\n")[0]
            assert subject not in found, f"{subject!r} stands twice in {mailbox}"
            found[subject] = path
        return found

    def flag(self, path: Path, flags: str) -> None:
        """As a mail reader does: to cur, with the flags added to its name."""
        name, _, old = path.name.partition(":2,")
        path.rename(path.parents[1] / "cur" / f"{name}:2,{''.join(sorted(set(old) | set(flags)))}")

    def drop(self, mailbox: str, name: str, message: bytes) -> None:
        for sub in ("new", "cur", "tmp"):
            (self.home / mailbox / sub).mkdir(parents=True, exist_ok=True)
        (self.home / mailbox / "new" / name).write_bytes(message)

    def picture(self) -> list[str]:
        """Every file's name but mbsync's own."""
        found = (path for path in self.home.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(str(path.relative_to(self.home)) for path in found)


class Pair(NamedTuple):
    place: Place
    person: Person
    near: Maildir
    sync: Callable[[], str]


@pytest.fixture
def pair(mbsync: str, place: Place, person: Person, tmp_path: Path) -> Pair:
    home, file = tmp_path / "mail", tmp_path / "mbsyncrc"
    home.mkdir()
    port = place.config.ports.imaps
    file.write_text(
        configuration(ACCOUNT).format(port=port, user=person.address, password=person.password, ca=place.ca, near=home)
    )
    return Pair(place, person, Maildir(home), lambda: said(mbsync, "-c", str(file), "-V", "-a"))


def message(n: int, subject: str = "number") -> bytes:
    return (
        f"From: Writer {n} <w{n}@elsewhere.example>\r\nMessage-ID: <{subject}{n}@elsewhere.example>\r\n"
        f"Subject: {subject} {n}\r\n\r\nWhat {n} says.\r\n" + f"line {n}\r\n" * (n % 50)
    ).encode()


def validities(client: Any) -> dict[str, int]:
    return {name: client.folder_status(name, ["UIDVALIDITY"])[b"UIDVALIDITY"] for name in STANDARD}


def marked(client: Any, flag: bytes) -> set[bytes]:
    """Subjects of the selected mailbox's messages with a flag."""
    found = client.fetch(client.search(), ["FLAGS", "ENVELOPE"]) if client.search() else {}
    return {data[b"ENVELOPE"].subject for data in found.values() if flag in data[b"FLAGS"]}


def names(subject: str, numbers: Iterable[int]) -> set[bytes]:
    return {f"{subject} {n}".encode() for n in numbers}


@pytest.mark.long
def test_a_thousand_messages_both_ways(pair: Pair) -> None:
    place, person, near, sync = pair
    place.append(person, [message(n) for n in range(800)])
    place.deliver(person, *[message(n) for n in range(800, MESSAGES)])
    with place.imap(person) as client:
        before = validities(client)
    sync()
    here = near.subjects("INBOX")
    assert set(here) == names("number", range(MESSAGES))
    for n in (0, 49, 799):  # the whole message, with the line ends of a Maildir
        kept = b"".join(line for line in here[b"number %d" % n].read_bytes().splitlines(True) if b"X-TUID" not in line)
        assert kept == message(n).replace(b"\r\n", b"\n")
    picture = near.picture()
    sync()
    assert near.picture() == picture, "the second run moved something"
    _flags_both_ways(pair)
    _new_mail_and_expunges_both_ways(pair)
    with place.imap(person) as client:
        assert validities(client) == before
    picture = near.picture()
    sync()
    assert near.picture() == picture, "the last run moved something"


def _flags_both_ways(pair: Pair) -> None:
    place, person, near, sync = pair
    here = near.subjects("INBOX")
    for n in range(0, 100):
        near.flag(here[b"number %d" % n], "S")
    for n in range(50, 60):
        near.flag(near.subjects("INBOX")[b"number %d" % n], "FR")
    with place.imap(person) as client:
        client.add_flags(list(range(201, 301)), [b"\\Seen"])
        client.add_flags(list(range(251, 261)), [b"\\Flagged"])
    sync()
    here = near.subjects("INBOX")
    assert {subject for subject, path in here.items() if "S" in path.name.partition(":2,")[2]} == names(
        "number", (*range(100), *range(200, 300))
    )
    assert {subject for subject, path in here.items() if "F" in path.name.partition(":2,")[2]} == names(
        "number", (*range(50, 60), *range(250, 260))
    )
    with place.imap(person) as client:
        assert marked(client, b"\\Seen") == names("number", (*range(100), *range(200, 300)))
        assert marked(client, b"\\Answered") == names("number", range(50, 60))


def _new_mail_and_expunges_both_ways(pair: Pair) -> None:
    place, person, near, sync = pair
    here = near.subjects("INBOX")
    for n in range(100, 150):
        near.flag(here[b"number %d" % n], "T")
    for n in range(30):
        near.drop("INBOX", f"{n}.near", message(n, "near").replace(b"\r\n", b"\n"))
    with place.imap(person) as client:
        client.delete_messages(list(range(601, 701)))
        client.uid_expunge(list(range(601, 701)))
    place.deliver(person, *[message(n, "far") for n in range(30)])
    sync()
    left = names("number", (*range(100), *range(150, 600), *range(700, MESSAGES)))
    expected = left | names("near", range(30)) | names("far", range(30))
    assert set(near.subjects("INBOX")) == expected
    with place.imap(person) as client:
        assert {data[b"ENVELOPE"].subject for data in client.fetch(client.search(), ["ENVELOPE"]).values()} == expected


def test_other_folders_and_new_ones_both_ways(pair: Pair) -> None:
    place, person, near, sync = pair
    place.append(person, [message(n, "sent") for n in range(20)], "Sent")
    with place.imap(person) as client:
        client.create_folder("Projects/Été/\N{GREEK SMALL LETTER OMEGA} & co")
        client.append("Projects/Été/\N{GREEK SMALL LETTER OMEGA} & co", message(1, "project"), (b"\\Flagged",))
    sync()
    assert set(near.subjects("Sent")) == names("sent", range(20))
    # mbsync keeps the name as it is on the wire, in modified UTF-7 (RFC 3501 §5.1.3)
    projects = near.subjects("Projects/&AMk-t&AOk-/&A8k- &- co")
    assert {path.name.partition(":2,")[2] for path in projects.values()} == {"F"}
    near.drop("Archive", "1.near", message(1, "kept").replace(b"\r\n", b"\n"))
    near.drop("Clients/North", "2.near", message(2, "north").replace(b"\r\n", b"\n"))
    sync()
    with place.imap(person) as client:
        for mailbox, subject in (("Archive", b"kept 1"), ("Clients/North", b"north 2")):
            client.select_folder(mailbox)
            assert [data[b"ENVELOPE"].subject for data in client.fetch([1], ["ENVELOPE"]).values()] == [subject]
        assert {"Clients", "Clients/North"} <= {name for _, _, name in client.list_folders()}
    picture = near.picture()
    sync()
    assert near.picture() == picture


def test_two_maildirs_of_one_account_end_alike(pair: Pair, mbsync: str, tmp_path: Path) -> None:
    """What one machine files, the other finds, by way of the site."""
    place, person, near, sync = pair
    other = Maildir(tmp_path / "other")
    other.home.mkdir()
    file = tmp_path / "otherrc"
    file.write_text((tmp_path / "mbsyncrc").read_text().replace(str(near.home), str(other.home)))
    place.append(person, [message(n) for n in range(50)])
    sync()
    said(mbsync, "-c", str(file), "-a")
    for n, path in enumerate(near.subjects("INBOX").values()):
        near.flag(path, "ST"[n % 2])
    near.drop("Sent", "3.near", message(3, "answer").replace(b"\r\n", b"\n"))
    sync()
    said(mbsync, "-c", str(file), "-a")
    assert set(other.subjects("INBOX")) == set(near.subjects("INBOX"))
    assert len(other.subjects("INBOX")) == 25
    assert set(other.subjects("Sent")) == names("answer", [3])
    assert all(os.path.basename(path).endswith(":2,S") for path in other.subjects("INBOX").values())
