"""Mail that is submitted is filed in Sent where its account says so, and the mail program's own copy takes its place."""

import json
import smtplib
import urllib.request
from email.message import EmailMessage

from tests.clients.place import CLIENT_S_MAX, STRANGER, Person, Place


def test_sent_is_there_once(place: Place, person: Person) -> None:
    config = place.config
    change = urllib.request.Request(
        f"http://127.0.0.1:{config.ports.http}/api/v1/accounts/{person.address}",
        json.dumps({"file_sent": True}).encode(),
        {"Authorization": f"Bearer {config.api_token}", "Content-Type": "application/json"},
        method="PATCH",
    )
    with urllib.request.urlopen(change, timeout=CLIENT_S_MAX) as answer:  # noqa: S310 - an address of our own
        assert json.load(answer)["file_sent"] is True
    message = EmailMessage()
    message["From"], message["To"], message["Bcc"] = person.address, STRANGER, person.address
    message["Message-ID"], message["Date"] = "<unique@x.example>", "Wed, 01 Jul 2026 10:00:00 +0200"
    message.set_content("text\n")
    # The library takes the Bcc out before it sends; some mail programs do not.
    data = message.as_bytes(policy=message.policy.clone(linesep="\r\n"))
    with place.submission(person) as server:
        assert server.sendmail(person.address, [STRANGER, person.address], data) == {}
    with place.imap(person) as client:
        place.until(client, 1, "Sent")
        place.until(client, 1)
        client.select_folder("Sent")
        (uid,) = client.search(["ALL"])
        filed = client.fetch([uid], ["FLAGS", "BODY.PEEK[]"])[uid]
        assert b"\\Seen" in filed[b"FLAGS"] and f"Bcc: {person.address}".encode() in filed[b"BODY[]"]
        client.select_folder("INBOX")
        assert b"Bcc" not in client.fetch([1], ["BODY.PEEK[]"])[1][b"BODY[]"]
        answer = client.append("Sent", data, ["\\Seen"])
        assert b"[APPENDUID" in answer and str(uid + 1).encode() in answer
        client.select_folder("Sent")
        assert client.search(["ALL"]) == [uid + 1]
    with smtplib.LMTP(str(config.lmtp_socket), timeout=CLIENT_S_MAX) as server:  # What is delivered is not sent.
        assert server.sendmail(person.address, [person.address], data) == {}
    with place.imap(person) as client:
        place.until(client, 2)
        assert place.count(client, "Sent") == 1
