"""`angarium import`, as an operator types it, into a running site: from Maildir, mbox, and another account by IMAP."""

import json
import os
import signal
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.clients.place import CLIENT_S_MAX, MESSAGE_BYTES_MAX, Person, Place
from tests.live import CLI, REPOSITORY

MANY = 900
AT = 1_000_000_000


def angarium(place: Place, *words: str, given: str = "", status: int = 0) -> list[dict[str, Any]]:
    """Its lines of JSON."""
    done = subprocess.run(
        (*CLI, "--dir", str(place.config.dir), "import", *words, "--json"),
        input=given,
        capture_output=True,
        text=True,
        timeout=CLIENT_S_MAX,
        cwd=REPOSITORY,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def message(subject: str, body: str = "Good day.") -> bytes:
    return f"From: a@b.example\nSubject: {subject}\nDate: Thu, 01 Jan 1998 10:00:00 +0000\n\n{body}\n".encode()


def stored(place: Place, person: Person, mailbox: str = "INBOX") -> list[tuple[bytes, datetime, frozenset[bytes]]]:
    """(message, INTERNALDATE, flags) of all, by UID."""
    with place.imap(person) as client:
        client.normalise_times = False
        client.select_folder(mailbox, readonly=True)
        found = (
            client.fetch(client.search(), ["BODY.PEEK[]", "INTERNALDATE", "FLAGS"])
            if place.count(client, mailbox)
            else {}
        )
        return [
            (one[b"BODY[]"], one[b"INTERNALDATE"], frozenset(one[b"FLAGS"]) - {b"\\Recent"})
            for _, one in sorted(found.items())
        ]


def put(folder: Path, name: str, data: bytes, at: int = AT) -> Path:
    part = "cur" if ":2," in name else "new"
    (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / part / name).write_bytes(data)
    os.utime(folder / part / name, (at, at))
    return folder / part / name


def test_a_maildir_with_all_that_it_says(place: Place, person: Person, tmp_path: Path) -> None:
    root = tmp_path / "Maildir"
    put(root, "100.a.host:2,FSa", message("seen"))
    put(root, "200.b.host", message("new"), AT + 60)
    put(root, "300.c.host:2,", b"Subject: nul\n\n\0\n")
    put(root, "400.d.host:2,S", b"x" * (MESSAGE_BYTES_MAX + 1))
    (root / "dovecot-keywords").write_text("0 Project\n1 other\n")
    put(root / ".Sent Items", "1.x.host:2,RS", message("sent"))
    put(root / ".Arbeit.Pl&AOQ-ne", "1.y.host:2,P", message("plan"))
    lines = angarium(place, "maildir", person.address, str(root), "--map", "Sent Items=Sent", status=1)
    refused = {Path(line["where"]).name.split(":")[0]: line["why"] for line in lines if line["kind"] == "refused"}
    assert set(refused) == {"300.c.host", "400.d.host"}
    assert "NUL" in refused["300.c.host"] and str(MESSAGE_BYTES_MAX) in refused["400.d.host"]
    assert lines[-1]["imported"] == 4 and lines[-1]["refused"] == 2
    inbox = stored(place, person)
    assert [one[0] for one in inbox] == [message(name).replace(b"\n", b"\r\n") for name in ("seen", "new")]
    assert [one[1].timestamp() for one in inbox] == [AT, AT + 60]
    assert [one[2] for one in inbox] == [{b"\\Seen", b"\\Flagged", b"project"}, frozenset()]
    assert [one[2] for one in stored(place, person, "Sent")] == [{b"\\Seen", b"\\Answered"}]
    assert [one[2] for one in stored(place, person, "Arbeit/Pläne")] == [{b"$Forwarded"}]


def test_what_was_moved_or_deleted_meanwhile_does_not_come_again(place: Place, person: Person, tmp_path: Path) -> None:
    root = tmp_path / "Maildir"
    for number in range(4):
        put(root, f"{number}.host:2,", message("equal"))
    assert angarium(place, "maildir", person.address, str(root))[-1]["imported"] == 4
    with place.imap(person) as client:
        client.move([1], "Archive")
        client.delete_messages([2])
        client.expunge([2])
    put(root, "5.host:2,", message("equal"))  # one more like the others is one more
    again = angarium(place, "maildir", person.address, str(root))[-1]
    assert (again["imported"], again["found"]) == (1, 4)
    assert len(stored(place, person)) == 3
    # A machine that knows nothing of it finds what is there by looking.
    for journal in (place.config.dir / "imports").iterdir():
        journal.unlink()
    again = angarium(place, "maildir", person.address, str(root))[-1]
    assert (again["imported"], again["found"]) == (2, 3)
    assert len(stored(place, person)) == 5


def test_killed_in_the_middle_it_goes_on(place: Place, person: Person, tmp_path: Path) -> None:
    file = tmp_path / "Old mail.mbox"
    wanted = [message(f"number {number % (MANY - 50)}", "x" * 2000) for number in range(MANY)]  # some are equal
    file.write_bytes(b"".join(b"From a@b.example Sun Sep  9 01:46:40 2001\n" + one + b"\n" for one in wanted))
    command = (*CLI, "--dir", str(place.config.dir), "import", "mbox", person.address, str(file), "--json")
    for after, word, code in ((1, signal.SIGKILL, -signal.SIGKILL), (4, signal.SIGINT, 130)):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY)
        assert process.stdout is not None
        progress = 0
        for line in process.stdout:
            progress += json.loads(line)["kind"] == "progress"
            if progress == after:
                process.send_signal(word)
                break
        process.stdout.read()
        process.stdout.close()
        assert process.wait(CLIENT_S_MAX) == code
    last = angarium(place, "mbox", person.address, str(file))[-1]
    assert last["imported"] <= MANY - 300 and last["imported"] + last["found"] == MANY
    there = stored(place, person, "Old mail")
    assert Counter(one[0] for one in there) == Counter(one.replace(b"\n", b"\r\n") for one in wanted)
    assert {one[1].timestamp() for one in there} == {AT}


