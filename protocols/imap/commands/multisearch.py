"""ESEARCH in several mailboxes (RFC 7377). One after the other; what is selected stays so."""

from collections.abc import Iterable

import msgspec

from cluster.domain.mailbox import names
from cluster.domain.refusal import Refusal
from protocols.imap import results
from protocols.imap.commands.search import HINTS, SEARCHED, failed, say_no_update
from protocols.imap.errors import refused
from protocols.imap.finding import find
from protocols.imap.model import MultiSearch, Reply, Request
from protocols.imap.progress import Progress
from protocols.imap.results import Results
from protocols.imap.sources import Candidate, candidates, fits
from protocols.imap.state import Talk
from protocols.imap.view import NOTHING_RECENT, View
from protocols.port import Named, Status

SELECTED = (("SELECTED", ()),)
ALL = frozenset(("ALL",))


async def multisearch(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, MultiSearch)
    search, sources = given.search, given.sources or SELECTED  # RFC 7377 §2.2
    returns = search.returns or ALL
    if search.charset and "UTF8=ACCEPT" in talk.enabled:
        return Reply("BAD", "With UTF8=ACCEPT no charset is named.")  # RFC 9755 §3
    if talk.view is None and any(word == "SELECTED" for word, _ in sources):
        return Reply("BAD", "Select a mailbox first.")
    if "SAVE" in returns and sources != SELECTED:
        return Reply("BAD", "Only what is found in the selected mailbox can be saved.")  # RFC 7377 §2.2
    chosen = await _chosen(talk, sources)
    if isinstance(chosen, Refusal):
        return failed(talk, search, refused(chosen))
    if "SAVE" in returns:
        # RFC 5182 §2.1: "$" is empty where nothing is found, too
        results.save(talk.mailbox(), Results((), {}), returns, search.partial)
    progress = Progress(talk, request.tag, sum(one.status.messages for one in chosen))
    for one in chosen:
        view = await _view(talk, one)
        if view is None:
            continue
        found = await find(talk, request.tag, search, view, progress)
        if isinstance(found, Reply):
            return failed(talk, search, found)
        if not found.places:
            continue  # RFC 7377 §2.1: not even a COUNT of 0 is told
        here = Results(found.places, found.modseqs)
        if "SAVE" in returns:
            results.save(view, here, returns, search.partial)
        if returns - HINTS != {"SAVE"}:
            mailbox = talk.name(view.name).decode("utf-8")
            correlator = f'TAG "{request.tag}" MAILBOX {mailbox} UIDVALIDITY {view.uidvalidity}'
            talk.say(results.line(view, correlator, True, returns, search.partial, here).encode("utf-8"))
            await talk.flush()
    if "UPDATE" in returns:
        say_no_update(talk, request.tag)
    return SEARCHED


class Chosen(msgspec.Struct, frozen=True):
    place: Named
    status: Status


async def _view(talk: Talk, one: Chosen) -> View | None:
    """None: it went away meanwhile."""
    mailbox, place = one.status.mailbox, one.place
    if talk.view is not None and talk.view.mailbox == mailbox.id:
        return talk.view
    found = await talk.site.select(place.account, mailbox.name, reader=place.reader)
    if isinstance(found, Refusal) or found.status.mailbox.id != mailbox.id:
        return None
    known = found.status
    return View(
        known.mailbox.id,
        place.prefix + known.mailbox.name,
        found.uids,
        known.highestmodseq,
        uidvalidity=known.mailbox.uidvalidity,
        whose=place,
        selected=False,
        recent_from=NOTHING_RECENT if place.reader else known.recent_from,
    )


async def _chosen(talk: Talk, sources: Iterable[tuple[str, tuple[str, ...]]]) -> list[Chosen] | Refusal:
    """The mailboxes named that hold anything, each once, in the order of LIST. Those that are not there are passed over."""
    known = await candidates(talk, sources)
    if isinstance(known, Refusal):
        return known
    wanted: set[int] = set()
    for word, given in sources:
        asked = {names.canonical(name) for name in given}
        wanted.update(one.mailbox.id for one in known if _fits(talk, one, word, asked))
    return await _filled(talk, [one for one in known if one.mailbox.id in wanted])


async def _filled(talk: Talk, chosen: list[Candidate]) -> list[Chosen] | Refusal:
    own = talk.view.mailbox if talk.view is not None else 0
    by_owner: dict[tuple[int, str], list[Candidate]] = {}
    for one in chosen:
        by_owner.setdefault((one.place.account, one.place.prefix), []).append(one)
    filled: list[Chosen] = []
    for theirs in by_owner.values():
        place = theirs[0].place
        known = await talk.site.status(place.account, [one.mailbox.id for one in theirs], reader=place.reader)
        if isinstance(known, Refusal):
            return known
        filled += [Chosen(place, one) for one in known if one.messages or one.mailbox.id == own]
    return filled


def _fits(talk: Talk, one: Candidate, word: str, asked: set[str]) -> bool:
    if word == "SELECTED":
        return talk.view is not None and talk.view.mailbox == one.mailbox.id
    return fits(one.name, word, asked, personal=not one.place.reader, subscribed=one.subscribed)
