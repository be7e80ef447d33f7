"""Up to where a partition may be shown, and copied: followers and copiers wait here."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from cluster.log.connection import Arrived, Connection, Unreachable
from cluster.log.model import LogUnavailable
from cluster.log.wire import Mark, decode_mark, encode

ASK_AGAIN_S = 2.0  # a mark may get lost on the way
ASK_S_MAX = 1.0
RETRY_WAIT_S = 0.05


class Marks:
    """One partition's mark as this process knows it; it only rises. `site`: what that site has of it, None = what its home
    says."""

    def __init__(self, connection: Connection, partition: str, site: str | None = None) -> None:
        self._connection = connection
        self._partition = partition
        self._told_on = f"mk.{partition}" if site is None else f"ck.{site}.{partition}"
        self.asked_on = f"ap.{partition}.mark" if site is None else f"ck.{site}.{partition}.ask"
        self.heard_at = float("-inf")  # monotonic, in seconds: when others' word of it came last
        self._moved = asyncio.Event()  # set and replaced whenever the mark rises
        self._watching = False
        self.known = Mark(0, 0, 0)

    def raise_to(self, mark: Mark) -> None:
        known = self.known
        raised = Mark(max(mark.durable, known.durable), max(mark.event, known.event), max(mark.written, known.written))
        if raised != known:
            self.known = raised
            self._moved.set()
            self._moved = asyncio.Event()

    async def tell(self, mark: Mark) -> None:
        """For the appender and the copier: everybody may show this much."""
        self.raise_to(mark)
        with contextlib.suppress(Unreachable):  # Who misses it asks after a second.
            await self._connection.publish(self._told_on, encode(mark))

    async def beyond(self, at: int, *, contents: bool) -> int:
        """The position of the mark (of the last event, without `contents`), as soon as it lies above `at`."""
        await self._until(lambda: (self.known.durable if contents else self.known.event) > at)
        return self.known.durable if contents else self.known.event

    async def differing(self, known: Mark) -> Mark:
        """The mark as soon as it is not `known` any more."""
        await self._until(lambda: self.known != known)
        return self.known

    async def _until(self, there: Callable[[], bool]) -> None:
        await self._watch()
        patience = 0.0 if not self.known.durable else ASK_AGAIN_S
        while not there():
            try:
                async with asyncio.timeout(patience):
                    await self._moved.wait()
            except TimeoutError:
                patience = ASK_AGAIN_S
                try:
                    self.raise_to(await self.ask(ASK_S_MAX))
                except Unreachable:
                    patience = RETRY_WAIT_S

    async def hear(self) -> None:
        """For ever: `known` follows what is said, and who has been silent is asked, so that `heard_at` tells whether
        anybody is there."""
        await self._watch()
        while True:
            if time.monotonic() - self.heard_at >= ASK_AGAIN_S / 2:
                with contextlib.suppress(Unreachable):
                    self.raise_to(await self.ask(ASK_S_MAX))
            await asyncio.sleep(ASK_AGAIN_S / 2)

    async def ask(self, timeout_s: float) -> Mark:
        """What the appender says. Raises NobodyThere, Unreachable."""
        answer = await self._connection.request(self.asked_on, timeout_s=timeout_s)
        self.heard_at = time.monotonic()
        return decode_mark(answer.data)

    async def asked(self, timeout_s: float) -> Mark:
        """The same, as soon as there is an appender. Raises LogUnavailable."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        return await self.ask(ASK_S_MAX)
                    except Unreachable:
                        await asyncio.sleep(RETRY_WAIT_S)
        except TimeoutError:
            raise LogUnavailable(f"nobody answers for {self._partition}") from None

    async def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            await self._connection.subscribe(self._told_on, self._arrived)

    async def _arrived(self, message: Arrived) -> None:
        self.heard_at = time.monotonic()
        self.raise_to(decode_mark(message.data))
