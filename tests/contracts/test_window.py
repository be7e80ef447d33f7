"""A copy that keeps a window has all events, and the content of so many days; what is older comes when it is read."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from cluster.domain.mailbox.content import Segment
from cluster.log.model import Blob
from storage.blobs.peers import Fetcher, OnDemand, source
from storage.window import DAY_S, Window, Windows
from tests.contracts.test_blobs_fetched import SOON_S, Engine, Place, blob, engine, place
from tests.live import eventually

__all__ = ["engine", "place"]

NOW = 1_700_000_000
BERT = 8


class Clock:
    def __init__(self) -> None:
        self.now: float = NOW

    def __call__(self) -> float:
        return self.now


class Copy:
    """A site of which one partition, or two, follow the log. `here` says how each is kept."""

    def __init__(self, place: Place, fetcher: Fetcher) -> None:
        self.clock = Clock()
        self.here: dict[str, Window | None] = {place.partition: Window(7, home=False)}
        self.blobs = fetcher.blobs
        self._place = place
        self.windows = Windows(
            place.database, fetcher.blobs, lambda: self.here, queued_s=DAY_S, now=self.clock,
            look_every_s=SOON_S, drop_every_s=SOON_S,
        )  # fmt: skip

    async def has(self, *blobs: Blob) -> list[bool]:
        missing = await self.blobs.missing([each.hash for each in blobs])
        return [each.hash not in missing for each in blobs]

    async def until(self, wanted: list[bool], *blobs: Blob) -> None:
        async def so() -> bool:
            return await self.has(*blobs) == wanted

        await eventually(so)

    async def settled(self) -> dict[str, int]:
        return {row[0]: row[1] for row in await self._place.site.rows("SELECT partition, days FROM windowed")}


@asynccontextmanager
async def copying(place: Place, *others: Place) -> AsyncIterator[tuple[Copy, OnDemand]]:
    """Another site, `there`, has all that any event names."""
    await place.site.db.execute("TRUNCATE windowed, blob_until, wanted_blob")
    async with place.engine.fetcher("there") as fetcher:
        copy = Copy(place, fetcher)
        fetcher._told = copy.windows.fetched
        running = asyncio.create_task(copy.windows.run())
        try:
            async with place.follower(fetcher, windows=copy.windows):
                if others:
                    async with others[0].follower(fetcher, windows=copy.windows):
                        yield copy, OnDemand(fetcher)
                else:
                    yield copy, OnDemand(fetcher)
        finally:
            running.cancel()
            await asyncio.wait([running])


@pytest.fixture
async def theirs(engine: Engine) -> AsyncIterator[Callable[..., "asyncio.Future[None]"]]:
    store = engine.store("there")

    async def put(*blobs: Blob) -> None:
        await store.put(blobs)

    async with engine.serving("there", source(store)):
        yield put  # type: ignore[misc]
    await store.close()


async def test_old_content_is_not_asked_for_and_young_content_goes_when_its_time_is_over(place: Place, theirs) -> None:  # type: ignore[no-untyped-def]
    old, lacking, young = blob(500), blob(600), blob(700)
    await theirs(old, lacking, young)
    await place.message(old, at_s=NOW - 30 * 86_400)
    await place.message(lacking, at_s=NOW - 86_400)
    last = await place.message(young, there=True, at_s=NOW)
    async with copying(place) as (copy, reader):

        async def kept() -> bool:
            return await place.kept() == last

        await eventually(kept)  # what is old holds up nobody
        assert await copy.has(old, lacking, young) == [False, True, True]
        copy.clock.now = NOW + 6.5 * DAY_S
        await copy.until([False, False, True], old, lacking, young)
        copy.clock.now = NOW + 7.5 * DAY_S
        await copy.until([False, False, False], old, lacking, young)
        read = [piece async for piece in reader.read([Segment(young.hash, 700)])]
        assert b"".join(read) == young.data, "who opens it gets it from a site that has it"
        assert await copy.has(young) == [True]
        copy.clock.now += 0.9 * DAY_S
        other = blob(10)
        await theirs(other)
        await place.message(other, at_s=int(copy.clock.now) - 8 * 86_400)
        assert await copy.has(young) == [True], "and for a day it stays"
        copy.clock.now += 0.2 * DAY_S
        await copy.until([False], young)


async def test_what_a_partition_that_is_kept_whole_names_stays(place: Place, theirs) -> None:  # type: ignore[no-untyped-def]
    whole = Place(place.engine, place.site, place.database, account=BERT)
    await whole.opened()
    shared, own = blob(300), blob(400)
    await theirs(shared, own)
    async with copying(place, whole) as (copy, _):
        copy.here[whole.partition] = Window(0, home=False)
        await place.message(own, shared, there=True, at_s=NOW)
        last = await whole.message(shared, there=True, at_s=NOW - 86_400)
        await copy.until([True, True], shared, own)

        async def known() -> bool:
            return await whole.kept() == last and await copy.settled() == {place.partition: 7, whole.partition: 0}

        await eventually(known)
        copy.clock.now = NOW + 8 * DAY_S
        await copy.until([True, False], shared, own)


async def test_a_window_is_put_on_a_whole_copy_and_taken_off(place: Place, theirs) -> None:  # type: ignore[no-untyped-def]
    old, young = blob(300), blob(400)
    await theirs(old, young)
    async with copying(place) as (copy, _):
        copy.here[place.partition] = Window(0, home=False)
        await place.message(old, there=True, at_s=NOW - 30 * 86_400)
        last = await place.message(young, there=True, at_s=NOW)

        async def kept() -> bool:
            return await place.kept() == last

        await eventually(kept)
        assert await copy.has(old, young) == [True, True] and not await copy.settled()
        copy.here[place.partition] = Window(7, home=False)
        await copy.until([False, True], old, young)
        assert await copy.settled() == {place.partition: 7}
        copy.here[place.partition] = Window(60, home=False)
        await copy.until([True, True], old, young)

        async def noted() -> bool:
            # What came is in the store a moment before it is noted how long it stays.
            return not await place.site.rows("SELECT 1 FROM wanted_blob")

        await eventually(noted)
        copy.here[place.partition] = Window(7, home=False)
        await copy.until([False, True], old, young)
        copy.here[place.partition] = Window(0, home=False)
        await copy.until([True, True], old, young)

        async def forgotten() -> bool:
            return not await copy.settled() and not await place.site.rows("SELECT 1 FROM blob_until")

        await eventually(forgotten)


async def test_a_home_drops_nothing_though_it_had_a_window_as_a_copy(place: Place, theirs) -> None:  # type: ignore[no-untyped-def]
    taken_in = blob(300)
    assert hashlib.sha256(taken_in.data).digest() == taken_in.hash
    async with copying(place) as (copy, _):
        copy.here[place.partition] = Window(7, home=True)
        last = await place.message(taken_in, there=True, at_s=NOW)

        async def kept() -> bool:
            return await place.kept() == last and await copy.settled() == {place.partition: 7}

        await eventually(kept)
        copy.clock.now = NOW + 8 * DAY_S
        # Twice: rounds pass in which it could go.
        for days in (9, 10):
            before = len(await place.site.rows("SELECT 1 FROM windowed"))
            copy.clock.now = NOW + days * DAY_S
            assert before == 1 and await copy.has(taken_in) == [True]
        copy.here[place.partition] = Window(7, home=False)
        await theirs(taken_in)
        await copy.until([False], taken_in)
