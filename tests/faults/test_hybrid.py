"""The edge is home, the cloud keeps a week of content and takes mail in: what each does while the line between them is cut,
and what stands at both when it is whole again."""

import asyncio
import re
from pathlib import Path

import pytest

from storage.postgres.pool import Database
from tests.faults.clients import Imap, Smtp
from tests.faults.lines import Lined
from tests.faults.site import Site
from tests.faults.test_failover import Writer, sent, subjects, until_all_there
from tests.faults.test_operating import cluster, of, until
from tests.faults.test_sites import SHOWN_S_MAX, message, person, seen, signed_in, until_alike

pytestmark = [pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]

PARTITION = "mail-pune-1"
OLD = 5  # messages from before the window
UNREADABLE_S_MAX = 20.0
BEHIND = (
    "SELECT 1 FROM live.folded f LEFT JOIN site.blobs_kept k USING (partition) "
    "WHERE partition = $1 AND f.position > coalesce(k.position, 0)"
)


async def body(client: Imap, uid: int) -> bool:
    """Whether the client got the message whole."""
    answer = await client.ask(f"UID FETCH {uid} BODY.PEEK[]")
    return answer.state == "OK" and any(b"and so on to the end of it" in line for line in answer.untagged)


async def listed(client: Imap) -> set[int]:
    """The subjects, from the tables alone."""
    assert (await client.ask("SELECT INBOX")).state == "OK"
    told = (await client.ask("UID FETCH 1:* (ENVELOPE)")).untagged
    return {int(found[1]) for line in told if (found := re.search(rb'ENVELOPE \((?:NIL|"[^"]*") "(\d+)"', line))}


async def made_old(cloud: Site) -> None:
    """As if a week had passed over what is there; what is due is looked for when a node starts."""
    database = Database(cloud.config.database_url)
    await database.start()
    async with asyncio.timeout(SHOWN_S_MAX):
        # What is not yet confirmed as kept comes once more after a start.
        while await database.row(BEHIND, PARTITION):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert await database.run("UPDATE site.blob_until SET until = now() - interval '1 hour'") != "UPDATE 0"
    await cloud.stop()
    await cloud.start()
    try:
        async with asyncio.timeout(SHOWN_S_MAX):
            while (await database.row("SELECT count(*) FROM site.blob_until"))[0]:  # type: ignore[index]  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    finally:
        await database.stop()


