"""What sites say to each other of their tables: digests at the positions where all keep them, and what became of events.

A site's processes share the subject `dg.<site>` as one queue. A site is also asked here to mend what differs: to copy an
epoch anew, or to take its tables back and fold again. Events themselves are read straight from the other site's engine.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec
import structlog

from cluster.control.bucket import Bucket
from cluster.control.partitions import KnownPartitions
from cluster.log.connection import Arrived, Connection, NobodyThere, Unreachable
from cluster.log.engine import Engine
from cluster.log.follow import Reader
from cluster.log.marks import Marks
from cluster.log.model import LogUnavailable, Record
from cluster.log.recent import Recent
from cluster.log.wire import domain_of, token

ASK_S_MAX = 5.0
MEND_S_MAX = 1_800.0
MEND_ALIVE_S_MAX = 10.0  # of a site that mends: it says so all the time
MEND_ALIVE_EVERY_S = 2.0
READ_S_MAX = 20.0  # for the next events of another site's log, or of ours
CHECKPOINTS_MAX = 512  # in one answer

log = structlog.get_logger("cluster.log.digests")


class Checkpoint(msgspec.Struct, frozen=True, array_like=True):
    """`digest`: rolling over every event up to `position`. `events`: how many these were."""

    position: int
    digest: bytes
    events: int


class Standing(msgspec.Struct, frozen=True, array_like=True, tag="standing"):
    """Where a partition's tables stand at a site, None = it has none; and checkpoints in order, the first of them that
    was asked for, at most CHECKPOINTS_MAX. `first`: of the oldest that is kept."""

    at: Checkpoint | None
    first: int
    checkpoints: tuple[Checkpoint, ...]


class Passed(msgspec.Struct, frozen=True, array_like=True, tag="passed"):
    """Events that are not in a site's tables: position → h (its entity is held), q (put aside), r (a repeated one)."""

    outcomes: dict[int, str]


class Mended(msgspec.Struct, frozen=True, array_like=True, tag="mended"):
    """`why` not: empty = it was mended. `going`: not yet, another answer follows."""

    why: str = ""
    going: bool = False


class AskStanding(msgspec.Struct, frozen=True, array_like=True, tag="standing"):
    partition: str
    after: int


class AskPassed(msgspec.Struct, frozen=True, array_like=True, tag="passed"):
    """Above `after`, not above `upto`."""

    partition: str
    after: int
    upto: int


class AskMend(msgspec.Struct, frozen=True, array_like=True, tag="mend"):
    """Fold again what lies above `after`; before that, copy `epoch` anew (0 = none)."""

    partition: str
    after: int
    epoch: int = 0


Ask = AskStanding | AskPassed | AskMend
Answer = Standing | Passed | Mended


class Answers(Protocol):
    """A site's own side. What it raises is our fault and answered by nobody: who asked asks again."""

    async def standing(self, ask: AskStanding) -> Standing: ...
    async def passed(self, ask: AskPassed) -> Passed: ...
    async def mend(self, ask: AskMend) -> Mended: ...


class NoAnswer(Exception):
    """The site is out of reach, too slow, or knows no such question."""


_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_encode = msgspec.msgpack.Encoder().encode


