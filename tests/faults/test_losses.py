"""A home is lost under all the mail that the machine takes: nothing acknowledged is lost, nothing is there twice, and no UID
ever names two messages."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from cluster.control.partitions import Partition
from cluster.log.jetstream import JetStreamLog
from tests.faults.clients import GONE, Imap
from tests.faults.device import Device
from tests.faults.site import Site
from tests.faults.test_failover import PARTITION, Writer, log_of, subjects, until, until_all_there
from tests.faults.test_sites import Seen, person, seen, signed_in

pytestmark = [pytest.mark.long, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

CONNECTIONS = 16
ACKNOWLEDGED_MIN = 600
FAILOVER_S_MAX = 12.0
# A failover takes some four seconds; what was acknowledged in the moment before is what this is about.
BEFORE_S = 4.0
AGREED_S_MAX = 60.0  # thousands of messages are read at three sites, more than once


class Crowd:
    """Several who send without a pause, each by a connection of its own and never the same message twice."""

    def __init__(self, sites: list[Site], address: str, count: int = CONNECTIONS, *, first: int = 0) -> None:
        at = [sites[number % len(sites)] for number in range(count)]
        self._at = [(site, Writer(site, address, first + 100_000 * number)) for number, site in enumerate(at)]

    async def for_s(self, seconds: float) -> None:
        """Time passes for who writes: the load is what is waited for."""
        until_at = time.monotonic() + seconds
        while time.monotonic() < until_at:
            await self._writers[0].more(1)

    async def more(self, count: int, at: Site | None = None) -> None:
        """Each of them, or of those at one site."""
        await asyncio.gather(*(writer.more(count) for site, writer in self._at if at in (None, site)))

    @property
    def _writers(self) -> list[Writer]:
        return [writer for _, writer in self._at]

    def forget_waits(self) -> None:
        for writer in self._writers:
            writer.longest_s = 0

    @property
    def waited_s(self) -> float:
        return max(writer.longest_s for writer in self._writers)

    @property
    def acknowledged(self) -> list[int]:
        return [number for writer in self._writers for number in writer.acknowledged]

    async def stop(self) -> list[int]:
        for writer in self._writers:
            await writer.stop()
        return self.acknowledged

    def words(self, seconds: float, count: int) -> str:
        return f"{count} messages acknowledged in {seconds:.1f} s by {len(self._writers)} connections: {count / seconds:.0f}/s"


async def struck(site: Site, parts: tuple[str, ...] = ("nats", "backbone", "postgres", "worker-0")) -> None:
    """`kill -9` of all of a site's processes at one moment: none goes down in order, none gives anything away."""
    assert site._process is not None
    pids = [site.pid(part) for part in parts]
    for pid in (site._process.pid, *pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(site._process.wait)


@contextlib.asynccontextmanager
async def watched(sites: list[Site], address: str) -> AsyncIterator[Device]:
    """A mail program that looks all the time, at one site after the other, and knows what each UID named (device.py)."""
    device = Device(address)

    async def look() -> None:
        while True:
            for site in sites:
                await device.sync(site)

    task = asyncio.create_task(look())
    try:
        yield device
    finally:
        task.cancel()
        (done,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(done, asyncio.CancelledError), done


async def agreed(sites: list[Site], address: str, acknowledged: list[int]) -> Seen:
    """What every site shows, as soon as it is the same and all that was acknowledged is in it. A session may be shown out
    where it was told what is taken back, or while its site is only becoming a copy: then its client comes again."""
    clients: dict[str, Imap] = {}
    words = ""
    try:
        async with asyncio.timeout(AGREED_S_MAX):
            while True:
                try:
                    found = []
                    for site in sites:
                        if (client := clients.get(site.config.site)) is None:
                            client = clients[site.config.site] = await signed_in(site, address)
                        found.append((sorted(await subjects(client)), await seen(client)))
                except GONE as error:
                    words = f"{site.config.site}: {error}"
                    clients.pop(site.config.site).close()
                    continue
                there, now = found[0]
                words = str(
                    [(len(numbers), each.uidnext, sorted(set(acknowledged) - set(numbers))) for numbers, each in found]
                )
                if (
                    all(each == now for _, each in found)
                    and set(acknowledged) <= set(there)
                    and len(there) == len(now.rows)
                ):
                    assert len(there) == len(set(there)), "each once"
                    return now
    except TimeoutError:
        raise AssertionError(words) from None
    finally:
        for client in clients.values():
            client.close()


async def holds(sites: list[Site], address: str, acknowledged: list[int], device: Device) -> int:
    """All that was acknowledged is at every site, once, and every name that a client was given names the same or nothing."""
    device.check(await agreed(sites, address, acknowledged))
    for site in sites:
        await device.sync(site)
    now = await agreed(sites, address, acknowledged)
    device.is_level(now)
    return len(now.rows)


async def ready(log: JetStreamLog, *, remote: bool, home: str, partition: str = PARTITION) -> None:
    """The partition is at home there with that durability, and both its copies may follow it."""

    async def until(is_so: Callable[[Partition], bool]) -> Partition:
        async with asyncio.timeout(60):
            while (now := log.record(partition)) is None or len(now.members) < 2 or not is_so(now):
                await log.watch.looked()
        return now

    if (await until(lambda now: now.begun)).home != home:
        await log.switchover(partition, home)
    await log.place(lambda record: msgspec.structs.replace(record, remote=remote), partition)
    await until(lambda now: now.remote == remote and now.home == home and now.begun)


async def test_a_home_killed_under_load_loses_and_doubles_nothing(sites: list[Site]) -> None:
    """Durability `remote`."""
    pune, mumbai, dr = sites
    anna = await person(pune, "anna")
    log = await log_of(mumbai)
    await ready(log, remote=True, home="pune")
    await signed_in(mumbai, anna)
    async with watched([mumbai, dr], anna) as device:
        crowd, began = Crowd([mumbai, dr], anna), time.monotonic()
        await crowd.for_s(BEFORE_S)
        print(
            f"\nbefore the kill, with a mail program looking: {crowd.words(time.monotonic() - began, len(crowd.acknowledged))}"
        )
        crowd.forget_waits()
        await struck(pune)
        await crowd.more(20)
        print(f"the longest that a sender waited: {crowd.waited_s:.2f} s")
        assert crowd.waited_s < FAILOVER_S_MAX
        record = await until(log, "somebody else is home", lambda record: record.home != "pune")
        # Now, without the lost home: what it alone had would come back with it.
        promised = list(crowd.acknowledged)
        for site in (mumbai, dr):
            await until_all_there(await signed_in(site, anna), promised)
        await pune.start()
        await until(
            log, "it is waited for again", lambda record: any(member.site == "pune" for member in record.members)
        )
        acknowledged = await crowd.stop()
    there = await holds(sites, anna, acknowledged, device)
    print(f"{len(acknowledged)} acknowledged, {there} there; home is {record.home}")
    assert len(acknowledged) >= ACKNOWLEDGED_MIN
    await log.stop()


async def test_with_durability_local_all_that_was_acknowledged_is_there_when_the_old_home_returns(
    sites: list[Site],
) -> None:
    pune, mumbai, dr = sites
    partition = "mail-dr-1"
    ben = await person(dr, "ben")
    log = await log_of(mumbai)
    await ready(log, remote=False, home="dr", partition=partition)
    await signed_in(mumbai, ben)
    async with watched([mumbai, pune], ben) as device:
        # At the home too: what it takes there it acknowledges before any other site has heard of it.
        crowd, began = Crowd([dr, mumbai], ben), time.monotonic()
        await crowd.for_s(BEFORE_S)
        print(f"\nbefore the kill: {crowd.words(time.monotonic() - began, len(crowd.acknowledged))}")
        await struck(dr)
        async with asyncio.timeout(40):
            while (now := log.record(partition)) is None or now.home == "dr":
                await log.watch.looked()
        await crowd.more(20, mumbai)
        before = len(crowd.acknowledged)
        await dr.start()
        await crowd.more(5)
        acknowledged = await crowd.stop()
    there = await holds(sites, ben, acknowledged, device)
    print(f"{len(acknowledged)} acknowledged, {before} of them before the old home was back; {there} there")
    assert len(acknowledged) >= ACKNOWLEDGED_MIN
    await log.stop()
