"""A real site for tests: real engines, started once a test process; the site itself put together anew for each test.

Tests share the engines and so the log: each makes people of its own (`Live.person`), whose addresses nobody else has.
"""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cluster import partitions
from cluster.domain.actor import Actor
from cluster.domain.directory.commands import AddAccount, AddDomain
from cluster.domain.refusal import Reason, Refusal
from node.assembly import Assembly
from node.config import STANDARD_PORTS, Config, load

REPOSITORY = Path(__file__).parents[1]
CLI = (sys.executable, "-c", "from node.cli import main; main()")
START_S_MAX = 90.0
ACTOR = Actor(name="test", administrator=True)


class Person(NamedTuple):
    id: int
    address: str
    password: str


class Live:
    """What a test holds: the parts of a running site, and people on demand."""

    def __init__(self, parts: Assembly) -> None:
        self.parts = parts
        self.site = parts.site
        self.world = parts.world

    async def person(
        self,
        name: str = "anna",
        *,
        domain: str = "",
        password: str = "correct horse battery",
        administrator: bool = False,
    ) -> Person:
        """A new account, in a domain of its own unless one is named."""
        domain = domain or f"{self.world.new_id():x}.example"
        added = await self.site.execute(ACTOR, AddDomain(domain))
        assert not isinstance(added, Refusal) or added.reason is Reason.DOMAIN_EXISTS
        address, account = f"{name}@{domain}", self.world.new_id()
        verifier = await self.parts.credentials.make(password)
        partition = partitions.mail(self.parts.config.site)
        answer = await self.site.execute(ACTOR, AddAccount(address, account, partition, name, verifier, administrator))
        assert not isinstance(answer, Refusal), answer
        return Person(account, address, password)


def port_base() -> int:
    """One from which every protocol's port is free, below the range from which the kernel takes ports."""
    while True:
        base = random.SystemRandom().randrange(10_000, 27_000, 5)
        try:
            for offset in STANDARD_PORTS.values():
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", base + offset))
        except OSError:
            continue
        return base


def init(directory: Path, *, site: str = "test", domain: str = "example.org") -> Config:
    command = ("init", str(directory), "--site", site, "--domain", domain, "--port-base", str(port_base()), "--alone")
    subprocess.run((*CLI, *command), cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    return load(directory)


def configure(config: Config, old: str, new: str) -> Config:
    path = config.dir / "angarium.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return load(config.dir)


@contextmanager
def running(config: Config) -> Iterator["subprocess.Popen[str]"]:
    """`angarium up` until the block ends. Its output goes to the folder's `up.log`."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    output = config.dir / "up.log"
    with output.open("a") as log:
        process = subprocess.Popen(
            (*CLI, "up", str(config.dir), "--ready-file", str(config.dir / "ready"), "--json"),
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        _until_serving(process, output)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


def _until_serving(process: "subprocess.Popen[str]", output: Path) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["what"] == "serving":
            return
    raise AssertionError(f"the site does not start: {output.read_text()[-4000:]}")


async def eventually(condition: "object", timeout_s: float = 10.0) -> None:
    """Waits until an async predicate holds; for what only polling can see from outside."""
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
