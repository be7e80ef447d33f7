"""One client's session: reads, answers, and tells what is new. One loop, one command at a time."""

from collections.abc import Awaitable

import structlog

from cluster.domain.refusal import Reason, Refusal
from protocols.imap import writer
from protocols.imap.carrying import carry
from protocols.imap.commands import COMMANDS, Word
from protocols.imap.commands.append import append
from protocols.imap.commands.capability import words
from protocols.imap.errors import refused
from protocols.imap.model import Incoming, NeedMore, Parsed, Reply, Request, SyntaxRefused
from protocols.imap.settings import Settings
from protocols.imap.state import Talk, When
from protocols.imap.view import NoSuchMessage
from protocols.imap.waiting import watched
from protocols.port import Site, SiteUnavailable
from protocols.wire import Wire, WireClosed, WireStopping

log = structlog.get_logger("imap")

SERVER_BUG = Reply("NO", "We failed, and know it.", "SERVERBUG")  # RFC 5530 §3


async def serve(
    wire: Wire, *, site: Site, settings: Settings, tls: bool, session: str, introducer: str = ""
) -> None:  # the parts of a session, and nothing to group them by
    """Until the client or the server has had enough. `introducer`: the site at the other end, of the door for sites. Raises
    nothing but cancellation."""
    with structlog.contextvars.bound_contextvars(session=session, protocol="imap", peer=wire.peer):
        talk = Talk(site, settings, wire, secure=tls, session=session, introducer=introducer)
        try:
            talk.say(f"OK [CAPABILITY {words(talk)}] {settings.hostname} speaks IMAP.")
            while not talk.closing and talk.carried is None:
                await _one(talk)
            await talk.flush()
            if talk.carried is not None:
                await carry(wire, talk.carried, talk.parser.take_rest(), settings)
        except TimeoutError:
            talk.last_words("BYE Nothing was heard for too long.")  # RFC 9051 §5.4
        except WireStopping:
            talk.last_words("BYE [UNAVAILABLE] The server is stopping; come back in a moment.")
        except WireClosed:
            pass
        except Exception:
            log.exception("session failed")
            talk.last_words("BYE We failed, and know it.")
        finally:
            wire.close()
            if talk.carried is not None:
                talk.carried.wire.close()
            await talk.deselect()
            await talk.notice(None)


def say_bye(wire: Wire, why: str) -> None:
    """RFC 9051 §7.1.5."""
    wire.write(f"* BYE {why}\r\n".encode("ascii"))


async def _next(talk: Talk) -> Parsed:
    """NeedMore if the session is to end before anything comes."""
    if talk.notices is None:
        return await talk.parsed()
    return await watched(talk, idle=False)


async def _one(talk: Talk) -> None:
    """Reads and answers one command."""
    talk.told.clear()
    word: Word | None = None
    try:
        parsed = await _next(talk)
        if talk.ends() or isinstance(parsed, NeedMore):
            return
        if isinstance(parsed, Request):
            word = COMMANDS[parsed.word]
            if talk.when not in word.when:
                reply: Reply | None = Reply("BAD", _why_not(talk, word.when))
            elif talk.uid_only and word.counts:
                reply = Reply("BAD", "With UIDONLY there are no sequence numbers.", "UIDREQUIRED")  # RFC 9586 §3
            elif _in_anothers(talk, word) and not await talk.may_go_on():
                reply = refused(Refusal(Reason.UNAVAILABLE))
            elif word.names_messages and not await _caught_up(talk):
                reply = refused(Refusal(Reason.UNAVAILABLE))
            else:
                reply = await _guarded(talk, word.run(talk, parsed))
        else:
            assert isinstance(parsed, Incoming), parsed
            reply = await _guarded(talk, append(talk, parsed))
    except SyntaxRefused as error:
        talk.closing = talk.closing or error.closing
        if error.tag:
            talk.put(writer.tagged(error.tag, Reply("BAD", f"Not understood: {error.text}.", error.code)))
        else:
            talk.say(writer.condition(Reply("BAD", f"Not understood: {error.text}.", error.code)))
        _count_bad(talk)
        return
    if reply is None:
        return
    if reply.code == "UNAVAILABLE":
        await talk.moved()
    if not talk.closing:
        await _guarded(talk, _news(talk, word))
    talk.put(writer.tagged(parsed.tag, reply))
    if reply.state == "BAD":
        _count_bad(talk)
    if talk.full:
        await talk.flush()


def _in_anothers(talk: Talk, word: Word) -> bool:
    """Whether it is about a selected mailbox of somebody else, whose rights may have changed."""
    there = talk.view is not None and talk.view.reader
    return bool(there) and (word.when is When.SELECTED or word.names_messages)


async def _caught_up(talk: Talk) -> bool:
    """Whether the view holds what the client may know of: a UID that is not in it would be passed over in silence
    (RFC 9051 §6.4.9), and a change to it be answered with OK and not made."""
    if talk.behind:
        await _guarded(talk, _poll(talk))
    return not talk.behind


async def _poll(talk: Talk) -> None:
    await talk.poll(expunges=False)


async def _news(talk: Talk, word: Word | None) -> None:
    """`word` None: APPEND."""
    notices = talk.notices
    if notices is None or not notices.silent or word is None or word.tells:
        await talk.poll(expunges=word is None or word.expunges, ask=word is None or word.asks)
    if notices is not None and not talk.ends():
        await notices.tell()


async def _guarded(talk: Talk, running: "Awaitable[Reply | None]") -> Reply | None:
    """A command's reply, whatever happens in it."""
    try:
        return await running
    except (SyntaxRefused, WireClosed, TimeoutError):
        raise
    except NoSuchMessage:
        # RFC 9051 §9 seq-number: a number that no message has is a client's mistake
        return Reply("BAD", "There is no message of that number.")
    except SiteUnavailable as error:
        log.warning("site unavailable", error=str(error))
        return refused(Refusal(Reason.UNAVAILABLE))
    except Exception:
        log.exception("command failed")
        return SERVER_BUG


def _why_not(talk: Talk, when: When) -> str:
    if talk.account is None:
        return "Sign in first."
    if when is When.SELECTED:
        return "Select a mailbox first."
    return "You are signed in already." if when is When.NOT_AUTHENTICATED else "Not while a mailbox is selected."


def _count_bad(talk: Talk) -> None:
    talk.bad_commands += 1
    if talk.bad_commands >= talk.settings.bad_commands_max and not talk.closing:
        talk.closing = True
    if talk.closing:
        talk.say("BYE That is enough.")
