"""Which commands are in history already, so that a repeated one doubles nothing when the log is folded.

The appender answers a repeated command id with its first outcome. Over a failover it may not know it: then the command is
in the log twice, and the fold passes the second over. A command's events stand together in the log, all or none, and say
which of them they are (`n`, cluster/codec.Envelope). A repeated command may have been decided otherwise, with more events
or fewer, so what is found for the first of them holds for the others.
"""

from collections.abc import Mapping

import msgspec

REMEMBERED_US = 48 * 3600 * 1_000_000  # by the clocks of the events; a client's retry is long over


class History(msgspec.Struct, frozen=True):
    """`latest`: the highest unix microseconds of an event so far. `applied`: command id → `latest` when it was applied,
    in the order of the log. `repeated`: the command whose events are just passed over, or empty."""

    applied: Mapping[bytes, int] = {}
    latest: int = 0
    repeated: bytes = b""


def admit(history: History, command: bytes, n: int, at_us: int) -> tuple[History, bool]:
    """The history with this event in it, and whether the event is to be applied."""
    if n > 0:
        return history, command != history.repeated
    if command in history.applied:
        return msgspec.structs.replace(history, repeated=command), False
    latest = max(history.latest, at_us)
    # Decided by the events alone, so that every site forgets the same.
    applied = {known: at for known, at in history.applied.items() if at >= latest - REMEMBERED_US}
    return History({**applied, command: latest}, latest), True
