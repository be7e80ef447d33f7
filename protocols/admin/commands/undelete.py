"""Mail that was expunged: what of an account's can be restored, and restoring it (ops/decisions/undelete.md)."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from cluster.domain.mailbox import commands as mailbox
from cluster.domain.mailbox import names, ranges
from cluster.domain.refusal import Reason, Refusal
from cluster.formats import mime
from protocols.admin.commands.moving import account_of
from protocols.admin.door import Answer, Call, Door
from protocols.admin.errors import of_refusal
from protocols.admin.model import Finished
from protocols.admin.moving import Moving
from protocols.admin.undeleting import Expunged, ExpungedLine, Restore, Restored, Wanted
from protocols.port import Mailbox, Message, SiteUnavailable

SHOWN_CHARS_MAX = 200  # of a subject, of a sender
_descriptions = msgspec.msgpack.Decoder(mime.Description)


async def show_all(door: Door, call: Call) -> AsyncIterator[ExpungedLine]:
    asked: Wanted = call.query
    found = await account_of(door, call)
    if isinstance(found, Refusal):
        yield of_refusal(found)
        return
    moving, account = found
    boxes = await moving.people.expunged(account)
    if isinstance(boxes, Refusal):
        yield of_refusal(boxes)
        return
    count = 0
    try:
        for box in boxes:
            if asked.mailbox not in ("", own_name(box)):
                continue
            async for row in _rows(moving, account, box, asked):
                count += 1
                yield row
    except SiteUnavailable as error:
        yield of_refusal(Refusal(Reason.UNAVAILABLE, str(error)))
        return
    yield Finished(f"{count} messages can be restored")


async def restore(door: Door, call: Call) -> Answer:
    asked: Restore = call.body
    found = await account_of(door, call)
    if isinstance(found, Refusal):
        return found
    moving, account = found
    into = asked.into
    if not into:
        boxes = await moving.people.expunged(account)
        if isinstance(boxes, Refusal):
            return boxes
        into = next((own_name(box) for box in boxes if box.id == -int(asked.mailbox)), names.INBOX)
    ids = tuple(door.site.world.new_id() for _ in range(names.levels(into)))
    places = ranges.limit(ranges.normalise(asked.places), 1, ranges.UID_MAX)
    command: Any = mailbox.RestoreMessages(account, int(asked.mailbox), places, into, ids)
    done = await door.site.execute(call.actor, command)
    return done if isinstance(done, Refusal) else Restored(len(done.uids), names.wanted(into))


async def _rows(moving: Moving, account: int, box: Mailbox, asked: Wanted) -> AsyncIterator[Expunged]:
    """Raises SiteUnavailable."""
    wanted = asked.subject.casefold()
    async for batch in moving.people.messages(account, box.id, ranges.EVERY_UID, described=True):
        for message in batch:
            row = _row(box, message)
            if message.saved_at >= asked.since and wanted in row.subject.casefold():
                yield row


def _row(box: Mailbox, message: Message) -> Expunged:
    envelope = _descriptions.decode(message.description).envelope
    return Expunged(
        str(-box.id),
        box.name,
        message.uid,
        mime.decode_words(envelope.subject or b"")[:SHOWN_CHARS_MAX],
        _sender(envelope)[:SHOWN_CHARS_MAX],
        message.size,
        message.internal_at,
        message.saved_at,
    )


def _sender(envelope: mime.Envelope) -> str:
    for one in envelope.from_:
        if one.mailbox and one.host:
            return f"{one.mailbox.decode(errors='replace')}@{one.host.decode(errors='replace')}"
    return ""


def own_name(box: Mailbox) -> str:
    """The name that it has or had: without what tells a deleted one apart."""
    return box.name.removeprefix(names.EXPUNGED + names.SEPARATOR).removesuffix(f" ({box.uidvalidity})")
