"""EHLO, HELO (RFC 5321 §4.1.1.1), LHLO (RFC 2033 §4.1)."""

from protocols.sasl import offered
from protocols.smtp import paths
from protocols.smtp.model import Reply
from protocols.smtp.state import Conversation


async def ehlo(talk: Conversation, argument: bytes) -> Reply:
    talk.hello, talk.extended = paths.hello(argument), True
    talk.reset()  # RFC 5321 §4.1.4: as if RSET had been said
    return Reply(250, "", (f"{talk.settings.hostname} greets {talk.hello}", *extensions(talk)))


async def lhlo(talk: Conversation, argument: bytes) -> Reply:
    return await ehlo(talk, argument)


async def helo(talk: Conversation, argument: bytes) -> Reply:
    talk.hello, talk.extended = paths.hello(argument), False
    talk.reset()
    return Reply(250, "", (talk.settings.hostname,))


def extensions(talk: Conversation) -> tuple[str, ...]:
    """What is announced is what would be accepted now, no more and no less."""
    announced = [
        "PIPELINING",
        f"SIZE {talk.settings.message_bytes_max}",
        "8BITMIME",
        "SMTPUTF8",
        "CHUNKING",
        "ENHANCEDSTATUSCODES",
        "HELP",
    ]
    if talk.tls_context is not None and not talk.wire.secured:
        announced.append("STARTTLS")
    if talk.may_sign_in and talk.account is None:
        announced.append(f"AUTH {' '.join(offered(talk.site, secure=talk.wire.secured))} LOGIN")
    return tuple(announced)
