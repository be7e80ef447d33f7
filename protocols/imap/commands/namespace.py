"""NAMESPACE (RFC 9051 §6.3.10): one, personal, without a prefix."""

from cluster.domain.mailbox.names import SEPARATOR
from protocols.imap.model import Reply, Request
from protocols.imap.state import Talk


async def namespace(talk: Talk, request: Request) -> Reply:
    talk.say(f'NAMESPACE (("" "{SEPARATOR}")) NIL NIL')
    return Reply("OK", "This one.")
