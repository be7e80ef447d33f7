"""Three sites of one organisation on this machine, each on free ports, for the figures of several sites."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from bench.wire import Imap
from tests.faults.lines import Links, between
from tests.faults.site import Site
from tests.faults.test_sites import made

PASSWORD = "correct-horse-battery"
PARTITION = "mail-pune-1"  # where everybody is at home whom nobody places elsewhere
WAIT_S_MAX = 120.0
LOOK_EVERY_S = 0.1


class Place(NamedTuple):
    """`links`: the lines between the sites, if there are any."""

    pune: Site
    mumbai: Site
    dr: Site
    links: Links

    @property
    def sites(self) -> tuple[Site, Site, Site]:
        return self.pune, self.mumbai, self.dr

    async def people(self, *names: str, at: Site | None = None) -> list[str]:
        """At home at pune if nothing else is said; as soon as every site knows them."""
        home = at or self.pune
        addresses = [f"{name}@example.org" for name in names]
        for address in addresses:
            body = {"address": address, "password": PASSWORD, "name": address.partition("@")[0]}
            await api(home, "POST", "/accounts", body)
        for site in self.sites:
            await until(f"{site.config.site} knows them", partial(_knows, site, addresses[-1]))
        return addresses

    async def well(self) -> None:
        """Everybody is here, everything has a holder, and every copy is waited for and nearly level."""
        await until("all is well", self._well)

    async def _well(self) -> bool:
        seen = [(await api(site, "GET", "/cluster"))[0] for site in self.sites]
        return all(
            status["quorum"]
            and all(site["here"] for site in status["sites"])
            and all(found["node"] for found in status["partitions"])
            and all(copy["member"] for found in status["partitions"] for copy in found["copies"])
            for status in seen
        )

    async def home(self) -> str:
        (status,) = await api(self.dr, "GET", "/cluster")
        return str(next(found["home"] for found in status["partitions"] if found["partition"] == PARTITION))


@asynccontextmanager
async def three(folder: Path, *, lined: bool = False) -> AsyncIterator[Place]:
    """Until the block ends. `lined`: no site reaches another one but by a line, which takes time of this process."""
    folder.mkdir(parents=True, exist_ok=True)
    sites = await asyncio.to_thread(made, folder)
    links = await asyncio.to_thread(between, sites) if lined else Links({})
    await links.start()
    try:
        await asyncio.gather(*(site.start() for site in sites))
        pune, mumbai, dr = sites
        place = Place(pune, mumbai, dr, links)
        await place.well()
        yield place
    finally:
        links.heal()
        await asyncio.gather(*(site.stop() for site in sites))
        links.close()


async def api(site: Site, method: str, path: str, body: object = None) -> list[Any]:
    """What a site's administrator's door says, line by line. Raises AssertionError where it says no."""
    headers = {"Authorization": f"Bearer {site.config.api_token}"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{site.config.ports.http}", headers=headers) as http:
        async with http.request(method, f"/api/v1{path}", json=body) as answer:
            text = await answer.text()
            assert answer.status < 400, text
    found = [json.loads(line) for line in text.splitlines()]
    assert not any(line.get("kind") == "problem" for line in found), text
    return found


async def until(what: str, is_so: Callable[[], Awaitable[bool]], every_s: float = LOOK_EVERY_S) -> float:
    """When it was so, by the performance counter. Raises TimeoutError with `what`."""
    try:
        async with asyncio.timeout(WAIT_S_MAX):
            while not await is_so():  # noqa: ASYNC110
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise TimeoutError(f"not within {WAIT_S_MAX:.0f} s: {what}") from None
    return time.perf_counter()


async def sessions(site: Site, addresses: Iterable[str]) -> list[Imap]:
    """Signed in, INBOX selected."""
    found = [await Imap.connect(site.config.ports.imap, address, PASSWORD) for address in addresses]
    for imap in found:
        await imap.ask(b"SELECT INBOX")
    return found


async def _knows(site: Site, address: str) -> bool:
    try:
        (await Imap.connect(site.config.ports.imap, address, PASSWORD)).close()
    except (AssertionError, EOFError, OSError):
        return False
    return True
