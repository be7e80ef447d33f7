"""What a process knows of how far its site's tables have come, and who waits to hear of it.

Fed by the database's notifications, one a folded batch. What is known is never ahead of the tables, so it may serve as
`read_at` of whatever is read afterwards; it falls only when they are taken back to an end of history.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
import structlog

from cluster.domain.mailbox import ranges
from cluster.domain.mailbox.commands import ChangeFlags, CopyMessages, Expunge
from cluster.position import split
from storage.postgres.folded import EVERYONE, News
from storage.postgres.pool import AWAY, RETRY_S, Connection, Database

log = structlog.get_logger("news")
_decoder = msgspec.json.Decoder(News)

SHOWN_S_MAX = 10.0  # for the tables to reach an event that the log has
SHOWN_MESSAGE_S = 0.0002  # more for each message that it changes: ten times what one takes when nothing else is done
SHOWN_LARGE_S_MAX = 120.0
TOUCHED_MAX = 1_000  # mailboxes of one account that a watch knows by name

Waiting = tuple[int, int, "asyncio.Future[bool]"]  # position, order of coming, whom to tell


def shown_s_max(command: object) -> float:
    """How long the tables are waited for before a client hears that what it asked for is done and not shown: the half million
    messages of one STORE take longer than the one of most."""
    named = ranges.count(command.uids) if isinstance(command, ChangeFlags | CopyMessages | Expunge) else 0
    return min(SHOWN_S_MAX + named * SHOWN_MESSAGE_S, SHOWN_LARGE_S_MAX)


class Watch:
    """Wakes its one waiter when what it watches changed. Changes that come together are one. `rolled_back`: what was shown
    of the account may lie beyond history; whoever remembers some of it must begin anew. `bell`: rung too."""

    def __init__(self, mailbox: int | None, bell: asyncio.Event | None = None) -> None:
        self.mailbox = mailbox
        self.rolled_back = False
        self._changed = asyncio.Event()
        self._bell = bell
        self._touched: set[int] | None = set()

    def wake(self, mailboxes: Sequence[int] | None = None) -> None:
        """`mailboxes` None: any may have changed."""
        if self.mailbox is None and self._touched is not None:
            if mailboxes is None or len(self._touched) + len(mailboxes) > TOUCHED_MAX:
                self._touched = None
            else:
                self._touched.update(mailboxes)
        self._changed.set()
        if self._bell is not None:
            self._bell.set()

    def take(self) -> frozenset[int] | None:
        """Of a whole account: which mailboxes changed since the last call; None = it is not known which."""
        touched, self._touched = self._touched, set()
        return None if touched is None else frozenset(touched)

    async def wait(self, timeout_s: float) -> bool:
        """True when something changed since the last call returned True; False on timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True


