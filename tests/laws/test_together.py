"""Questions of sessions that are woken together are put once, and no answer is older than whoever asked."""

import asyncio

from cluster.domain.refusal import Reason, Refusal
from storage.shapes import Changes
from storage.together import Together


class Tables:
    """Answers when it is told to, with how far it was when it was asked."""

    def __init__(self) -> None:
        self.position = 1
        self.asked = 0
        self.away = False
        self.go = asyncio.Event()

    async def were_asked(self, times: int) -> None:
        async with asyncio.timeout(10):
            while self.asked < times:  # noqa: ASYNC110
                await asyncio.sleep(0)

    async def changes(self, account: int, mailbox: int, since: int) -> Changes | Refusal:
        self.asked += 1
        seen = self.position
        await self.go.wait()
        return Refusal(Reason.UNAVAILABLE) if self.away else Changes(seen, 1, 1)


async def test_once_for_all_who_stand_at_the_same_place() -> None:
    tables = Tables()
    together = Together(tables.changes)
    first = [asyncio.create_task(together.changes((1, 2, 0), 1)) for _ in range(5)]
    other = asyncio.create_task(together.changes((1, 3, 0), 1))
    await tables.were_asked(2)
    tables.position = 2
    later = [asyncio.create_task(together.changes((1, 2, 0), 2)) for _ in range(5)]
    await tables.were_asked(3)
    first[0].cancel()
    tables.go.set()
    found = await asyncio.gather(*first[1:], other, *later)
    assert [each.highestmodseq for each in found if isinstance(each, Changes)] == [1] * 5 + [2] * 5
    assert tables.asked == 3


async def test_a_failure_is_not_kept() -> None:
    tables = Tables()
    together = Together(tables.changes)
    tables.go.set()
    tables.away = True
    assert isinstance(await together.changes((1, 2, 0), 1), Refusal)
    tables.away = False
    assert isinstance(await together.changes((1, 2, 0), 1), Changes)
    together.forget()
    assert isinstance(await together.changes((1, 2, 0), 1), Changes)
    assert tables.asked == 3
