"""A corpus of real and of ugly messages, in by SMTP and by APPEND and out by IMAP: not a byte is lost, no view fails."""

import hashlib
import platform
import smtplib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.conftest import Ran
from tests.clients.corpus import PYTHONS, Real, corpus
from tests.clients.place import CLIENT_S_MAX, STRANGER, Person, Place

MESSAGES_MIN = 200 if PYTHONS.exists() else 30
PARTIAL_BYTES = 777
TRACE = b"Return-Path: "


@pytest.fixture(autouse=True)
def versions(ran: Ran, imapclient: None) -> None:
    where = "its test suite" if PYTHONS.exists() else "no test suite of its own: apt-get install libpython3-testsuite"
    ran("smtplib, and the corpus, of Python", f"{platform.python_version()}, with {where}")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def untraced(data: bytes) -> bytes:
    """Without what delivery puts before a message: Return-Path, and the first Received with its folded lines."""
    first, _, rest = data.partition(b"\r\n")
    assert first.startswith(TRACE) and rest.startswith(b"Received: from ")
    lines = rest.split(b"\r\n")
    count = 1
    while lines[count].startswith((b" ", b"\t")):
        count += 1
        if lines[count - 1].endswith(b" +0000"):
            break  # the trace's own last line; a message may begin with a folded line
    return b"\r\n".join(lines[count:])


def fetched(client: Any, uids: list[int], items: list[str]) -> Iterator[dict[bytes, Any]]:
    """In the order of `uids`."""
    for start in range(0, len(uids), 100):
        found = client.fetch(uids[start : start + 100], items)
        yield from (found[uid] for uid in uids[start : start + 100])


def test_by_smtp_and_back(place: Place, person: Person) -> None:
    messages = [message for message in corpus() if message.mailable]
    assert len(messages) >= MESSAGES_MIN // 3
    with smtplib.SMTP("localhost", place.config.ports.smtp, timeout=CLIENT_S_MAX) as server:
        for message in messages:
            assert server.sendmail(STRANGER, [person.address], message.data, ["BODY=8BITMIME"]) == {}
    with place.imap(person) as client:
        place.until(client, len(messages))
        client.noop()
        uids = client.search()
        assert len(uids) == len(messages)
        for message, data in zip(messages, fetched(client, uids, ["BODY.PEEK[]", "RFC822.SIZE"]), strict=True):
            assert len(data[b"BODY[]"]) == data[b"RFC822.SIZE"]
            assert digest(untraced(data[b"BODY[]"])) == digest(message.data), message.name


def test_by_bdat_and_back(place: Place, person: Person) -> None:
    """RFC 3030: counted, not ended by a dot; in two chunks, cut anywhere."""
    messages = [message for message in corpus() if message.mailable][:40]
    with smtplib.SMTP("localhost", place.config.ports.smtp, timeout=CLIENT_S_MAX) as server:
        server.ehlo("elsewhere.example")
        for message in messages:
            cut = len(message.data) // 2
            server.mail(STRANGER, ["BODY=8BITMIME"])
            server.rcpt(person.address)
            for chunk, last in ((message.data[:cut], ""), (message.data[cut:], " LAST")):
                server.send(f"BDAT {len(chunk)}{last}\r\n".encode() + chunk)
                assert server.getreply()[0] == 250, message.name
    with place.imap(person) as client:
        place.until(client, len(messages))
        client.noop()
        for message, data in zip(messages, fetched(client, client.search(), ["BODY.PEEK[]"]), strict=True):
            assert digest(untraced(data[b"BODY[]"])) == digest(message.data), message.name


def test_what_smtp_cannot_carry_is_refused_and_never_mended(place: Place, person: Person) -> None:
    """Bare CR or LF is refused whole (SMTP smuggling)."""
    broken = [m for m in corpus() if not m.mailable and b"\n" in m.data.replace(b"\r\n", b"") and b"\0" not in m.data][:10]
    assert broken
    with smtplib.SMTP("localhost", place.config.ports.smtp, timeout=CLIENT_S_MAX) as server:
        for message in broken:
            with pytest.raises(smtplib.SMTPDataError):
                server.sendmail(STRANGER, [person.address], message.data, ["BODY=8BITMIME"])
        server.sendmail(STRANGER, [person.address], b"Subject: clean\r\n\r\nlast\r\n")
    with place.imap(person) as client:
        place.until(client, 1)
        client.noop()
        assert len(client.search()) == 1


def test_by_append_and_back_with_every_view(place: Place, person: Person) -> None:
    messages = corpus()
    assert len(messages) >= MESSAGES_MIN
    place.append(person, [message.data for message in messages])
    items = ["BODY.PEEK[]", "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]", "RFC822.SIZE", "BODYSTRUCTURE", "BODY", "ENVELOPE"]
    with place.imap(person) as client:
        uids = client.search()
        assert len(uids) == len(messages)
        for uid, message, data in zip(uids, messages, fetched(client, uids, items), strict=True):
            whole = data[b"BODY[]"]
            assert digest(whole) == digest(message.data), message.name
            assert data[b"BODY[HEADER]"] + data[b"BODY[TEXT]"] == whole, message.name
            assert len(whole) == data[b"RFC822.SIZE"]
            parts = dict(leaves(data[b"BODYSTRUCTURE"], ""))
            assert len(parts) == len(dict(leaves(data[b"BODY"], "")))
            if data[b"BODYSTRUCTURE"].is_multipart:
                _parts_stand_in_order(client, uid, parts, message)
            else:
                _the_only_part_is_the_text(client, uid, parts["1"], message)


def test_partial_fetches_join_to_the_whole(place: Place, person: Person) -> None:
    message = max(corpus(), key=lambda message: len(message.data))
    place.append(person, [message.data])
    with place.imap(person) as client:
        starts = range(0, len(message.data) + 1, PARTIAL_BYTES)
        data = client.fetch([1], [f"BODY.PEEK[]<{start}.{PARTIAL_BYTES}>" for start in starts])[1]
        assert b"".join(data[b"BODY[]<%d>" % start] or b"" for start in starts) == message.data


def leaves(structure: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Section numbers of the parts that are no multipart (RFC 9051 §6.4.5.1), each with its structure."""
    if structure.is_multipart:
        for number, part in enumerate(structure[0], 1):
            yield from leaves(part, f"{path}.{number}" if path else str(number))
    else:
        yield path or "1", structure


def _the_only_part_is_the_text(client: Any, uid: int, structure: Any, message: Real) -> None:
    data = client.fetch([uid], ["BODY.PEEK[1]", "BODY.PEEK[TEXT]"])[uid]
    assert data[b"BODY[1]"] == data[b"BODY[TEXT]"], message.name
    assert len(data[b"BODY[1]"]) == structure[6], message.name


def _parts_stand_in_order(client: Any, uid: int, parts: dict[str, Any], message: Real) -> None:
    """Each part has the octets that BODYSTRUCTURE says, and stands in the message behind its own MIME header."""
    data = client.fetch([uid], [f"BODY.PEEK[{path}{which}]" for path in parts for which in ("", ".MIME")])[uid]
    at = 0
    for path, structure in parts.items():
        body, header = data[f"BODY[{path}]".encode()], data[f"BODY[{path}.MIME]".encode()]
        assert len(body) == structure[6], f"{message.name}, part {path}"
        at = message.data.find(header + body, at)
        assert at >= 0, f"{message.name}: part {path} does not stand where it should"
        at += len(header)
