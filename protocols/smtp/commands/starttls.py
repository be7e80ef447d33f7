"""STARTTLS (RFC 3207)."""

from protocols.smtp.model import Reply
from protocols.smtp.state import Conversation
from protocols.smtp.wire import ConnectionGone


async def starttls(talk: Conversation, argument: bytes) -> Reply | None:
    if argument:
        return Reply(501, "5.5.4", ("STARTTLS has no argument",))
    if talk.wire.secured:
        return Reply(503, "5.5.1", ("TLS is active",))
    if talk.tls_context is None:
        return Reply(502, "5.5.1", ("STARTTLS is not offered",))
    _drop_injected(talk)
    talk.wire.send(Reply(220, "2.0.0", ("Start the handshake",)))
    await talk.wire.flush(talk.settings.write_s_max)
    _drop_injected(talk)
    await talk.wire.start_tls(talk.tls_context(), talk.settings.handshake_s_max)
    talk.forget()
    return None


def _drop_injected(talk: Conversation) -> None:
    """RFC 3207 §6: what was sent before the handshake may be another's; the line drops. Raises ConnectionGone."""
    if talk.wire.parser.buffered:
        talk.wire.abort()
        raise ConnectionGone
