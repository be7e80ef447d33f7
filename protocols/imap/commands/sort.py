"""SORT and THREAD (RFC 5256), SORT=DISPLAY (RFC 5957), ESORT (RFC 5267 §3). From rows and descriptions, never from bytes."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from cluster.formats.threads import References, ordered_subject
from protocols.imap import sorting
from protocols.imap.commands.search import failed, say_no_update, tell
from protocols.imap.finding import Found, find
from protocols.imap.model import Reply, Request, Sort, Thread
from protocols.imap.progress import Progress
from protocols.imap.results import Results
from protocols.imap.state import Talk
from protocols.imap.view import spans_of
from protocols.port import Message

HERE_MAX = 5_000  # more messages are put in order in a thread, so that other sessions are answered meanwhile


async def sort(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Sort)
    wanted, view = given.search, talk.mailbox()
    found = await find(talk, request.tag, wanted)
    if isinstance(found, Reply):
        return failed(talk, wanted, found)
    pairs: list[tuple[int, tuple[sorting.Value, ...]]] = []
    async for place, row in _rows(talk, request.tag, found, described=sorting.needs_description(given.keys)):
        pairs.append((place, sorting.values(row, given.keys)))
    if len(pairs) > HERE_MAX:
        places = await asyncio.to_thread(sorting.in_order, pairs, given.keys)
    else:
        places = sorting.in_order(pairs, given.keys)
    if wanted.returns is not None:
        tell(talk, request.tag, wanted, wanted.returns, Results(places, found.modseqs, ordered=True))
        if "UPDATE" in wanted.returns:
            say_no_update(talk, request.tag)
        return Reply("OK", "Sorted.")
    numbers = [view.uids[place] for place in places] if wanted.uid else [place + 1 for place in places]
    # RFC 7162 §3.1.6
    modseq = f" (MODSEQ {max(found.modseqs.values())})" if found.modseqs and numbers else ""
    talk.say("SORT" + "".join([f" {number}" for number in numbers]) + modseq)
    return Reply("OK", "Sorted.")


async def thread(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Thread)
    found = await find(talk, request.tag, given.search)
    if isinstance(found, Reply):
        return found
    many = len(found.places) > HERE_MAX
    references, messages = References(), []
    async for place, row in _rows(talk, request.tag, found, described=True):
        number = row.uid if given.search.uid else place + 1
        one = sorting.threadable(row, number)
        if given.algorithm == "REFERENCES":
            references.add(one)
        else:
            messages.append(one)

    def text() -> str:
        forest = references.threads() if given.algorithm == "REFERENCES" else ordered_subject(messages)
        return forest.text()

    threads = await asyncio.to_thread(text) if many else text()
    talk.say(f"THREAD {threads}" if threads else "THREAD")
    return Reply("OK", "Threaded.")


async def _rows(talk: Talk, tag: str, found: Found, *, described: bool) -> AsyncIterator[tuple[int, Message]]:
    """Of what was found, in mailbox order, with their places; what was expunged meanwhile is left out where it is gone."""
    view, places = talk.mailbox(), found.places
    progress = Progress(talk, tag, len(places))
    wanted: Sequence[tuple[int, int]] = view.ranges(spans_of(places))
    there = {view.uids[place]: place for place in places}
    async for batch in talk.site.messages(view.account, view.mailbox, tuple(wanted), described=described, reader=view.reader):
        for row in batch:
            place = there.get(row.uid)
            if place is not None:
                yield place, row
        await progress.made(len(batch))
        await asyncio.sleep(0)
