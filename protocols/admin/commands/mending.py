"""What a failover or a disk left to settle: reports of salvage, and the comparison of sites."""

from collections.abc import AsyncIterator

from cluster.domain.refusal import Reason, Refusal
from cluster.log.model import Record
from cluster.position import EPOCH_MAX, SEQUENCE_MAX, position, shown
from protocols.admin.commands.cluster import NO_CLUSTER
from protocols.admin.door import Answer, Call, Door
from protocols.admin.errors import of_refusal
from protocols.admin.model import (
    Event,
    Finished,
    Found,
    Report,
    Reports,
    ReportsWanted,
    Settle,
    Verify,
    VerifyLine,
    WaitingTail,
)
from protocols.admin.port import Finding, Logged
from protocols.admin.port import Report as Told
from protocols.admin.readable import moment, readable
from protocols.admin.streams import closed

NO_POSITION = Refusal(Reason.NO_SUCH_ENTRY, "A position is epoch.sequence, such as 3.1207.")
NO_EPOCH = Refusal(Reason.NO_SUCH_ENTRY, "An epoch is a number.")

SETTLE = "Then say `apply`; if nobody wants it, `dismiss`. Both only write down what was decided, and by whom."


async def show_all(door: Door, call: Call) -> Answer:
    asked: ReportsWanted = call.query
    if door.mending is None:
        return NO_CLUSTER
    found = await door.mending.salvaged(settled=asked.all)
    if isinstance(found, Refusal):
        return found
    tails = tuple(
        WaitingTail(
            tail.partition,
            tail.epoch,
            shown(tail.after),
            shown(tail.last),
            shown(max(tail.after, position(tail.epoch, tail.upto))),
        )
        for tail in found.waiting
    )
    return Reports(tuple(map(_report, found.reports)), tails, found.unread)


async def show(door: Door, call: Call) -> Answer:
    at = _position(call.path["position"])
    if door.mending is None or at is None:
        return NO_CLUSTER if door.mending is None else NO_POSITION
    found = await door.mending.report(call.path["partition"], at)
    return found if isinstance(found, Refusal) else _report(found)


async def settle(door: Door, call: Call) -> Answer:
    asked: Settle = call.body
    at = _position(call.path["position"])
    if door.mending is None or at is None:
        return NO_CLUSTER if door.mending is None else NO_POSITION
    found = await door.mending.settle(call.actor, call.path["partition"], at, applied=asked.state == "applied")
    return found if isinstance(found, Refusal) else _report(found)


async def give_up(door: Door, call: Call) -> Answer:
    epoch = call.path["epoch"]
    if door.mending is None:
        return NO_CLUSTER
    if not (epoch.isascii() and epoch.isdigit() and 0 < int(epoch[:8]) <= EPOCH_MAX):
        return NO_EPOCH
    return await door.mending.give_up(call.actor, call.path["partition"], int(epoch))


async def verify(door: Door, call: Call) -> AsyncIterator[VerifyLine]:
    asked: Verify = call.body
    if door.mending is None:
        yield of_refusal(NO_CLUSTER)
        return
    differs = unknown = compared = 0
    async with closed(door.mending.verify(asked.partitions, deep=asked.deep, heal=asked.heal)) as steps:
        async for step in steps:
            if isinstance(step, Refusal):
                yield of_refusal(step)
                return
            if isinstance(step, Finding):
                compared += 1
                differs += step.verdict == "differs" and not step.healed
                unknown += step.verdict == "unknown"
                yield _found(step)
            else:
                yield step
    yield Finished(f"{compared} compared, {differs} differ, {unknown} without an answer")


def _report(told: Told) -> Report:
    row = told.row
    event = _event(told)
    return Report(
        row.partition,
        shown(row.position),
        row.state,  # type: ignore[arg-type]  # one of the three by the table's own check
        row.what,
        row.why,
        told.whose,
        event.by if event is not None else "",
        moment(row.at),
        told.age_s,
        event,
        _advice(told),
    )


def _event(told: Told) -> Event | None:
    row = told.row
    if not row.event:
        return None
    return readable(Logged(row.partition, Record(row.position, row.noun, row.entity, row.event)))


def _advice(told: Told) -> tuple[str, ...]:
    """What an operator can do, by what it is about."""
    if told.row.state != "open":
        return (f"Nothing: it was {told.row.state}.",)
    match told.row.noun:
        case "mailbox":
            who = told.whose or "whose account it was"
            return (f"Ask {who} whether it is still wanted, and have it done again with any mail program.", SETTLE)
        case "directory":
            return (
                "Look at what stands there now, and do it again with `angarium domain`, `account`, `alias` or `group`.",
                SETTLE,
            )
        case "outbox":
            return ("Ask the sender whether the message arrived, and have it sent again if not.", SETTLE)
        case _:
            return ("A later release may know what it is: leave it open until then.", SETTLE)


def _found(finding: Finding) -> Found:
    return Found(
        finding.partition,
        finding.site,
        finding.verdict,  # type: ignore[arg-type]  # one of the four, as Finding says
        shown(finding.upto),
        None if finding.first is None else shown(finding.first),
        finding.what,
        finding.why,
        finding.healed,
    )


def _position(text: str) -> int | None:
    epoch, _, sequence = text.partition(".")
    if not all(part.isascii() and part.isdigit() and len(part) <= 13 for part in (epoch, sequence)):
        return None
    if int(epoch) > EPOCH_MAX or int(sequence) > SEQUENCE_MAX:
        return None
    return position(int(epoch), int(sequence))
