"""Sites join by a token and are shut out. See protocols/admin/joining.py."""

from protocols.admin.door import Answer, Call, Door
from protocols.admin.joining import NO_JOINING


async def token(door: Door, call: Call) -> Answer:
    return NO_JOINING if door.joining is None else await door.joining.token(call.actor, call.body)


async def add_site(door: Door, call: Call) -> Answer:
    """The same, under the name by which it is looked for."""
    return await token(door, call)


async def hello(door: Door, call: Call) -> Answer:
    return NO_JOINING if door.joining is None else await door.joining.hello()


async def join(door: Door, call: Call) -> Answer:
    return NO_JOINING if door.joining is None else await door.joining.join(call.actor, call.body)


async def revoke(door: Door, call: Call) -> Answer:
    return NO_JOINING if door.joining is None else await door.joining.revoke(call.actor, call.path["site"])
