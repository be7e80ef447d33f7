"""STARTTLS (RFC 9051 §6.2.1)."""

from protocols.imap import writer
from protocols.imap.model import Reply, Request
from protocols.imap.state import Talk
from protocols.wire import WireClosed


async def starttls(talk: Talk, request: Request) -> Reply | None:
    context = talk.settings.tls()
    if talk.secure:
        return Reply("BAD", "TLS is on already.")
    if context is None:
        return Reply("NO", "TLS is not offered here.", "UNAVAILABLE")
    # RFC 9051 §11.1: what was sent ahead in the clear could have been slipped in by another; such a line is dropped.
    if not talk.parser.empty or not talk.wire.idle:
        talk.wire.abort()
        raise WireClosed("commands in the clear behind STARTTLS")
    talk.put(writer.tagged(request.tag, Reply("OK", "Begin TLS now.")))
    await talk.flush()
    await talk.start_tls(context)
    return None
