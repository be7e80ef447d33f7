"""AUTH (RFC 5034) with the mechanisms of protocols.sasl, and EXTERNAL (RFC 4422 §A) at the door for sites."""

from protocols import sasl
from protocols.pop3.commands.user import PRIVACY_REQUIRED, channel, outcome
from protocols.pop3.errors import AUTH
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk

NO_SUCH_MECHANISM = Reply(False, "There is no such mechanism here.")
FOR_ANOTHER = Reply(False, "Signing in for somebody else is not offered.", AUTH)


async def auth(talk: Talk, argument: bytes) -> Reply:
    name, _, initial = argument.partition(b" ")
    word = name.decode("ascii", "replace").upper()
    if talk.introducer:
        mechanism = sasl.external(talk.introducer) if word == "EXTERNAL" else None
    else:
        mechanism = sasl.mechanism(talk.site, word)
    if not talk.may_sign_in and not talk.introducer:
        return PRIVACY_REQUIRED
    if mechanism is None:
        return NO_SUCH_MECHANISM
    try:
        return await outcome(talk, await mechanism(channel(talk), sasl.decoded(initial) if initial else None))
    except (sasl.Cancelled, sasl.Malformed) as wrong:
        return Reply(False, str(wrong))
    except sasl.ForAnother:
        return FOR_ANOTHER
    except sasl.NeedsTls:
        return PRIVACY_REQUIRED
