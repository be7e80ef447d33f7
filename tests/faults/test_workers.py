"""Two workers of one site: one leads the log, the other appends by asking it. When the leader is killed the other takes
over, and clients of either lose nothing."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.faults import site as sites
from tests.faults.chance import SEED_VARIABLE, seeds
from tests.faults.load import Load, Story
from tests.faults.test_kills import acked, more_acks
from tests.faults.verdict import judge

PARTS = ("worker-0", "worker-1")
ACKS_BEFORE_MIN, ACKS_BEFORE_MAX = 20, 100


@pytest.mark.long
async def test_the_other_worker_takes_over(tmp_path: Path) -> None:
    site = sites.made(tmp_path / "site", workers=2)
    story = Story()
    seed = seeds()[0]
    rng = random.Random(seed)
    print(f"{SEED_VARIABLE}={seed}", flush=True)
    clock = asyncio.get_running_loop().time
    await site.start()
    try:
        load = Load(site, rng, story, f"{seed:x}")
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(deliverers=4))
            try:
                # One after the other: whoever leads is among them.
                for part in rng.sample(PARTS, 2):
                    await more_acks(story, rng.randint(ACKS_BEFORE_MIN, ACKS_BEFORE_MAX))
                    killed = clock()
                    await site.kill(part)
                    smtp, imap = await acked(story, killed, killed)
                    print(f"  {part}: away for SMTP {smtp - killed:.2f} s, for IMAP {imap - killed:.2f} s", flush=True)
            finally:
                load.stop.set()
        wrong = await judge(site, story)
        assert not wrong, f"{SEED_VARIABLE}={seed}: {wrong[:20]}\n{site.words()}"
    finally:
        await site.stop()
