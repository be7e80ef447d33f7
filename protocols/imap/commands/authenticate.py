"""AUTHENTICATE (RFC 9051 §6.2.2): the mechanisms of protocols.sasl, and EXTERNAL (RFC 4422 §A) at the door for sites; initial
responses by RFC 4959.
"""

from protocols import sasl
from protocols.imap.commands.login import channel, outcome, privacy_required
from protocols.imap.model import Authenticate, Reply, Request
from protocols.imap.state import Talk


async def authenticate(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Authenticate)
    if not talk.introducer:
        mechanism = sasl.mechanism(talk.site, given.mechanism)
    else:
        mechanism = sasl.external(talk.introducer) if given.mechanism == "EXTERNAL" else None
    if mechanism is None:
        return Reply("NO", "There is no such mechanism here.", "CANNOT")
    if not talk.may_sign_in and not talk.introducer:
        return privacy_required()
    try:
        initial = None if given.initial is None else sasl.decoded(given.initial)
        return await outcome(talk, await mechanism(channel(talk), initial))
    except (sasl.Cancelled, sasl.Malformed) as wrong:
        return Reply("BAD", str(wrong))
    except sasl.ForAnother:
        # RFC 5530 §3: nobody acts for others here
        return Reply("NO", "Signing in for somebody else is not offered.", "AUTHORIZATIONFAILED")
    except sasl.NeedsTls:
        return privacy_required()
