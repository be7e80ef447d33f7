"""Who waits for the tables is told in time, and who gave up costs nothing."""

import asyncio

from storage.news import Hub
from storage.postgres.pool import Database


async def test_waiters_are_told_in_order_and_those_who_gave_up_are_forgotten() -> None:
    hub = Hub(Database("postgresql://nowhere"))
    patient = asyncio.create_task(hub.reached("mail", 7, 60.0))
    given_up = await asyncio.gather(*(hub.reached("mail", 100 + n, 0.0) for n in range(1_000)))
    assert not any(given_up)
    assert len(hub._waiting["mail"]) <= 3
    hub._came_to("mail", 6)
    assert not patient.done()
    hub._came_to("mail", 7)
    assert await patient and hub.position("mail") == 7 and await hub.reached("mail", 3, 0.0)
