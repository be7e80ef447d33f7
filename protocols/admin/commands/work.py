"""The log to look at, the state of the site, and long work. Each stream tells its own end (`finished`) or a problem."""

from collections import deque
from collections.abc import AsyncIterator

from cluster.domain.refusal import Reason, Refusal
from cluster.position import position, shown
from protocols.admin.door import Answer, Call, Door
from protocols.admin.errors import of_refusal
from protocols.admin.model import (
    Agreed,
    Event,
    Finished,
    LogLine,
    NewBackup,
    Partition,
    Quarantined,
    Search,
    State,
    Tail,
    Waiting,
    WorkLine,
)
from protocols.admin.port import Logged, Progress
from protocols.admin.readable import moment, readable
from protocols.admin.streams import closed, merged

RECORDS_PER_EVENT = 8  # how far to go back for one event: its contents are records of the log too, while they are there


async def log(door: Door, call: Call) -> AsyncIterator[LogLine]:
    asked: Tail = call.query
    state = await door.administration.state()
    if isinstance(state, Refusal):
        yield of_refusal(state)
        return
    marks = {found.name: found.mark for found in state.partitions if asked.partition in ("", found.name)}
    if not marks:
        yield of_refusal(Refusal(Reason.NO_SUCH_ENTRY, f"there is no partition {asked.partition}", (asked.partition,)))
        return
    epoch, sequence = asked.after.split(".")
    after: dict[str, int] = dict.fromkeys(marks, position(int(epoch), int(sequence)))
    if asked.last is not None:
        found = await _last(door, after, marks, asked.last)
        if isinstance(found, Refusal):
            yield of_refusal(found)
            return
        lines, after = found
        for line in lines:
            yield line
    if asked.follow or asked.last is None:
        tails = [door.administration.log_tail(name, after=at, follow=asked.follow) for name, at in after.items()]
        async with closed(merged(tails)) as events:
            async for logged in events:
                if isinstance(logged, Refusal):
                    yield of_refusal(logged)
                    return
                yield readable(logged)
    yield Finished("the log ends here")


async def _last(
    door: Door, after: dict[str, int], marks: dict[str, int], count: int
) -> tuple[list[Event], dict[str, int]] | Refusal:
    """The last `count` events of the partitions together, by time; and from where on to follow each."""
    lines: list[Event] = []
    reached = {name: max(at, marks[name]) for name, at in after.items()}
    for name, at in after.items():
        ended = deque[Logged](maxlen=count)
        back = max(at, marks[name] - count * RECORDS_PER_EVENT)
        async with closed(door.administration.log_tail(name, after=back, follow=False)) as events:
            async for logged in events:
                if isinstance(logged, Refusal):
                    return logged
                ended.append(logged)
                reached[name] = max(reached[name], logged.record.position)
        lines += map(readable, ended)
    lines.sort(key=lambda line: line.at)
    return lines[len(lines) - min(count, len(lines)) :], reached


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
            Partition(p.name, p.home, p.epoch, shown(p.mark), shown(p.applied), p.lag_events, p.digest, p.queued)
            for p in found.partitions
        ),
        tuple(
            Quarantined(q.partition, shown(q.position), q.noun, q.entity, q.why, moment(q.at)) for q in found.quarantine
        ),
        tuple(Waiting(w.partition, shown(w.position), w.event) for w in found.waiting),
        tuple(
            Agreed(a.partition, a.site, shown(a.agreed), None if a.differs is None else shown(a.differs))
            for a in found.agreed
        ),
        Search(
            found.search.indexed,
            found.search.waiting,
            found.search.size_bytes,
            moment(found.search.at) if found.search.at else "",
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
