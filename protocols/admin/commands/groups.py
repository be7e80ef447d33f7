"""Groups: addresses whose mail goes to all members, which may be groups too."""

from cluster.domain.directory import commands as directory
from cluster.domain.refusal import Refusal
from protocols.admin.commands.paging import page
from protocols.admin.door import Answer, Call, Door
from protocols.admin.model import Groups, Members, MembersChange, NewGroup, Paging


async def show_all(door: Door, call: Call) -> Answer:
    asked: Paging = call.query
    found = await door.administration.groups(domain=asked.domain, after=asked.after, limit=asked.limit + 1)
    return found if isinstance(found, Refusal) else Groups(*page(found, asked.limit, lambda group: group.address))


async def add(door: Door, call: Call) -> Answer:
    new: NewGroup = call.body
    done = await door.site.execute(call.actor, directory.AddGroup(new.address, new.name, new.members))
    return done if isinstance(done, Refusal) else await door.administration.group(new.address)


async def show(door: Door, call: Call) -> Answer:
    return await door.administration.group(call.path["address"])


async def remove(door: Door, call: Call) -> Answer:
    done = await door.site.execute(call.actor, directory.RemoveGroup(call.path["address"]))
    return done if isinstance(done, Refusal) else None


async def members(door: Door, call: Call) -> Answer:
    group = await door.administration.group(call.path["address"])
    return group if isinstance(group, Refusal) else Members(group.members)


async def change_members(door: Door, call: Call) -> Answer:
    wanted: MembersChange = call.body
    command = directory.ChangeGroupMembers(call.path["address"], wanted.add, wanted.remove)
    done = await door.site.execute(call.actor, command)
    return done if isinstance(done, Refusal) else await members(door, call)