async def test_the_edge_is_cut_off_from_the_cloud_and_comes_back(lined: Lined, tmp_path: Path) -> None:
    (edge, cloud, _), links = lined.sites, lined.links
    anna = await person(edge, "anna")
    file = tmp_path / "hybrid.toml"
    file.write_text(
        'topology = "hybrid"\nsites = ["pune", "mumbai", "dr"]\nwindows = { mumbai = 7 }\n'
    )
    await cluster(edge, "topology", "apply", str(file), "--yes")
    status = await until(
        cloud, "a window at the cloud alone",
        lambda status: {
            copy["site"]: copy["window_days"] for copy in of(status, PARTITION)["copies"]
        } == {"mumbai": 7, "dr": 0},
    )  # fmt: skip
    assert of(status, PARTITION)["pinned"]

    sender = await Smtp.connect(edge.config.ports.smtp)
    for number in range(1, OLD + 1):
        await sent(sender, anna, number)
    clients = [await signed_in(site, anna) for site in lined.sites]
    await until_alike(clients, OLD)
    await made_old(cloud)
    await sent(sender, anna, OLD + 1)
    at_edge, at_cloud, at_second = [await signed_in(site, anna) for site in lined.sites]
    await until_alike([at_edge, at_second], OLD + 1)
    async with asyncio.timeout(SHOWN_S_MAX):
        while await listed(at_cloud) != set(range(1, OLD + 2)):
            pass

    links.cut("pune")
    # The edge alone: its people's mail, both ways.
    for number in range(100, 110):
        await sent(sender, anna, number)
    assert (await at_edge.ask("UID STORE 1 +FLAGS (\\Seen)")).state == "OK"
    assert set(await subjects(at_edge)) == {*range(1, OLD + 2), *range(100, 110)}
    # The cloud: takes mail in and holds it; shows the window, and says of what is older that it is away.
    outside = await Smtp.connect(cloud.config.ports.smtp)
    for number in range(200, 205):
        await sent(outside, anna, number)
    assert await listed(at_cloud) == set(range(1, OLD + 2)), "all of it is listed"
    assert await body(at_cloud, OLD + 1)
    links.cut("mumbai")  # else the second site would give it
    async with asyncio.timeout(UNREADABLE_S_MAX):
        assert not await body(at_cloud, 1)
    links.heal("mumbai", "dr")
    assert (await at_cloud.ask(f"UID STORE {OLD + 1} +FLAGS (\\Seen)")).state == "NO"
    links.heal()

    everything = {*range(1, OLD + 2), *range(100, 110), *range(200, 205)}
    async with asyncio.timeout(3 * SHOWN_S_MAX):
        while set(await subjects(at_edge)) != everything:
            pass
    for client in (at_edge, at_cloud, at_second):
        found = await until_all_there(client, sorted(everything))
        assert len(found) == len(everything), "nothing twice"
    async with asyncio.timeout(SHOWN_S_MAX):
        while not await body(at_cloud, 1):
            pass
    await until_alike([at_edge, at_cloud, at_second], len(everything))


async def test_the_cloud_takes_over_by_force_and_both_meet_again(lined: Lined) -> None:
    (edge, cloud, _), links = lined.sites, lined.links
    bert = await person(edge, "bert")
    sender = await Smtp.connect(edge.config.ports.smtp)
    for number in range(1, 4):
        await sent(sender, bert, number)
    at_edge, at_cloud, at_second = [await signed_in(site, bert) for site in lined.sites]
    before = await until_alike([at_edge, at_cloud, at_second], 3)
    links.cut("pune")
    await sent(sender, bert, 10)
    await until(cloud, "the edge is away", lambda status: not status["sites"][0]["here"])
    await cluster(cloud, "failover", PARTITION, "--to", "mumbai", "--force", "--yes")
    writer = Writer(cloud, bert, 100)
    await writer.more(20)
    await sent(sender, bert, 11)  # The edge cannot know: it goes on for its people.
    assert (await at_cloud.ask("SELECT INBOX")).state == "OK"
    assert (await at_cloud.ask("UID STORE 1 +FLAGS (\\Flagged)")).state == "OK"
    links.heal()
    taken = await writer.stop()
    everything = [1, 2, 3, 10, 11, *taken]
    clients = []
    for site in lined.sites:
        client = await signed_in(site, bert)
        async with asyncio.timeout(3 * SHOWN_S_MAX):
            while not set(everything) <= set(await subjects(client)):
                pass
        found = await subjects(client)
        assert len(found) == len(set(found)), "nothing twice"
        assert set(everything) <= set(found)
        clients.append(client)
    after = await seen(clients[0])
    assert after.uidvalidity == before.uidvalidity
    assert {row[:2] for row in before.rows} <= {row[:2] for row in after.rows}
    # Back home, as planned: the edge has all, and the cloud keeps its window again.
    await cluster(edge, "switchover", PARTITION, "--to", "pune", "--yes")
    status = await until(
        edge, "home again",
        lambda status: of(status, PARTITION)["home"] == "pune",
    )  # fmt: skip
    copies = of(status, PARTITION)["copies"]
    assert {copy["site"]: copy["window_days"] for copy in copies} == {"mumbai": 7, "dr": 0}
    sender = await Smtp.connect(edge.config.ports.smtp)
    assert await sender.send([bert], message(999)) == 250
    await until_all_there(clients[1], [*everything, 999])
