"""Who reads at every site all the time, and what is there in the end."""

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from node.config import DemoPerson
from node.demo.clients import GONE, Imap, Refused, Status
from node.demo.place import HOST, DemoSite

LOOK_EVERY_S = 0.4
ALIKE_S_MAX = 60.0
BACK_S_MAX = 30.0


class Box(NamedTuple):
    """What a mail program sees of a mailbox: `numbers` are (UID, number of the message)."""

    status: Status
    numbers: tuple[tuple[int, int], ...]

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


class Readers:
    """One session for each person at each site, which asks how it stands until `stop`. `seen`: (site, address) → what it
    was told last. `uidvalidities`: address → all values that anybody ever was told."""

    def __init__(self, sites: Sequence[DemoSite], people: Sequence[DemoPerson], now: Callable[[], float]) -> None:
        self._sites = sites
        self._people = people
        self._now = now
        self._tls = ssl.create_default_context(cafile=str(sites[0].config.tls.ca))
        self._tasks: list[asyncio.Task[None]] = []
        self.seen: dict[tuple[str, str], Status] = {}
        self.uidvalidities: dict[str, set[int]] = {person.address: set() for person in people}

    def start(self) -> None:
        pairs = [(site, person) for site in self._sites for person in self._people]
        self._tasks = [asyncio.create_task(self._read(*pair), name=f"reader at {pair[0].name}") for pair in pairs]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def messages(self, site: str) -> int:
        """Of all people, as that site's readers were told last."""
        return sum(status.messages for (where, _), status in self.seen.items() if where == site)

    @property
    def uidvalidity_changes(self) -> int:
        return sum(max(0, len(values) - 1) for values in self.uidvalidities.values())

    async def _read(self, site: DemoSite, person: DemoPerson) -> None:
        while True:
            try:
                client = await self._connect(site, person)
                try:
                    while True:
                        self._note(site, person, await client.status())
                        await asyncio.sleep(LOOK_EVERY_S)
                finally:
                    client.close()
            except (*GONE, Refused):
                await asyncio.sleep(LOOK_EVERY_S)

    def _note(self, site: DemoSite, person: DemoPerson, status: Status) -> None:
        self.seen[site.name, person.address] = status
        self.uidvalidities[person.address].add(status.uidvalidity)

    async def _connect(self, site: DemoSite, person: DemoPerson) -> Imap:
        return await Imap.connect(HOST, site.config.ports.imaps, self._tls, person.address, person.password)

    async def numbers_at(self, site: DemoSite) -> set[int]:
        """The messages that are there now. Raises one of GONE, Refused."""
        return {number for person in self._people for _, number in (await self._box(site, person)).numbers}

    async def until_there(self, site: DemoSite, wanted: set[int]) -> set[int]:
        """Those of them that came there within BACK_S_MAX. Raises one of GONE, Refused."""
        there, deadline = set[int](), self._now() + BACK_S_MAX
        while not wanted <= there and self._now() < deadline:
            there = await self.numbers_at(site)
            await asyncio.sleep(LOOK_EVERY_S)
        return wanted & there

    async def boxes(self, acknowledged: Mapping[int, str]) -> dict[tuple[str, str], Box]:
        """(site, address) → what is there, as soon as it is the same at all sites and holds all that was acknowledged, or
        after ALIKE_S_MAX as it is then."""
        found: dict[tuple[str, str], Box] = {}
        deadline = self._now() + ALIKE_S_MAX
        while not (found and alike(found) and holds(found, acknowledged)) and self._now() < deadline:
            for site in self._sites:
                for person in self._people:
                    try:
                        found[site.name, person.address] = await self._box(site, person)
                    except (*GONE, Refused):
                        continue
            await asyncio.sleep(LOOK_EVERY_S)
        return found

    async def _box(self, site: DemoSite, person: DemoPerson) -> Box:
        client = await self._connect(site, person)
        try:
            numbers, status = await client.numbers(), await client.status()
        finally:
            client.close()
        self._note(site, person, status)
        return Box(status, numbers)


def alike(boxes: Mapping[tuple[str, str], Box]) -> bool:
    """Whether all sites show each person the same: UIDVALIDITY, UIDNEXT, every message under its UID."""
    of: dict[str, set[Box]] = {}
    for (_, address), box in boxes.items():
        of.setdefault(address, set()).add(box)
    return all(len(each) == 1 for each in of.values())


def holds(boxes: Mapping[tuple[str, str], Box], acknowledged: Mapping[int, str]) -> bool:
    """Whether every site has every message that was acknowledged."""
    return present(boxes, acknowledged) == set(acknowledged)


def present(boxes: Mapping[tuple[str, str], Box], acknowledged: Mapping[int, str]) -> set[int]:
    """Of what was acknowledged, that which is found at every site with its recipient."""
    there = set(acknowledged)
    for site in {site for site, _ in boxes}:
        here = {(n, address) for (where, address), box in boxes.items() if where == site for _, n in box.numbers}
        there &= {number for number, address in here if acknowledged.get(number) == address}
    return there


def doubled(boxes: Mapping[tuple[str, str], Box]) -> set[int]:
    """Messages that are found more than once at any site."""
    more: set[int] = set()
    for site in {site for site, _ in boxes}:
        numbers = [n for (where, _), box in boxes.items() if where == site for _, n in box.numbers]
        more |= {number for number in numbers if numbers.count(number) > 1}
    return more
