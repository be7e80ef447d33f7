"""Who sends without a pause, and what was acknowledged.

A message whose answer was lost is not sent again: nobody knows whether it was taken, so that twice would be nobody's fault.
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import count

from node.config import DemoPerson
from node.demo.clients import GONE, Refused, Smtp, message
from node.demo.place import HOST, DemoSite

SENDERS = 3
RATE_PER_S = 24.0  # of all senders together
TRY_AGAIN_S = 0.05
WAIT_S_MAX = 300.0
LOOK_EVERY_S = 0.02


class Tally:
    """What the senders were told. `acknowledged`: number of a message → its recipient. `unanswered`: sent, and nobody said
    whether it was taken. `longest_s`: without an acknowledgement, since the first; `window_s`: since `begin_window`."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.acknowledged: dict[int, str] = {}
        self.unanswered = 0
        self.refused = 0
        self.last_at: float | None = None
        self.longest_s = 0.0
        self.window_s = 0.0
        self._asked_since = float("inf")
        self._answered: asyncio.Future[float] | None = None

    @property
    def waiting_s(self) -> float:
        """Since the last acknowledgement."""
        return self._now() - self.last_at if self.last_at is not None else 0.0

    def first_after(self, moment: float) -> "asyncio.Future[float]":
        """When the first message that was sent after this moment was acknowledged."""
        self._asked_since = moment
        self._answered = asyncio.get_running_loop().create_future()
        return self._answered

    def begin_window(self) -> None:
        self.window_s = 0.0

    def add(self, number: int, recipient: str, sent_at: float) -> None:
        now = self._now()
        waited = self.waiting_s
        self.longest_s, self.window_s = max(self.longest_s, waited), max(self.window_s, waited)
        self.last_at = now
        self.acknowledged[number] = recipient
        if self._answered is not None and not self._answered.done() and sent_at >= self._asked_since:
            self._answered.set_result(now)

    async def until(self, goal: int) -> None:
        """Raises TimeoutError."""
        async with asyncio.timeout(WAIT_S_MAX):
            while len(self.acknowledged) < goal:  # noqa: ASYNC110 (a figure that rises, looked at as it is shown)
                await asyncio.sleep(LOOK_EVERY_S)


class Traffic:
    """Several senders, each with a site that it prefers; where that is gone it goes to the next, as the order of MX records
    has it (RFC 5321 §5.1)."""

    def __init__(self, sites: Sequence[DemoSite], people: Sequence[DemoPerson], now: Callable[[], float]) -> None:
        self.tally = Tally(now)
        self._sites = sites
        self._people = people
        self._now = now
        self._numbers = count(1)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._send_for_ever(index), name=f"sender {index}") for index in range(SENDERS)
        ]

    async def stop(self) -> None:
        """What is under way is waited for."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _send_for_ever(self, index: int) -> None:
        choice, interval = index, SENDERS / RATE_PER_S
        while True:
            site = self._sites[choice % len(self._sites)]
            try:
                await self._send_to(site, interval)
            except GONE:
                choice += 1
                await asyncio.sleep(TRY_AGAIN_S)

    async def _send_to(self, site: DemoSite, interval: float) -> None:
        """Until that site is gone: raises one of GONE."""
        client = await Smtp.connect(HOST, site.config.ports.smtp)
        try:
            while True:
                began = self._now()
                number = next(self._numbers)
                to = self._people[number % len(self._people)].address
                sender = f"sender@{site.name}.example"
                try:
                    await client.send(sender, to, message(number, sender, to))
                except Refused:
                    self.tally.refused += 1
                except (*GONE, asyncio.CancelledError):
                    self.tally.unanswered += 1
                    raise
                else:
                    self.tally.add(number, to, began)
                await asyncio.sleep(max(0.0, began + interval - self._now()))
        finally:
            client.close()