class Hub:
    """One a process. `run` listens for ever."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.positions: dict[str, int] = {}
        self._waiting: dict[str, list[Waiting]] = {}
        self._watches: dict[int, set[Watch]] = {}
        self._hooks: list[tuple[str, Callable[[], None]]] = []
        self._forgetting: list[Callable[[], None]] = []
        self._rolled_back: dict[str, int] = {}  # partition → times, as far as this process has heard
        self._fell_to: dict[str, tuple[int, int]] = {}  # position, and the epoch of which nothing comes beyond it
        self._listened = False
        self._order = 0
        self._gone = 0

    async def run(self) -> None:
        await self.database.listen(self._told, self._reload)

    def position(self, partition: str) -> int:
        """Up to where this site's tables are known to have come."""
        return self.positions.get(partition, 0)

    def on_change(self, partition: str, hook: Callable[[], None]) -> None:
        """Calls `hook` whenever events of the partition were folded: for who keeps copies of rows."""
        self._hooks.append((partition, hook))

    def on_renewal(self, forget: Callable[[], None]) -> None:
        """Calls `forget` when the tables may be others than those that grew event by event: for who keeps what it read."""
        self._forgetting.append(forget)

    async def reached(self, partition: str, position: int, timeout_s: float) -> bool:
        """Whether the tables came to `position` in time. False at once when it is not in history any more."""
        return await self._came(partition, position, timeout_s) and await self.in_history(partition, position)

    async def in_history(self, partition: str, position: int) -> bool:
        """Of a position that the tables have come to: whether its event is in them, or was in a tail that was lost. False
        too where they cannot be asked."""
        epoch, sequence = split(position)
        if epoch in (0, split(self.position(partition)).epoch):
            return True
        try:
            row = await self.database.row(
                "SELECT last FROM epoch_ended WHERE partition = $1 AND epoch = $2", partition, epoch
            )
        except AWAY:
            return False
        return row is not None and sequence <= row["last"]

    async def is_lost(self, partition: str, position: int) -> bool:
        """Whether the tables will never come to `position`, for it is not in history."""
        end, epoch = self._fell_to.get(partition, (0, 0))
        if position > end and split(position).epoch <= epoch:
            return True
        return self.position(partition) >= position and not await self.in_history(partition, position)

    async def _came(self, partition: str, position: int, timeout_s: float) -> bool:
        if self.position(partition) >= position:
            return True
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._order += 1
        waiting = self._waiting.setdefault(partition, [])
        heapq.heappush(waiting, (position, self._order, future))
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            self._sweep(waiting)
            return False

    @contextmanager
    def watch(self, account: int, mailbox: int | None, bell: asyncio.Event | None = None) -> Iterator[Watch]:
        watch = Watch(mailbox, bell)
        self._watches.setdefault(account, set()).add(watch)
        try:
            yield watch
        finally:
            watches = self._watches[account]
            watches.discard(watch)
            if not watches:
                del self._watches[account]

    def _told(self, payload: str) -> None:
        try:
            news = _decoder.decode(payload)
        except msgspec.MsgspecError:
            log.error("notification not understood")
            return
        if news.times >= max(1, self._rolled_back.get(news.partition, 0)):
            self._rolled_back[news.partition] = news.times
            self._fell(news.partition, news.was, news.position, news.lost)
        self._came_to(news.partition, news.position)
        if news.touched is None or EVERYONE in news.touched:
            self._wake_all()
            return
        for account, mailboxes in news.touched.items():
            for watch in self._watches.get(account, ()):
                if watch.mailbox is None or watch.mailbox in mailboxes:
                    watch.wake(mailboxes)

    async def _reload(self, connection: Connection) -> None:
        """After a new connection: notifications may have been missed. Who watches is woken when the tables may be read
        again, which after a restart of the database is later."""
        for row in await connection.fetch("SELECT partition, times, was, position, accounts FROM rolled_back"):
            times = self._rolled_back.get(row["partition"])
            if times != row["times"] and (times is not None or self._listened):
                once = row["times"] == (times or 0) + 1
                self._fell(row["partition"], row["was"], row["position"], row["accounts"] if once else None)
            self._rolled_back[row["partition"]] = row["times"]
        self._listened = True
        for row in await connection.fetch("SELECT partition, position FROM folded"):
            self._came_to(row["partition"], row["position"])
        await self.readable()
        self._wake_all()

    async def readable(self) -> None:
        """Returns when the tables may be read."""
        while True:
            try:
                await self.database.run("SELECT 1")
                return
            except AWAY as error:
                log.info("tables not readable yet", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(RETRY_S)

    def _came_to(self, partition: str, position: int) -> None:
        if position > self.positions.get(partition, 0):
            self.positions[partition] = position
        waiting = self._waiting.get(partition, [])
        while waiting and waiting[0][0] <= position:
            _, _, future = heapq.heappop(waiting)
            if not future.done():
                future.set_result(True)
        for wanted, hook in self._hooks:
            if wanted == partition:
                hook()

    def _fell(self, partition: str, was: int, position: int, lost: Sequence[int] | None) -> None:
        """The tables were taken back from `was` to `position`: nothing of those epochs comes any more beyond it."""
        self._renewed()
        self._fell_to[partition] = position, split(was).epoch
        if self.positions.get(partition, 0) > position:
            self.positions[partition] = position
        waiting = self._waiting.get(partition, [])
        for at, _, future in waiting:
            if at > position and split(at).epoch <= split(was).epoch and not future.done():
                future.set_result(False)
        for account, watches in self._watches.items():
            if lost is None or account in lost:
                for watch in watches:
                    watch.rolled_back = True
                    watch.wake()

    def _sweep(self, waiting: list[Waiting]) -> None:
        """Who gave up waits no more. Looked for only when they may be half of all, so that each costs little."""
        self._gone += 1
        if self._gone * 2 > len(waiting):
            waiting[:] = [each for each in waiting if not each[2].done()]
            heapq.heapify(waiting)
            self._gone = 0

    def _wake_all(self) -> None:
        self._renewed()
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()

    def _renewed(self) -> None:
        for forget in self._forgetting:
            forget()
