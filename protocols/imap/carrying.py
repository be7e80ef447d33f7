"""A session that is served at another site, where the account's mail is: carried there, byte by byte, both ways.

This side is a client of the other site's door for sites: it says for whom it stands (ID, RFC 2971) and whose session it is
(AUTHENTICATE EXTERNAL, RFC 4422 §A), and from then on listens to nothing, except to where a reply ends.
"""

import asyncio
import binascii
import re
from collections.abc import Awaitable, Sequence
from typing import NamedTuple

import structlog

from cluster.domain.refusal import Reason, Refusal
from protocols.imap.settings import Settings, Sites
from protocols.wire import Wire, WireClosed, WireStopping

LINE_BYTES_MAX = 8192  # of what the other site says before the client hears it
MARGIN_S = 60  # a silent client is ended by the site that serves it; by us only so much later
QUIET_S = 0.25  # so long without a byte, and the command that ran is answered
LAST_WORDS_S_MAX = 4.0  # for that, when this node stops
HALF_CLOSED_QUIET_S = 5.0  # the same of a client that says nothing more and still listens
HALF_CLOSED_S_MAX = 300.0
TAIL_BYTES = 32  # of a line: its literal's size stands at its end

_LITERAL_END = re.compile(rb"\{(\d{1,20})\}\r?\n\Z")
_CAPABILITY = re.compile(rb"OK \[CAPABILITY ([\x20-\x5c\x5e-\x7e]+)\]")

log = structlog.get_logger("imap")


class Traveller(NamedTuple):
    """Whose session it is, and from where it comes: for the other site's audit trail."""

    account: str
    address: str
    session: str


class Carried(NamedTuple):
    """`capabilities`: of the site that serves it. `ahead`: what that site has said already."""

    wire: Wire
    site: str
    capabilities: str
    ahead: bytes


class _NotTaken(Exception):
    """The other site does not serve it; the text is for the log."""


# ── to the other site ────────────────────────────────────────────────────────────────────────────────────────────────


async def taken(traveller: Traveller, where: Sequence[str], settings: Settings) -> Carried | Refusal:
    """By the first of the sites that serves it. UNAVAILABLE where none does in time."""
    refusal = Refusal(Reason.UNAVAILABLE, f"Your mail is at {', '.join(where)}, out of reach now: try again.", tuple(where))
    if settings.sites is None:
        return refusal
    try:
        async with asyncio.timeout(settings.carry_s_max):
            for site in where:
                if (carried := await _taken_at(site, traveller, settings.sites, settings.reach_s_max)) is not None:
                    return carried
    except TimeoutError:
        log.warning("no site takes the session in time", account=traveller.account, sites=where)
    return refusal


async def _taken_at(site: str, traveller: Traveller, sites: Sites, timeout_s: float) -> Carried | None:
    wire, carried = Wire(), None
    try:
        async with asyncio.timeout(timeout_s):
            await sites.reach(site, wire)
            wire.keep_alive()
            carried = await _introduced(wire, site, traveller)
        log.info("session carried", account=traveller.account, to=site)
    except (OSError, TimeoutError, WireClosed, _NotTaken) as error:
        why = str(error) or type(error).__name__
        log.warning("a site does not take the session", site=site, account=traveller.account, why=why)
    finally:
        if carried is None:
            wire.abort()
    return carried


async def _introduced(wire: Wire, site: str, traveller: Traveller) -> Carried:
    lines = _Lines(wire)
    greeting = await lines.next()
    if not greeting.startswith(b"* OK"):
        raise _NotTaken(greeting.decode("ascii", "replace").strip())
    whose = binascii.b2a_base64(traveller.account.encode(), newline=False).decode("ascii")
    told = f'"x-originating-ip" "{traveller.address}" "x-session-id" "{traveller.session}"'
    # RFC 4959: the initial response rides along
    wire.write(f"c1 ID ({told})\r\nc2 AUTHENTICATE EXTERNAL {whose}\r\n".encode("ascii"))
    while not (line := await lines.next()).startswith(b"c2 "):
        if line.startswith(b"* BYE"):
            raise _NotTaken(line.decode("ascii", "replace").strip())
    found = _CAPABILITY.match(line, 3)
    if found is None:
        raise _NotTaken(line.decode("ascii", "replace").strip())
    return Carried(wire, site, found[1].decode("ascii"), lines.rest)


class _Lines:
    """Reads a wire line by line. `rest`: what came behind the last one."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.rest = b""

    async def next(self) -> bytes:
        """Raises _NotTaken, WireClosed."""
        while (end := self.rest.find(b"\n")) < 0:
            if len(self.rest) > LINE_BYTES_MAX:
                raise _NotTaken("it says too much in one line")
            # Whoever calls has an eye on the time.
            data = await self._wire.read(LAST_WORDS_S_MAX)
            if not data:
                raise WireClosed("it closed the connection")
            self.rest += data
        line, self.rest = self.rest[: end + 1], self.rest[end + 1 :]
        return line


# ── both ways ────────────────────────────────────────────────────────────────────────────────────────────────────────


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
    far, told = carried.wire, Told()
    far.write(ahead)
    if carried.ahead:
        near.write(carried.ahead)
        told.feed(carried.ahead)
    up = asyncio.create_task(_pumped(near, far, settings, None, settings.idle_s_max + MARGIN_S))
    down = asyncio.create_task(_pumped(far, near, settings, told, None))
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        bye = await _over(up, down, told, near)
        if bye and told.clear and not told.bye:
            near.write(f"* BYE {bye}\r\n".encode("ascii"))
    except Exception:
        log.exception("carrying failed")  # Our bug; nothing is said, as it may be in the middle of a literal.
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
        far.close()


async def _pumped(source: Wire, sink: Wire, settings: Settings, told: Told | None, silence_s_max: float | None) -> None:
    """As fast as the slower of both, until the source ends. Raises TimeoutError, WireStopping, WireClosed."""
    while data := await source.read(silence_s_max):
        if told is not None:
            told.feed(data)
        sink.write(data)
        await sink.drain(settings.write_s_max)


async def _over(up: "asyncio.Task[None]", down: "asyncio.Task[None]", told: Told, near: Wire) -> str:
    """One of both has ended. What the client is to be told when all is said; empty = nothing."""
    if down.done():
        return await _ended(down, "[UNAVAILABLE] The site with your mail is out of reach; sign in again.")
    error = up.exception()
    if isinstance(error, WireStopping):
        await _quiet(down, told, QUIET_S, LAST_WORDS_S_MAX)
        return "[UNAVAILABLE] The server is stopping; come back in a moment."
    if isinstance(error, TimeoutError):
        return "Nothing was heard for too long."  # RFC 9051 §5.4
    if error is None and near.listens:
        # What was asked before the end is still answered.
        await _quiet(down, told, HALF_CLOSED_QUIET_S, HALF_CLOSED_S_MAX)
        return ""
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


async def _quiet(down: "asyncio.Task[None]", told: Told, quiet_s: float, limit_s: float) -> None:
    """Returns when the far side has said nothing for so long, between two replies; in time anyway."""
    deadline = asyncio.get_running_loop().time() + limit_s
    while not down.done() and asyncio.get_running_loop().time() < deadline:
        told.news.clear()
        try:
            async with asyncio.timeout(quiet_s):
                await told.news.wait()
        except TimeoutError:
            if told.clear:
                return
