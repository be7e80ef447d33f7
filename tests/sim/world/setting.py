"""What a seed draws before anything happens: the partitions and how they are placed, who works, how much goes wrong."""

import random
from typing import NamedTuple

from msgspec.structs import replace

from cluster.control.partitions import Partition

SITES = ("north", "south", "west")
WINDOW_DAYS = 7


class Placed(NamedTuple):
    """One partition. `home`: where it begins; the other sites have copies. `pinned`: only force moves it. What the operator
    makes of it as soon as it is there: `remote`, `strict`, `window` (the site whose copy keeps a week's content only)."""

    name: str
    home: str
    remote: bool = False
    strict: bool = False
    pinned: bool = False
    window: str = ""

    def wanted(self, now: Partition) -> Partition:
        """The record as the operator wants it."""
        windows = {self.window: WINDOW_DAYS} if self.window else {}
        return replace(now, remote=self.remote, strict=self.strict, windows=windows)


class Setting(NamedTuple):
    """`forces`: operators take partitions by force. `loses_disks`: sites may be wiped, or put back to an earlier state, one
    at a time. `pause_s`: of a client between two commands. `seconds`: of trouble. `processes`: at each site."""

    partitions: tuple[Placed, ...]
    forces: bool
    loses_disks: bool
    pause_s: float
    trouble_every_s: float
    seconds: float
    delays_s: tuple[float, ...]  # of each link, in the network's order
    processes: tuple[int, ...]


class Stress(NamedTuple):
    """What somebody who looks for something certain wants otherwise. `faults`: names of those that happen, empty = all."""

    faults: tuple[str, ...] = ()
    partitions: tuple[Placed, ...] = ()
    loses_disks: bool = False
    processes: tuple[int, ...] = ()
    every_s: float = 2.5  # between two of the faults named

    def under(self, setting: Setting) -> Setting:
        if self.faults:
            setting = setting._replace(trouble_every_s=self.every_s, pause_s=0.3, seconds=14.0)
        return setting._replace(
            partitions=self.partitions or setting.partitions,
            loses_disks=self.loses_disks or setting.loses_disks,
            processes=self.processes or setting.processes,
        )


UNSTRESSED = Stress()


def drawn(chance: random.Random, links: int) -> Setting:
    partitions = _partitions(chance)
    forces, loses_disks = chance.random() < 0.25, chance.random() < 0.5
    # Two partitions cost twice as much: they get less time.
    seconds = chance.choice((6.0, 10.0, 16.0) if len(partitions) == 1 else (6.0, 10.0))
    return Setting(
        partitions,
        forces,
        loses_disks,
        chance.choice((0.3, 0.6, 1.5)),
        chance.choice((1.0, 2.0, 3.5)),
        seconds,
        tuple(chance.choice((0.001, 0.02)) for _ in range(links)),
        tuple(chance.choice((1, 1, 2)) for _ in SITES),
    )


def _partitions(chance: random.Random) -> tuple[Placed, ...]:
    two, lone_pinned = chance.random() < 0.25, chance.random() < 0.08
    mail = _placed(chance, "mail", "north", pinned=lone_pinned)
    return (mail, _placed(chance, "post", "south", pinned=chance.random() < 0.4)) if two else (mail,)


def _placed(chance: random.Random, name: str, home: str, *, pinned: bool) -> Placed:
    remote = chance.random() < 0.6
    strict = remote and chance.random() < 0.25
    window = chance.choice([site for site in SITES if site != home]) if chance.random() < 0.2 else ""
    return Placed(name, home, remote, strict, pinned, window)
