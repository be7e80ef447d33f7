"""Bugs planted in the real code, one at a time: a simulation that does not find them proves nothing.

Each says which invariants it must be seen to break; test_planted.py plays seeds until it is.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from cluster.control import partitions, watch
from cluster.control.hold import Hold
from cluster.domain.mailbox.events import MessagesExpunged
from cluster.domain.mailbox.state import MailState, evolve
from cluster.log import (
    admission,
    appender,
    copier,
    engine,
    epochs,
    follow,
    jetstream,
    keeper,
    leader,
    members,
    wire,
    writer,
)
from cluster.log.admission import Admission
from cluster.log.connection import Unreachable
from cluster.log.copier import Copier
from cluster.log.engine import Kept, Message
from cluster.log.members import Members
from cluster.log.model import Record, Stale, Stored
from cluster.log.wire import Stream
from cluster.log.writer import Writer
from cluster.position import SEQUENCE_MAX
from tests.sim.world import checks, tables
from tests.sim.world.holding import Holding
from tests.sim.world.setting import UNSTRESSED, Placed, Stress
from tests.sim.world.tables import Tables

LOCAL, REMOTE = (Placed("mail", "north"),), (Placed("mail", "north", remote=True),)
STRICT = (Placed("mail", "north", remote=True, strict=True),)
PINNED = (Placed("mail", "north", pinned=True),)
PINNED_STRICT = (Placed("mail", "north", remote=True, strict=True, pinned=True),)
WINDOW = (Placed("mail", "north", window="west"),)
HOME_JUST_AWAY = Stress(("home_just_away",), LOCAL)


class Plant(NamedTuple):
    """`on` replaces attributes: (owner, name, what stands there instead). `seed`: from which on it is soon found. `stress`: a
    world in which it is found in one of some ten seeds, whatever else changes; any world = in one of a few."""

    on: Callable[[], Sequence[tuple[Any, str, Any]]]
    caught_by: frozenset[str]
    seed: int = 0
    stress: Stress = UNSTRESSED


@contextlib.contextmanager
def planted(name: str) -> Iterator[Plant]:
    plant = PLANTS[name]
    with contextlib.ExitStack() as back:
        for owner, attribute, instead in plant.on():
            if attribute in vars(owner):
                back.callback(setattr, owner, attribute, vars(owner)[attribute])
            else:
                back.callback(delattr, owner, attribute)
            setattr(owner, attribute, instead)
        yield plant


def _ok_before_durable() -> Sequence[tuple[Any, str, Any]]:
    real = Writer.write
    under_way = set()

    async def write(self: Writer, messages: Sequence[Message], last: int, *, whole: bool) -> None:
        task = asyncio.create_task(real(self, messages, last, whole=whole))
        under_way.add(task)
        await asyncio.sleep(0)

    return [(Writer, "write", write)]


def _copy_forgets_a_message() -> Sequence[tuple[Any, str, Any]]:
    real = Copier._store

    async def store(self: Copier, origin: Stream, kept: Sequence[Kept]) -> None:
        await real(self, origin, [*kept[:2], *kept[3:]])

    return [(Copier, "_store", store)]


def _stale_decisions_are_taken() -> Sequence[tuple[Any, str, Any]]:
    real = Admission.verdict

    def verdict(self: Admission, command: bytes, depends: tuple[str, ...], read_at: int) -> Stored | Stale | None:
        return real(self, command, tuple(key for key in depends if not key.startswith("messages/")), read_at)

    return [(admission.Admission, "verdict", verdict)]


def _repeats_are_new() -> Sequence[tuple[Any, str, Any]]:
    real_verdict, real_fold = Admission.verdict, Tables.fold

    def verdict(self: Admission, command: bytes, depends: tuple[str, ...], read_at: int) -> Stored | Stale | None:
        self._commands.clear()
        return real_verdict(self, command, depends, read_at)

    def fold(self: Tables, record: Record) -> Any:
        before, self.commands = self.commands, {}
        event = real_fold(self, record)
        self.commands = before | self.commands
        return event

    return [(Admission, "verdict", verdict), (Tables, "fold", fold)]


def _writes_expect_nothing() -> Sequence[tuple[Any, str, Any]]:
    async def found(self: Writer, messages: Sequence[Message], last: int) -> int:
        await self._confirm()
        return 0

    return [(engine, "LAST_SEQUENCE", "Nats-Nothing"), (writer.Writer, "_found", found)]


def _contents_go_before_copies_have_them() -> Sequence[tuple[Any, str, Any]]:
    async def kept_by_all(*_: Any) -> int:
        return 1 << 62

    return [(jetstream, "kept_by_all", kept_by_all)]


def _event_before_its_content() -> Sequence[tuple[Any, str, Any]]:
    real = wire.messages

    def messages(stream: Stream, request: wire.Request) -> list[Message]:
        made = real(stream, request)
        return made[len(request.chunks) :] + made[: len(request.chunks)]

    return [(appender, "messages", messages)]


def _position_saved_without_rows() -> Sequence[tuple[Any, str, Any]]:
    real = Tables.of.__func__  # type: ignore[attr-defined]  # what a class method is made of

    @classmethod  # type: ignore[misc]
    def of(cls: type[Tables], events: Sequence[Record]) -> Tables:
        """After a crash: the position is as it was, the last row is not."""
        made: Tables = real(cls, events)
        if events:
            without: Tables = real(cls, events[:-1])
            made.state, made.commands = without.state, without.commands
        return made

    return [(Tables, "of", of)]


def _ok_before_the_tables_have_it() -> Sequence[tuple[Any, str, Any]]:
    async def reached(self: Holding, position: int, timeout_s: float) -> bool:
        return True

    return [(Holding, "reached", reached)]


def _expunge_leaves_no_trace() -> Sequence[tuple[Any, str, Any]]:
    real = evolve

    def forgetful(before: MailState, account: int, event: Any, position: int) -> Any:
        after = real(before, account, event, position)
        if isinstance(event, MessagesExpunged) and isinstance(after, MailState):
            mail = after.accounts[account]
            boxes = {
                id: replace(box, expunged=before.accounts[account].boxes[id].expunged) for id, box in mail.boxes.items()
            }
            return replace(after, accounts={**after.accounts, account: replace(mail, boxes=boxes)})
        return after

    return [(tables, "evolve", forgetful)]


def _a_copy_shows_what_it_has_not() -> Sequence[tuple[Any, str, Any]]:
    async def patiently(self: follow.Reader, stream: Stream, sequence: int, end: int, subject: str) -> list[Kept]:
        """Where nothing is found nothing is waited for."""
        try:
            return (await self._engine.read(stream.name, sequence, 500, subject)).messages
        except (Unreachable, engine.EngineRefused):
            return []

    return [(follow.Reader, "_patiently", patiently)]


# ── Failover ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _a_stale_home_acknowledges() -> Sequence[tuple[Any, str, Any]]:
    async def confirm(self: Members) -> None:
        """As if the lease were held."""

    leads = property(lambda self: self._appender)
    return [(Members, "held", lambda self: True), (Members, "confirm", confirm), (leader.Leader, "appender", leads)]


def _a_candidate_does_not_wait() -> Sequence[tuple[Any, str, Any]]:
    return [(watch.Watch, "is_over", lambda self, name: name in self.found)]


def _a_takeover_on_any_revision() -> Sequence[tuple[Any, str, Any]]:
    real = Hold.take

    async def take(self: Hold, found: partitions.Found, following: partitions.Partition) -> None:
        now = await self._keys.get(self._key)
        await real(self, partitions.Found(found.partition, now.written), following)

    return [(Hold, "take", take)]


def _the_gap_is_forgotten() -> Sequence[tuple[Any, str, Any]]:
    return [(copier, "gap_of", lambda *_: 0)]


def _remote_waits_for_nobody() -> Sequence[tuple[Any, str, Any]]:
    return [(Members, "promised", lambda self: SEQUENCE_MAX)]


def _tables_do_not_go_back() -> Sequence[tuple[Any, str, Any]]:
    return [(follow, "in_history", lambda *_: True)]


def _a_reader_passes_the_end() -> Sequence[tuple[Any, str, Any]]:
    real = epochs.segments

    def segments(known: partitions.Known) -> list[tuple[Stream, int]]:
        return [(stream, SEQUENCE_MAX) for stream, _ in real(known)]

    return [(follow, "segments", segments)]


def _a_home_goes_on_where_its_disk_says() -> Sequence[tuple[Any, str, Any]]:
    async def begun(self: leader.Leader, known: partitions.Known | None) -> None:
        if not self._hold.record.begun:
            await self._begin_clean(await self._position(known))
        await self._hold.change(lambda now: replace(now, life=self._site.connection.life, closed=-1))

    return [(leader.Leader, "_begun", begun)]


# ── Several partitions, placed otherwise ─────────────────────────────────────────────────────────────────────────────


def _a_strict_home_goes_on_alone() -> Sequence[tuple[Any, str, Any]]:
    promised, stays = Members.promised, Members._stays

    def lax(real: Callable[..., Any]) -> Callable[..., Any]:
        def asked(self: Members, *more: Any) -> Any:
            with contextlib.ExitStack() as back:
                record = self._hold.record
                back.callback(setattr, self._hold, "record", record)
                self._hold.record = replace(record, strict=False)
                return real(self, *more)

        return asked

    return [(Members, "promised", lax(promised)), (Members, "_stays", lax(stays))]


def _a_pinned_home_is_taken_over() -> Sequence[tuple[Any, str, Any]]:
    real = partitions.may_follow

    def may_follow(record: partitions.Partition, site: str, life: str, at: int) -> bool:
        return real(replace(record, pinned=False), site, life, at)

    return [(copier, "may_follow", may_follow)]


def _a_windowed_copy_becomes_a_member() -> Sequence[tuple[Any, str, Any]]:
    return [(members, "windowed", lambda record, site: 0)]


def _a_windowed_copy_is_made_home() -> Sequence[tuple[Any, str, Any]]:
    return [(leader, "windowed", lambda record, site: 0)]


def _a_copy_made_anew_is_still_trusted() -> Sequence[tuple[Any, str, Any]]:
    real = Copier._look

    async def look(self: Copier) -> None:
        """As if nothing had been thrown away: the home knows it by the life that it had before."""
        await real(self)
        self._life = self._started

    return [(Copier, "_look", look)]


def _a_pinned_home_forgets_how_it_is_placed() -> Sequence[tuple[Any, str, Any]]:
    async def note(self: keeper.Keeper, record: partitions.Partition) -> None:
        """Known to this process alone."""

    return [(keeper.Keeper, "_note", note)]


PLANTS: dict[str, Plant] = {
    "OK before it is durable": Plant(_ok_before_durable, frozenset({checks.DURABLE})),
    "a copy forgets a message": Plant(_copy_forgets_a_message, frozenset({checks.ONE_STORY, checks.CONTENT_IS_HERE})),
    "a decision on a stale state is taken": Plant(
        _stale_decisions_are_taken,
        frozenset({checks.CACHE_IS_TRUE}),
        stress=Stress(("slow_link",), LOCAL, every_s=1.0),
        seed=3,
    ),
    "a repeated command is a new one": Plant(_repeats_are_new, frozenset({checks.NOT_DOUBLED})),
    "a write expects nothing of the stream": Plant(
        _writes_expect_nothing,
        frozenset({checks.DURABLE, checks.ONE_STORY, checks.ONE_EVENT, checks.SETTLES, checks.OUR_BUG}),
        stress=Stress(("slow_disk", "home_just_away"), LOCAL, processes=(2, 2, 2)),
        seed=6,
    ),
    "contents go before copies have them": Plant(
        _contents_go_before_copies_have_them,
        frozenset({checks.CONTENT_IS_HERE}),
        stress=Stress(("isolate", "slow_link", "kill_process"), LOCAL),
        seed=5,
    ),
    "an event before its content": Plant(_event_before_its_content, frozenset({checks.CONTENT_IS_HERE}), seed=2),
    "the position is saved without rows": Plant(
        _position_saved_without_rows, frozenset({checks.ONE_STORY, checks.ONE_CONTENT, checks.REBUILT})
    ),
    "OK before the tables have it": Plant(_ok_before_the_tables_have_it, frozenset({checks.OWN_WRITES})),
    "an expunge leaves no trace": Plant(_expunge_leaves_no_trace, frozenset({checks.CACHE_IS_TRUE})),
    "where a read fails, nothing is there": Plant(
        _a_copy_shows_what_it_has_not, frozenset({checks.ONE_STORY, checks.CONTENT_IS_HERE, checks.SETTLES}), seed=7
    ),
    "a stale home acknowledges": Plant(_a_stale_home_acknowledges, frozenset({checks.ONE_HOME}), stress=HOME_JUST_AWAY),
    "a candidate does not wait for the lease": Plant(
        _a_candidate_does_not_wait, frozenset({checks.ONE_HOME, checks.NOT_ROLLED_BACK}), seed=1
    ),
    "a takeover is not on the revision seen": Plant(
        _a_takeover_on_any_revision,
        frozenset({checks.ONE_HOME, checks.NOT_ROLLED_BACK, checks.ONE_EVENT}),
        stress=HOME_JUST_AWAY,
        seed=5,
    ),
    "the gap is forgotten": Plant(
        _the_gap_is_forgotten,
        frozenset({checks.ONE_CONTENT}),
        stress=Stress(("home_just_away", "slow_link"), LOCAL),
        seed=1,
    ),
    "remote waits for nobody": Plant(
        _remote_waits_for_nobody,
        frozenset({checks.NOT_ROLLED_BACK, checks.STRICT}),
        stress=Stress(("home_just_away", "slow_link"), REMOTE),
        seed=1,
    ),
    "tables do not go back": Plant(
        _tables_do_not_go_back, frozenset({checks.ONE_STORY, checks.ONE_CONTENT}), stress=HOME_JUST_AWAY
    ),
    "a reader passes the end": Plant(
        _a_reader_passes_the_end, frozenset({checks.ONE_STORY, checks.ONE_CONTENT, checks.SETTLES})
    ),
    "a home goes on where its disk says": Plant(
        _a_home_goes_on_where_its_disk_says,
        frozenset({checks.ONE_EVENT}),
        stress=Stress(("lose_disk", "copy_then_home"), LOCAL, loses_disks=True, every_s=1.0),
        seed=1,
    ),
    "a strict home goes on alone": Plant(
        _a_strict_home_goes_on_alone, frozenset({checks.STRICT}), stress=Stress(("isolate", "kill_process"), STRICT)
    ),
    "a pinned home is taken over": Plant(
        _a_pinned_home_is_taken_over, frozenset({checks.PINNED}), stress=Stress(("home_just_away",), PINNED)
    ),
    "a pinned home forgets how it is placed": Plant(
        _a_pinned_home_forgets_how_it_is_placed,
        frozenset({checks.STRICT}),
        stress=Stress(("alone_and_started_again",), PINNED_STRICT),
        seed=8,
    ),
    "a windowed copy becomes a member": Plant(_a_windowed_copy_becomes_a_member, frozenset({checks.WINDOWED}), seed=1),
    "a windowed copy is made home": Plant(
        _a_windowed_copy_is_made_home, frozenset({checks.WINDOWED}), stress=Stress(("switchover",), WINDOW), seed=1
    ),
    "a copy made anew is still trusted": Plant(
        _a_copy_made_anew_is_still_trusted,
        frozenset({checks.NOT_ROLLED_BACK, checks.SETTLES}),
        stress=Stress(("recopy",), REMOTE, loses_disks=True),
        seed=2,
    ),
}
