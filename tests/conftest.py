"""Fixtures that more than one folder of tests uses."""

import datetime
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from node import certs
from node.assembly import assembled
from node.config import Config
from node.world import SystemWorld
from tests import live


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
    folder: Path = tmp_path_factory.mktemp("tls")
    now = datetime.datetime.now(datetime.UTC)
    authority, authority_key = certs.make_authority("test", now)
    chain, key = certs.issue(authority, authority_key, ("localhost",), now)
    (folder / "chain.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    return server, ssl.create_default_context(cadata=authority.decode())
