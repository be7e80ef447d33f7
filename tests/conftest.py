"""Fixtures that more than one folder of tests uses."""

import ssl
from collections.abc import AsyncIterator, Iterator

import pytest

from node.assembly import assembled
from node.config import Config
from node.world import SystemWorld
from tests import certificates, live


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """nats-server and PostgreSQL of a site whose worker serves nobody: tests put the site together themselves."""
    config = live.init(tmp_path_factory.mktemp("site") / "site")
    config = live.configure(config, "[node]", '[node]\nworker_module = "tests.contracts.supervised_worker"')
    with live.running(config):
        yield config


@pytest.fixture
async def live_site(engines: Config) -> AsyncIterator[live.Live]:
    """A running site in this process, over the real engines."""
    async with assembled(engines, SystemWorld(), "test-0") as parts:
        yield live.Live(parts)


@pytest.fixture(scope="session")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server's, client's)."""
    return certificates.contexts(tmp_path_factory.mktemp("tls"), "localhost")
