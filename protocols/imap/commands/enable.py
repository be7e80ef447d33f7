"""ENABLE (RFC 9051 §6.3.1, RFC 5161)."""

from protocols.imap.model import Enable, Reply, Request
from protocols.imap.state import Talk

# As the client says it → as ENABLED answers
ENABLABLE = {
    "IMAP4REV2": "IMAP4rev2",
    "CONDSTORE": "CONDSTORE",
    "QRESYNC": "QRESYNC",
    "UTF8=ACCEPT": "UTF8=ACCEPT",
    "UIDONLY": "UIDONLY",  # RFC 9586 §3
}


async def enable(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Enable)
    # RFC 5161 §3.1: what is unknown is passed over; what was enabled before is not named again
    new = [word for word in dict.fromkeys(given.capabilities) if word in ENABLABLE and word not in talk.enabled]
    talk.enable(*new)
    talk.say(" ".join(["ENABLED", *(ENABLABLE[word] for word in new)]))
    return Reply("OK", "Enabled.")
