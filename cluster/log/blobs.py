"""Blobs between sites, by their hash: for content that is nowhere in the log any more.

A site's processes share the subject `bl.<site>` as one queue, so that one of them answers. A request names a blob and where
to start; the answer is a piece of it. Who asks goes on from the end of the last piece, so that neither side holds more than
a piece of a blob, and compares the hash of the whole: an answer is nobody's word for anything. Small blobs are asked for
many at once, and come as many as one answer holds.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, NamedTuple

import msgspec
import structlog

from cluster.log.connection import Arrived, Connection, NobodyThere, Unreachable
from cluster.log.wire import token

PIECE_BYTES_MAX = 512 * 1024  # and of small blobs in one answer
SMALL_BYTES_MAX = 64 * 1024  # of a blob that is asked for with others
SMALL_MAX = 64  # of them in one request
BLOB_BYTES_MAX = 1 << 30  # of a blob whose size the asking side does not know
ANSWERS_MAX = 8  # at once, for each process; who comes beside them is told to come again
ANSWER_S_MAX = 5.0  # of our own store
ASK_S_MAX = 3.0
PIECE_S_MAX = 10.0  # with all the times that the other side was busy
BUSY_WAIT_S = 0.05

log = structlog.get_logger("cluster.log.blobs")


class NotThere(Exception):
    """The site answers that it has no such blob."""


class NoAnswer(Exception):
    """The site is out of reach, too slow, or answers what cannot be."""


class Piece(NamedTuple):
    """`size`: of the whole blob; `data`: its bytes from where they were asked for, at most PIECE_BYTES_MAX."""

    size: int
    data: bytes


# (hash, start) → that much of a blob, or None where it is not here (or torn). May raise what it likes: then we are busy.
Source = Callable[[bytes, int], Awaitable[Piece | None]]
# Hashes → whole blobs, None where one is not here or not small; as many from the first on as PIECE_BYTES_MAX holds.
SmallSource = Callable[[Sequence[bytes]], Awaitable[Sequence[bytes | None]]]


class _Ask(msgspec.Struct, frozen=True, array_like=True, tag="one"):
    hash: bytes
    start: int


class _AskSmall(msgspec.Struct, frozen=True, array_like=True, tag="small"):
    hashes: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=SMALL_MAX)]


class _Given(msgspec.Struct, frozen=True, array_like=True, tag="piece"):
    size: int
    data: bytes


class _GivenSmall(msgspec.Struct, frozen=True, array_like=True, tag="blobs"):
    """Of those asked for, from the first one on."""

    blobs: tuple[bytes | None, ...]


class _Absent(msgspec.Struct, frozen=True, array_like=True, tag="absent"):
    """Not here."""


class _Busy(msgspec.Struct, frozen=True, array_like=True, tag="busy"):
    """Come again."""


_Answer = _Given | _GivenSmall | _Absent | _Busy
_asks: msgspec.msgpack.Decoder[_Ask | _AskSmall] = msgspec.msgpack.Decoder(_Ask | _AskSmall)
_answers: msgspec.msgpack.Decoder[_Answer] = msgspec.msgpack.Decoder(_Answer)
_encode = msgspec.msgpack.Encoder().encode


class Peers:
    """`site`: ours."""

    def __init__(self, connection: Connection, site: str) -> None:
        self._connection = connection
        self._site = site

    async def serve(self, source: Source, small: SmallSource) -> None:
        """Answers the other sites until it is cancelled."""
        under_way = 0

        async def answer(message: Arrived) -> None:
            nonlocal under_way
            if under_way >= ANSWERS_MAX:
                await self._say(message.reply, _Busy())
                return
            under_way += 1
            try:
                await self._say(message.reply, await _answered(source, small, message.data))
            finally:
                under_way -= 1

        await self._connection.serve(_subject(self._site), answer, queue="blobs")

    async def pieces(self, site: str, hash: bytes, size: int | None = None) -> AsyncIterator[bytes]:
        """A blob as `site` gives it, in pieces; nothing is checked but that it has `size` bytes, where that is known.
        Every wait ends after PIECE_S_MAX. Raises NotThere, NoAnswer."""
        at = 0
        while at != size:
            piece = await self._piece(site, hash, at)
            if size is None and piece.size <= BLOB_BYTES_MAX:
                size = piece.size
            left = piece.size - at
            if piece.size != size or len(piece.data) > left or not piece.data and left:
                raise NoAnswer(
                    f"{site}: {len(piece.data)} bytes from {at} on of a blob of {piece.size} bytes, not {size}"
                )
            at += len(piece.data)
            yield piece.data

    async def small(self, site: str, hashes: Sequence[bytes]) -> list[bytes | None]:
        """The first of these blobs, at most SMALL_MAX are asked for, as `site` gives them: at least one answer; None = it has
        none that is small. Nothing is checked. Raises NotThere, NoAnswer."""
        answer = await self._asked(site, _AskSmall(tuple(hashes[:SMALL_MAX])))
        if not isinstance(answer, _GivenSmall) or not 0 < len(answer.blobs) <= len(hashes):
            raise NoAnswer(f"{site} answers what was not asked")
        return list(answer.blobs)

    async def _piece(self, site: str, hash: bytes, start: int) -> _Given:
        answer = await self._asked(site, _Ask(hash, start))
        if not isinstance(answer, _Given):
            raise NoAnswer(f"{site} answers what was not asked")
        return answer

    async def _asked(self, site: str, asked: _Ask | _AskSmall) -> _Given | _GivenSmall:
        ask = _encode(asked)
        try:
            async with asyncio.timeout(PIECE_S_MAX):
                while True:
                    answer = _answers.decode(
                        (await self._connection.request(_subject(site), ask, timeout_s=ASK_S_MAX)).data
                    )
                    if isinstance(answer, _Given | _GivenSmall):
                        return answer
                    if isinstance(answer, _Absent):
                        raise NotThere(site)
                    await asyncio.sleep(BUSY_WAIT_S)
        except NobodyThere:
            raise NoAnswer(f"{site}: no process of it is there") from None
        except (Unreachable, msgspec.MsgspecError) as error:
            raise NoAnswer(f"{site}: {error}") from error
        except TimeoutError:
            raise NoAnswer(f"{site}: busy for {PIECE_S_MAX:g} s") from None

    async def _say(self, reply: str, answer: _Answer) -> None:
        with contextlib.suppress(Unreachable):  # Who asked asks again, or elsewhere.
            await self._connection.publish(reply, _encode(answer))


async def _answered(source: Source, small: SmallSource, data: bytes) -> _Answer:
    try:
        ask = _asks.decode(data)
    except msgspec.MsgspecError:
        return _Absent()
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            if isinstance(ask, _AskSmall):
                return _GivenSmall(tuple(await small(ask.hashes)))
            piece = await source(ask.hash, ask.start)
    except Exception as error:
        log.warning("cannot give a blob", error=f"{type(error).__name__}: {error}")
        return _Busy()
    return _Absent() if piece is None else _Given(piece.size, piece.data)


def _subject(site: str) -> str:
    return f"bl.{token(site)}"
