"""One client's session: reads, answers, and at QUIT does what it was told to. One loop, one command at a time."""

import asyncio
from collections.abc import Awaitable

import structlog

from cluster.domain.refusal import Reason, Refusal
from protocols.pop3 import writer
from protocols.pop3.carrying import carry
from protocols.pop3.commands import COMMANDS
from protocols.pop3.errors import TEMPORARY, refused
from protocols.pop3.model import Reply, Request, SyntaxRefused
from protocols.pop3.settings import Settings
from protocols.pop3.state import Talk, When
from protocols.port import Site, SiteUnavailable
from protocols.wire import Wire, WireClosed, WireStopping

TURN_REQUESTS_MAX = 64  # answered before other sessions get their turn

UNKNOWN = Reply(False, "There is no such command.")
SIGN_IN_FIRST = Reply(False, "Sign in first.")
SIGNED_IN_ALREADY = Reply(False, "You are signed in already.")
ENOUGH = Reply(False, "That is enough.")
STOPPING = Reply(False, "The server is stopping; come back in a moment.", TEMPORARY)
TOO_MANY = Reply(False, "Too many connections.", TEMPORARY)
OUR_FAULT = Reply(False, "We failed, and know it.", TEMPORARY)
FOR_SITES = Reply(False, "This door is for sites of the organisation.", TEMPORARY)
EARLIER = Reply(False, "The mailbox goes on from an earlier state; sign in again.", TEMPORARY)

log = structlog.get_logger("pop3")


async def serve(
    wire: Wire, *, site: Site, settings: Settings, tls: bool, session: str, introducer: str = ""
) -> None:  # the parts of a session, and nothing to group them by
    """Until the client or the server has had enough. `introducer`: the site at the other end, of the door for sites. Raises
    nothing but cancellation."""
    with structlog.contextvars.bound_contextvars(session=session, protocol="pop3", peer=wire.peer):
        talk = Talk(site, settings, wire, secure=tls, session=session, introducer=introducer)
        try:
            # RFC 1939 §4. No timestamp in angle brackets, which would offer APOP (§7).
            talk.say(Reply(True, f"{settings.hostname} speaks POP3."))
            turn = 0
            while not talk.closing and talk.carried is None:
                await _one(talk)
                turn += 1
                if turn % TURN_REQUESTS_MAX == 0:
                    await asyncio.sleep(0)
            await talk.flush()
            if talk.carried is not None:
                await carry(wire, talk.carried, talk.parser.take_rest(), settings)
        except TimeoutError:
            pass  # RFC 1939 §3: after the autologout nothing is said, and nothing deleted
        except WireStopping:
            say(wire, STOPPING)
        except WireClosed:
            pass
        except Exception:
            log.exception("session failed")
            say(wire, OUR_FAULT)
        finally:
            wire.close()
            if talk.carried is not None:
                talk.carried.wire.close()
            await talk.end()


def say(wire: Wire, reply: Reply) -> None:
    """To a client that is shown out."""
    wire.write(writer.written(reply))


async def _one(talk: Talk) -> None:
    """Reads and answers one command."""
    try:
        request = await talk.parsed()
        assert isinstance(request, Request)
        word = COMMANDS.get(request.word)
        if talk.shut_out:
            reply: Reply | None = FOR_SITES
            talk.closing = True
        elif talk.rolled_back:
            # RFC 1939 §6: what QUIT would not delete, it must not say that it did.
            reply = EARLIER
            talk.closing = True
        elif word is None:
            reply = _bad(talk, UNKNOWN)
        elif talk.when not in word.when:
            reply = _bad(talk, SIGN_IN_FIRST if talk.when is When.AUTHORIZATION else SIGNED_IN_ALREADY)
        else:
            reply = await _guarded(word.run(talk, request.argument))
    except SyntaxRefused as error:
        talk.closing = talk.closing or error.fatal
        reply = _bad(talk, Reply(False, error.text))
    if reply is not None:
        talk.say(reply)
    if talk.full:
        await talk.flush()


async def _guarded(running: "Awaitable[Reply | None]") -> Reply | None:
    """A command's answer, whatever happens in it."""
    try:
        return await running
    except (SyntaxRefused, WireClosed, TimeoutError):
        raise
    except SiteUnavailable as error:
        log.warning("site unavailable", error=str(error))
        return refused(Refusal(Reason.UNAVAILABLE))
    except Exception:
        log.exception("command failed")
        return OUR_FAULT


def _bad(talk: Talk, reply: Reply) -> Reply:
    talk.bad_commands += 1
    if talk.bad_commands >= talk.settings.bad_commands_max:
        talk.closing = True
        return ENOUGH
    return reply
