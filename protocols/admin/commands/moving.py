"""An account's mailboxes, and mail that is brought into them from another system."""

from collections.abc import AsyncIterator
from typing import Any, cast

from cluster.domain.mailbox import commands as mailbox
from cluster.domain.mailbox import names
from cluster.domain.mailbox.events import SYSTEM_FLAGS
from cluster.domain.refusal import Reason, Refusal
from protocols.admin.door import Answer, Call, Door
from protocols.admin.errors import Fault, of_fault, of_refusal
from protocols.admin.framing import Frames, Malformed
from protocols.admin.model import Finished
from protocols.admin.moving import (
    CONTENTS_PER_LINE_MAX,
    MESSAGES_PER_REQUEST_MAX,
    Announced,
    Appended,
    Command,
    Contents,
    ContentsLine,
    Mailboxes,
    MailboxShown,
    Moving,
    NewMailbox,
    Refused,
)
from protocols.port import Ingest, Mailbox, SiteUnavailable, Status
from storage.moving_in import Brought, Place

NOT_HERE = Refusal(Reason.UNAVAILABLE, "Behind this door there is no mail.")
NO_SUCH_MAILBOX = Refusal(Reason.NO_SUCH_MAILBOX, "There is no such mailbox.")
NUL_BYTES = "it has NUL bytes, which no client could be given again"  # RFC 9051 §4.3: only literal8 carries them
ID_MAX = 2**63 - 1
EMPTY = "it has no bytes"  # RFC 3502 §6.3.11


async def show_all(door: Door, call: Call) -> Answer:
    found = await account_of(door, call)
    if isinstance(found, Refusal):
        return found
    moving, account = found
    statuses = await _statuses(moving, account)
    return statuses if isinstance(statuses, Refusal) else Mailboxes(tuple(map(_shown, statuses)))


async def add(door: Door, call: Call) -> Answer:
    """The mailbox of that name, made if it is not there. A use that another mailbox has already is not given twice."""
    found = await account_of(door, call)
    if isinstance(found, Refusal):
        return found
    moving, account = found
    new: NewMailbox = call.body
    name = names.wanted(new.name)
    statuses = await _statuses(moving, account)
    if isinstance(statuses, Refusal):
        return statuses
    if there := [status for status in statuses if status.mailbox.name == name]:
        return _shown(there[0])
    use = "" if any(status.mailbox.special_use == new.special_use for status in statuses) else new.special_use
    ids = tuple(door.site.world.new_id() for _ in range(names.levels(name)))
    commands: list[Any] = [mailbox.CreateMailbox(account, name, ids, use)]
    if new.subscribed:
        commands.append(mailbox.Subscribe(account, name, True))
    for command in commands:
        done = await door.site.execute(call.actor, command)
        if isinstance(done, Refusal) and done.reason not in (Reason.MAILBOX_EXISTS, Reason.NOT_SHOWN_YET):
            return done
    statuses = await _statuses(moving, account)
    if isinstance(statuses, Refusal):
        return statuses
    there = [status for status in statuses if status.mailbox.name == name]
    return _shown(there[0]) if there else Refusal(Reason.NOT_SHOWN_YET, "It is made, and cannot be shown yet.", (name,))


async def contents(door: Door, call: Call) -> AsyncIterator[ContentsLine]:
    where = await mailbox_of(door, call)
    if isinstance(where, Refusal):
        yield of_refusal(where)
        return
    moving, account, box = where
    count = 0
    try:
        async for batch in moving.appending.contents(account, box.id):
            count += len(batch)
            for start in range(0, len(batch), CONTENTS_PER_LINE_MAX):
                yield Contents(tuple((hash.hex(), at) for hash, at in batch[start : start + CONTENTS_PER_LINE_MAX]))
    except SiteUnavailable as error:
        yield of_refusal(Refusal(Reason.UNAVAILABLE, str(error)))
        return
    yield Finished(f"{count} messages")


