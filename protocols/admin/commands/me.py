"""What people settle for themselves, with their own credentials: nothing that anybody else would notice."""

from msgspec import UNSET

from cluster.domain.directory import commands as directory
from cluster.domain.refusal import Refusal
from protocols.admin.door import Answer, Call, Door
from protocols.admin.model import Me, MyChange


async def show(door: Door, call: Call) -> Answer:
    row = await door.administration.account(call.actor.name)
    if isinstance(row, Refusal):
        return row
    return Me(row.address, row.name, row.pop3_since, row.file_sent)


async def change(door: Door, call: Call) -> Answer:
    wanted: MyChange = call.body
    command = directory.ChangeAccount(
        call.actor.name,
        pop3_since=None if wanted.pop3_since is UNSET else wanted.pop3_since,
        file_sent=None if wanted.file_sent is UNSET else wanted.file_sent,
    )
    done = await door.site.execute(call.actor, command)
    return done if isinstance(done, Refusal) else await show(door, call)
