"""The log to look at, the state of the site, and long work. Each stream tells its own end (`finished`) or a problem."""

from collections.abc import AsyncIterator

from cluster.domain.refusal import Refusal
from cluster.position import position, shown
from protocols.admin.door import Answer, Call, Door
from protocols.admin.errors import of_refusal
from protocols.admin.model import Finished, LogLine, NewBackup, Partition, Quarantined, State, Tail, WorkLine
from protocols.admin.port import Progress
from protocols.admin.readable import moment, readable
from protocols.admin.streams import closed


async def log(door: Door, call: Call) -> AsyncIterator[LogLine]:
    asked: Tail = call.query
    epoch, sequence = asked.after.split(".")
    after = position(int(epoch), int(sequence))
    async with closed(door.administration.log_tail(asked.partition, after=after, follow=asked.follow)) as events:
        async for logged in events:
            if isinstance(logged, Refusal):
                yield of_refusal(logged)
                return
            yield readable(logged)
    yield Finished("the log ends here")


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
