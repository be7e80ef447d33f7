"""AUTH (RFC 4954)."""

from collections.abc import Awaitable, Callable

from cluster.domain.refusal import Reason, Refusal
from protocols.port import Account
from protocols.smtp import sasl
from protocols.smtp.errors import refused
from protocols.smtp.model import Answer, Reply, SyntaxRefused
from protocols.smtp.state import Conversation

NONCE_BYTES = 18
DONE = Reply(235, "2.7.0", ("Signed in",))
NOT_HERE = Reply(502, "5.5.1", ("Nobody signs in here; submit on port 465 or 587",))
NEEDS_TLS = Reply(538, "5.7.11", ("Say STARTTLS first",))
ALREADY = Reply(503, "5.5.1", ("You are signed in",))
UNKNOWN = Reply(504, "5.5.4", ("That mechanism is not offered",))
CANCELLED = Reply(501, "5.7.0", ("Cancelled",))
GIVEN_UP = Reply(421, "4.7.0", ("Too many failed tries",))

WRONG = Refusal(Reason.WRONG_PASSWORD)
Outcome = Account | Refusal


class Cancelled(Exception):
    """RFC 4954 §4: the client answered a challenge with `*`."""


async def auth(talk: Conversation, argument: bytes) -> Reply:
    if not talk.role.signs_in:
        return NOT_HERE
    if talk.account is not None:
        return ALREADY  # RFC 4954 §4
    if not talk.may_sign_in:
        return NEEDS_TLS
    word, _, initial = argument.partition(b" ")
    exchange = EXCHANGES.get(word.upper())
    if exchange is None:
        return UNKNOWN
    try:
        # RFC 4954 §4: "=" is an initial response of no bytes.
        given = None if not initial else b"" if initial == b"=" else sasl.decoded(initial)
        outcome = await exchange(talk, given)
    except Cancelled:
        return _failed(talk, CANCELLED)
    except SyntaxRefused as syntax:
        return _failed(talk, Reply(501, "5.5.2", (syntax.text,)))
    if isinstance(outcome, Refusal):
        return _failed(talk, refused(outcome))
    talk.account = outcome
    return DONE


def _failed(talk: Conversation, reply: Reply) -> Reply:
    talk.auth_failures += 1
    if talk.auth_failures < talk.settings.auth_tries_max:
        return reply
    talk.wire.send(reply)
    talk.closing = True
    return GIVEN_UP


async def _ask(talk: Conversation, challenge: str) -> bytes:
    """Raises Cancelled, SyntaxRefused."""
    talk.wire.send(Reply(334, "", (challenge,)))
    talk.wire.parser.expect_answer()
    answer = await talk.wire.next(talk.settings.command_s_max, talk.settings.write_s_max)
    assert isinstance(answer, Answer)
    if answer.line == b"*":
        raise Cancelled
    return sasl.decoded(answer.line)


async def _plain(talk: Conversation, initial: bytes | None) -> Outcome:
    message = initial if initial is not None else await _ask(talk, "")
    return await _sign_in(talk, sasl.plain(message))


async def _login(talk: Conversation, initial: bytes | None) -> Outcome:
    name = initial if initial is not None else await _ask(talk, sasl.encoded(b"Username:"))
    password = await _ask(talk, sasl.encoded(b"Password:"))
    return await _sign_in(talk, sasl.login(name, password))


async def _sign_in(talk: Conversation, given: sasl.Password | None) -> Outcome:
    if given is None:
        return WRONG
    return await talk.site.sign_in(given.name, given.password, talk.actor(), throttled=not talk.trusted)


async def _scram(talk: Conversation, initial: bytes | None) -> Outcome:
    first = sasl.scram_first(initial if initial is not None else await _ask(talk, ""))
    keys = await talk.site.scram_keys(first.name)
    if isinstance(keys, Refusal):
        return keys
    challenge = sasl.scram_challenge(first, keys, sasl.encoded(talk.site.world.entropy(NONCE_BYTES)))
    proved = sasl.scram_proved(first, keys, challenge, await _ask(talk, sasl.encoded(challenge.encode())))
    # Told also where it failed, so that it counts.
    account = keys.account if proved is not None else None
    outcome = await talk.site.signed_in(account, talk.actor(), first.name)
    if isinstance(outcome, Refusal) or proved is None:
        return outcome if isinstance(outcome, Refusal) else WRONG
    # RFC 4954 §4: data that comes with success goes as one more challenge, which the client answers with nothing.
    await _ask(talk, sasl.encoded(proved.encode()))
    return outcome


EXCHANGES: dict[bytes, Callable[[Conversation, bytes | None], Awaitable[Outcome]]] = {
    b"PLAIN": _plain,
    b"LOGIN": _login,
    b"SCRAM-SHA-256": _scram,
}

if set(EXCHANGES) != {name.encode() for name in sasl.MECHANISMS}:
    raise AssertionError("what is announced and what is done differ")
