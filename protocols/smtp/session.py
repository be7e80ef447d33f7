"""The loop: one request after another, each answered before the next is looked at."""

import asyncio

import structlog

from protocols.smtp.commands import COMMANDS
from protocols.smtp.errors import OUR_FAULT
from protocols.smtp.model import Command, Reply, Role, SyntaxRefused
from protocols.smtp.state import Conversation, out_of_turn
from protocols.smtp.wire import ConnectionGone, Stopping

UNKNOWN = Reply(500, "5.5.1", ("Command not recognised",))
TOO_MANY_BAD = Reply(421, "4.7.0", ("Too many bad commands",))
STOPPING = Reply(421, "4.3.2", ("The server is stopping; come back soon",))
TIMED_OUT = Reply(421, "4.4.2", ("Nothing came for too long",))

log = structlog.get_logger()


async def serve(talk: Conversation) -> None:
    """Until the peer says QUIT or goes, or is shown out. Raises nothing but CancelledError."""
    wire, settings = talk.wire, talk.settings
    try:
        kind = "LMTP" if talk.role is Role.LMTP else "ESMTP"
        wire.send(Reply(220, "", (f"{settings.hostname} {kind} Angarium",)))
        while not talk.closing:
            await _turn(talk)
        await wire.flush(settings.write_s_max)
    except Stopping:
        wire.send(STOPPING)
    except asyncio.CancelledError:
        wire.send(STOPPING)  # the grace time is over
        raise
    except TimeoutError:
        wire.send(TIMED_OUT)  # RFC 5321 §3.8
    except ConnectionGone:
        pass
    except Exception:
        log.exception("smtp.session_failed", session=talk.session, peer=talk.peer)
        wire.send(Reply(421, "4.3.0", ("We failed; it is not your fault",)))
    finally:
        talk.reset()
        wire.close()


async def _turn(talk: Conversation) -> None:
    wire, settings = talk.wire, talk.settings
    begun = talk.transaction is not None
    try:
        request = await wire.next(talk.patience_s(), settings.write_s_max, stoppable=not begun)
        assert isinstance(request, Command)
        answer = await _answer(talk, request)
    except SyntaxRefused as syntax:
        _bad(talk, Reply(500 if not isinstance(syntax, ArgumentRefused) else 501, "5.5.2", (syntax.text,)))
        talk.closing = talk.closing or syntax.fatal
        return
    if answer is None:
        return
    for reply in answer if isinstance(answer, list) else (answer,):
        wire.send(reply)


class ArgumentRefused(SyntaxRefused):
    """The word is known, its argument is wrong: 501 and not 500 (RFC 5321 §4.2.4)."""


async def _answer(talk: Conversation, request: Command) -> Reply | list[Reply] | None:
    verb, argument = request
    word = COMMANDS[talk.role].get(verb)
    if word is None:
        _bad(talk, UNKNOWN)
        return None
    # BDAT looks for itself: its octets come even where it is refused.
    refusal = out_of_turn(talk, verb) if verb != "BDAT" else None
    if refusal is not None:
        return refusal
    try:
        return await word(talk, argument)
    except SyntaxRefused as syntax:
        raise ArgumentRefused(syntax.text, syntax.fatal) from None
    except (ConnectionGone, TimeoutError):
        raise
    except Exception:
        # Ours: the peer hears only that we failed, and may try again.
        log.exception("smtp.command_failed", verb=verb, session=talk.session, peer=talk.peer)
        return OUR_FAULT


def _bad(talk: Conversation, reply: Reply) -> None:
    talk.bad_commands += 1
    talk.wire.send(reply)
    if talk.bad_commands >= talk.settings.bad_commands_max:
        talk.wire.send(TOO_MANY_BAD)
        talk.closing = True
