"""The administrator's door, standing on a free port over a directory in memory, and a client with the token."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp

from protocols.admin.door import Door
from protocols.admin.gate import Gate
from protocols.admin.health import Health
from protocols.admin.metrics import Metrics
from protocols.admin.server import Server, start
from protocols.admin.session import Parts, application
from tests.contracts.admin_site import MemoryAdministration, MemorySite

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
    server = await start(application(Parts(door, gate, metrics, health, "0.1.0")), "127.0.0.1", 0, None, None)
    base = f"http://127.0.0.1:{server.http_port}"
    sent = {"Authorization": f"Bearer {TOKEN}"} | headers
    try:
        async with aiohttp.ClientSession(base, headers=sent) as http:
            yield Asking(http, site, health, server)
    finally:
        await server.stop()
        site.credentials.close()


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()
