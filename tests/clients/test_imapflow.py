"""imapflow, the library of many a webmail: it idles between its commands, and comes back by QRESYNC."""

import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Ran
from tests.clients.place import CLIENT_S_MAX, Person, Place, found, said

HERE = Path(__file__).parent
PLAIN = b"From: =?utf-8?q?Zo=C3=AB?= <zoe@elsewhere.example>\r\nSubject: number %d\r\nMessage-ID: <n%d@x>\r\n\r\nText %d.\r\n"
WITH_PARTS = (
    b"From: a@x\r\nSubject: parts\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nna=EFve\r\n"
    b"--b\r\nContent-Type: text/plain; name=a.txt\r\nContent-Disposition: attachment; filename=a.txt\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n--b--\r\n"
)


class Flow:
    """A connection of imapflow's."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.events: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))

    def answer(self) -> Any:
        while True:
            said = self._lines.get(timeout=CLIENT_S_MAX)
            if "event" in said:
                self.events.append(said)
                continue
            assert "failed" not in said, said
            return said.get("answer")

    def ask(self, method: str, *given: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([method, *given]) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def told(self, event: str, **said: object) -> None:
        """Waits until it is told of this."""
        while not any(one["event"] == event and said.items() <= one.items() for one in self.events):
            one = self._lines.get(timeout=CLIENT_S_MAX)
            assert "event" in one, one
            self.events.append(one)


@pytest.fixture
def node(ran: Ran) -> str:
    path = found("node", "nodejs npm")
    package = HERE / "node_modules" / "imapflow" / "package.json"
    if not package.exists():
        pytest.skip("imapflow is not here: npm install --prefix tests/clients")
    ran("imapflow", f"{json.loads(package.read_text())['version']} on node {said(path, '--version').strip()}")
    return path


@contextmanager
def flow(node: str, place: Place, person: Person) -> Iterator[Flow]:
    settings = {"port": place.config.ports.imaps, "user": person.address, "pass": person.password, "ca": place.ca, "qresync": True}
    command = (node, str(HERE / "imapflow.mjs"), json.dumps(settings))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            client = Flow(process)
            assert client.answer() == "connected"
            yield client
        finally:
            process.kill()


def test_reading_filing_and_searching(node: str, place: Place, person: Person) -> None:
    place.append(person, [*(PLAIN % (n, n, n) for n in range(1, 6)), WITH_PARTS])
    with flow(node, place, person) as client:
        spoken = client.ask("capabilities")
        assert {"QRESYNC", "IMAP4rev2", "IDLE", "MOVE", "UIDPLUS"} <= set(spoken["capabilities"])
        assert "QRESYNC" in spoken["enabled"]
        boxes = {box["path"]: box for box in client.ask("list")}
        assert boxes["INBOX"]["messages"] == 6 and boxes["Sent"]["specialUse"] == "\\Sent"
        assert client.ask("open", "INBOX")["exists"] == 6
        rows = client.ask("fetch", "1:*", {"uid": True, "flags": True, "envelope": True, "bodyStructure": True, "size": True,
                                           "internalDate": True, "threadId": True})  # fmt: skip
        assert [row["envelope"]["subject"] for row in rows] == [*(f"number {n}" for n in range(1, 6)), "parts"]
        assert rows[0]["envelope"]["from"] == [{"name": "Zoë", "address": "zoe@elsewhere.example"}]
        assert rows[5]["bodyStructure"]["childNodes"][1]["dispositionParameters"] == {"filename": "a.txt"}
        assert all(row["emailId"] and row["threadId"] and row["size"] for row in rows)
        assert client.ask("download", 6, "1").strip() == "naïve" and client.ask("download", 6, "2") == "hello"
        assert client.ask("search", {"subject": "NUMBER", "not": {"body": "text 3"}}) == [1, 2, 4, 5]
        made = client.ask("create", ["Kunden", "Straße & Söhne"])
        assert made == "Kunden/Straße & Söhne"
        assert client.ask("append", made, "Subject: ü\r\n\r\nx\r\n", ["\\Flagged", "$Important"])["uid"] == 1
        assert client.ask("move", "2:3", made) == [[2, 2], [3, 3]]
        assert client.ask("open", made)["exists"] == 3
        assert [sorted(row["flags"]) for row in client.ask("fetch", "1", {"flags": True})] == [["$Important", "\\Flagged"]]
        client.ask("quit")


def test_idle_and_coming_back(node: str, place: Place, person: Person) -> None:
    """RFC 2177; RFC 7162 §3.2.5 and §3.2.10.2: what vanished while it was away, and while it watched."""
    place.append(person, [PLAIN % (n, n, n) for n in range(1, 11)])
    with flow(node, place, person) as client, place.imap(person) as other:
        before = client.ask("open", "INBOX")
        assert before["exists"] == 10
        client.ask("idle")
        place.append(person, [PLAIN % (11, 11, 11)])
        client.told("exists", count=11)
        other.add_flags([4], [b"\\Flagged"])
        client.told("flags", uid=4, flags=["\\Flagged"])
        other.delete_messages([2])
        other.uid_expunge([2])
        client.told("expunge", uid=2, vanished=True)
        known = client.ask("open", "INBOX")
        client.ask("quit")
        other.delete_messages([5, 6, 9])
        other.uid_expunge([5, 6, 9])
        other.add_flags([7], [b"\\Answered"])
    with flow(node, place, person) as client:
        again = client.ask("open", "INBOX", {"uidValidity": known["uidValidity"], "changedSince": known["highestModseq"]})
        assert again["qresync"] and (again["exists"], again["uidNext"]) == (7, 12)
        for uid in (5, 6, 9):
            client.told("expunge", uid=uid, vanished=True)
        client.told("flags", uid=7, flags=["\\Answered"])
        assert {one["uid"] for one in client.events} == {5, 6, 7, 9}, "it is told of more than changed"
