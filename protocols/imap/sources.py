"""Which mailboxes a filter names (RFC 5465 §6, RFC 7377 §2.2)."""

from collections.abc import Collection, Iterable

import msgspec

from cluster.domain.mailbox import names, rights
from cluster.domain.refusal import Refusal
from protocols.imap.state import Talk
from protocols.port import Mailbox, Named

Sources = Iterable[tuple[str, tuple[str, ...]]]  # filter in upper case, mailboxes as they were said


class Candidate(msgspec.Struct, frozen=True):
    """A mailbox that somebody may look up. `name`: as the client says it."""

    place: Named
    mailbox: Mailbox
    name: str
    subscribed: bool


async def candidates(
    talk: Talk, sources: Sources, needed: str = rights.LOOKUP + rights.READ
) -> list[Candidate] | Refusal:
    """One's own, and those of others in which one has the rights needed, where these could be named."""
    mailboxes = await talk.site.mailboxes(talk.who())
    if isinstance(mailboxes, Refusal):
        return mailboxes
    found = [Candidate(Named(talk.who(), one.name), one, one.name, one.subscribed) for one in mailboxes]
    wanted = {name for _, given in sources for name in given}
    subscribed: set[str] = set()
    if any(word == "SUBSCRIBED" for word, _ in sources):
        known = await talk.site.subscriptions(talk.who())
        if isinstance(known, Refusal):
            return known
        subscribed.update(known)
    in_anothers = talk.view is not None and talk.view.reader and any(word == "SELECTED" for word, _ in sources)
    if in_anothers or any(map(names.is_elsewhere, wanted | subscribed)):
        others = await talk.site.others(talk.who())
        if isinstance(others, Refusal):
            return others
        # RFC 7377 §2.2: where one may not read nothing is searched, and nothing is said of it
        found += [
            Candidate(place, one, place.shown, place.shown in subscribed)
            for place, one in others
            if place.may(needed)
        ]
    return found


def fits(name: str, word: str, asked: Collection[str], *, personal: bool, subscribed: bool) -> bool:
    """`name`: as the client says it; so are those `asked` for, in canonical form."""
    match word:
        case "INBOXES":
            return name == names.INBOX  # where mail is delivered
        case "PERSONAL":
            return personal
        case "SUBSCRIBED":
            return subscribed
        case "MAILBOXES":
            return name in asked
    if word not in ("SUBTREE", "SUBTREE-ONE"):
        return False
    above = names.superiors(name)
    return name in asked or any(one in asked for one in (above[-1:] if word == "SUBTREE-ONE" else above))
