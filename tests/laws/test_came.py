"""What a copy remembers of commands as they come by is what would be read of its streams."""

from hypothesis import given
from hypothesis import strategies as st

from cluster.control.partitions import Spans, in_history
from cluster.log.came import Came
from cluster.log.engine import Kept
from cluster.log.epochs import TAIL_AGE_MAX, Told
from cluster.log.wire import COMMAND_HEADER, POSITION_HEADER, stream_of
from cluster.position import position, split

Event = tuple[int, bytes]  # position, command


def told(events: list[Event], history: Spans) -> list[Told]:
    """As they lie in the streams, one by one."""
    found: list[Told] = []
    for at, command in events:
        if not in_history(history, at):
            continue
        if found and found[-1].command == command:
            found[-1] = found[-1]._replace(last=at)
        else:
            found.append(Told(command, at, at))
    return found


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Event], Spans]:
    """Events of some epochs, a few to a command, and a history that has the end of none but the last, perhaps cut."""
    events: list[Event] = []
    history: list[tuple[int, int]] = []
    number = 0
    for epoch in range(1, draw(st.integers(1, 4)) + 1):
        sequence = 0
        for size in draw(st.lists(st.integers(1, 3), max_size=6)):
            number += 1
            sequence += draw(st.integers(0, 2))  # its contents come first
            for _ in range(size):
                sequence += 1
                events.append((position(epoch, sequence), number.to_bytes(16, "big")))
        history.append((epoch, sequence))
    epoch, last = history[-1]
    history[-1] = epoch, draw(st.integers(0, last))
    return events, tuple(history)


def kept(event: Event) -> tuple[int, Kept]:
    at, command = event
    epoch, _ = split(at)
    headers = {COMMAND_HEADER: command.hex(), POSITION_HEADER: str(at)}
    return epoch, Kept(1, f"cp.p.{epoch}.ev.mailbox.1", headers, b"")


@given(log=logs(), data=st.data())
def test_what_came_by_is_what_lies_there(log: tuple[list[Event], Spans], data: st.DataObject) -> None:
    events, history = log
    looked = data.draw(st.integers(0, len(events)), "events that lay here")
    read = data.draw(st.integers(looked, len(events)), "of all, when what lay here was read")
    came = Came(lambda: 0.0)
    everything = tuple((epoch, 1 << 30) for epoch in range(1, 6))
    at, was_read = looked, False
    while at < len(events):
        if not was_read and at >= read:
            came.lay_here(told(events[:at], everything))
            was_read = True
        epoch = split(events[at][0]).epoch
        upto = data.draw(st.integers(at + 1, len(events)), "so far")
        batch = [event for event in events[at:upto] if split(event[0]).epoch == epoch]
        came.add(stream_of("p", epoch, copy=True), [kept(event)[1] for event in batch])
        at += len(batch)
    if not was_read:
        assert came.all(history) is None
        came.lay_here(told(events, everything))
    assert came.all(history) == told(events, history)


def test_what_is_old_is_forgotten() -> None:
    now = 0.0
    came = Came(lambda: now)
    came.lay_here([Told(b"before", position(1, 1), position(1, 1))])
    stream = stream_of("p", 1, copy=True)
    came.add(stream, [kept((position(1, 2), b"a" * 16))[1]])
    now = TAIL_AGE_MAX.total_seconds() + 1
    came.add(stream, [kept((position(1, 3), b"b" * 16))[1]])
    assert came.all(((1, 9),)) == [Told(b"b" * 16, position(1, 3), position(1, 3))]
    came.forget()
    assert came.all(((1, 9),)) is None
