"""STLS (RFC 2595 §4)."""

from protocols.pop3.commands.numbers import nothing
from protocols.pop3.errors import TEMPORARY
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk
from protocols.wire import WireClosed


async def stls(talk: Talk, argument: bytes) -> Reply | None:
    nothing(argument)
    context = talk.settings.tls()
    if talk.secure:
        return Reply(False, "TLS is on already.")
    if context is None:
        return Reply(False, "TLS is not offered here.", TEMPORARY)
    # What was sent ahead in the clear could have been slipped in by another; such a line is dropped.
    if not talk.parser.empty or not talk.wire.idle:
        talk.wire.abort()
        raise WireClosed("commands in the clear behind STLS")
    talk.say(Reply(True, "Begin TLS now."))
    await talk.flush()
    await talk.wire.start_tls(context, talk.settings.handshake_s_max)
    talk.secure = True
    # RFC 2595 §4: what was said before is forgotten
    talk.user = None
    return None
