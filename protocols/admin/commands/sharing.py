"""Rights to the mailboxes of an account (RFC 4314), as an administrator sets them: also where the owner never signs in."""

from cluster.domain.mailbox import rights
from cluster.domain.mailbox.commands import SetRights
from cluster.domain.mailbox.events import FlagMode
from cluster.domain.refusal import Reason, Refusal
from protocols.admin.commands.moving import mailbox_of
from protocols.admin.door import Answer, Call, Door
from protocols.admin.sharing import MailboxRight, MailboxRights, NewRights
from protocols.port import Done

NO_RIGHTS = Refusal(Reason.NO_SUCH_ENTRY, "It has no rights to this mailbox.")


async def show(door: Door, call: Call) -> Answer:
    where = await mailbox_of(door, call)
    if isinstance(where, Refusal):
        return where
    moving, account, box = where
    known = await moving.people.entries(account, box.id)
    if isinstance(known, Refusal):
        return known
    return MailboxRights(tuple(MailboxRight(identifier, may) for identifier, may in known))


async def put(door: Door, call: Call) -> Answer:
    wanted: NewRights = call.body
    given = rights.parsed(wanted.rights)
    assert given is not None, "the door lets no other letters in"
    done = await _set(door, call, given)
    return done if isinstance(done, Refusal) else await show(door, call)


async def remove(door: Door, call: Call) -> Answer:
    done = await _set(door, call, "")
    return done if isinstance(done, Refusal) else None if done.position else NO_RIGHTS


async def forget(door: Door, call: Call, account: int) -> None:
    """Of an account that is not there any more: it is named at no mailbox. Where that fails, nobody is shown it or let in by it
    all the same."""
    if door.moving is None:
        return
    found = await door.moving.people.naming(str(account))
    for owner, mailbox in () if isinstance(found, Refusal) else found:
        for identifier in (str(account), rights.NEGATIVE + str(account)):
            await door.site.execute(call.actor, SetRights(owner, mailbox, identifier, FlagMode.REPLACE, ""))


async def _set(door: Door, call: Call, given: str) -> Done | Refusal:
    where = await mailbox_of(door, call)
    if isinstance(where, Refusal):
        return where
    moving, account, box = where
    identifier = await moving.people.identifier(call.path["identifier"])
    if isinstance(identifier, Refusal):
        return identifier
    return await door.site.execute(call.actor, SetRights(account, box.name, identifier, FlagMode.REPLACE, given))
