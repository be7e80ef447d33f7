"""What the site tells of itself to who watches it: health, numbers, the document of its API; and streams that end."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from openapi_spec_validator import validate

from cluster.domain.refusal import Reason
from protocols.admin import errors, routes
from protocols.admin.errors import STATUS
from protocols.admin.metrics import Metrics, measure_loop
from protocols.admin.openapi import document
from protocols.admin.streams import closed, merged
from tests.contracts.admin_door import Asking, standing
from tests.contracts.admin_site import MemorySite


@pytest.fixture
async def door() -> AsyncIterator[Asking]:
    async with standing(await MemorySite.with_domain()) as asking:
        yield asking


# -- seen from outside --------------------------------------------------------------------------------------------------


async def test_health_and_readiness(door: Asking) -> None:
    no_token = {"Authorization": ""}
    async with door.http.get("/healthz", headers=no_token) as answer:
        assert (answer.status, await answer.text()) == (200, "ok\n")
    assert await door.ask("GET", "/readyz", headers=no_token) == (503, {"ready": False, "reasons": {"worker": "is starting"}})
    said = ["the log does not answer"]

    async def log_check() -> str:
        return said[0]

    async def broken_check() -> str:
        raise OSError("no socket")

    async def fine() -> str:
        return ""

    door.health.add("log", log_check)
    door.health.add("tables", fine)
    assert await door.ask("GET", "/readyz") == (503, {"ready": False, "reasons": {"log": "the log does not answer"}})
    said[0] = ""
    assert await door.ask("GET", "/readyz") == (200, {"ready": True, "reasons": {}})
    door.health.add("blobs", broken_check)
    assert (await door.ask("GET", "/readyz"))[0] == 503


async def test_metrics_count_what_is_asked(door: Asking) -> None:
    await door.ask("GET", "/api/v1/domains/none.example")
    async with door.http.get("/metrics") as answer:
        text = await answer.text()
    word = 'word="GET /api/v1/domains/{domain}"'
    wanted = 'angarium_requests_total{outcome="refused",protocol="admin",site="north",' + word + ',worker="1"} 1.0'
    assert wanted in text and "angarium_loop_lag_seconds_bucket" in text and "none.example" not in text


async def test_a_blocked_loop_is_seen() -> None:
    metrics = Metrics("north", "1")
    clock, measured = [0.0], asyncio.Event()

    def monotonic() -> float:
        clock[0] += 0.75  # as if each pause had taken three times as long as asked for
        if clock[0] > 2:  # asked for the third time: one pause is behind
            measured.set()
        return clock[0]

    async with asyncio.TaskGroup() as group:
        measuring = group.create_task(measure_loop(metrics, monotonic))
        await measured.wait()
        measuring.cancel()
    assert b'angarium_loop_lag_seconds_sum{site="north",worker="1"} 0.5\n' in metrics.text()


async def test_the_front_page_says_where_to_go(door: Asking) -> None:
    async with door.http.get("/", headers={"Authorization": ""}) as answer:
        assert answer.status == 200 and "/api/v1/openapi.json" in await answer.text()


async def test_the_document_is_of_the_standard_and_names_every_route(door: Asking) -> None:
    status, said = await door.ask("GET", "/api/v1/openapi.json")
    assert status == 200 and said == json.loads(json.dumps(document("0.1.0")))
    validate(said)
    named = {(method.upper(), path) for path, methods in said["paths"].items() for method in methods}
    assert named == {(route.method, routes.PREFIX + route.path) for route in routes.ROUTES}
    ids = [operation["operationId"] for methods in said["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))
    account = said["components"]["schemas"]["NewAccount"]
    assert account["additionalProperties"] is False and account["properties"]["password"]["anyOf"][0]["writeOnly"]


def test_every_reason_has_a_status() -> None:
    assert set(STATUS) == set(Reason)
    with pytest.raises(RuntimeError, match="CONFLICT"):
        errors.total({reason: status for reason, status in STATUS.items() if reason is not Reason.CONFLICT})


async def test_stopping_ends_a_stream_that_is_followed(door: Asking) -> None:
    async with door.http.get("/api/v1/log", params={"follow": "true"}) as answer:
        await answer.content.readline()
        stopping = asyncio.create_task(door.server.stop())
        assert await asyncio.wait_for(answer.content.read(), 4) == b""
        await stopping


async def test_several_streams_are_one_and_all_are_closed() -> None:
    closed_ones: list[str] = []
    more = asyncio.Event()

    async def counting(name: str, count: int, wait: bool = False) -> AsyncIterator[str]:
        try:
            for number in range(count):
                yield f"{name}{number}"
            if wait:
                await more.wait()
        finally:
            closed_ones.append(name)

    assert sorted([item async for item in merged([counting("a", 3), counting("b", 2)])]) == ["a0", "a1", "a2", "b0", "b1"]
    closed_ones.clear()
    async with closed(merged([counting("a", 1, wait=True), counting("b", 100)])) as stream:
        seen = [await anext(stream) for _ in range(5)]
    assert [item for item in seen if item.startswith("b")] == [f"b{number}" for number in range(len(seen) - 1)]
    assert sorted(closed_ones) == ["a", "b"]
