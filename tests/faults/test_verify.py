"""Three sites with real engines: a bit that flipped in a stream file is found, named and mended."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster.log.wire import stream_of
from tests.faults.clients import Smtp
from tests.faults.site import Site
from tests.faults.test_operating import cluster
from tests.faults.test_sites import message, person, signed_in, until_alike
from tests.live import CLI, REPOSITORY

pytestmark = [pytest.mark.long, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

PARTITION = "mail-pune-1"
MESSAGES = 40


async def verified(site: Site, *words: str) -> list[dict[str, Any]]:
    """What `angarium cluster verify` finds; the last word on each partition and site."""
    command = (*CLI, "--dir", str(site.config.dir), "cluster", "verify", *words, "--json")
    done = await asyncio.to_thread(subprocess.run, command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    findings = [line for line in lines if line["kind"] == "finding"]
    assert findings, done.stderr
    return list({(found["partition"], found["site"]): found for found in findings}.values())


def flip(site: Site, *, copy: bool) -> None:
    """One bit in an event of the copy, or of the home's own stream, as it lies on the disk of a site that is down."""
    stream = stream_of(PARTITION, 1, copy=copy).name
    (file,) = [file for file in Path(site.config.dir).rglob("*.blk") if stream in file.parts]
    data = bytearray(file.read_bytes())
    at = 0
    for _ in range(MESSAGES // 2):
        at = data.index(b"MessageAppended.1", at + 1)
    data[at + 2] ^= 1
    file.write_bytes(data)


async def test_a_flipped_bit_of_a_copy_is_found_and_mended(sites: list[Site]) -> None:
    pune, _, dr = sites
    anna = await person(pune, "anna")
    await signed_in(dr, anna)
    sender = await Smtp.connect(pune.config.ports.smtp)
    for number in range(MESSAGES):
        assert await sender.send([anna], message(number)) == 250
    before = await until_alike([await signed_in(site, anna) for site in sites], MESSAGES)
    assert {found["verdict"] for found in await verified(pune, "--deep", PARTITION)} == {"equal"}

    await dr.stop()
    flip(dr, copy=True)
    await dr.start()
    # Its tables were made before the bit flipped, and are right.
    assert await until_alike([await signed_in(site, anna) for site in (pune, dr)], MESSAGES) == before
    (damaged,) = [found for found in await verified(pune, "--deep", PARTITION) if found["verdict"] == "differs"]
    assert damaged["site"] == dr.config.site, damaged
    found = await verified(pune, "--deep", "--heal", "--yes", PARTITION)
    assert [each["site"] for each in found if each["healed"]] == [dr.config.site], found
    assert {found["verdict"] for found in await verified(dr, "--deep", PARTITION)} == {"equal"}
    assert await until_alike([await signed_in(site, anna) for site in (pune, dr)], MESSAGES) == before


async def test_a_flipped_bit_of_a_home_is_told_and_mended_when_the_home_has_moved(sites: list[Site]) -> None:
    pune, mumbai, _ = sites
    anna = "anna@example.org"
    before = await until_alike([await signed_in(site, anna) for site in sites], MESSAGES)
    # Else another site follows while it is down, and it is no home any more.
    await cluster(pune, "partition", "set", PARTITION, "--pinned", "--yes")
    await pune.stop()
    flip(pune, copy=False)
    await pune.start()
    assert await until_alike([await signed_in(site, anna) for site in sites], MESSAGES) == before
    (damaged,) = [found for found in await verified(mumbai, "--deep", PARTITION) if found["verdict"] == "differs"]
    assert damaged["site"] == pune.config.site, damaged
    (told,) = [found for found in await verified(mumbai, "--deep", "--heal", "--yes", PARTITION) if found["verdict"] == "differs"]
    assert not told["healed"] and "move it to a site whose log is right" in told["why"], told
    await cluster(mumbai, "switchover", PARTITION, "--to", "mumbai", "--yes")
    found = await verified(mumbai, "--deep", "--heal", "--yes", PARTITION)
    assert [each["site"] for each in found if each["healed"]] == [pune.config.site], found
    assert {found["verdict"] for found in await verified(pune, "--deep", PARTITION)} == {"equal"}
    assert await until_alike([await signed_in(site, anna) for site in sites], MESSAGES) == before
    sender = await Smtp.connect(pune.config.ports.smtp)
    assert await sender.send([anna], message(MESSAGES)) == 250
    await until_alike([await signed_in(site, anna) for site in sites], MESSAGES + 1)
