"""What a queue does not take waits in the spool and is in the queue once in the end, wherever a process dies and whatever
answer is lost; over the log in memory, folded as the tables fold it."""

import hashlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from cluster import codec, partitions
from cluster.domain.actor import Actor
from cluster.domain.mailbox.content import Content, Segment
from cluster.domain.outbox import handing
from cluster.domain.outbox.commands import QueueMessage
from cluster.domain.outbox.state import OutboxState, Queued, evolve
from cluster.domain.refusal import Reason, Refusal
from cluster.log.memory import MemoryLog
from cluster.log.model import Append, Blob, LogUnavailable, Stale, Stored
from storage.executor import Executor
from storage.handing import Drain, Handing
from storage.reach import AWAY_S
from storage.shapes import Done
from storage.views import Views
from tests.contracts.smtp_site import SteadyWorld

QUEUE, SPOOL = partitions.queue("north"), partitions.spool("north")
ACTOR = Actor(name="test")
PEOPLE = ("a@x.org", "b@y.org")


class Killed(BaseException):
    """The process is gone."""


class Log(MemoryLog):
    """`away`: takes no appends there. `mute`: takes them, and the answer is lost. `lives`: appends until the process dies,
    before the append or behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.away: set[str] = set()
        self.mute: set[str] = set()
        self.lives: int | None = None
        self.behind = False

    async def append(self, append: Append, timeout_s: float = 0) -> Stored | Stale:
        if append.partition in self.away:
            raise LogUnavailable("nobody there")
        dies = self._dies()
        if dies and not self.behind:
            raise Killed
        answer = await super().append(append)
        if dies:
            raise Killed
        if append.partition in self.mute:
            raise LogUnavailable("no answer")
        return answer

    def _dies(self) -> bool:
        if self.lives is None:
            return False
        self.lives -= 1
        return self.lives < 0


class Tables:
    """The outbox of both partitions, as far as the log has come: hub, view and blobs of the executor."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.states = {QUEUE: OutboxState(), SPOOL: OutboxState()}
        self.times: Counter[int] = Counter()  # how often a message came into the queue
        self.since: dict[int, int] = {}
        self._at = dict.fromkeys(self.states, 0)
        self._seen: set[tuple[str, bytes, int]] = set()
        self.contents: dict[bytes, bytes] = {}

    async def fold(self) -> None:
        for name in self.states:
            async for batch in self._log.read(name, self._at[name], 1 << 62, contents=True):
                for record in batch:
                    self._at[name] = record.position
                    if not record.noun:
                        self.contents[record.hash] = record.payload
                        continue
                    envelope, event = codec.decode(record.payload)
                    if (name, envelope.id, envelope.n) in self._seen:
                        continue
                    self._seen.add((name, envelope.id, envelope.n))
                    state = evolve(self.states[name], event, record.position)
                    assert isinstance(state, OutboxState), state
                    if name == QUEUE:
                        self.times[event.queued] += 1
                    self.states[name] = state
                    self.since[event.queued] = getattr(event, "taken_at", 0) or envelope.at // 1_000_000

    def forget(self) -> None:
        """As after two days: folds know old commands no more."""
        self._seen.clear()

    def position(self, partition: str) -> int:
        return self._at[partition]

    async def reached(self, partition: str, position: int, timeout_s: float) -> bool:
        await self.fold()
        return self._at[partition] >= position

    async def message(self, queued: int) -> Queued | None:
        await self.fold()
        return next((found for state in self.states.values() if (found := state.messages.get(queued))), None)

    async def partition_of(self, queued: int) -> str | None:
        await self.fold()
        return next((name for name, state in self.states.items() if queued in state.messages), None)

    async def due(self, names: Sequence[str], now: int, limit: int) -> list[tuple[Queued, int]]:
        await self.fold()
        found = [message for name in names for message in self.states[name].messages.values()]
        return [(message, self.since[message.queued]) for message in found[:limit]]

    async def read(self, segments: Sequence[Segment], start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        for segment in segments:
            yield self.contents[segment.hash]


class Message:
    def __init__(self, data: bytes) -> None:
        self.data = data
        hash = hashlib.sha256(data).digest()
        self.content = Content(hash, len(data), (Segment(hash, len(data)),), b"")
        self.inline_bytes = len(data)

    async def blobs(self) -> AsyncIterator[Blob]:
        yield Blob(self.content.hash, self.data)

    async def inline(self) -> tuple[Blob, ...]:
        return (Blob(self.content.hash, self.data),)


class Case:
    def __init__(self) -> None:
        self.log = Log()
        self.tables = Tables(self.log)
        self.world = SteadyWorld()
        self.start()

    def start(self) -> None:
        """A process; what the one before had in memory is gone."""
        mail = SimpleNamespace(database=None)  # Nobody asks it for mail.
        views = Views(*(cast(Any, each) for each in (mail, None, self.tables, None)))
        executor = Executor(self.world, "north", self.log, cast(Any, self.tables), views)
        self.own = Handing(executor, cast(Any, self.tables), SPOOL)
        self.drain = Drain(executor, self.own, cast(Any, self.tables), cast(Any, self.log), lambda: True)

    async def take_in(self, id: int) -> Done | Refusal:
        message = Message(b"%d" % id)
        return await self.own.take_in(ACTOR, QueueMessage(id, "s@x.org", PEOPLE, message.content, 7, True), (message,))

    def later(self) -> None:
        self.world.at += AWAY_S + 1

    async def until_drained(self) -> None:
        while True:
            done = False
            try:
                done = await self.drain.once()
                self.later()
            except* Killed:
                self.log.lives = None
                self.start()
            if done:
                break
        await self.tables.fold()
        assert not self.tables.states[SPOOL].messages

    def everything_once(self, *ids: int) -> None:
        assert self.tables.times == dict.fromkeys(ids, 1)
        for id in ids:
            message = self.tables.states[QUEUE].messages[id]
            assert tuple(one.recipient for one in message.pending) == PEOPLE and message.account == 7
            assert self.tables.contents[message.content.hash] == b"%d" % id


async def test_the_queue_takes_it_where_it_can() -> None:
    case = Case()
    assert isinstance(await case.take_in(5), Done)
    assert isinstance(await case.take_in(5), Done), "given twice"
    await case.until_drained()
    case.everything_once(5)


async def test_an_answer_that_was_lost_costs_no_second_copy() -> None:
    case = Case()
    case.log.mute = {QUEUE}
    assert isinstance(await case.take_in(5), Done)
    await case.tables.fold()
    assert list(case.tables.states[SPOOL].messages) == [handing.spooled(5)], "nobody knows, so it is there too"
    case.log.mute.clear()
    case.later()
    await case.until_drained()
    case.everything_once(5)


async def test_who_comes_after_is_spooled_at_once_and_waits_for_nobody() -> None:
    case = Case()
    case.log.away = {QUEUE}
    for id in (5, 6, 7):
        assert isinstance(await case.take_in(id), Done)
    assert not await case.drain.once(), "the queue is away still"
    case.log.away.clear()
    assert not await case.drain.once(), "and was a moment ago"
    case.later()
    await case.until_drained()
    case.everything_once(5, 6, 7)


async def test_where_nothing_takes_it_it_is_refused() -> None:
    case = Case()
    case.log.away = {QUEUE, SPOOL}
    refused = await case.take_in(5)
    assert isinstance(refused, Refusal) and refused.reason is Reason.UNAVAILABLE


def deaths() -> Iterator[tuple[int, bool, bool]]:
    """(appends before it, behind the append and not before it, whether the queue had taken it at first)."""
    return itertools.product(range(5), (False, True), (False, True))


async def died(lives: int, behind: bool, had_it: bool) -> Case:
    """Two messages in the spool, and a drain that dies; then another one."""
    case = Case()
    if had_it:
        case.log.mute = {QUEUE}
    else:
        case.log.away = {QUEUE}
    for id in (5, 6):
        case.world.at += AWAY_S + 1
        assert isinstance(await case.take_in(id), Done)
    case.log.mute.clear()
    case.log.away.clear()
    case.later()
    case.log.lives, case.log.behind = lives, behind
    await case.until_drained()
    return case


@pytest.mark.parametrize(("lives", "behind", "had_it"), list(deaths()))
async def test_a_drain_that_dies_anywhere_loses_and_doubles_nothing(lives: int, behind: bool, had_it: bool) -> None:
    (await died(lives, behind, had_it)).everything_once(5, 6)


async def _caught() -> bool:
    for lives, behind, had_it in deaths():
        try:
            (await died(lives, behind, had_it)).everything_once(5, 6)
        except (AssertionError, KeyError, ExceptionGroup):
            return True
    return False


async def test_planted_a_drain_under_a_command_id_of_its_own_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = itertools.count()
    monkeypatch.setattr(handing, "command_of", lambda _: hashlib.sha256(b"%d" % next(fresh)).digest()[:16])
    assert await _caught()


async def test_planted_a_drain_that_settles_before_the_queue_has_it_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Drain._drained

    async def first(self: Drain, message: Queued, taken_at: int) -> Refusal | None:
        put = self._own.put

        async def later(*words: Any) -> Done:
            pending.append(words)
            return Done(0)

        pending: list[Any] = []
        self._own.put = later  # type: ignore[method-assign, assignment]
        try:
            return await real(self, message, taken_at)
        finally:
            self._own.put = put  # type: ignore[method-assign]
            for words in pending:
                await put(*words)

    monkeypatch.setattr(Drain, "_drained", first)
    assert await _caught()


async def test_what_waited_longer_than_commands_are_remembered_is_looked_for_in_history() -> None:
    """A cut of three days that began with an answer that was lost: the queue sent it long ago and forgot the command."""
    case = Case()
    case.log.mute = {QUEUE}
    assert isinstance(await case.take_in(5), Done)
    case.log.mute, case.log.away = set(), {QUEUE}
    case.later()
    assert isinstance(await case.take_in(6), Done)
    await case.tables.fold()
    case.tables.states[QUEUE] = OutboxState()
    case.tables.forget()
    case.log._partitions[QUEUE].admission._commands.clear()
    case.log.away.clear()
    case.world.at += 3 * 86_400
    await case.until_drained()
    assert case.tables.times == {5: 1, 6: 1} and list(case.tables.states[QUEUE].messages) == [6]


async def test_how_long_it_may_take_counts_from_when_it_was_handed_in() -> None:
    case = Case()
    case.log.away = {QUEUE}
    began = int(case.world.now())
    await case.take_in(5)
    case.log.away.clear()
    case.world.at += 3_600
    await case.until_drained()
    assert case.tables.since[5] == began


async def test_a_hand_over_done_twice_is_one_message_there_and_counted() -> None:
    case = Case()
    await case.take_in(5)
    await case.tables.fold()
    message = msgspec.structs.replace(case.tables.states[QUEUE].messages[5], queued=9, handed=2)
    for _ in range(2):
        assert isinstance(await case.own.hand_over(ACTOR, message, 77, ["b@y.org"], QUEUE), Done)
        case.start()
    await case.tables.fold()
    (there,) = (each for id, each in case.tables.states[QUEUE].messages.items() if id != 5)
    assert there.handed == 3 and [one.recipient for one in there.pending] == ["b@y.org"]
    assert case.tables.since[there.queued] == 77 and case.tables.times[there.queued] == 1
