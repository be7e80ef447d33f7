"""Whether this site's tables have come far enough to answer a client that may have been at another site before.

What a copy lacks must not look as if it had been deleted. So whoever asks what there is waits until the tables have what
the home had shown when it was last heard; a site that cannot hear the home answers with what it has. And a client's token
(MODSEQ) above what the tables have waits wherever it comes: its client has seen more (ops/decisions/reads-are-always-served.md).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from cluster.control.partitions import Spans, in_history
from cluster.domain.refusal import Refusal
from cluster.log.model import LogUnavailable
from cluster.position import Position, position, split
from cluster.tokens import judged
from storage.answers import UNAVAILABLE
from storage.news import Hub
from storage.postgres.pool import AWAY

LEVEL_S_MAX = 5.0
LOOK_EVERY_S = 0.5  # whether the home is still there


class Homes(Protocol):
    """What is known here of partitions: cluster.log.jetstream.JetStreamLog."""

    def home_mark(self, partition: str) -> Position | None:
        """Of a copy: how far the home says that the partition is shown. None = it was not heard lately, or is here."""
        ...

    async def home_asked(self, partition: str) -> Position | None:
        """What the home says now, None = nobody answers for it."""
        ...

    async def known_history(self, partition: str) -> Spans:
        """Raises LogUnavailable."""
        ...


class Level:
    """`partition_of`: an account's, None = there is no such account. `salvaged`: of a partition, as the tables have it:
    epoch → sequence up to which its tail is salvaged."""

    def __init__(
        self,
        hub: Hub,
        homes: Homes,
        partition_of: Callable[[int], Awaitable[str | None]],
        salvaged: Callable[[str], Awaitable[Mapping[int, int]]],
    ) -> None:
        self._hub = hub
        self._homes = homes
        self._partition_of = partition_of
        self._salvaged = salvaged

    async def with_home(self, account: int) -> bool:
        """Whether the account's tables have what its home had shown when this was asked; True too while the home is out of
        reach. Waits up to LEVEL_S_MAX."""
        partition = await self._partition_of(account)
        if partition is None or (goal := self._homes.home_mark(partition)) is None:
            return True
        for _ in range(round(LEVEL_S_MAX / LOOK_EVERY_S)):
            came = await self._hub.reached(partition, goal, LOOK_EVERY_S) or self._hub.position(partition) >= goal
            if came or self._homes.home_mark(partition) is None:
                return True
            if await self._hub.is_lost(partition, goal):
                # It was rolled back, and nobody waits for it any more; we do for the epoch that followed.
                await asyncio.sleep(LOOK_EVERY_S)
        return False

    async def token(self, account: int, token: int) -> int | Refusal | None:
        """The position to reckon from, once the tables have reached it: the token, or the end of its epoch if the tail from
        which it was given is salvaged. None = it is lost: nobody may reckon from it. UNAVAILABLE where its
        client has seen more than this site comes to have in LEVEL_S_MAX."""
        partition = await self._partition_of(account)
        if partition is None:
            return token
        try:
            history = await self._homes.known_history(partition)
        except LogUnavailable:
            return UNAVAILABLE
        # Below all epochs is before everything; one that nobody here has heard of may have begun meanwhile.
        if history[0][0] <= split(token).epoch <= history[-1][0] and not in_history(history, token):
            try:
                worth = judged(history, token, await self._salvaged(partition))
            except AWAY:
                return UNAVAILABLE
            return await self._lost(partition, token) if worth is None else worth
        if self._hub.position(partition) >= token:
            return token
        said = await self._homes.home_asked(partition)
        if said is not None and said < token:
            return None  # No site ever gave it to anybody, or its epoch has lost it.
        if await self._hub.reached(partition, token, LEVEL_S_MAX):
            return token
        return await self._lost(partition, token) if await self._hub.is_lost(partition, token) else UNAVAILABLE

    async def _lost(self, partition: str, token: int) -> Refusal | None:
        """None, once the tables are past the token's epoch. Only then UIDNEXT is above every UID that a tail gave, so that
        all of them can be said to have vanished."""
        after = position(split(token).epoch + 1, 0)
        came = await self._hub.reached(partition, after, LEVEL_S_MAX) or self._hub.position(partition) >= after
        return None if came else UNAVAILABLE
