"""A session that is served at another site, where the account's mail is: carried there, byte by byte, both ways.

This side is a client of the other site's door for sites: it says for whom it stands (XCLIENT) and whose session it is (AUTH
EXTERNAL, RFC 5034 and RFC 4422 §A), and from then on listens to nothing. Nothing is put in between: POP3 knows no word that was not
asked for, and a line that is cut deletes nothing (RFC 1939 §6).
"""

import asyncio
import binascii

import structlog

from protocols.carrying import Carried, Lines, NotTaken, Pump, Traveller, Waits, both_ways, last_replies
from protocols.pop3.settings import Settings
from protocols.wire import Wire

log = structlog.get_logger("pop3")


async def introduce(lines: Lines, traveller: Traveller) -> str:
    """Gives what the other site said to it. Raises NotTaken, WireClosed."""
    whose = binascii.b2a_base64(traveller.account.encode(), newline=False).decode("ascii")
    told = f"XCLIENT ADDR={traveller.address} SESSION={traveller.session}\r\nAUTH EXTERNAL\r\n{whose}\r\n"
    await _good(lines)
    lines.wire.write(told.encode("ascii"))
    await _good(lines)
    await _good(lines, b"+ ")
    return await _good(lines)


async def _good(lines: Lines, begins: bytes = b"+OK ") -> str:
    line = (await lines.next()).rstrip()
    if not (line + b" ").startswith(begins):
        raise NotTaken(line.decode("ascii", "replace"))
    return line[len(begins) :].decode("utf-8", "replace")


class _Heard:
    """That the other site said something."""

    clear = True

    def __init__(self) -> None:
        self.news = asyncio.Event()

    def feed(self, _: bytes) -> None:
        self.news.set()


async def carry(near: Wire, carried: Carried, ahead: bytes, settings: Settings) -> None:
    """Until either side has had enough. `ahead`: what the client has sent already. Raises nothing but cancellation."""
    heard = _Heard()

    async def over(up: Pump, down: Pump) -> None:
        if up.done():
            await last_replies(up.exception(), near, down, heard)

    try:
        await both_ways(near, carried, ahead, Waits(settings.write_s_max, settings.idle_s_max), heard, over)
    except Exception:
        log.exception("carrying failed")