def test_from_another_account_by_imap_and_only_what_is_new(place: Place, person: Person, tmp_path: Path) -> None:
    old = place.person()
    with place.imap(old) as client:
        client.create_folder("Pläne/Haus & Hof")
        client.subscribe_folder("Pläne/Haus & Hof")
        moment = datetime(2003, 4, 5, 6, 7, 8, tzinfo=UTC)
        crlf = [message(f"m{number}").replace(b"\n", b"\r\n") for number in range(5)]
        client.append("Pläne/Haus & Hof", crlf[0], [b"\\Flagged", b"$MDNSent"], moment)
        client.append("INBOX", crlf[1], [b"\\Seen"], moment)
        client.append("INBOX", crlf[1], [b"\\Draft"], moment)
        client.append("Drafts", crlf[2], (), moment)
    words: tuple[str, ...] = (
        "imap",
        person.address,
        "--host",
        "localhost",
        "--port",
        str(place.config.ports.imaps),
        "--user",
        old.address,
    )
    words += ("--password-file", "-")
    (untrusted, *_) = angarium(place, *words, "--plan", given=old.password, status=1)
    assert "SSL_CERT_FILE" in untrusted["why"]
    words += ("--no-verify",)
    plan = angarium(place, *words, "--plan", given=old.password)
    assert {(line["mailbox"], line["messages"]) for line in plan[:-1] if line["messages"]} == {
        ("INBOX", 2),
        ("Drafts", 1),
        ("Pläne/Haus & Hof", 1),
    }
    assert stored(place, person) == []
    assert angarium(place, *words, given=old.password)[-1]["imported"] == 4
    for mailbox in ("INBOX", "Drafts", "Pläne/Haus & Hof"):
        assert stored(place, person, mailbox) == stored(place, old, mailbox) != []
    with place.imap(old) as client:
        client.append("INBOX", crlf[3])
    again = angarium(place, *words, given=old.password)[-1]
    assert (again["imported"], again["found"]) == (1, 4)
    wrong = angarium(place, *words, given="not it", status=1)
    assert wrong[-1]["failed"] == 1


def test_many_from_a_list(place: Place, tmp_path: Path) -> None:
    people = [place.person() for _ in range(3)]
    lines = ["address,kind,source,into"]
    for number, person in enumerate(people):
        put(tmp_path / f"{number}", "1.host:2,S", message(f"of {number}"))
        lines.append(f"{person.address},maildir,{tmp_path / str(number)},")
    lines.append(f"nobody@{place.config.domain},maildir,{tmp_path / '0'},")
    file = tmp_path / "list.csv"
    file.write_text("\n".join(lines))
    answers = angarium(place, "many", str(file), status=1)
    assert answers[-1]["imported"] == 3 and answers[-1]["failed"] == 1
    assert [line["address"] for line in answers if line["kind"] == "refused"] == [f"nobody@{place.config.domain}"]
    for number, person in enumerate(people):
        assert [one[0].split(b"\r\n")[1] for one in stored(place, person)] == [f"Subject: of {number}".encode()]


def test_nothing_is_begun_with_half_a_list(place: Place, person: Person, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text(f"address,kind,source\n{person.address},maildir,{tmp_path}\n{person.address},pst,x\n")
    done = subprocess.run(
        (*CLI, "--dir", str(place.config.dir), "import", "many", str(file)),
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 1 and "line 3: kind must be one of" in done.stderr
