"""aiosmtpd as the smarthost: mail for elsewhere from somebody signed in arrives there, once."""

import importlib.metadata
from collections.abc import Iterator
from queue import Empty, Queue
from typing import Any, NamedTuple

import pytest
from aiosmtpd.controller import Controller

from tests.clients.conftest import Ran
from tests.clients.place import CLIENT_S_MAX, Person, Place

MESSAGE = b"From: me@example.org\r\nTo: two@elsewhere.example\r\nSubject: out %d\r\n\r\n.dot\r\nbody\r\n"


class Arrived(NamedTuple):
    sender: str
    recipients: list[str]
    content: bytes


class Smarthost:
    """aiosmtpd's handler: puts what comes in a queue; refuses who is called nobody."""

    def __init__(self) -> None:
        self.arrived: Queue[Arrived] = Queue()

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if address.startswith("nobody@"):
            return "550 5.1.1 Not here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.arrived.put(Arrived(envelope.mail_from, list(envelope.rcpt_tos), envelope.original_content))
        return "250 OK"


@pytest.fixture
def smarthost(place: Place, ran: Ran) -> Iterator[Smarthost]:
    ran("aiosmtpd", importlib.metadata.version("aiosmtpd"))
    handler = Smarthost()
    controller = Controller(handler, hostname="127.0.0.1", port=place.smarthost_port)
    controller.start()
    yield handler
    controller.stop()


def test_mail_for_elsewhere_arrives_once(place: Place, person: Person, smarthost: Smarthost) -> None:
    other = place.person()
    targets = ["one@elsewhere.example", "two@elsewhere.example", other.address]
    with place.submission(person) as server:
        for n in range(10):
            assert server.sendmail(person.address, targets, MESSAGE % n) == {}
    reached: dict[tuple[bytes, str], int] = {}
    while len(reached) < 20:
        mail = smarthost.arrived.get(timeout=CLIENT_S_MAX)
        assert mail.sender == person.address and b"\r\n\r\n.dot\r\nbody\r\n" in mail.content
        subject = mail.content.partition(b"Subject: ")[2].partition(b"\r\n")[0]
        for recipient in mail.recipients:
            reached[subject, recipient] = reached.get((subject, recipient), 0) + 1
    # The eleventh is the mark behind all others: what came twice would have come before it.
    with place.submission(person) as server:
        assert server.sendmail(person.address, targets[:1], MESSAGE % 10) == {}
    assert b"Subject: out 10" in smarthost.arrived.get(timeout=CLIENT_S_MAX).content
    with pytest.raises(Empty):
        smarthost.arrived.get_nowait()
    assert set(reached.values()) == {1}
    with place.imap(other) as client:
        place.until(client, 10)
        assert place.count(client) == 10


def test_what_the_smarthost_refuses_comes_back(place: Place, person: Person, smarthost: Smarthost) -> None:
    with place.submission(person) as server:
        assert server.sendmail(person.address, ["nobody@elsewhere.example", "some@elsewhere.example"], MESSAGE % 77) == {}
    assert smarthost.arrived.get(timeout=CLIENT_S_MAX).recipients == ["some@elsewhere.example"]
    with place.imap(person) as client:
        place.until(client, 1)
        client.noop()
        (data,) = client.fetch([1], ["BODY[]", "BODYSTRUCTURE"]).values()
        report = data[b"BODY[]"]
        assert b"nobody@elsewhere.example" in report and b"some@elsewhere.example" not in report.partition(b"out 77")[0]
        assert data[b"BODYSTRUCTURE"][1] == b"report"
        assert b"\r\nStatus: 5.1.1" in report
