"""STATUS (RFC 9051 §6.3.11; RFC 7162 §3.1.7, RFC 8438, RFC 8474 §4.3, RFC 7889 §5, RFC 9208 §4.1.4 for the items they add)."""

from cluster.domain.mailbox import ranges, rights
from cluster.domain.refusal import Reason, Refusal
from protocols.imap.commands.create import mailbox_id
from protocols.imap.errors import refused
from protocols.imap.model import Reply, Request
from protocols.imap.model import Status as Asked
from protocols.imap.naming import named
from protocols.imap.state import Talk
from protocols.port import Named, SiteUnavailable, Status


async def status(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Asked)
    place = await named(talk, given.mailbox, rights.READ)
    if isinstance(place, Refusal):
        return refused(place)
    found = await talk.site.mailbox(place.account, place.name)
    if isinstance(found, Refusal):
        return refused(found)
    known = await talk.site.status(place.account, (found.id,), reader=place.reader)
    if isinstance(known, Refusal):
        return refused(known)
    if not known:
        return refused(Refusal(Reason.NO_SUCH_MAILBOX))
    if "HIGHESTMODSEQ" in given.items:
        talk.enable("CONDSTORE")  # RFC 7162 §3.1
    talk.say(await line(talk, place, known[0], given.items))
    return Reply("OK", "So it stands.")


async def line(talk: Talk, place: Named, known: Status, items: tuple[str, ...]) -> bytes:
    """The untagged STATUS, of the items in the order asked. `place`: of some mailbox of the same owner."""
    words: list[str] = []
    for item in items:
        if item == "RECENT":
            words.append(f"RECENT {await _recent(talk, place, known)}")
        elif item == "MAILBOXID":
            words.append(f"MAILBOXID ({mailbox_id(known.mailbox.id)})")
        elif item == "APPENDLIMIT":
            words.append(f"APPENDLIMIT {talk.settings.message_bytes_max}")
        elif item == "DELETED-STORAGE":
            words.append(f"DELETED-STORAGE {await _deleted_storage(talk, place, known)}")
        else:
            words.append(f"{item} {_number(known, item)}")
    return b"STATUS " + talk.name(place.prefix + known.mailbox.name) + f" ({' '.join(words)})".encode("ascii")


def _number(known: Status, item: str) -> int:
    match item:
        case "MESSAGES":
            return known.messages
        case "UIDNEXT":
            return known.uidnext
        case "UIDVALIDITY":
            return known.mailbox.uidvalidity
        case "UNSEEN":
            return known.unseen
        case "DELETED":
            return known.deleted
        case "SIZE":
            return known.size
        case "HIGHESTMODSEQ":
            return known.highestmodseq
    raise AssertionError(item)


async def _deleted_storage(talk: Talk, place: Named, known: Status) -> int:
    """RFC 9208 §4.1.4: bytes that EXPUNGE would free. Raises SiteUnavailable."""
    if not known.deleted:
        return 0
    found = await talk.site.deleted_storage(place.account, known.mailbox.id)
    if isinstance(found, Refusal):
        raise SiteUnavailable(found.text)
    return found


async def _recent(talk: Talk, place: Named, known: Status) -> int:
    """RFC 3501 §6.3.10; counted only where something is."""
    if place.reader or known.recent_from >= known.uidnext:
        return 0
    rows = await talk.site.flags(place.account, known.mailbox.id, ((known.recent_from, ranges.UID_MAX),))
    return 0 if isinstance(rows, Refusal) else len(rows)
