"""A session that is served at another site, where the account's mail is: carried there, byte by byte, both ways.

This side is a client of the other site's door for sites: it says for whom it stands (ID, RFC 2971) and whose session it is
(AUTHENTICATE EXTERNAL, RFC 4422 §A), and from then on listens to nothing, except to where a reply ends.
"""

import asyncio
import binascii
import re
from collections.abc import Awaitable

import structlog

from protocols.carrying import Carried, Lines, NotTaken, Pump, Traveller, Waits, both_ways, last_replies
from protocols.imap.settings import Settings
from protocols.wire import Wire, WireClosed, WireStopping

TAIL_BYTES = 32  # of a line: its literal's size stands at its end

_LITERAL_END = re.compile(rb"\{(\d{1,20})\}\r?\n\Z")
_CAPABILITY = re.compile(rb"OK \[CAPABILITY ([\x20-\x5c\x5e-\x7e]+)\]")

log = structlog.get_logger("imap")


async def introduce(lines: Lines, traveller: Traveller) -> str:
    """Gives the capabilities of the site that serves it. Raises NotTaken, WireClosed."""
    greeting = await lines.next()
    if not greeting.startswith(b"* OK"):
        raise NotTaken(greeting.decode("ascii", "replace").strip())
    whose = binascii.b2a_base64(traveller.account.encode(), newline=False).decode("ascii")
    told = f'"x-originating-ip" "{traveller.address}" "x-session-id" "{traveller.session}"'
    # RFC 4959: the initial response rides along
    lines.wire.write(f"c1 ID ({told})\r\nc2 AUTHENTICATE EXTERNAL {whose}\r\n".encode("ascii"))
    while not (line := await lines.next()).startswith(b"c2 "):
        if line.startswith(b"* BYE"):
            raise NotTaken(line.decode("ascii", "replace").strip())
    found = _CAPABILITY.match(line, 3)
    if found is None:
        raise NotTaken(line.decode("ascii", "replace").strip())
    return found[1].decode("ascii")


class Told:
    """Where the stream of a server's replies stands: whether a reply ends here, and whether BYE was said (RFC 9051 §4.3,
    §7.1.5)."""

    def __init__(self) -> None:
        self.bye = False
        self.news = asyncio.Event()
        self._left = 0  # of a literal
        self._begun = False  # a response whose line was ended by a literal
        self._line = b""  # its end, and its beginning while it is short

    @property
    def clear(self) -> bool:
        return not self._left and not self._begun and not self._line

    def feed(self, data: bytes) -> None:
        at, end = 0, len(data)
        while at < end:
            if self._left:
                size = min(self._left, end - at)
                self._left -= size
                at += size
                continue
            stop = data.find(b"\n", at)
            if stop < 0:
                self._more(data[at:])
                break
            self._more(data[at : stop + 1])
            found = _LITERAL_END.search(self._line)
            self._left = int(found[1]) if found else 0
            self._begun = found is not None
            self._line = b""
            at = stop + 1
        self.news.set()

    def _more(self, piece: bytes) -> None:
        if not self._begun and not self._line[TAIL_BYTES - 1 :]:
            self.bye = self.bye or (self._line + piece[:TAIL_BYTES]).upper().startswith(b"* BYE ")
        self._line = (self._line + piece)[-TAIL_BYTES:]


async def carry(near: Wire, carried: Carried, ahead: bytes, settings: Settings) -> None:
    """Until either side has had enough. `ahead`: what the client has sent already. Raises nothing but cancellation."""
    told = Told()

    async def over(up: Pump, down: Pump) -> None:
        bye = await _over(up, down, told, near)
        if bye and told.clear and not told.bye:
            near.write(f"* BYE {bye}\r\n".encode("ascii"))

    try:
        await both_ways(near, carried, ahead, Waits(settings.write_s_max, settings.idle_s_max), told, over)
    except Exception:
        log.exception("carrying failed")  # Our bug; nothing is said, as it may be in the middle of a literal.


async def _over(up: Pump, down: Pump, told: Told, near: Wire) -> str:
    """One of both has ended. What the client is to be told when all is said; empty = nothing."""
    if down.done():
        return await _ended(down, "[UNAVAILABLE] The site with your mail is out of reach; sign in again.")
    error = up.exception()
    await last_replies(error, near, down, told)
    if isinstance(error, WireStopping):
        return "[UNAVAILABLE] The server is stopping; come back in a moment."
    if isinstance(error, TimeoutError):
        return "Nothing was heard for too long."  # RFC 9051 §5.4
    if isinstance(error, WireClosed) and not near.closed.is_set():
        return await _ended(down, "[UNAVAILABLE] The site with your mail takes nothing any more; sign in again.")
    return ""


async def _ended(down: "Awaitable[None]", bye: str) -> str:
    """The far side is gone; what it said before has been passed on."""
    try:
        await down
    except (WireClosed, TimeoutError):
        return ""  # it is the client that is gone
    return bye
