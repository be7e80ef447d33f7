"""Mail that a site takes in and cannot write where it belongs: it waits in the site's spool or goes by another site's queue,
and arrives once."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import asyncpg
import msgspec
import pytest
import pytest_asyncio
from aiosmtpd.smtp import SMTP, Envelope, Session

from node.config import load
from tests.faults.clients import GONE, Smtp, Submission
from tests.faults.lines import Links, between
from tests.faults.site import Site
from tests.faults.test_failover import log_of, subjects
from tests.faults.test_sites import PASSWORD, made, message, person, signed_in

pytestmark = [pytest.mark.long, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

FIRST_S_MAX = 25.0  # until the site has seen that it is alone
NEXT_S_MAX = 2.0
ARRIVES_S_MAX = 60.0
MANY = 120


class Outside:
    """The smarthost of pune: what it was given, by subject."""

    def __init__(self) -> None:
        self.got: Counter[tuple[str, int]] = Counter()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        number = int(envelope.content.partition(b"Subject: ")[2].split()[0])
        self.got.update((recipient, number) for recipient in envelope.rcpt_tos)
        return "250 OK"


class Place(NamedTuple):
    """pune sends mail for elsewhere, the others have it sent there."""

    sites: list[Site]
    links: Links
    outside: Outside


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    three = await asyncio.to_thread(made, tmp_path_factory.mktemp("sites"))
    outside, loop = Outside(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(outside, hostname="smart.example"), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for site in three:
        file = site.config.dir / "angarium.toml"
        ways = f'[smarthost]\nhost = "127.0.0.1"\nport = {port}\ntls = "none"\n'
        text, relay = file.read_text(), "[relay]\n"
        assert relay in text
        if site is not three[0]:
            ways = '[relay]\nthrough = "pune"\n'
        file.write_text(text.replace(relay, ways))
        site.config = load(site.config.dir)
    links = await asyncio.to_thread(between, three)
    await links.start()
    try:
        await asyncio.gather(*(site.start() for site in three))
        yield Place(three, links, outside)
    finally:
        links.heal()
        await asyncio.gather(*(site.stop() for site in three))
        links.close()
        server.close()


@pytest.fixture(autouse=True)
def whole_again(place: Place) -> Iterator[None]:
    """Whatever became of a test, the next one begins without a cut."""
    yield
    place.links.heal()


async def counted(site: Site, partition: str) -> int:
    """Messages of it in the site's tables."""
    connection = await asyncpg.connect(site.config.database_url, server_settings={"search_path": "live"})
    try:
        return int(await connection.fetchval("SELECT count(*) FROM queued WHERE partition = $1", partition))
    finally:
        await connection.close()


async def shown(site: Site, partition: str, least: int) -> int:
    """How many there are, as soon as the tables show so many: they follow the log."""
    async with asyncio.timeout(NEXT_S_MAX * 5):
        while (found := await counted(site, partition)) < least:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return found


async def until_nothing_waits(site: Site, *queues: str) -> None:
    async with asyncio.timeout(ARRIVES_S_MAX):
        for queue in queues:
            while await counted(site, queue):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def has_once(site: Site, address: str, numbers: list[int]) -> None:
    """At this site."""
    client, found = await signed_in(site, address), list[int]()
    try:
        async with asyncio.timeout(ARRIVES_S_MAX):
            while not set(numbers) <= set(found := await subjects(client)):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{address} lacks {sorted(set(numbers) - set(found))}") from None
    finally:
        client.close()
    assert sorted(found) == sorted(numbers), "once each"


async def sent(client: Smtp, recipients: list[str], number: int) -> float:
    """Seconds until it was said to be safe."""
    began = time.monotonic()
    assert await client.send(recipients, message(number)) == 250
    return time.monotonic() - began


