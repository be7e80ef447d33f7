"""NAMESPACE (RFC 9051 §6.3.10, RFC 2342): one's own mailboxes without a prefix, other people's, and those that nobody owns
alone."""

from cluster.domain.mailbox.names import OTHERS, SEPARATOR, SHARED
from protocols.imap.model import Reply, Request
from protocols.imap.state import Talk


async def namespace(talk: Talk, request: Request) -> Reply:
    spaces = " ".join(f'(("{prefix}" "{SEPARATOR}"))' for prefix in ("", f"{OTHERS}{SEPARATOR}", f"{SHARED}{SEPARATOR}"))
    talk.say(f"NAMESPACE {spaces}")
    return Reply("OK", "These.")
