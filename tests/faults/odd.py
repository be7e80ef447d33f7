"""Workers that are not as they should be, for one site among three: `worker_module` in its angarium.toml names one of the
modules beside this one, each of which changes one thing and is then the real worker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from node.config import load
from tests.faults.site import Site

PLAIN = "node.worker"


async def started_with(site: Site, module: str) -> None:
    """Stops the site where it runs, and starts it with that worker."""
    await site.stop()
    file = site.config.dir / "angarium.toml"
    kept = [line for line in file.read_text().splitlines() if not line.startswith("worker_module = ")]
    at = next(number for number, line in enumerate(kept) if line.strip() == "[node]")
    kept.insert(at + 1, f'worker_module = "{module}"')
    file.write_text("\n".join(kept) + "\n")
    site.config = load(site.config.dir)
    await site.start()


@asynccontextmanager
async def odd(site: Site, module: str) -> AsyncIterator[None]:
    """The site has that worker until the block ends."""
    await started_with(site, f"tests.faults.{module}")
    try:
        yield
    finally:
        await started_with(site, PLAIN)
