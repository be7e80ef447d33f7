"""The log to look at, the state of the site, and long work. Each stream tells its own end (`finished`) or a problem."""

from collections import deque
from collections.abc import AsyncIterator

from cluster.domain.refusal import Reason, Refusal
from cluster.position import position, shown
from protocols.admin.door import Answer, Call, Door
from protocols.admin.errors import of_refusal
from protocols.admin.model import Finished, LogLine, NewBackup, Partition, Quarantined, State, Tail, WorkLine
from protocols.admin.port import Logged, Progress
from protocols.admin.readable import moment, readable
from protocols.admin.streams import closed

END = "the log ends here"
RECORDS_PER_EVENT = 8  # how far to go back for one event: its contents are records of the log too, while they are there


async def log(door: Door, call: Call) -> AsyncIterator[LogLine]:
    asked: Tail = call.query
    marks = await door.administration.marks()
    if isinstance(marks, Refusal):
        yield of_refusal(marks)
        return
    if asked.partition and asked.partition not in marks:
        yield of_refusal(Refusal(Reason.NO_SUCH_ENTRY, f"there is no partition {asked.partition}", (asked.partition,)))
        return
    epoch, sequence = asked.after.split(".")
    start = position(int(epoch), int(sequence))
    after: dict[str, int] = {name: start for name in marks if asked.partition in ("", name)}
    if asked.last is not None:
        ended = deque[Logged](maxlen=asked.last)
        back = {name: max(start, marks[name] - asked.last * RECORDS_PER_EVENT) for name in after}
        async with closed(door.administration.log_tail(back, follow=False)) as events:
            async for logged in events:
                if isinstance(logged, Refusal):
                    yield of_refusal(logged)
                    return
                ended.append(logged)
                after[logged.partition] = logged.record.position
        for logged in ended:
            yield readable(logged)
        after = {name: max(at, marks[name]) for name, at in after.items()}
    if asked.follow or asked.last is None:
        async with closed(_events(door, after, asked.follow)) as lines:
            async for line in lines:
                yield line
    else:
        yield Finished(END)


async def _events(door: Door, after: dict[str, int], follow: bool) -> AsyncIterator[LogLine]:
    async with closed(door.administration.log_tail(after, follow=follow)) as events:
        async for logged in events:
            if isinstance(logged, Refusal):
                yield of_refusal(logged)
                return
            yield readable(logged)
    yield Finished(END)


async def rebuild(door: Door, call: Call) -> AsyncIterator[WorkLine]:
    async with closed(_work(door.administration.rebuild(), "the tables were rebuilt from the log")) as lines:
        async for line in lines:
            yield line


async def backup(door: Door, call: Call) -> AsyncIterator[WorkLine]:
    wanted: NewBackup = call.body
    text = f"backed up to {wanted.target} and verified"
    async with closed(_work(door.administration.backup(wanted.target), text)) as lines:
        async for line in lines:
            yield line


async def state(door: Door, call: Call) -> Answer:
    found = await door.administration.state()
    if isinstance(found, Refusal):
        return found
    return State(
        found.site,
        found.node,
        found.version,
        moment(found.started_at),
        found.engines,
        tuple(
            Partition(p.name, p.home, p.epoch, shown(p.mark), shown(p.applied), p.lag_events, p.digest)
            for p in found.partitions
        ),
        tuple(
            Quarantined(q.partition, shown(q.position), q.noun, q.entity, q.why, moment(q.at)) for q in found.quarantine
        ),
    )


async def _work(steps: AsyncIterator[Progress | Refusal], text: str) -> AsyncIterator[WorkLine]:
    async with closed(steps):
        async for step in steps:
            if isinstance(step, Refusal):
                yield of_refusal(step)
                return
            yield step
    yield Finished(text)