async def append(door: Door, call: Call) -> Answer:
    """All of the request's messages that can be taken, in their order; those that cannot are told one by one."""
    where = await mailbox_of(door, call)
    if isinstance(where, Refusal):
        return where
    moving, account, box = where
    command: Command = call.query
    taken = Taken(moving)
    try:
        await taken.read(Frames(cast(AsyncIterator[bytes], call.body)))
        if not taken.brought:
            return Appended(False, tuple(taken.refused))
        command_id = bytes.fromhex(command.command)
        place = Place(account, box.id, box.name)
        done = await moving.appending.append(call.actor, place, taken.brought, command_id, shown=command.shown)
        return done if isinstance(done, Refusal) else Appended(done, tuple(taken.refused))
    except Malformed as error:
        return of_fault(Fault.MALFORMED, str(error))
    finally:
        for one in taken.brought:
            one.spooled.release()


class Taken:
    """The messages of a request as they were read."""

    def __init__(self, moving: Moving) -> None:
        self.brought: list[Any] = []
        self.refused: list[Refused] = []
        self._moving = moving

    async def read(self, frames: Frames) -> None:
        """Raises Malformed."""
        number = 0
        while (announced := await frames.announced()) is not None:
            if number == MESSAGES_PER_REQUEST_MAX:
                raise Malformed(f"more than {MESSAGES_PER_REQUEST_MAX} messages in one request")
            ingest = self._moving.people.ingest(self._moving.message_bytes_max)
            try:
                taken = await self._one(frames, announced, ingest)
            finally:
                ingest.abandon()
            if isinstance(taken, Refusal):
                self.refused.append(Refused(number, taken.reason.value, taken.text))
            else:
                self.brought.append(taken)
            number += 1

    async def _one(self, frames: Frames, announced: Announced, ingest: Ingest) -> Brought | Refusal:
        """Read to its end in any case. Raises Malformed."""
        nul = False
        async for piece in frames.pieces():
            nul = nul or b"\0" in piece
            await ingest.feed(piece)
        flags = 0
        for flag in announced.flags:
            flags |= SYSTEM_FLAGS.get(flag, 0)
        keywords = names.keywords(announced.keywords)
        if isinstance(keywords, Refusal):
            return keywords
        if nul or not announced.size:
            return Refusal(Reason.NOT_PERMITTED, NUL_BYTES if nul else EMPTY)
        if announced.size > self._moving.message_bytes_max:
            limit = self._moving.message_bytes_max
            return Refusal(
                Reason.TOO_BIG, f"it has {announced.size} bytes, where {limit} is the most (limits.message_bytes_max)"
            )
        spooled = await ingest.finish()
        if isinstance(spooled, Refusal):
            return spooled
        at, zone = announced.internal_at, announced.internal_zone
        return Brought(cast(Any, spooled), at, zone, flags, keywords)


async def account_of(door: Door, call: Call) -> tuple[Moving, int] | Refusal:
    if door.moving is None:
        return NOT_HERE
    row = await door.administration.account(call.path["address"])
    return row if isinstance(row, Refusal) else (door.moving, row.id)


async def mailbox_of(door: Door, call: Call) -> tuple[Moving, int, Mailbox] | Refusal:
    """Whose, and which, a path names."""
    found = await account_of(door, call)
    if isinstance(found, Refusal):
        return found
    moving, account = found
    text = call.path["mailbox"]
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= ID_MAX):
        return NO_SUCH_MAILBOX
    box = await moving.appending.mailbox(account, int(text))
    return box if isinstance(box, Refusal) else (moving, account, box)


async def _statuses(moving: Moving, account: int) -> list[Status] | Refusal:
    boxes = await moving.people.mailboxes(account)
    return boxes if isinstance(boxes, Refusal) else await moving.people.status(account, [box.id for box in boxes])


def _shown(status: Status) -> MailboxShown:
    box = status.mailbox
    return MailboxShown(str(box.id), box.name, box.special_use, box.subscribed, box.uidvalidity, status.messages)