class Digests:
    """`site`: ours."""

    def __init__(self, connection: Connection, site: str) -> None:
        self._connection = connection
        self.site = site

    async def serve(self, answers: Answers) -> None:
        """Answers the other sites until it is cancelled."""

        async def answer(message: Arrived) -> None:
            await self._answer(answers, message)

        await self._connection.serve(f"dg.{token(self.site)}", answer, queue="digests")

    async def standing(self, site: str, partition: str, after: int) -> Standing:
        """Raises NoAnswer."""
        answer = await self._ask(site, AskStanding(partition, after))
        if not isinstance(answer, Standing):
            raise NoAnswer(f"{site} answers what was not asked")
        return answer

    async def passed(self, site: str, partition: str, after: int, upto: int) -> Passed:
        """Raises NoAnswer."""
        answer = await self._ask(site, AskPassed(partition, after, upto))
        if not isinstance(answer, Passed):
            raise NoAnswer(f"{site} answers what was not asked")
        return answer

    async def mend(self, site: str, partition: str, after: int, epoch: int = 0) -> str:
        """Why it was not mended, empty = it was. Waits as long as the site says that it is at it. Raises NoAnswer."""
        said: asyncio.Queue[Mended] = asyncio.Queue(16)

        async def heard(message: Arrived) -> None:
            with contextlib.suppress(msgspec.MsgspecError):
                answer = _answers.decode(message.data)
                if isinstance(answer, Mended):
                    await said.put(answer)

        inbox = f"dm.{token(self.site)}.{id(said):x}"
        subscribed = await self._connection.subscribe(inbox, heard)
        try:
            ask = _encode((inbox, AskMend(partition, after, epoch)))
            await self._connection.publish(f"dg.{token(site)}", ask)
            async with asyncio.timeout(MEND_S_MAX):
                while True:
                    async with asyncio.timeout(MEND_ALIVE_S_MAX):
                        answer = await said.get()
                    if not answer.going:
                        return answer.why
        except TimeoutError:
            raise NoAnswer(f"{site} says nothing more of mending {partition}") from None
        except Unreachable as error:
            raise NoAnswer(f"{site}: {error}") from error
        finally:
            await subscribed.close()

    async def events(self, site: str, partition: str, after: int, upto: int) -> AsyncIterator[Record]:
        """As they lie in that site's streams. Raises LogUnavailable where they cannot be read."""
        domain = domain_of(site)
        known = KnownPartitions(Bucket(self._connection, domain=domain))
        reader = Reader(
            Engine(self._connection, domain), known, partition, Marks(self._connection, partition), Recent()
        )
        batches = aiter(reader.read(after, upto, contents=False))
        while True:
            try:
                async with asyncio.timeout(READ_S_MAX):
                    batch = await anext(batches, None)
            except TimeoutError:
                raise LogUnavailable(f"the log at {site} cannot be read") from None
            if batch is None:
                return
            for record in batch:
                yield record

    async def _ask(self, site: str, ask: Ask) -> Answer:
        try:
            answer = await self._connection.request(f"dg.{token(site)}", _encode(("", ask)), timeout_s=ASK_S_MAX)
            return _answers.decode(answer.data)
        except NobodyThere:
            raise NoAnswer(f"{site}: no process of it is there") from None
        except (Unreachable, msgspec.MsgspecError) as error:
            raise NoAnswer(f"{site}: {error}") from error

    async def _answer(self, answers: Answers, message: Arrived) -> None:
        try:
            inbox, ask = _request.decode(message.data)
            match ask:
                case AskStanding():
                    answer: Answer = await answers.standing(ask)
                case AskPassed():
                    answer = await answers.passed(ask)
                case AskMend():
                    await self._mending(answers, ask, inbox)
                    return
            await self._connection.publish(message.reply, _encode(answer))
        except Exception as error:
            log.warning("cannot answer another site", error=f"{type(error).__name__}: {error}")

    async def _mending(self, answers: Answers, ask: AskMend, inbox: str) -> None:
        working = asyncio.create_task(answers.mend(ask))
        try:
            while not working.done():
                await self._connection.publish(inbox, _encode(Mended(going=True)))
                await asyncio.wait((working,), timeout=MEND_ALIVE_EVERY_S)
            error = working.exception()
            answer = Mended(f"{type(error).__name__}: {error}") if error is not None else working.result()
            await self._connection.publish(inbox, _encode(answer))
        finally:
            working.cancel()


_request: msgspec.msgpack.Decoder[tuple[str, Ask]] = msgspec.msgpack.Decoder(tuple[str, Ask])
