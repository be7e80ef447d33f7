"""Three sites on this machine, for a module that needs nothing special of them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.lines import Lined, between
from tests.faults.site import Site
from tests.faults.test_sites import made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sites(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Site]]:
    three = await asyncio.to_thread(made, tmp_path_factory.mktemp("sites"))
    try:
        await asyncio.gather(*(site.start() for site in three))
        yield three
    finally:
        await asyncio.gather(*(site.stop() for site in three))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lined(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lined]:
    """The same, with lines between all of them that a test cuts, delays or slows."""
    three = await asyncio.to_thread(made, tmp_path_factory.mktemp("sites"))
    links = await asyncio.to_thread(between, three)
    await links.start()
    try:
        await asyncio.gather(*(site.start() for site in three))
        yield Lined(three, links)
    finally:
        links.heal()
        await asyncio.gather(*(site.stop() for site in three))
        links.close()
