"""Three sites under an operator's hands: what he sees from each, and homes that move while people write."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.faults.site import Site
from tests.faults.test_failover import Writer, until_all_there
from tests.faults.test_sites import person, seen, signed_in, until_alike
from tests.live import CLI, REPOSITORY

pytestmark = [pytest.mark.long, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

SEEN_S_MAX = 30.0
WAITED_S_MAX = 2.5
PARTITION = "mail-pune-1"


async def cluster(site: Site, *words: str) -> list[Any]:
    """The lines of `angarium cluster … --json`."""
    said = await asyncio.to_thread(site.cli, "cluster", *words, "--json")
    return [json.loads(line) for line in said.splitlines()]


async def refused(site: Site, *words: str) -> str:
    command = (*CLI, "--dir", str(site.config.dir), "cluster", *words)
    done = await asyncio.to_thread(subprocess.run, command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    return done.stderr


async def until(site: Site, what: str, is_so) -> Any:  # type: ignore[no-untyped-def]
    """The status at a site, as soon as it is so."""
    status: Any = None
    try:
        async with asyncio.timeout(SEEN_S_MAX):
            while True:
                (status,) = await cluster(site, "status")
                if is_so(status):
                    return status
    except TimeoutError:
        raise AssertionError(f"{what}: {status}") from None


def of(status: Any, name: str) -> Any:
    return next(found for found in status["partitions"] if found["partition"] == name)


def well(status: Any) -> bool:
    """Everybody is here, everything has a holder, every copy is a member and says how far it is."""
    return bool(
        status["quorum"]
        and all(site["here"] for site in status["sites"])
        and all(found["node"] for found in status["partitions"])
        and all(copy["member"] and copy["lag_messages"] is not None for found in status["partitions"] for copy in found["copies"])
    )


async def test_every_site_shows_all_of_them(sites: list[Site]) -> None:
    for site in sites:
        status = await until(site, "all is well", well)
        name = site.config.site
        assert [each["site"] for each in status["sites"]] == ["pune", "mumbai", "dr"]
        assert all((each["link_ms"] is None) == (each["site"] == name) for each in status["sites"])
        spools = [found for found in status["partitions"] if found["partition"].startswith("spool-")]
        assert [(found["home"], found["pinned"], found["copies"]) for found in spools] == [
            (each, True, []) for each in ("dr", "mumbai", "pune")
        ]
        assert all(each["spooled"] == 0 for each in status["sites"])
        assert len(status["partitions"]) == 7 + len(spools) and of(status, PARTITION)["home"] == "pune"


async def test_tables_that_differ_are_found_and_mended_from_another_site(sites: list[Site]) -> None:
    pune, mumbai, _ = sites
    await until(pune, "everything is well", well)
    client = await signed_in(pune, await person(pune, "vera"))
    await client.ask("CREATE kept")
    await until_level(pune, PARTITION)
    database = await asyncpg.connect(mumbai.config.database_url, server_settings={"search_path": "live"})
    try:
        spoil = "UPDATE folded SET digest = set_byte(digest, 0, get_byte(digest, 0) # 1) WHERE partition = $1"
        assert await database.execute(spoil, PARTITION) == "UPDATE 1"
    finally:
        await database.close()

    command = (*CLI, "--dir", str(pune.config.dir), "cluster", "verify", PARTITION)
    found = await asyncio.to_thread(
        subprocess.run, command, cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    verdicts = {line.split("\t")[1]: line.split("\t")[2] for line in found.stdout.splitlines()}
    assert found.returncode == 1 and verdicts == {"mumbai": "differs in tables", "dr": "equal"}, (
        found.stdout + found.stderr
    )
    assert "say --yes" in await refused(pune, "verify", PARTITION, "--heal")

    lines = await cluster(pune, "verify", PARTITION, "--heal", "--yes")
    assert any(line["kind"] == "finding" and line["site"] == "mumbai" and line["healed"] for line in lines), lines
    found_again = [line for line in await cluster(pune, "verify", PARTITION, "--deep") if line["kind"] == "finding"]
    assert {line["site"] for line in found_again} == {"pune", "mumbai", "dr"}
    assert all(line["verdict"] in ("equal", "behind") for line in found_again), found_again


async def until_level(site: Site, name: str) -> None:
    """Where every site has told the same end."""
    async with asyncio.timeout(SEEN_S_MAX):
        while any(
            line["verdict"] != "equal" for line in await cluster(site, "verify", name) if line["kind"] == "finding"
        ):
            pass


async def test_homes_move_there_and_back_while_somebody_writes(sites: list[Site]) -> None:
    pune, mumbai, dr = sites
    anna = await person(pune, "anna")
    reader = await signed_in(dr, anna)
    writer = Writer(dr, anna, 0)
    await writer.more(20)
    before = await seen(reader)
    waited = []
    everything_of_mumbai = ("--from", "mumbai", "--to", "pune")
    for words in ((PARTITION, "--to", "mumbai"), everything_of_mumbai, (PARTITION, "--to", "dr"), (PARTITION, "--to", "pune")):
        writer.longest_s = 0
        done = await cluster(mumbai, "switchover", *words, "--yes")
        moved = [line for line in done if line["kind"] == "did"]
        assert moved and not any(line["warning"] for line in moved), done
        await writer.more(10)
        said = next(line["seconds"] for line in moved if line["partition"] == PARTITION)
        assert writer.longest_s < WAITED_S_MAX, "a writer whom nobody told that the home has gone waits for three seconds"
        waited.append(f"{writer.longest_s:.2f} s (said: about {said:.2f} s)")
        await until(dr, "copies are members again", well)
    acknowledged = await writer.stop()
    print(f"\nwriters waited at a switchover: {', '.join(waited)}")
    found = await until_all_there(reader, acknowledged)
    assert len(set(found)) == len(found)
    after = await until_alike([await signed_in(site, anna) for site in sites], len(found))
    assert after.uidvalidity == before.uidvalidity and set(before.rows) <= set(after.rows)
    assert [uid for uid, *_ in after.rows] == list(range(1, len(found) + 1)), "no UID was left out"
    events = [json.loads(line) for line in pune.cli("log", "tail", "--partition", "directory", "--after", "1.0", "--json").splitlines()]
    moves = [event["data"] for event in events if event["type"] == "TopologyChanged.1" and event["data"]["partition"] == PARTITION]
    assert [move["what"] for move in moves] == ["move"] * 4
    assert [move["after"].split()[3].rstrip(",") for move in moves] == ["mumbai", "pune", "dr", "pune"]


async def test_a_partition_is_made_filled_and_placed_anew(sites: list[Site], tmp_path: Path) -> None:
    pune, mumbai, dr = sites
    done = await cluster(pune, "partition", "add", "archive", "--home", "dr", "--copies", "pune", "--durability", "remote", "--yes")
    assert done[-1]["kind"] == "did"
    await until(mumbai, "its copy is a member", lambda status: of(status, "archive")["members"] == ["pune"])
    gus = await person(pune, "gus", "--partition", "archive")
    writer = Writer(pune, gus, 50_000)
    await writer.more(10)
    done = await cluster(dr, "partition", "move", "archive", "--to", "mumbai", "--copies", "dr", "--yes")
    assert [line["action"] for line in done if line["kind"] == "did"] == ["place", "level", "move", "level", "place"]
    await writer.more(10)
    acknowledged = await writer.stop()
    status = await until(pune, "it is where it was to be", lambda status: of(status, "archive")["members"] == ["dr"])
    assert (of(status, "archive")["home"], [copy["site"] for copy in of(status, "archive")["copies"]]) == ("mumbai", ["dr"])
    found = await until_all_there(await signed_in(dr, gus), acknowledged)
    assert len(set(found)) == len(found)
    # Today's topology is taken back unchanged, and one that cannot hold is refused.
    file = tmp_path / "topology.toml"
    file.write_text(dr.cli("cluster", "topology", "show"))
    assert dr.cli("cluster", "topology", "apply", str(file)) == "Everything is so already.\n"
    file.write_text(file.read_text().replace('home = "mumbai"\ncopies = ["dr"]', 'home = "mumbai"\ncopies = []'))
    assert "needs a copy somewhere" in await refused(dr, "topology", "apply", str(file), "--yes")


async def test_a_site_without_the_quorum_says_so_and_a_pinned_home_is_taken_by_force_only(sites: list[Site]) -> None:
    pune, mumbai, dr = sites
    await cluster(pune, "partition", "set", "mail-dr-1", "--pinned", "--yes")
    await dr.stop()
    status = await until(pune, "dr is away", lambda status: not status["sites"][2]["here"])
    assert status["quorum"] and of(status, "mail-dr-1")["home"] == "dr"
    assert "dr is away" in await refused(pune, "switchover", "mail-dr-1", "--to", "pune", "--yes")
    assert "say --force" in await refused(pune, "failover", "mail-dr-1", "--to", "pune", "--yes")
    (step,) = await cluster(pune, "failover", "mail-dr-1", "--to", "pune", "--plan")
    assert "pune has all that it knows dr to have had" in step["text"]
    done = await cluster(mumbai, "failover", "mail-dr-1", "--to", "pune", "--force", "--yes")
    assert done[-1]["kind"] == "did"
    await mumbai.stop()
    status = await until(pune, "pune is alone", lambda status: not status["quorum"])
    assert "pune is without the quorum" in status["note"] and of(status, "mail-dr-1")["home"] == "pune"
    assert "Reads go on" in status["note"]
    assert "does not take what pune writes" in await refused(pune, "switchover", PARTITION, "--to", "mumbai", "--yes")
    await asyncio.gather(mumbai.start(), dr.start())
    await until(pune, "all are back", lambda status: status["quorum"] and all(site["here"] for site in status["sites"]))
