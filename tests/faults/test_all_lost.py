"""Every site is lost with its disks. What one of them had backed up comes back as a site alone, with everybody's mail."""

import asyncio
import json
from pathlib import Path

import pytest

from node.config import load
from tests.faults.clients import Smtp
from tests.faults.site import Site
from tests.faults.test_failover import sent, until_all_there
from tests.faults.test_sites import bases, person, seen, signed_in, until_alike
from tests.live import CLI, REPOSITORY

pytestmark = [pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]

COUNT = 20


async def run(*words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *CLI, *words, cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_one_backup_brings_everybody_back(sites: list[Site], tmp_path: Path) -> None:
    pune, mumbai, _ = sites
    anna, dora = await person(pune, "anna"), await person(mumbai, "dora")
    sender = await Smtp.connect(pune.config.ports.smtp)
    for number in range(1, COUNT + 1):
        await sent(sender, anna, number)
        await sent(sender, dora, 1000 + number)
    before = {}
    for address in (anna, dora):
        before[address] = await until_alike([await signed_in(site, address) for site in sites], COUNT)
    target = tmp_path / "backup"
    code, said = await run("--dir", str(mumbai.config.dir), "backup", str(target), "--json")
    assert code == 0, said
    await asyncio.gather(*(site.stop() for site in sites))

    # As it was it could not start, without two of three: refused, with the way that works.
    code, said = await run("--dir", str(tmp_path / "as-it-was"), "restore", str(target))
    assert code != 0 and "one of several sites (pune, mumbai, dr)" in said and "angarium init" in said
    alone, base = tmp_path / "alone", bases()[0]
    code, said = await run(
        "init", str(alone), "--site", "mumbai", "--domain", "example.org", "--port-base", str(base)
    )
    assert code == 0, said
    file = alone / "angarium.toml"
    file.write_text(file.read_text().replace("plaintext_networks = []", 'plaintext_networks = ["127.0.0.0/8"]'))
    code, said = await run("--dir", str(alone), "restore", str(target), "--json")
    assert code == 0, said
    site = Site(load(alone))
    await site.start()
    try:
        for address in (anna, dora):
            client = await signed_in(site, address)
            now = await seen(client)
            assert now.uidvalidity == before[address].uidvalidity
            assert [row[:2] for row in now.rows] == [row[:2] for row in before[address].rows]
            assert now.uidnext > before[address].uidnext, "what was given after the backup is not given again"
            sender = await Smtp.connect(site.config.ports.smtp)
            await sent(sender, address, 5000)
            await until_all_there(client, [*((n if address == anna else 1000 + n) for n in range(1, COUNT + 1)), 5000])
        status = json.loads(await asyncio.to_thread(site.cli, "cluster", "status", "--json"))
        assert {each["home"] for each in status["partitions"]} == {"mumbai"}
        assert {"mail-pune-1", "queue-dr", "directory"} <= {each["partition"] for each in status["partitions"]}
        token = await asyncio.to_thread(site.cli, "cluster", "token")
        assert token.strip(), "and others may join it"
    finally:
        await site.stop()
