"""What came of it, in figures that a client can count."""

from collections.abc import Mapping

import msgspec

from node.demo.readers import Box, alike, doubled, present
from node.demo.traffic import Tally


class Times(msgspec.Struct, frozen=True):
    """Seconds, `to_`: from the kill to the first new home, to the first acknowledgement of what was sent afterwards, from
    the site's start to its copies being level. `waited_at_switchover`: the longest time without an acknowledgement."""

    to_new_home: float
    to_first_write: float
    to_level: float
    waited_at_switchover: float


class Salvage(msgspec.Struct, frozen=True):
    """`events`: that lay only at the site that was killed, beyond what history had. `messages`: of these, acknowledged
    ones. Commands, by the site's log: `again` decided again, `known` in history already, `reported` to be looked at."""

    events: int
    messages: int
    again: int
    known: int
    reported: int


class Verdict(msgspec.Struct, frozen=True):
    """`present`: acknowledged messages that are found at every site. `doubled`: found more than once anywhere.
    `unanswered`: sent, and nobody said whether they were taken: they may be there or not. `alike`: all sites show the same
    under the same UIDs."""

    acknowledged: int
    present: int
    doubled: int
    lost: int
    uidvalidity_changes: int
    seconds_without_service: float
    unanswered: int
    refused: int
    alike: bool
    durability: str
    times: Times
    salvage: Salvage

    @property
    def holds(self) -> bool:
        """Whether what Angarium promises was kept."""
        return self.alike and not (self.lost or self.doubled or self.uidvalidity_changes)


def judged(
    tally: Tally,
    boxes: Mapping[tuple[str, str], Box],
    uidvalidity_changes: int,
    times: Times,
    salvage: Salvage,
    durability: str,
) -> Verdict:
    there = present(boxes, tally.acknowledged)
    return Verdict(
        acknowledged=len(tally.acknowledged),
        present=len(there),
        doubled=len(doubled(boxes)),
        lost=len(tally.acknowledged) - len(there),
        uidvalidity_changes=uidvalidity_changes,
        seconds_without_service=round(tally.longest_s, 3),
        unanswered=tally.unanswered,
        refused=tally.refused,
        alike=alike(boxes),
        durability=durability,
        times=times,
        salvage=salvage,
    )
