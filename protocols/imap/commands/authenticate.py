"""AUTHENTICATE (RFC 9051 §6.2.2) with PLAIN (RFC 4616), SCRAM-SHA-256 and -PLUS (RFC 7677), and EXTERNAL (RFC 4422 §A) at the door
for sites; initial responses by RFC 4959.
"""

from collections.abc import Awaitable, Callable

from cluster.domain.refusal import Refusal
from protocols import scram
from protocols.imap.commands.login import WRONG, outcome, privacy_required, sign_in
from protocols.imap.errors import refused
from protocols.imap.model import Authenticate, Reply, Request
from protocols.imap.state import Talk
from protocols.sasl import Cancelled, answer, decoded

NONCE_BYTES = 18


async def authenticate(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Authenticate)
    mechanism = (FOR_SITES if talk.introducer else MECHANISMS).get(given.mechanism)
    if mechanism is None:
        return Reply("NO", "There is no such mechanism here.", "CANNOT")
    if not talk.may_sign_in and not talk.introducer:
        return privacy_required()
    try:
        return await mechanism(talk, None if given.initial is None else decoded(given.initial))
    except Cancelled as cancelled:
        return Reply("BAD", str(cancelled))


async def _plain(talk: Talk, initial: bytes | None) -> Reply:
    message = await answer(talk.ask, "") if initial is None else initial
    parts = message.split(b"\0")
    if len(parts) != 3:
        return Reply("BAD", "That is no PLAIN.")
    authorize, user, password = parts
    if authorize and authorize != user:
        # RFC 5530 §3: nobody acts for others here
        return Reply("NO", "Signing in for somebody else is not offered.", "AUTHORIZATIONFAILED")
    return await sign_in(talk, user, password)


async def _scram(talk: Talk, initial: bytes | None, *, plus: bool = False) -> Reply:
    try:
        message = await answer(talk.ask, "") if initial is None else initial
        first = scram.client_first(message, talk.end_point, plus=plus)
        if first.authorize and first.authorize != first.name:
            return Reply("NO", "Signing in for somebody else is not offered.", "AUTHORIZATIONFAILED")
        keys = await talk.site.scram_keys(first.name)
        if isinstance(keys, Refusal):
            return refused(keys)
        challenge = scram.server_first(first, keys, talk.site.world.entropy(NONCE_BYTES))
        final = scram.server_final(first, challenge, keys, await answer(talk.ask, challenge))
    except scram.ScramRefused as error:
        return Reply("BAD", f"That is no SCRAM: {error}.")
    account = keys.account if final is not None else None
    found = await talk.site.signed_in(account, talk.actor, first.name)
    if final is None or isinstance(found, Refusal):
        return await outcome(talk, found if isinstance(found, Refusal) else WRONG)
    # RFC 5802 §3: the client checks the server's signature, and answers with nothing
    await answer(talk.ask, final)
    return await outcome(talk, found)


async def _scram_plus(talk: Talk, initial: bytes | None) -> Reply:
    return await _scram(talk, initial, plus=True)


async def _external(talk: Talk, initial: bytes | None) -> Reply:
    """RFC 4422 §A: the certificate says which site it is, and the identity to act as is a person who signed in there."""
    message = await answer(talk.ask, "") if initial is None else initial
    try:
        address = message.decode("utf-8")
    except UnicodeDecodeError:
        address = ""
    if not address:
        return Reply("NO", "A site has no mail of its own: say for whom.", "AUTHORIZATIONFAILED")
    found = await talk.site.introduced(address, talk.introducer, talk.actor)
    return await outcome(talk, found)


FOR_SITES: dict[str, Callable[[Talk, bytes | None], Awaitable[Reply]]] = {"EXTERNAL": _external}
MECHANISMS: dict[str, Callable[[Talk, bytes | None], Awaitable[Reply]]] = {
    "PLAIN": _plain,
    "SCRAM-SHA-256": _scram,
    "SCRAM-SHA-256-PLUS": _scram_plus,
}
