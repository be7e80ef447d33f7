"""The administrator's door, standing on a free port over a directory in memory or a live site, and a client with the
token."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp

from node.management import Management
from protocols.admin.door import Door
from protocols.admin.gate import Gate
from protocols.admin.health import Health
from protocols.admin.metrics import Metrics
from protocols.admin.server import Server, start
from protocols.admin.session import Parts, application
from tests.contracts.admin_site import MemoryAdministration, MemorySite
from tests.live import Live

TOKEN = "the-token-of-a-test"
GOOD = "correct horse battery"


class Asking(NamedTuple):
    """A client with the token, and what it talks to."""

    http: aiohttp.ClientSession
    site: MemorySite
    health: Health
    server: Server

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        async with self.http.request(method, path, json=body, **more) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None

    async def lines(self, method: str, path: str, **more: Any) -> list[Any]:
        async with self.http.request(method, path, **more) as answer:
            assert answer.status == 200, await answer.text()
            return [json.loads(line) async for line in answer.content if line.strip()]


@asynccontextmanager
async def standing(site: MemorySite, **headers: str) -> AsyncIterator[Asking]:
    health = Health({})
    gate = Gate(TOKEN, (), "north", "north-1")
    metrics = Metrics("north", "1")
    door = Door(site, MemoryAdministration(site), site.credentials)
    try:
        async with _served(Parts(door, gate, metrics, health, "0.1.0"), TOKEN, headers=headers) as (server, http):
            yield Asking(http, site, health, server)
    finally:
        site.credentials.close()


@asynccontextmanager
async def api_of(
    live: Live, host: str = "127.0.0.1", https_port: int | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """Of a live site: by HTTP at a free port, and by HTTPS where a port is given."""
    management = Management(live.parts)
    serving = asyncio.create_task(management.run())
    try:
        async with _served(management.parts, live.parts.config.api_token, host, https_port, tls) as (_, http):
            yield http
    finally:
        serving.cancel()
        await asyncio.wait((serving,))


@asynccontextmanager
async def _served(
    parts: Parts,
    token: str,
    host: str = "127.0.0.1",
    https_port: int | None = None,
    tls: ssl.SSLContext | None = None,
    *,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[Server, aiohttp.ClientSession]]:
    server = await start(application(parts), host, 0, https_port, tls)
    sent = {"Authorization": f"Bearer {token}", **(headers or {})}
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.http_port}", headers=sent) as http:
            yield server, http
    finally:
        await server.stop()


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()
