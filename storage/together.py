"""One question to the tables for all sessions that wait in the same mailbox and are woken by the same change."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from cluster.domain.refusal import Refusal
from storage.shapes import Changes

KEPT_S_MAX = 2.0
KEPT_MAX = 1024
KEPT_ROWS_MAX = 1000

Key = tuple[int, int, int]  # account, mailbox, since


class _Asked(NamedTuple):
    """`at`: the position that the tables were known to have when the question was put, so that its answer has it."""

    at: int
    until: float
    answer: "asyncio.Task[Changes | Refusal]"


class Together:
    """`ask`: puts the question."""

    def __init__(self, ask: Callable[[int, int, int], Awaitable[Changes | Refusal]]) -> None:
        self._ask = ask
        self._asked: dict[Key, _Asked] = {}

    def forget(self) -> None:
        self._asked.clear()

    async def changes(self, key: Key, at: int) -> Changes | Refusal:
        """As they are at `at` or later."""
        now = time.monotonic()
        asked = self._asked.get(key)
        if asked is None or asked.at != at or now > asked.until or _not_worth_it(asked.answer):
            asked = _Asked(at, now + KEPT_S_MAX, asyncio.create_task(self._put(key)))
            self._asked.pop(key, None)
            self._asked[key] = asked
            while len(self._asked) > KEPT_MAX:
                del self._asked[next(iter(self._asked))]
        elif asked.answer.done():
            await asyncio.sleep(0)  # who asks on and on keeps nobody else waiting
        # One that gives up takes nobody else's answer away.
        return await asyncio.shield(asked.answer)

    async def _put(self, key: Key) -> Changes | Refusal:
        return await self._ask(*key)


def _not_worth_it(answer: "asyncio.Task[Changes | Refusal]") -> bool:
    """To be kept: it failed, or is large."""
    if not answer.done():
        return False
    if answer.cancelled() or answer.exception() is not None:
        return True
    found = answer.result()
    return isinstance(found, Refusal) or len(found.changed) + len(found.vanished) > KEPT_ROWS_MAX
