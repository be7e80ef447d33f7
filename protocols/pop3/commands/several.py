"""Answers of as many lines as there are messages."""

from collections.abc import Iterable
from itertools import islice

from protocols.pop3 import writer
from protocols.pop3.state import Talk

LINES_AT_ONCE = 1000


async def several(talk: Talk, texts: Iterable[str]) -> None:
    """In portions, so that other sessions are answered in between and the client's pace is kept."""
    left = iter(texts)
    while portion := list(islice(left, LINES_AT_ONCE)):
        talk.put(writer.lines(portion))
        await talk.flush()
    talk.put(writer.END)
