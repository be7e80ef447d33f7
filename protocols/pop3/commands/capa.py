"""CAPA (RFC 2449 §5). What is not there is not promised."""

from collections.abc import Iterator

from protocols.pop3 import writer
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk, When
from protocols.sasl import offered


async def capa(talk: Talk, argument: bytes) -> None:
    talk.say(Reply(True, "This is what I can do."))
    talk.put(writer.lines(capabilities(talk)))
    talk.put(writer.END)


def capabilities(talk: Talk) -> Iterator[str]:
    yield "TOP"
    yield "UIDL"
    yield "PIPELINING"  # RFC 2449 §6.6
    yield "RESP-CODES"  # RFC 2449 §6.4
    yield "AUTH-RESP-CODE"  # RFC 3206 §6
    yield "EXPIRE NEVER"  # RFC 2449 §6.7: nothing is deleted here but by who reads it
    if talk.may_sign_in:
        yield "USER"
        yield f"SASL {' '.join(offered(talk.site, secure=talk.secure))}"  # RFC 5034 §3
    # RFC 2595 §4: in the AUTHORIZATION state, until it was done
    if talk.when is When.AUTHORIZATION and not talk.secure and talk.settings.tls() is not None:
        yield "STLS"
    yield "UTF8 USER"  # RFC 6856 §2.2: names and passwords may be UTF-8, too
    yield "LANG"  # RFC 6856 §3.2
    if talk.when is When.TRANSACTION:
        yield "IMPLEMENTATION Angarium"  # RFC 2449 §6.9: not for strangers
