"""Which appends may go in: the appender's memory of keys and command ids. No clock, no I/O: the log in memory uses it too.

Every position here is that of an event, so that whoever is told to wait for one waits for something the tables reach.
"""

from collections import OrderedDict

from cluster.control.partitions import Spans, in_history
from cluster.log.model import NewEvent, Stale, Stored

KEYS_MAX = 200_000
COMMANDS_MAX = 100_000


class Admission:
    """`floor`: nothing is known about keys that changed at or below it, so a state older than it counts as stale.
    `history`: what was decided on a state that is not in it must be decided anew, None = all is."""

    def __init__(
        self,
        floor: int,
        *,
        history: Spans | None = None,
        keys_max: int = KEYS_MAX,
        commands_max: int = COMMANDS_MAX,
    ) -> None:
        self.floor = floor
        self._history = history
        self._keys: OrderedDict[str, int] = OrderedDict()
        self._keys_max = keys_max
        self._commands: OrderedDict[bytes, tuple[int, int]] = OrderedDict()
        self._commands_max = commands_max

    def verdict(self, command: bytes, depends: tuple[str, ...], read_at: int) -> Stored | Stale | None:
        """None: it may go in. Positions may be those of events that are still on their way to the disk."""
        known = self._commands.get(command)
        if known is not None:
            return Stored(known[0], known[1], repeated=True)
        if self._history is not None and not in_history(self._history, read_at):
            return Stale(self.floor)  # What it names may have been seen in a tail that was lost.
        changed_at = max((self._keys.get(key, self.floor) for key in depends), default=0)
        return Stale(changed_at) if changed_at > read_at else None

    def admit(self, command: bytes, events: tuple[NewEvent, ...], first: int) -> Stored:
        """`events` get the positions from `first` on."""
        for at, event in enumerate(events, first):
            for key in event.changes:
                self._keys[key] = at
                self._keys.move_to_end(key)
        while len(self._keys) > self._keys_max:
            _, at = self._keys.popitem(last=False)
            self.floor = max(self.floor, at)
        outcome = Stored(first, first + len(events) - 1)
        self.remember(command, outcome.first, outcome.last)
        return outcome

    def remember(self, command: bytes, first: int, last: int) -> None:
        """This command is in the log already."""
        self._commands[command] = (first, last)
        if len(self._commands) > self._commands_max:
            self._commands.popitem(last=False)

    def forget_above(self, durable: int) -> None:
        """What was admitted above `durable` did not get into the log."""
        while self._commands and next(reversed(self._commands.values()))[1] > durable:
            self._commands.popitem()
        self._keys.clear()
        self.floor = durable
