"""Waiting for the client, and telling it meanwhile what happens: in IDLE (RFC 9051 §6.3.13), and with NOTIFY whenever no command is
in progress (RFC 5465 §3.1)."""

import asyncio
import contextlib

from protocols.imap.model import NeedMore, Parsed
from protocols.imap.state import Talk
from protocols.port import SiteUnavailable


async def watched(talk: Talk, *, idle: bool) -> Parsed:
    """The parser's next value; NeedMore if the session is to end before. Outside of IDLE nothing is told while a command comes in,
    and nobody hears that the server is still here."""
    if idle or _owes(talk):
        await _tell(talk, idle, ask=idle)
    await talk.flush()
    reading = news = None
    try:
        while isinstance(value := talk.parser.next(), NeedMore) and not talk.closing:
            if value.invite:
                talk.say("+ Go on.")
                await talk.flush()
            reading = reading or asyncio.create_task(talk.read())
            if news is None and (idle or talk.parser.empty):
                news = asyncio.create_task(talk.rung(talk.settings.still_here_s))
            await asyncio.wait([task for task in (reading, news) if task is not None], return_when=asyncio.FIRST_COMPLETED)
            if news is not None and news.done():
                if not news.result():
                    await _quiet(talk, idle)
                elif idle or talk.parser.empty:  # else it is told with the command
                    await _tell(talk, idle)
                news = None
                await talk.flush()
            if reading.done():
                reading.result()
                reading = None
        return value
    finally:
        tasks = [task for task in (reading, news) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tell(talk: Talk, idle: bool, *, ask: bool = False) -> None:
    talk.told.clear()
    notices = talk.notices
    if talk.ends():
        return
    with contextlib.suppress(SiteUnavailable):  # it is asked again when it can be
        if notices is None or not notices.silent:
            await talk.poll(expunges=idle or notices is not None and notices.at_once, ask=ask)
        if notices is not None and not talk.closing:
            await notices.tell()


def _owes(talk: Talk) -> bool:
    """Whether a command that may not tell what is expunged has heard of it."""
    return talk.view is not None and talk.view.untold and talk.notices is not None and talk.notices.at_once


async def _quiet(talk: Talk, idle: bool) -> None:
    if idle:
        talk.say("OK Still here.")
    await talk.moved()
    if talk.view is not None and talk.view.reader:
        await talk.may_go_on()
