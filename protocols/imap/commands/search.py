"""SEARCH (RFC 9051 §6.4.4) with RETURN (RFC 4731), SAVE (RFC 5182), PARTIAL (RFC 9394), UPDATE (RFC 5267 §4), MODSEQ (RFC 7162 §3.1.5)."""

from array import array

from protocols.imap import results
from protocols.imap.contexts import CONTEXTS_MAX, Context
from protocols.imap.finding import find
from protocols.imap.model import Reply, Request, Search
from protocols.imap.results import Results
from protocols.imap.state import Talk

HINTS = frozenset(("CONTEXT", "UPDATE"))  # RFC 5267 §4: of these nothing is in the answer itself
SEARCHED = Reply("OK", "Searched.")


async def search(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Search)
    if given.charset and "UTF8=ACCEPT" in talk.enabled:
        return Reply("BAD", "With UTF8=ACCEPT no charset is named.")  # RFC 9755 §3
    updated = given.returns is not None and "UPDATE" in given.returns
    if updated and request.tag in talk.contexts:
        return Reply("BAD", "A search of this tag goes on.")  # RFC 5267 §4.3
    found = await find(talk, request.tag, given)
    if isinstance(found, Reply):
        return failed(talk, given, found)
    # RFC 9051 §7.3.4: in revision 2 the answer is ESEARCH, as if RETURN (ALL) was said
    returns = given.returns if given.returns is not None else (frozenset(("ALL",)) if talk.revision_2 else None)
    if returns is None:
        view = talk.mailbox()
        numbers = [view.uids[place] for place in found.places] if given.uid else [place + 1 for place in found.places]
        modseq = f" (MODSEQ {max(found.modseqs.values())})" if found.modseqs else ""
        talk.say("SEARCH" + "".join([f" {number}" for number in numbers]) + modseq)
    else:
        tell(talk, request.tag, given, returns, Results(found.places, found.modseqs))
    if updated and len(talk.contexts) < CONTEXTS_MAX:
        talk.contexts[request.tag] = Context(talk, request.tag, found, given.uid)
    elif updated:
        say_no_update(talk, request.tag)
    return SEARCHED


def say_no_update(talk: Talk, tag: str) -> None:
    """RFC 5267 §4.3.1."""
    talk.say(f'NO [NOUPDATE "{tag}"] What changes of it is not told.')


def tell(talk: Talk, tag: str, given: Search, returns: frozenset[str], found: Results) -> None:
    view = talk.mailbox()
    if "SAVE" in returns:
        results.save(view, found, returns, given.partial)
        if returns - HINTS == {"SAVE"}:
            return  # RFC 5182 §2.1: only the result variable was asked for
    talk.say(results.line(view, f'TAG "{tag}"', given.uid, returns, given.partial, found))


def failed(talk: Talk, given: Search, reply: Reply) -> Reply:
    if given.returns is not None and "SAVE" in given.returns:
        talk.mailbox().saved = array("I")  # RFC 5182 §2.1: a NO empties "$"
    return reply
