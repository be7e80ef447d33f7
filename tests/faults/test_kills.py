"""`kill -9` of the worker, the log, the database and the supervisor while clients work: nothing acknowledged is lost,
nothing is there twice, no UID means another message, and the tables are those that the log gives."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.faults import site as sites
from tests.faults import tables
from tests.faults.chance import SEED_VARIABLE, rounds, seeds
from tests.faults.load import Load, Story
from tests.faults.site import Site
from tests.faults.verdict import judge

PARTS = ("worker-0", "nats", "postgres", "supervisor")
ACKS_BEFORE_MIN, ACKS_BEFORE_MAX = 10, 80
PAUSE_S_MAX = 0.05
BACK_S_MAX = 20.0
POLL_S = 0.01


async def acked(story: Story, smtp_asked_after: float, imap_asked_after: float) -> tuple[float, float]:
    """When each language first acknowledged something that was asked after those moments."""
    async with asyncio.timeout(BACK_S_MAX):
        while True:
            smtp = next((done for asked, done in reversed(story.smtp_acks[-50:]) if asked > smtp_asked_after), None)
            imap = next((done for asked, done in reversed(story.imap_acks[-50:]) if asked > imap_asked_after), None)
            if smtp is not None and imap is not None:
                return smtp, imap
            await asyncio.sleep(POLL_S)


async def more_acks(story: Story, count: int) -> None:
    goal = story.acks + count
    async with asyncio.timeout(BACK_S_MAX):
        while story.acks < goal:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)


async def one_round(site: Site, seed: int, story: Story) -> None:
    rng = random.Random(seed)
    load = Load(site, rng, story, f"{seed:x}", queues=rounds() > 1)
    clock = asyncio.get_running_loop().time
    async with asyncio.TaskGroup() as group:
        running = group.create_task(load.run())
        try:
            for part in rng.sample(PARTS, len(PARTS)):
                await more_acks(story, rng.randint(ACKS_BEFORE_MIN, ACKS_BEFORE_MAX))
                await asyncio.sleep(rng.random() * PAUSE_S_MAX)
                killed = clock()
                await site.kill(part)
                smtp, imap = await acked(story, killed, killed)
                print(f"  {part}: away for SMTP {smtp - killed:.2f} s, for IMAP {imap - killed:.2f} s", flush=True)
        finally:
            load.stop.set()
        await running


@pytest.mark.timeout(7200)
@pytest.mark.long
async def test_every_promise_holds_over_every_kill(tmp_path: Path) -> None:
    site = sites.made(tmp_path / "site")
    story = Story()
    await site.start()
    try:
        for seed in seeds():
            print(f"{SEED_VARIABLE}={seed}", flush=True)
            await one_round(site, seed, story)
            await tables.nothing_is_queued(site)
            wrong = await judge(site, story)
            living = await tables.rows(site)
            await asyncio.to_thread(site.cli, "rebuild")
            wrong += tables.differences(living, await tables.rows(site))
            assert not wrong, f"{SEED_VARIABLE}={seed}: {wrong[:20]}\n{site.words()}"
    finally:
        await site.stop()
