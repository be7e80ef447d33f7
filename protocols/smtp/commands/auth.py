"""AUTH (RFC 4954) with the mechanisms of protocols.sasl, and LOGIN."""

from cluster.domain.refusal import Refusal
from protocols import sasl
from protocols.smtp.errors import refused
from protocols.smtp.model import Answer, Reply
from protocols.smtp.state import Conversation

DONE = Reply(235, "2.7.0", ("Signed in",))
NOT_HERE = Reply(502, "5.5.1", ("Nobody signs in here; submit on port 465 or 587",))
NEEDS_TLS = Reply(538, "5.7.11", ("Say STARTTLS first",))
ALREADY = Reply(503, "5.5.1", ("You are signed in",))
UNKNOWN = Reply(504, "5.5.4", ("That mechanism is not offered",))
FOR_ANOTHER = Reply(535, "5.7.8", ("Nobody signs in for another here",))
GIVEN_UP = Reply(421, "4.7.0", ("Too many failed tries",))


async def auth(talk: Conversation, argument: bytes) -> Reply:
    if not talk.role.signs_in:
        return NOT_HERE
    if talk.account is not None:
        return ALREADY  # RFC 4954 §4
    if not talk.may_sign_in:
        return NEEDS_TLS
    word, _, initial = argument.partition(b" ")
    name = word.decode("ascii", "replace").upper()
    mechanism = sasl.login if name == "LOGIN" else sasl.mechanism(talk.site, name)
    if mechanism is None:
        return UNKNOWN
    channel = sasl.Channel(talk.site, talk.actor(), lambda text: _ask(talk, text), talk.wire.secured, not talk.trusted)
    try:
        found = await mechanism(channel, sasl.decoded(initial) if initial else None)
    except sasl.Cancelled as cancelled:
        return _failed(talk, Reply(501, "5.7.0", (str(cancelled),)))
    except sasl.Malformed as malformed:
        return _failed(talk, Reply(501, "5.5.2", (str(malformed),)))
    except sasl.ForAnother:
        return _failed(talk, FOR_ANOTHER)
    except sasl.NeedsTls:
        return NEEDS_TLS
    if isinstance(found, Refusal):
        return _failed(talk, refused(found))
    talk.account = found
    return DONE


def _failed(talk: Conversation, reply: Reply) -> Reply:
    talk.auth_failures += 1
    if talk.auth_failures < talk.settings.auth_tries_max:
        return reply
    talk.wire.send(reply)
    talk.closing = True
    return GIVEN_UP


async def _ask(talk: Conversation, challenge: str) -> bytes:
    """Raises SyntaxRefused (a line that is too long)."""
    talk.wire.send(Reply(334, "", (challenge,)))
    talk.wire.parser.expect_answer()
    answer = await talk.wire.next(talk.settings.command_s_max, talk.settings.write_s_max)
    assert isinstance(answer, Answer)
    return answer.line
