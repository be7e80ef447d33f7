"""A site gets one more node, and gives it back, while it serves: by its own supervisor, without a session dropped."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from node.config import load
from tests.faults import site as sites
from tests.faults.clients import Smtp
from tests.live import CLI, REPOSITORY

GONE_S_MAX = 30.0


def refused(site: sites.Site, *words: str) -> str:
    done = subprocess.run((*CLI, "--dir", str(site.config.dir), *words), cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    return done.stderr


def nodes(site: sites.Site) -> list[str]:
    seen = json.loads(site.cli("cluster", "status", "--json"))
    return [node["node"] for each in seen["sites"] for node in each["nodes"] if node["here"]]


async def until_one_is_left(site: sites.Site) -> None:
    async with asyncio.timeout(GONE_S_MAX):
        while True:
            if nodes(site) == ["test-0"] and not (site.config.run_dir / "worker-1.pid").exists():
                return
            await asyncio.sleep(0.2)


@pytest.mark.long
async def test_a_node_more_and_a_node_less(tmp_path: Path) -> None:
    site = sites.made(tmp_path / "site")
    await site.start()
    try:
        person, *_ = site.people
        first, engine = site.pid("worker-0"), site.pid("nats")
        sender = await Smtp.connect(site.config.ports.smtp)
        assert "test-1 of test is started" in site.cli("cluster", "node", "add", "--plan")
        assert load(site.config.dir).workers == 1 and nodes(site) == ["test-0"]

        assert "test-1 of test is started, at every start too: done" in site.cli("cluster", "node", "add", "--yes")
        assert nodes(site) == ["test-0", "test-1"] and load(site.config.dir).workers == 2
        await site.running("worker-1")
        assert "test-1 goes first" in refused(site, "cluster", "node", "remove", "test-0", "--yes")

        gone = site.cli("cluster", "node", "remove", "test-1", "--yes")
        assert "test-1 of test gives its leases to others: done" in gone and "is stopped, and not started again: done" in gone
        await until_one_is_left(site)
        assert load(site.config.dir).workers == 1 and (site.pid("worker-0"), site.pid("nats")) == (first, engine)
        assert await sender.send([person], b"Subject: one\r\n\r\nhello\r\n") == 250, "its session was dropped by neither"
        assert "only node of test" in refused(site, "cluster", "node", "remove", "test-0", "--yes")
        told = site.cli("log", "tail", "--partition", "directory", "--json")
        changes = [json.loads(line) for line in told.splitlines() if '"TopologyChanged' in line]
        assert [each["data"]["what"] for each in changes] == ["start", "leave", "stop"] and all(each["by"] for each in changes)
    finally:
        await site.stop()
