"""The arguments of NOTIFY (RFC 5465 §8)."""

from protocols.imap.fetch_grammar import ITEMS_MAX, item
from protocols.imap.grammar import Cursor
from protocols.imap.model import EventGroup, FetchItem, Notify, SyntaxRefused

GROUPS_MAX = 100
EVENTS_MAX = 50
OF_SELECTED = frozenset(("SELECTED", "SELECTED-DELAYED"))
ALONE = frozenset(("INBOXES", "PERSONAL", "SUBSCRIBED"))
WITH_NAMES = frozenset(("SUBTREE", "MAILBOXES"))
NEW, GONE, FLAGS = "MESSAGENEW", "MESSAGEEXPUNGE", "FLAGCHANGE"
BOTH = frozenset((NEW, GONE))
OF_MESSAGES = frozenset((NEW, GONE, FLAGS, "ANNOTATIONCHANGE"))


def notify(at: Cursor) -> Notify:
    at.space()
    word = at.word()
    if word == "NONE":
        return Notify(None)
    if word != "SET":
        raise at.fail("SET or NONE")
    at.space()
    status = at.peek_word() == "STATUS"
    if status:
        at.word()
        at.space()
    groups = [_group(at)]
    while at.took(b" "):
        groups.append(_group(at))
        if len(groups) > GROUPS_MAX:
            raise SyntaxRefused("too many groups of events", code="LIMIT")
    if sum(group.filter in OF_SELECTED for group in groups) > 1:
        raise SyntaxRefused("the selected mailbox twice")  # RFC 5465 §6.1
    return Notify(tuple(groups), status)


def _group(at: Cursor) -> EventGroup:
    at.need(b"(")
    word = at.word()
    if word not in OF_SELECTED | ALONE | WITH_NAMES:
        raise SyntaxRefused("no such filter of mailboxes")
    names: tuple[str, ...] = ()
    if word in WITH_NAMES:
        at.space()
        names = at.mailboxes()
    at.space()
    events, items = _events(at)
    at.need(b")")
    if events & OF_MESSAGES and not events >= BOTH:
        raise SyntaxRefused("MessageNew and MessageExpunge go together, and the others with both")  # RFC 5465 §5
    if word in OF_SELECTED and events - OF_MESSAGES:
        raise SyntaxRefused("the selected mailbox has events of messages only")  # RFC 5465 §6.1
    if items and word not in OF_SELECTED:
        raise SyntaxRefused("only of the selected mailbox can anything be fetched")  # RFC 5465 §5.2
    return EventGroup(word, names, events, items)


def _events(at: Cursor) -> tuple[frozenset[str], tuple[FetchItem, ...]]:
    """Also words that nobody knows: the command says which there are (RFC 5465 §5)."""
    if at.peek_word() == "NONE":
        at.word()
        return frozenset(), ()
    at.need(b"(")
    events: set[str] = set()
    items: list[FetchItem] = []
    for count in range(EVENTS_MAX):
        if count and not at.took(b" "):
            break
        events.add(word := at.word())
        if word == NEW and at.took(b" ("):
            items = _items(at)
    at.need(b")")
    return frozenset(events), tuple(items)


def _items(at: Cursor) -> list[FetchItem]:
    found = [item(at)]
    while at.took(b" "):
        found.append(item(at))
        if len(found) > ITEMS_MAX:
            raise SyntaxRefused("too many items")
    at.need(b")")
    return list({(one.word, one.label): one for one in found}.values())
