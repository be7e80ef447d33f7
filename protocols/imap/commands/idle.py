"""IDLE (RFC 9051 §6.3.13, RFC 2177): what others do is told at once, until the client says DONE."""

import asyncio

from protocols.imap.model import Line, NeedMore, Parsed, Reply, Request
from protocols.imap.state import Talk


async def idle(talk: Talk, request: Request) -> Reply:
    talk.parser.expect_line()
    talk.say("+ idling")
    if talk.view is None:
        line = await talk.parsed()
    else:
        line = await _watched(talk)
    if isinstance(line, NeedMore):
        return Reply("OK", "The mailbox is gone.")
    if isinstance(line, Line) and line.data.upper() == b"DONE":
        return Reply("OK", "Awake.")
    return Reply("BAD", "IDLE ends with DONE.")


async def _watched(talk: Talk) -> Parsed:
    """The client's line; NeedMore if the session is to end before."""
    await talk.poll(expunges=True)
    await talk.flush()
    reading = news = None
    try:
        while isinstance(line := talk.parser.next(), NeedMore) and not talk.closing:
            reading = reading or asyncio.create_task(talk.read())
            news = news or asyncio.create_task(talk.news(talk.settings.still_here_s))
            await asyncio.wait((reading, news), return_when=asyncio.FIRST_COMPLETED)
            if news.done():
                if news.result():
                    talk.told.clear()
                    await talk.poll(expunges=True)
                else:
                    talk.say("OK Still here.")
                    await talk.moved()
                    if talk.view is not None and talk.view.reader:
                        await talk.may_go_on()
                news = None
                await talk.flush()
            if reading.done():
                reading.result()
                reading = None
        return line
    finally:
        tasks = [task for task in (reading, news) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
