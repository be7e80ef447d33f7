"""AUTH (RFC 5034) with PLAIN (RFC 4616) and SCRAM-SHA-256 (RFC 7677)."""

from collections.abc import Awaitable, Callable

from cluster.domain.refusal import Refusal
from protocols import scram
from protocols.pop3.commands.user import PRIVACY_REQUIRED, WRONG, outcome, sign_in
from protocols.pop3.errors import AUTH, refused
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk
from protocols.sasl import Cancelled, answer, decoded

NONCE_BYTES = 18

NO_SUCH_MECHANISM = Reply(False, "There is no such mechanism here.")
FOR_ANOTHER = Reply(False, "Signing in for somebody else is not offered.", AUTH)


async def auth(talk: Talk, argument: bytes) -> Reply:
    name, _, initial = argument.partition(b" ")
    mechanism = MECHANISMS.get(name.decode("ascii", "replace").upper())
    if not talk.may_sign_in:
        return PRIVACY_REQUIRED
    if mechanism is None:
        return NO_SUCH_MECHANISM
    try:
        return await mechanism(talk, decoded(initial) if initial else None)
    except Cancelled as cancelled:
        return Reply(False, str(cancelled))


async def _plain(talk: Talk, initial: bytes | None) -> Reply:
    message = await answer(talk.ask, "") if initial is None else initial
    parts = message.split(b"\0")
    if len(parts) != 3:
        return Reply(False, "That is no PLAIN.")
    authorize, user, password = parts
    if authorize and authorize != user:
        return FOR_ANOTHER
    return await sign_in(talk, user, password)


async def _scram(talk: Talk, initial: bytes | None) -> Reply:
    try:
        first = scram.client_first(await answer(talk.ask, "") if initial is None else initial)
        if first.authorize and first.authorize != first.name:
            return FOR_ANOTHER
        keys = await talk.site.scram_keys(first.name)
        if isinstance(keys, Refusal):
            return refused(keys)
        challenge = scram.server_first(first, keys, talk.site.world.entropy(NONCE_BYTES))
        final = scram.server_final(first, challenge, keys, await answer(talk.ask, challenge))
    except scram.ScramRefused as error:
        return Reply(False, f"That is no SCRAM: {error}.")
    account = keys.account if final is not None else None
    found = await talk.site.signed_in(account, talk.actor, first.name)
    if final is None or isinstance(found, Refusal):
        return await outcome(talk, found if isinstance(found, Refusal) else WRONG)
    # RFC 5034 §4: what comes with success goes as one more challenge, which the client answers with nothing.
    await answer(talk.ask, final)
    return await outcome(talk, found)


MECHANISMS: dict[str, Callable[[Talk, bytes | None], Awaitable[Reply]]] = {"PLAIN": _plain, "SCRAM-SHA-256": _scram}
