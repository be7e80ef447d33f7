"""CREATE (RFC 9051 §6.3.4) with USE (RFC 6154 §3), DELETE (§6.3.5), RENAME (§6.3.6)."""

from cluster.domain.mailbox import names, rights
from cluster.domain.mailbox.commands import CreateMailbox, DeleteMailbox, RenameMailbox
from cluster.domain.refusal import Refusal
from protocols.imap.errors import refused
from protocols.imap.model import Create, Name, Rename, Reply, Request
from protocols.imap.naming import named
from protocols.imap.state import Talk

LEVELS_MAX = names.DEPTH_LEVELS_MAX + 1  # ids that are drawn for a name that will be refused anyway


async def create(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Create)
    if len(given.special_uses) > 1:
        return Reply("NO", "A mailbox has one special use here.", "USEATTR")
    use = given.special_uses[0] if given.special_uses else ""
    place = await named(talk, given.mailbox)
    if isinstance(place, Refusal):
        return refused(place)
    ids = _ids(talk, place.name)
    done = await talk.site.execute(talk.actor, CreateMailbox(place.account, place.name, ids, use))
    if isinstance(done, Refusal):
        return refused(done)
    # RFC 8474 §4.1
    return Reply("OK", "Created.", f"MAILBOXID ({mailbox_id(ids[names.levels(place.name) - 1])})")


async def delete(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Name)
    place = await named(talk, given.mailbox, rights.DELETE)
    if isinstance(place, Refusal):
        return refused(place)
    done = await talk.site.execute(talk.actor, DeleteMailbox(place.account, place.name))
    if isinstance(done, Refusal):
        return refused(done)
    view = talk.view
    if view is not None and place.shown == view.name:
        await talk.deselect()
        talk.say("OK [CLOSED] The selected mailbox is deleted.")
    return Reply("OK", "Deleted.")


async def rename(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Rename)
    was, becomes = await named(talk, given.old, rights.DELETE), await named(talk, given.new)
    if isinstance(was, Refusal):
        return refused(was)
    if isinstance(becomes, Refusal):
        return refused(becomes)
    if was.account != becomes.account:
        return Reply("NO", "A mailbox stays with its owner: copy what is in it.", "CANNOT")
    command = RenameMailbox(was.account, was.name, becomes.name, _ids(talk, becomes.name))
    done = await talk.site.execute(talk.actor, command)
    if isinstance(done, Refusal):
        return refused(done)
    view, old, new = talk.view, was.shown, names.wanted(becomes.shown)
    if view is not None and was.name != names.INBOX and (view.name == old or names.is_beneath(view.name, old)):
        view.name = new + view.name[len(old) :]
    return Reply("OK", "Renamed.")


def _ids(talk: Talk, name: str) -> tuple[int, ...]:
    return tuple(talk.site.world.new_id() for _ in range(min(names.levels(name), LEVELS_MAX)))


def mailbox_id(mailbox: int) -> str:
    """RFC 8474 §4: an objectid, that is letters, digits, "_" and "-"."""
    return f"M{mailbox:x}"
