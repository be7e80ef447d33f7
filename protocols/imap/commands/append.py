"""APPEND (RFC 9051 §6.3.12, RFC 3502 MULTIAPPEND, RFC 4469 CATENATE) and REPLACE (RFC 8508). A message goes to the site as it
comes; it is never held whole."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from cluster.domain.mailbox import names, rights
from cluster.domain.mailbox.commands import AppendMessage, NewMessage, ReplaceMessage
from cluster.domain.refusal import Reason, Refusal
from cluster.formats import mime
from protocols.imap import bodies, rendering, urls, writer
from protocols.imap.commands.expunge import READ_ONLY
from protocols.imap.commands.quota import warn
from protocols.imap.errors import refused
from protocols.imap.model import Incoming, IncomingDone, Parsed, Piece, Reply, UrlPart
from protocols.imap.naming import named
from protocols.imap.state import Talk, When
from protocols.port import Done, Ingest, Named, SiteUnavailable, Spooled

MESSAGES_MAX = 100


class _Gathered:
    """The messages of one APPEND so far; `no`: why it will be refused. `replaced`: the UID that a REPLACE takes away."""

    def __init__(self) -> None:
        self.spooled: list[Spooled] = []
        self.messages: list[NewMessage] = []
        self.no: Reply | None = None
        self.replaced = 0


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
        target = await named(talk, first.mailbox, rights.INSERT)
        if isinstance(target, Refusal):
            return refused(target, target=True)
        if gathered.replaced:
            return await _replace(talk, target, gathered)
        command = AppendMessage(target.account, target.name, tuple(gathered.messages))
        done = await talk.site.execute(talk.actor, command, gathered.spooled)
        if isinstance(done, Refusal):
            return refused(done, target=True)
        await warn(talk)
        return Reply("OK", "Appended.", _uids(done))
    finally:
        for spooled in gathered.spooled:
            spooled.release()


async def _replace(talk: Talk, target: Named, gathered: _Gathered) -> Reply:
    """RFC 8508 §3.4: one command, so that there is never both of them, nor neither."""
    view = talk.mailbox()
    if target.account != view.account:
        return Reply("NO", "A message can be replaced among the mailboxes of one owner.", "CANNOT")
    command = ReplaceMessage(view.account, view.mailbox, gathered.replaced, target.name, gathered.messages[0])
    done = await talk.site.execute(talk.actor, command, gathered.spooled)
    if isinstance(done, Refusal):
        return refused(done, target=True)
    if done.uids:
        # RFC 8508 §4.3: before the EXPUNGE, which a client would else have to remember
        talk.say(f"OK [{_uids(done)}] Replaced.")
    await talk.poll(expunges=True)
    await warn(talk)
    # RFC 7162 §3.2.7, as RFC 8508 §4.5 has it
    return Reply("OK", "Replaced.", f"HIGHESTMODSEQ {view.modseq}" if talk.condstore and done.position else "")


def _uids(done: Done) -> str:
    """RFC 4315 §3."""
    return f"APPENDUID {done.uidvalidity} {writer.ordered(done.uids)}" if done.uids else ""


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
        while isinstance(parsed := await talk.parsed(), Piece | UrlPart):
            if isinstance(parsed, UrlPart):
                gathered.no = gathered.no or await _catenate(talk, parsed.url, ingest)
                continue
            if incoming.binary and b"\0" in parsed.data:
                # RFC 3516 §4.4: NULs cannot come back by BODY[], and messages are kept byte for byte
                gathered.no = Reply("NO", "A message with NULs cannot be kept.", "UNKNOWN-CTE")
            await ingest.feed(parsed.data)
        if gathered.no is not None:
            return parsed
        if ingest.size == 0:
            gathered.no = NOTHING
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


NOTHING = Reply("NO", "A message of no bytes means that the client changed its mind.")  # RFC 3502 §6.3.11


async def _objection(talk: Talk, incoming: Incoming, gathered: _Gathered) -> Reply | None:
    """Said before the client sends the message, where it waits to be told to."""
    if talk.when not in When.SIGNED_IN:
        return Reply("BAD", "Sign in first.")
    if incoming.replaces is not None:
        no = await _replaced(talk, incoming.replaces, gathered)
        if no is not None:
            return no
    if incoming.size > talk.settings.message_bytes_max:
        return refused(Refusal(Reason.TOO_BIG))  # RFC 7889 §4
    if incoming.size == 0 and not incoming.catenated:
        return NOTHING
    if len(gathered.messages) >= MESSAGES_MAX:
        return refused(Refusal(Reason.OVER_LIMIT))
    refusal = names.keywords(incoming.keywords)
    if isinstance(refusal, Refusal):
        return refused(refusal)
    if incoming.first and (incoming.waiting or incoming.catenated):
        # RFC 9051 §6.3.12: a mailbox that is not there is never made, but the client may
        target = await named(talk, incoming.mailbox, rights.INSERT)
        found = target if isinstance(target, Refusal) else await talk.site.mailbox(target.account, target.name)
        if isinstance(found, Refusal):
            return refused(found, target=True)
    if incoming.waiting and incoming.replaces is None:
        size = incoming.size + sum(message.content.size for message in gathered.messages)
        place = await named(talk, incoming.mailbox, rights.INSERT)
        no_room = place if isinstance(place, Refusal) else await talk.site.room((place.account,), size)
        return None if no_room is None else refused(no_room)
    return None


async def _replaced(talk: Talk, which: tuple[bool, int], gathered: _Gathered) -> Reply | None:
    """Which message goes."""
    uid, number = which
    view = talk.view
    if view is None:
        return Reply("BAD", "Select a mailbox first.")  # RFC 8508 §3.5
    if talk.uid_only and not uid:
        return Reply("BAD", "With UIDONLY there are no sequence numbers.", "UIDREQUIRED")  # RFC 9586 §3
    if not view.writable:
        return READ_ONLY
    if talk.behind:
        await talk.poll(expunges=False)
    if not uid and max(number, 1) > len(view):
        return Reply("BAD", "There is no message of that number.")
    # RFC 9051 §9: "*" is the last
    place = view.place(number or view.last) if uid else (number or len(view)) - 1
    if place is None:
        return refused(Refusal(Reason.NO_SUCH_ENTRY, "There is no message of that UID."))
    gathered.replaced = view.uids[place]
    return None


# -- what is put together from messages that are there ------------------------------------------------------------------------


async def _catenate(talk: Talk, url: str, ingest: Ingest) -> Reply | None:
    """RFC 4469 §3: the bytes as FETCH BODY would give them, and no \\Seen for it. Raises WireClosed."""
    bad = Reply("NO", "There is no such message or part.", f'BADURL "{urls.shown(url)}"')
    asked = urls.parse(url)
    if asked is None:
        return bad
    place = await named(talk, asked.mailbox, rights.READ)
    box = place if isinstance(place, Refusal) else await talk.site.mailbox(place.account, place.name)
    if isinstance(box, Refusal):
        return refused(box) if box.reason is Reason.UNAVAILABLE else bad
    if asked.uidvalidity not in (0, box.uidvalidity):
        return bad
    assert isinstance(place, Named)
    there = await talk.site.flags(place.account, box.id, ((asked.uid, asked.uid),))
    if isinstance(there, Refusal):
        return refused(there)
    if not there:
        return bad  # of one that was expunged nothing is given, even where its bytes are kept
    try:
        async with aclosing(_pieces(talk, place.account, box.id, asked)) as pieces:
            async for piece in pieces:
                if not await ingest.feed(piece):
                    return refused(Refusal(Reason.TOO_BIG))  # RFC 4469 §4.2
    except _NoSuchPart:
        return bad
    except (SiteUnavailable, bodies.Unavailable):
        return refused(Refusal(Reason.UNAVAILABLE))
    return None


class _NoSuchPart(Exception):
    """The message has no part of that number."""


async def _pieces(talk: Talk, account: int, mailbox: int, asked: urls.MessageUrl) -> AsyncGenerator[bytes, None]:
    """Raises SiteUnavailable, _NoSuchPart."""
    row = None
    wanted = ((asked.uid, asked.uid),)
    async for batch in talk.site.messages(account, mailbox, wanted, described=True, contents=True):
        row = batch[0]
    if row is None:
        raise _NoSuchPart
    where = bodies.bounds(rendering.description(row.description).structure, asked.section)
    if where is None:
        raise _NoSuchPart
    start, end = where
    first, count = asked.partial or (0, end - start)
    if asked.section.kind.startswith("HEADER.FIELDS"):
        header = await bodies.ranged(talk.site, row, None, start, end)
        yield mime.header_fields(header, asked.section.fields, exclude=asked.section.kind.endswith("NOT"))[first : first + count]
        return
    start = min(end, start + first)
    end = min(end, start + count)
    if end > start:
        async for piece in talk.site.read(bodies.content_of(row), start, end):
            yield piece
