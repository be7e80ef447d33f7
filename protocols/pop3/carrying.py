"""A session that is served at another site, where the account's mail is: carried there, byte by byte, both ways.

This side is a client of the other site's door for sites: it says for whom it stands (XCLIENT) and whose session it is (AUTH
EXTERNAL, RFC 5034 and RFC 4422 §A), and from then on listens to nothing. Nothing is put in between: POP3 knows no word that was not
asked for, and a line that is cut deletes nothing (RFC 1939 §6).
"""

import asyncio
import binascii

import structlog

from protocols.carrying import (
    HALF_CLOSED_QUIET_S,
    HALF_CLOSED_S_MAX,
    LAST_WORDS_S_MAX,
    MARGIN_S,
    QUIET_S,
    Carried,
    Lines,
    NotTaken,
    Traveller,
    nothing,
    pumped,
    quiet,
)
from protocols.pop3.settings import Settings
from protocols.wire import Wire, WireStopping

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
    far, heard = carried.wire, _Heard()
    far.write(ahead)
    near.write(carried.ahead)
    up = asyncio.create_task(pumped(near, far, settings.write_s_max, nothing, settings.idle_s_max + MARGIN_S))
    down = asyncio.create_task(pumped(far, near, settings.write_s_max, heard.feed, None))
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        if up.done():
            error = up.exception()
            if isinstance(error, WireStopping):
                await quiet(down, heard, QUIET_S, LAST_WORDS_S_MAX)
            elif error is None and near.listens:
                # What was asked before the end is still answered.
                await quiet(down, heard, HALF_CLOSED_QUIET_S, HALF_CLOSED_S_MAX)
    except Exception:
        log.exception("carrying failed")
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
        far.close()