async def test_what_is_handed_in_at_a_site_that_is_cut_off_arrives_once_when_the_cut_heals(place: Place) -> None:
    pune, mumbai, dr = place.sites
    anna, mia, dan = await person(pune, "anna"), await person(mumbai, "mia"), await person(dr, "dan")
    for address in (anna, mia, dan):
        (await signed_in(mumbai, address)).close()
    submission = await Submission.signed(mumbai.config.ports.submission, mia, PASSWORD)
    place.links.cut("mumbai")
    sender = await Smtp.connect(mumbai.config.ports.smtp)
    first = await sent(sender, [mia], 1)
    for number in range(2, 6):
        await sent(sender, [mia], number)
    others = await sent(sender, [anna, dan], 10)
    assert await submission.begin(mia, ["x@else.example", anna]) == 354
    await submission.give(message(20))
    assert await submission.end() == 250
    waited = [await sent(sender, [mia, anna, dan], number) for number in range(30, 34)]
    spooled = await shown(mumbai, "spool-mumbai", 5)
    print(f"\nfirst 250 after {first:.2f} s, for others {others:.2f} s, then {max(waited):.2f} s at most; {spooled} spooled")
    assert first < FIRST_S_MAX and others < FIRST_S_MAX and min(waited) < NEXT_S_MAX
    assert not place.outside.got
    healed = time.monotonic()
    place.links.heal()
    for site in place.sites:
        await has_once(site, mia, [*range(1, 6), *range(30, 34)])
        await has_once(site, anna, [10, 20, *range(30, 34)])
        await has_once(site, dan, [10, *range(30, 34)])
    print(f"all there {time.monotonic() - healed:.2f} s after the cut healed")
    await until_nothing_waits(mumbai, "spool-mumbai", "queue-mumbai", "queue-pune")
    async with asyncio.timeout(ARRIVES_S_MAX):
        while not place.outside.got:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert place.outside.got == {("x@else.example", 20): 1}, "sent by pune"


async def test_a_worker_that_dies_while_the_spool_drains(place: Place) -> None:
    pune, mumbai, _ = place.sites
    eva = await person(pune, "eva")
    (await signed_in(mumbai, eva)).close()
    place.links.cut("mumbai")
    sender = await Smtp.connect(mumbai.config.ports.smtp)
    for number in range(MANY):
        await sent(sender, [eva], number)
    before = await shown(mumbai, "spool-mumbai", MANY // 2)
    place.links.heal()
    async with asyncio.timeout(ARRIVES_S_MAX):
        while not 0 < (left := await counted(mumbai, "spool-mumbai")) < before:
            assert left, "the test came too late"
    await mumbai.kill("worker-0")
    print(f"\n{before} in the spool, {left} when the worker was killed")
    for site in (pune, mumbai):
        await has_once(site, eva, list(range(MANY)))
    await until_nothing_waits(mumbai, "spool-mumbai", "queue-mumbai")


async def test_mail_for_an_account_that_the_site_has_no_copy_of(place: Place) -> None:
    pune, mumbai, dr = place.sites
    fay, gus = await person(dr, "fay"), await person(mumbai, "gus")
    await asyncio.to_thread(pune.cli, "group", "add", "team@example.org", fay, gus)
    log = await log_of(pune)
    await log.place(lambda record: msgspec.structs.replace(record, copies=("pune",)), "mail-dr-1")
    async with asyncio.timeout(ARRIVES_S_MAX):
        while (now := log.record("mail-dr-1")) is None or now.copies != ("pune",):
            await log.watch.looked()
    await log.stop()
    (await signed_in(mumbai, gus)).close()
    async with asyncio.timeout(ARRIVES_S_MAX):
        while True:
            try:
                sender = await Smtp.connect(mumbai.config.ports.smtp)
                took = await sent(sender, [fay], 1)
                break
            except GONE:  # It does not know the address yet.
                await asyncio.sleep(0.1)
    await sent(sender, [fay, gus], 2)
    await sent(sender, [fay, gus, "team@example.org"], 3)
    local = await Smtp.connect(mumbai.config.ports.lmtp, lmtp=True)
    assert await local.share([fay, gus], message(4)) == [fay, gus]
    print(f"\n250 after {took:.2f} s")
    await has_once(dr, fay, [1, 2, 3, 4])
    await has_once(pune, fay, [1, 2, 3, 4])
    await has_once(mumbai, gus, [2, 3, 4])
    await until_nothing_waits(mumbai, "queue-mumbai", "queue-dr")


async def test_a_site_that_loses_its_power_while_it_is_cut_off_keeps_what_it_took_in(place: Place) -> None:
    pune, mumbai, _ = place.sites
    hal = await person(pune, "hal")
    (await signed_in(mumbai, hal)).close()
    place.links.cut("mumbai")
    sender = await Smtp.connect(mumbai.config.ports.smtp)
    for number in range(10):
        await sent(sender, [hal], number)
    before = await shown(mumbai, "spool-mumbai", 1)
    await mumbai.kill("supervisor")  # and all that it had started; it starts again, alone still
    sender = await Smtp.connect(mumbai.config.ports.smtp)
    for number in range(10, 20):
        await sent(sender, [hal], number)
    print(f"\n{before} in the spool before, {await shown(mumbai, 'spool-mumbai', before + 1)} at the end")
    place.links.heal()
    for site in (pune, mumbai):
        await has_once(site, hal, list(range(20)))
    await until_nothing_waits(mumbai, "spool-mumbai", "queue-mumbai")
