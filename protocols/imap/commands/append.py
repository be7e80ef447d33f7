"""APPEND (RFC 9051 §6.3.12, RFC 3502 MULTIAPPEND). A message goes to the site as it comes; it is never held whole."""

from cluster.domain.mailbox import names
from cluster.domain.mailbox.commands import AppendMessage, NewMessage
from cluster.domain.refusal import Reason, Refusal
from protocols.imap import writer
from protocols.imap.commands.status import find
from protocols.imap.errors import refused
from protocols.imap.model import Incoming, IncomingDone, Parsed, Piece, Reply
from protocols.imap.state import Talk, When
from protocols.port import Spooled

MESSAGES_MAX = 100


class _Gathered:
    """The messages of one APPEND so far; `no`: why it will be refused."""

    def __init__(self) -> None:
        self.spooled: list[Spooled] = []
        self.messages: list[NewMessage] = []
        self.no: Reply | None = None


async def append(talk: Talk, first: Incoming) -> Reply:
    """Raises SyntaxRefused if what follows a message is malformed; then nothing was appended."""
    gathered = _Gathered()
    try:
        parsed: Parsed = first
        while isinstance(parsed, Incoming):
            parsed = await _take(talk, parsed, gathered)
        assert isinstance(parsed, IncomingDone)
        if gathered.no is not None:
            return gathered.no
        target = names.canonical(first.mailbox)
        command = AppendMessage(talk.who(), target, tuple(gathered.messages))
        done = await talk.site.execute(talk.actor, command, gathered.spooled)
        if isinstance(done, Refusal):
            return refused(done, target=True)
        # RFC 4315 §3
        return Reply("OK", "Appended.", f"APPENDUID {done.uidvalidity} {writer.ordered(done.uids)}" if done.uids else "")
    finally:
        for spooled in gathered.spooled:
            spooled.release()


async def _take(talk: Talk, incoming: Incoming, gathered: _Gathered) -> Parsed:
    """One message; returns what the parser gave after it."""
    gathered.no = gathered.no or await _objection(talk, incoming, gathered)
    if gathered.no is not None:
        talk.parser.refuse()
        return await talk.parsed()
    ingest = talk.site.ingest(talk.settings.message_bytes_max)
    try:
        talk.parser.accept()
        if incoming.waiting:
            talk.say("+ Go on.")
        while isinstance(parsed := await talk.parsed(), Piece):
            if incoming.binary and b"\0" in parsed.data:
                # RFC 3516 §4.4: NULs cannot come back by BODY[], and messages are kept byte for byte
                gathered.no = Reply("NO", "A message with NULs cannot be kept.", "UNKNOWN-CTE")
            await ingest.feed(parsed.data)
        if gathered.no is not None:
            return parsed
        spooled = await ingest.finish()
    finally:
        ingest.abandon()
    if isinstance(spooled, Refusal):
        gathered.no = refused(spooled)
        return parsed
    gathered.spooled.append(spooled)
    at, zone = incoming.internal or (int(talk.site.world.now()), 0)
    gathered.messages.append(NewMessage(spooled.content, at, zone, incoming.flags, incoming.keywords))
    return parsed


async def _objection(talk: Talk, incoming: Incoming, gathered: _Gathered) -> Reply | None:
    """Said before the client sends the message, where it waits to be told to."""
    if talk.when not in When.SIGNED_IN:
        return Reply("BAD", "Sign in first.")
    if incoming.size > talk.settings.message_bytes_max:
        return refused(Refusal(Reason.TOO_BIG))  # RFC 7889 §4
    if incoming.size == 0:
        return Reply("NO", "A message of no bytes means that the client changed its mind.")  # RFC 3502 §6.3.11
    if len(gathered.messages) >= MESSAGES_MAX:
        return refused(Refusal(Reason.OVER_LIMIT))
    refusal = names.keywords(incoming.keywords)
    if isinstance(refusal, Refusal):
        return refused(refusal)
    if incoming.first and incoming.waiting:
        # RFC 9051 §6.3.12: a mailbox that is not there is never made, but the client may
        found = await find(talk, incoming.mailbox)
        if isinstance(found, Refusal):
            return refused(found, target=True)
    return None
