"""RETR (RFC 1939 §5), and how a message is sent."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from protocols.pop3.commands.numbers import GONE, message_number
from protocols.pop3.extract import Beginning
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk
from protocols.port import Message, SiteUnavailable
from protocols.stuffing import Stuffing
from protocols.wire import WireClosed


async def retr(talk: Talk, argument: bytes) -> Reply | None:
    drop = talk.maildrop()
    number = message_number(drop, argument)
    if isinstance(number, Reply):
        return number
    row = await drop.message(talk.site, number)
    if row is None:
        return GONE
    await send(talk, row, Reply(True, f"{drop.size(number)} octets"), None)
    return None


async def send(talk: Talk, row: Message, first: Reply, beginning: Beginning | None) -> None:
    """The first line, and the message as it is or its beginning, piece by piece at the client's pace. Raises SiteUnavailable
    where it cannot be had, before anything is put."""
    stuffing, begun = Stuffing(), False
    try:
        async with aclosing(_pieces(talk, row)) as pieces:
            async for piece in pieces:
                if not begun:
                    talk.say(first)
                    begun = True
                data = stuffing.stuffed(piece)
                talk.put(data if beginning is None else beginning.of(data))
                if beginning is not None and beginning.done:
                    break
                if talk.full:
                    await talk.flush()
    except SiteUnavailable as error:
        if not begun:
            raise
        # It cannot be taken back, and the client must not mistake what it has for the whole.
        talk.wire.abort()
        raise WireClosed("a blob went away in the middle of a message") from error
    if not begun:
        talk.say(first)
    # A beginning ends with a whole line.
    talk.put(b".\r\n" if beginning is not None and beginning.done else stuffing.end())


async def _pieces(talk: Talk, row: Message) -> AsyncGenerator[bytes, None]:
    assert row.content is not None, "asked for with its content"
    async for piece in talk.site.read(row.content):
        yield piece
