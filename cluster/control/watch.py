"""What a process knows of the control plane: the records of all partitions, since when each is as it is, and whether its
own writes have gone through all the time.

The control plane is asked a few times a second, with one question for all records; whoever changed one says so, and then
it is asked at once. Every process writes a key of its own every second: it tells who is there, and a candidate for a
lease may only count time through which its own writes went through, since a control plane that takes no writes takes
none of the holder's either.
"""

import asyncio
import contextlib
from collections.abc import Callable

import msgspec
import structlog

from cluster.control.bucket import Conflict, Keys
from cluster.control.lease import LEASE_S, LOOK_EVERY_S, MARGIN_S, RENEW_EVERY_S, RENEW_S_MAX, Clock
from cluster.control.partitions import Found, Partitions
from cluster.log.connection import Arrived, Connection, Unreachable

CHANGED = "rc.changed"
NODE_PREFIX = "node."
LOOK_AGAIN_S = 0.05
GONE_AFTER_S = 10.0  # without a word of it a node is told as away

log = structlog.get_logger("cluster.control.watch")


class CopySaid(msgspec.Struct, frozen=True):
    """How far a copy is, of a partition; the last three are how far behind what it knows of its home."""

    partition: str
    position: int
    messages: int
    bytes: int
    seconds: float


class Node(msgspec.Struct, frozen=True):
    """What a process says of itself. `at`: unix seconds, by its own clock; `life` of its site's engine. `leads`: the
    partitions whose appender it is; `copies`: those that it keeps up. `spooled`: messages in the site's spool, if it leads
    that."""

    site: str
    node: str
    version: str
    life: str
    at: float
    beat: int
    leads: tuple[str, ...] = ()
    copies: tuple[CopySaid, ...] = ()
    spooled: int = 0


class Pulse:
    """Our own writes to the control plane. `since`: from when on all of them went through, on our clock; None = the last
    one did not, or is too long ago."""

    def __init__(self, keys: Keys, say: Callable[[int], Node], clock: Clock) -> None:
        self._keys = keys
        self._say = say
        self._clock = clock
        self._since: float | None = None
        self._last = float("-inf")
        self._beat = 0
        self._written: int | None = None  # revision of our last write, None = to be looked up
        self._key = ""
        self.parting = False  # for good: our word is taken back at the end

    @property
    def last(self) -> float:
        """When one last went through, on our clock; minus infinity = none did."""
        return self._last

    def since(self) -> float | None:
        return self._since if self._clock() - self._last < RENEW_EVERY_S + RENEW_S_MAX + LOOK_EVERY_S else None

    async def run(self) -> None:
        while True:
            before = self._clock()
            if self.since() is None:
                self._since = None
            try:
                await self._write()
                self._since = before if self._since is None else self._since
                self._last = before
            except (Unreachable, Conflict) as error:
                self._since = None
                log.debug("our own write did not go through", why=str(error))
            except Exception:
                self._since = None
                log.exception("our own write did not go through")  # Our bug; a process that writes no more is worse.
            await asyncio.sleep(RENEW_EVERY_S if self._since is not None else LOOK_EVERY_S)

    async def _write(self) -> None:
        self._beat += 1
        node = self._say(self._beat)
        key = self._key = f"{NODE_PREFIX}{node.site}.{node.node}"
        after = self._written if self._written is not None else (await self._keys.get(key)).written
        self._written = None  # until this one came through
        self._written = await self._keys.put(key, msgspec.json.encode(node), after, RENEW_S_MAX)


    async def part(self) -> None:
        """`run` has ended."""
        if self.parting and self._key:
            with contextlib.suppress(Unreachable, Conflict):
                await self._keys.delete(self._key, (await self._keys.get(self._key)).written)


class Watch:
    """`found`: the records as the control plane last told them."""

    def __init__(self, connection: Connection, partitions: Partitions, pulse: Pulse, clock: Clock) -> None:
        self._connection = connection
        self._partitions = partitions
        self._pulse = pulse
        self.clock = clock
        self._seen: dict[str, tuple[int, float]] = {}  # revision, and when it was first seen
        self._poke = asyncio.Event()
        self._looked = asyncio.Event()  # set and replaced after every look
        self.found: dict[str, Found] = {}
        self.answered_at = float("-inf")  # on our clock: when the control plane last answered
        self._began_at = clock()

    async def run(self) -> None:
        await self._connection.subscribe(CHANGED, self._told)
        patience = LOOK_EVERY_S
        while True:
            try:
                found = await self._partitions.all()
                now = self.answered_at = self.clock()
                for name, (_, revision) in found.items():
                    if self._seen.get(name, (0, 0.0))[0] != revision:
                        self._seen[name] = revision, now
                self.found = found
            except Unreachable as error:
                # What was seen before still counts: who takes over on it writes at the revision that was seen, which is
                # refused if anybody wrote since.
                log.debug("the control plane does not answer", why=str(error))
            except Exception:
                self._seen.clear()
                log.exception("the control plane is not understood")  # A record of a later release, or our bug.
            self._looked.set()
            self._looked = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._poke.wait()
            # Who was told of a change may have asked a replica that had not heard of it yet.
            patience = LOOK_AGAIN_S if self._poke.is_set() else LOOK_EVERY_S
            self._poke.clear()

    async def looked(self) -> None:
        """Returns after the next look, whether it was answered or not."""
        looked = self._looked
        await looked.wait()

    async def say_changed(self) -> None:
        """So that all look at once."""
        self._poke.set()
        with contextlib.suppress(Unreachable):
            await self._connection.publish(CHANGED)

    def unwritten_s(self) -> float:
        """For how long nothing that we wrote went through. A member of the control plane that is alone still answers
        questions."""
        return self.clock() - max(self._pulse.last, self._began_at)

    def unchanged_s(self, name: str) -> float | None:
        """For how long the record was seen as it is; of one with a home that is well never more than a second."""
        seen = self._seen.get(name)
        return None if seen is None else max(0.0, self.clock() - seen[1])

    def is_over(self, name: str) -> bool:
        """Whether the record was seen unchanged for so long, while our own writes went through, that its holder surely
        does not believe any more that it holds it."""
        seen, since = self._seen.get(name), self._pulse.since()
        if seen is None or since is None or name not in self.found or self.found[name].revision != seen[0]:
            return False
        return self.clock() - max(seen[1], since) >= LEASE_S + MARGIN_S

    async def _told(self, message: Arrived) -> None:
        self._poke.set()
