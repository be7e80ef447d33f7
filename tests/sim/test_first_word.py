"""Where words wait for the copies, the first one of an epoch must not wait until a copy happens to ask: nobody writes here,
so nothing but the new home's own word tells its copies that there is something to confirm."""

import asyncio

from msgspec.structs import replace

from cluster.position import split
from tests.sim import clock
from tests.sim.world.world import World

SEEDS = (1, 2, 3, 4)
STARTED_S = 5.0
SETTLED_S = 10.0
TOLD_S_MAX = 0.6  # a few ways there and back; asking comes once a second
STEP_S = 0.01


async def moved(world: World) -> float:
    """Seconds from the record that names the new home until its first word is heard, without any other traffic."""
    for site in world.sites.values():
        site.start_process(0)
    await asyncio.sleep(STARTED_S)
    old = world.sites["north"].living()[0]
    await old.log.place(lambda record: replace(record, remote=True), "mail")
    await asyncio.sleep(SETTLED_S)
    await old.log.switchover("mail", "south")
    began = world.loop.time()
    while split(old.log.home_mark("mail") or 0).epoch < 2:  # noqa: ASYNC110 (virtual time)
        await asyncio.sleep(STEP_S)
    return world.loop.time() - began


def test_copies_hear_at_once_of_the_first_word_of_an_epoch() -> None:
    seeds = iter(SEEDS)

    async def main(loop: clock.VirtualLoop) -> None:
        world = World(loop, next(seeds))
        took.append(await moved(world))
        record = world.record("mail")
        assert record is not None and record.home == "south" and record.remote and record.members
        for site in world.sites.values():
            site.kill_process(0)

    took: list[float] = []
    for _ in SEEDS:
        clock.run(main)
    print("seconds:", took)
    assert max(took) < TOLD_S_MAX, took
