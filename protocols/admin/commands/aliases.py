"""Aliases: addresses that lead to others, here or elsewhere."""

from cluster.domain.directory import commands as directory
from cluster.domain.refusal import Refusal
from protocols.admin.commands.paging import page
from protocols.admin.door import Answer, Call, Door
from protocols.admin.model import Aliases, NewAlias, Paging


async def show_all(door: Door, call: Call) -> Answer:
    asked: Paging = call.query
    found = await door.administration.aliases(domain=asked.domain, after=asked.after, limit=asked.limit + 1)
    return found if isinstance(found, Refusal) else Aliases(*page(found, asked.limit, lambda alias: alias.address))


async def add(door: Door, call: Call) -> Answer:
    new: NewAlias = call.body
    done = await door.site.execute(call.actor, directory.AddAlias(new.address, new.targets))
    return done if isinstance(done, Refusal) else await door.administration.alias(new.address)


async def show(door: Door, call: Call) -> Answer:
    return await door.administration.alias(call.path["address"])


async def remove(door: Door, call: Call) -> Answer:
    done = await door.site.execute(call.actor, directory.RemoveAlias(call.path["address"]))
    return done if isinstance(done, Refusal) else None
