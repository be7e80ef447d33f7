"""SUBSCRIBE and UNSUBSCRIBE (RFC 9051 §6.3.7, §6.3.8)."""

from cluster.domain.mailbox import names
from cluster.domain.mailbox.commands import Subscribe
from cluster.domain.refusal import Refusal
from protocols.imap.errors import refused
from protocols.imap.model import Name, Reply, Request
from protocols.imap.naming import named
from protocols.imap.state import Talk


async def subscribe(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Name)
    wanted = request.word == "SUBSCRIBE"
    found = await named(talk, given.mailbox)
    # RFC 4314 §4 SUBSCRIBE: whether it is there is not looked at, and so no right is either
    name = names.wanted(given.mailbox if isinstance(found, Refusal) else found.shown)
    done = await talk.site.execute(talk.actor, Subscribe(talk.who(), name, wanted))
    if isinstance(done, Refusal):
        return refused(done)
    return Reply("OK", "Subscribed." if wanted else "Unsubscribed.")
