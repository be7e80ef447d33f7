"""Three sites on this machine, for a module that needs nothing special of them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.lines import Lined, Links, between
from tests.faults.site import Site
from tests.faults.test_sites import made

STARTS_MAX = 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sites(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Site]]:
    place = await running(tmp_path_factory.mktemp("sites"), lined=False)
    try:
        yield place.sites
    finally:
        await ended(place)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lined(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lined]:
    """The same, with lines between all of them that a test cuts, delays or slows."""
    place = await running(tmp_path_factory.mktemp("sites"), lined=True)
    try:
        yield place
    finally:
        await ended(place)


async def running(folder: Path, *, lined: bool) -> Lined:
    """Begins anew with other ports where somebody took one of them after it was found free."""
    for number in range(STARTS_MAX):
        (place_folder := folder / str(number)).mkdir()
        sites = await asyncio.to_thread(made, place_folder)
        place = Lined(sites, await asyncio.to_thread(between, sites) if lined else Links({}))
        try:
            await place.links.start()
            await asyncio.gather(*(site.start() for site in sites))
        except BaseException as error:
            await ended(place)
            if number + 1 < STARTS_MAX and "address already in use" in str(error).lower():
                continue
            raise
        return place
    raise AssertionError("not reached")


async def ended(place: Lined) -> None:
    place.links.heal()
    await asyncio.gather(*(site.stop() for site in place.sites))
    place.links.close()
