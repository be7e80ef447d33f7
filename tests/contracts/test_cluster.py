"""An operator's door on a real site that is the only one: what is shown, what is refused and why, what is written down."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.contracts.admin_door import api_of
from tests.live import Live

SHOWN_S_MAX = 10.0


class Operator:
    """Speaks to the site's API with its token."""

    def __init__(self, http: aiohttp.ClientSession, live: Live) -> None:
        self._http = http
        self.live = live

    async def ask(self, path: str) -> Any:
        async with self._http.get(f"/api/v1/cluster{path}") as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def change(self, method: str, path: str, body: Any) -> list[Any]:
        """The lines of the answer; of a refusal the problem alone, whether it had a status of its own or not."""
        async with self._http.request(method, f"/api/v1/cluster{path}", json=body) as answer:
            text = await answer.text()
        return [json.loads(line) for line in text.splitlines() if line.strip()]

    async def refused(self, method: str, path: str, body: Any) -> str:
        last = (await self.change(method, path, body))[-1]
        assert "detail" in last, last
        return str(last["detail"])


@pytest.fixture
async def operator(live_site: Live) -> AsyncIterator[Operator]:
    async with api_of(live_site) as http:
        yield Operator(http, live_site)


async def led(operator: Operator) -> Any:
    """The status, as soon as all three are led."""
    async with asyncio.timeout(SHOWN_S_MAX):
        while True:
            seen = await operator.ask("")
            if all(found["node"] for found in seen["partitions"]) and seen["quorum"]:
                return seen


async def test_the_status_of_a_site_that_is_alone(operator: Operator) -> None:
    seen = await led(operator)
    assert (seen["site"], seen["note"]) == ("test", "")
    (site,) = seen["sites"]
    assert (site["site"], site["here"], site["homes"]) == ("test", True, 3)
    node = next(node for node in site["nodes"] if node["node"] == "test-0")
    assert node["here"] and node["version"] and set(node["leads"]) == {"directory", "mail-test-1", "queue-test"}
    assert [found["partition"] for found in seen["partitions"]] == ["directory", "mail-test-1", "queue-test"]
    for found in seen["partitions"]:
        assert (found["home"], found["copies"], found["members"], found["durability"]) == ("test", [], [], "local")
        assert found["lease_age_s"] < 3


async def test_the_topology_shown_is_taken_back_unchanged(operator: Operator) -> None:
    await led(operator)
    topology = await operator.ask("/topology")
    assert topology["sites"] == ["test"] and set(topology["partitions"]) == {"directory", "mail-test-1", "queue-test"}
    (last,) = await operator.change("PUT", "/topology", topology)
    assert last == {"kind": "finished", "text": "everything is so already"}


def only(**settings: Any) -> dict[str, Any]:
    return {"topology": "active-active", "sites": ["test"], "partitions": {"mail-test-1": settings}}


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
    [
        ("POST", "/switchover", {"partitions": ["nix"], "to": "test"}, "There is no partition nix; there are directory"),
        ("POST", "/switchover", {"partitions": ["directory"], "to": "goa"}, "There is no site goa; there are test."),
        ("POST", "/switchover", {}, "Name partitions, or a site"),
        ("POST", "/switchover", {"from": "test"}, "directory has no copy at a site that is here"),
        ("POST", "/sites/goa/drain", {}, "There is no site goa"),
        ("POST", "/failover", {"partitions": ["directory"], "to": "test", "force": True}, "is at home at test already"),
        ("POST", "/failover", {"partitions": ["directory"], "to": "test", "force": False}, "say `force`"),
        ("POST", "/failover", {"partitions": [], "to": "test", "force": True}, "length >= 1"),
        ("POST", "/nodes/test-9/drain", {}, "There is no node test-9; there are"),
        ("POST", "/nodes/test-0/drain", {}, "is the only node of test"),
        ("POST", "/sites/goa/remove", {}, "This site was made to stay alone"),
        ("POST", "/nodes/test-0/remove", {}, "test-0 is the only node of test: `cluster site drain`"),
        ("POST", "/nodes/test-9/remove", {}, "There is no node test-9 here; there are test-0"),
        ("POST", "/nodes/test-0/remove", {"plam": True}, "unknown field `plam`"),
        ("POST", "/sites", {"site": "goa"}, "init --alone"),
        ("POST", "/partitions", {"name": "directory"}, "There is a partition directory already"),
        ("POST", "/partitions", {"name": "Büro"}, "is no name for a partition"),
        ("POST", "/partitions", {"name": "more", "home": "goa", "copies": []}, "there is no site goa"),
        ("PATCH", "/partitions/nix", {"pinned": True}, "There is no partition nix"),
        ("PATCH", "/partitions/mail-test-1", {"durability": "remote"}, "durability remote needs a copy somewhere"),
        ("PATCH", "/partitions/mail-test-1", {"copies": ["test"]}, "cannot be its copy as well"),
        ("PATCH", "/partitions/mail-test-1", {"pined": True}, "unknown field `pined`"),
        ("PUT", "/topology", only(home="goa"), "there is no site goa"),
        ("PUT", "/topology", only(home=["test", "goa"]), "2 homes; a partition has one"),
        ("PUT", "/topology", only() | {"topology": "star"}, "Invalid enum value 'star'"),
    ],
)
async def test_what_cannot_be_is_refused_with_the_reason(
    operator: Operator, method: str, path: str, body: Any, words: str
) -> None:
    await led(operator)
    assert words in await operator.refused(method, path, body)


async def test_a_change_is_planned_done_and_written_down_with_who_did_it(operator: Operator) -> None:
    await led(operator)
    live = operator.live
    step, finished = await operator.change("PATCH", "/partitions/mail-test-1", {"pinned": True, "plan": True})
    assert (step["action"], step["refused"], finished["text"]) == ("place", "", "1 steps, none of them done")
    assert not (await operator.ask("/topology"))["partitions"]["mail-test-1"].get("pinned")

    _, did, finished = await operator.change("PATCH", "/partitions/mail-test-1", {"pinned": True})
    assert (did["kind"], did["warning"], finished["text"]) == ("did", "", "1 steps done")
    assert (await operator.ask("/topology"))["partitions"]["mail-test-1"]["pinned"]

    at = await live.parts.log.mark("directory")
    async with operator._http.get("/api/v1/log", params={"partition": "directory", "last": "1"}) as answer:
        event = json.loads((await answer.text()).splitlines()[0])
    assert at and (event["type"], event["by"], event["protocol"]) == ("TopologyChanged.1", "token", "admin")
    assert event["data"]["partition"] == "mail-test-1" and event["data"]["after"].endswith("local pinned")

    assert (await operator.change("PATCH", "/partitions/mail-test-1", {"pinned": False}))[-1]["kind"] == "finished"
    assert not (await operator.ask("/topology"))["partitions"]["mail-test-1"].get("pinned")


async def test_one_more_node_is_planned(operator: Operator) -> None:
    await led(operator)
    step, finished = await operator.change("POST", "/nodes", {"plan": True})
    assert (step["action"], step["site"], step["refused"]) == ("start", "test", "")
    assert step["text"] == "test-1 of test is started, at every start too" and finished["text"] == "1 steps, none of them done"
