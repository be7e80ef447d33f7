"""The newest commands of a copy, remembered as they come by: who becomes home need not read them again while writers wait."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from cluster.control.partitions import Spans, clip, in_history
from cluster.log.engine import Kept
from cluster.log.epochs import TAIL_AGE_MAX, TAIL_EVENTS_MAX, Told, command_of, note
from cluster.log.wire import Stream, position_of


class Came:
    """`clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._before: list[Told] | None = None  # what lay here when this began; None = not read yet
        self._told: deque[Told] = deque(maxlen=TAIL_EVENTS_MAX)
        self._times: deque[float] = deque(maxlen=TAIL_EVENTS_MAX)  # when the last event of each came

    def forget(self) -> None:
        """What is here is looked at anew: what comes by from now on follows on it."""
        self._before = None
        self._told.clear()
        self._times.clear()

    def lay_here(self, commands: Sequence[Told]) -> None:
        """Read since `forget`: it may have some of what came by meanwhile."""
        first = self._told[0].first if self._told else None
        self._before = [told for told in commands if first is None or told.first < first]

    def add(self, stream: Stream, events: Iterable[Kept]) -> None:
        """In order, each once."""
        now = self._clock()
        for event in events:
            if note(self._told, command_of(event), position_of(stream, event)):
                self._times.append(now)
            else:
                self._times[-1] = now
        while self._times and now - self._times[0] > TAIL_AGE_MAX.total_seconds():
            self._times.popleft()
            self._told.popleft()
            self._before = self._before and []

    def all(self, history: Spans) -> list[Told] | None:
        """Those in history, oldest first; None where they are not known and must be read."""
        if self._before is None:
            return None
        came = list(self._told)
        if self._before and came and self._before[-1].command == came[0].command:
            came[0] = Told(came[0].command, self._before[-1].first, came[0].last)
            known = [*self._before[:-1], *came]
        else:
            known = [*self._before, *came]
        there = (told for told in known[-TAIL_EVENTS_MAX:] if in_history(history, told.first))
        return [told._replace(last=clip(history, told.last)) for told in there]
