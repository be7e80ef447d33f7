"""Sessions that are served at another site, where the account's mail is: how that site is found to take one, whatever its language.

This side is a client of the other site's door for sites, says for whom it stands, and from then on carries bytes both ways.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

import structlog

from cluster.domain.refusal import Reason, Refusal
from protocols.wire import Wire, WireClosed, WireStopping

LINE_BYTES_MAX = 8192  # of what the other site says before the client hears it
MARGIN_S = 60  # a silent client is ended by the site that serves it; by us only so much later
QUIET_S = 0.25  # so long without a byte, and the command that ran is answered
LAST_WORDS_S_MAX = 4.0  # for that, when this node stops
HALF_CLOSED_QUIET_S = 5.0  # the same of a client that says nothing more and still listens
HALF_CLOSED_S_MAX = 300.0
REACH_S_MAX = 4.0  # for one site to take a session that is carried there
CARRY_S_MAX = 10.0  # for any of them to


class Sites(Protocol):
    """The organisation's other sites, to and from which sessions are carried. They know each other by certificates."""

    async def reach(self, site: str, wire: asyncio.Protocol, language: str) -> None:
        """Makes `wire` a connection to that site's door for sites, which is told the language (RFC 7301: imap, pop3). Raises
        OSError where it is not reached, or is another."""
        ...

    def named(self, certificate: bytes) -> str | None:
        """Which site it is that has shown this certificate (DER); None = none of ours, or not any more."""
        ...


class Stream(Protocol):
    """What the other site says. `clear`: nothing of it is in the middle. `news`: set when more has come."""

    news: asyncio.Event

    @property
    def clear(self) -> bool: ...

    def feed(self, data: bytes, /) -> None: ...


class Traveller(NamedTuple):
    """Whose session it is, and from where it comes: for the other site's audit trail."""

    account: str
    address: str
    session: str


class Carried(NamedTuple):
    """`answer`: of the site that serves it, to the introduction. `ahead`: what that site has said already."""

    wire: Wire
    site: str
    answer: str
    ahead: bytes


class NotTaken(Exception):
    """The other site does not serve it; the text is for the log."""


class Lines:
    """Reads a wire line by line. `rest`: what came behind the last one."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.rest = b""

    async def next(self) -> bytes:
        """Raises NotTaken, WireClosed."""
        while (end := self.rest.find(b"\n")) < 0:
            if len(self.rest) > LINE_BYTES_MAX:
                raise NotTaken("it says too much in one line")
            # Whoever calls has an eye on the time.
            data = await self.wire.read(LAST_WORDS_S_MAX)
            if not data:
                raise WireClosed("it closed the connection")
            self.rest += data
        line, self.rest = self.rest[: end + 1], self.rest[end + 1 :]
        return line


class Way(NamedTuple):
    """To other sites. `introduce`: in a language, says whose session it is, and gives the answer; raises NotTaken, WireClosed.
    `sites` None = there is no other."""

    language: str
    introduce: Callable[[Lines, Traveller], Awaitable[str]]
    sites: Sites | None
    reach_s_max: float = REACH_S_MAX
    carry_s_max: float = CARRY_S_MAX


async def taken(traveller: Traveller, where: Sequence[str], way: Way) -> Carried | Refusal:
    """By the first of the sites that serves it. UNAVAILABLE where none does in time."""
    refusal = Refusal(Reason.UNAVAILABLE, f"Your mail is at {', '.join(where)}, out of reach now: try again.", tuple(where))
    if way.sites is None:
        return refusal
    try:
        async with asyncio.timeout(way.carry_s_max):
            for site in where:
                if (carried := await _taken_at(site, traveller, way, way.sites)) is not None:
                    return carried
    except TimeoutError:
        structlog.get_logger(way.language).warning(
            "no site takes the session in time", account=traveller.account, sites=where
        )
    return refusal


async def _taken_at(site: str, traveller: Traveller, way: Way, sites: Sites) -> Carried | None:
    log, wire, carried = structlog.get_logger(way.language), Wire(), None
    try:
        async with asyncio.timeout(way.reach_s_max):
            await sites.reach(site, wire, way.language)
            wire.keep_alive()
            lines = Lines(wire)
            answer = await way.introduce(lines, traveller)
            carried = Carried(wire, site, answer, lines.rest)
        log.info("session carried", account=traveller.account, to=site)
    except (OSError, TimeoutError, WireClosed, NotTaken) as error:
        why = str(error) or type(error).__name__
        log.warning("a site does not take the session", site=site, account=traveller.account, why=why)
    finally:
        if carried is None:
            wire.abort()
    return carried


Pump = asyncio.Task[None]  # raises what `pumped` does


class Waits(NamedTuple):
    """In seconds: for either side to take what the other says, and for a client to say something."""

    write_s_max: float
    idle_s_max: float


async def both_ways(
    near: Wire, carried: Carried, ahead: bytes, waits: Waits, told: Stream, over: Callable[[Pump, Pump], Awaitable[None]]
) -> None:
    """Until either side has had enough. `ahead`: what the client has sent already. `over`: called with the way up and the way
    down when one of both has ended. Raises what that raises."""
    far = carried.wire
    far.write(ahead)
    if carried.ahead:
        near.write(carried.ahead)
        told.feed(carried.ahead)
    up = asyncio.create_task(pumped(near, far, waits.write_s_max, _nothing, waits.idle_s_max + MARGIN_S))
    down = asyncio.create_task(pumped(far, near, waits.write_s_max, told.feed, None))
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        await over(up, down)
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
        far.close()


async def last_replies(error: BaseException | None, near: Wire, down: Pump, told: Stream) -> None:
    """The way up ended with `error`: what was asked before this node stops, or before the client said its last, is still
    answered."""
    if isinstance(error, WireStopping):
        await _quiet(down, told, QUIET_S, LAST_WORDS_S_MAX)
    elif error is None and near.listens:
        await _quiet(down, told, HALF_CLOSED_QUIET_S, HALF_CLOSED_S_MAX)


async def pumped(
    source: Wire, sink: Wire, write_s_max: float, told: Callable[[bytes], None], silence_s_max: float | None
) -> None:
    """As fast as the slower of both, until the source ends. Raises TimeoutError, WireStopping, WireClosed."""
    while data := await source.read(silence_s_max):
        told(data)
        sink.write(data)
        await sink.drain(write_s_max)


def _nothing(_: bytes) -> None:
    """Is made of what passes."""


async def _quiet(down: Pump, told: Stream, quiet_s: float, limit_s: float) -> None:
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


def site_of(sites: Sites | None, certificate: bytes) -> str:
    """Which of the organisation's sites has shown this certificate; empty = none of them."""
    return (sites.named(certificate) or "") if sites is not None else ""
