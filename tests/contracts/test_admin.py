"""The administrator's door, by HTTP: what each route answers, and what it refuses in which words."""

import ipaddress
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from yarl import URL

from cluster.domain.directory.commands import AddAccount
from cluster.domain.directory.state import Account
from cluster.domain.refusal import Reason, Refusal
from protocols.admin import model
from protocols.admin.gate import Gate, trusted
from protocols.admin.port import Progress
from tests.contracts.admin_door import GOOD, TOKEN, Asking, basic, standing
from tests.contracts.admin_site import MemorySite


@pytest.fixture
async def door() -> AsyncIterator[Asking]:
    async with standing(await MemorySite.with_domain()) as asking:
        yield asking


# -- the directory ------------------------------------------------------------------------------------------------------


async def test_domains(door: Asking) -> None:
    status, made = await door.ask("POST", "/api/v1/domains", {"domain": "Example.NET", "plus": False})
    quota = {"quota_storage_bytes": 0, "quota_messages": 0, "quota_soft_percent": [90]}
    assert (status, made) == (201, {"domain": "example.net", "catch_all": "", "plus": False, "undelete_days": 14} | quota)
    status, listed = await door.ask("GET", "/api/v1/domains")
    assert [item["domain"] for item in listed["items"]] == ["example.net", "example.org"] and listed["next"] is None
    status, changed = await door.ask("PATCH", "/api/v1/domains/example.net", {"catch_all": "anna@example.org"})
    assert changed == made | {"catch_all": "anna@example.org"}
    status, kept = await door.ask("PATCH", "/api/v1/domains/example.net", {"plus": True, "undelete_days": 30})
    assert kept["undelete_days"] == 30
    assert kept["catch_all"] == "anna@example.org"
    assert await door.ask("DELETE", "/api/v1/domains/example.net") == (204, None)
    status, gone = await door.ask("GET", "/api/v1/domains/example.net")
    assert (status, gone["reason"]) == (404, "no-such-domain")


async def test_a_domain_twice_and_a_domain_in_use(door: Asking) -> None:
    status, problem = await door.ask("POST", "/api/v1/domains", {"domain": "example.org"})
    assert (status, problem["reason"], problem["names"]) == (409, "domain-exists", ["example.org"])
    assert problem["type"] == "urn:angarium:problem:domain-exists" and problem["title"] and problem["detail"]
    await door.ask("POST", "/api/v1/accounts", {"address": "anna@example.org", "password": GOOD})
    status, problem = await door.ask("DELETE", "/api/v1/domains/example.org")
    assert (status, problem["reason"]) == (409, "domain-in-use")


async def test_people_settle_what_is_their_own(door: Asking) -> None:
    """With their own password or token; nothing else, and nobody else's."""
    for name in ("anna", "ben"):
        await door.ask("POST", "/api/v1/accounts", {"address": f"{name}@example.org", "password": GOOD, "name": name})
    anna = {"headers": {"Authorization": basic("anna@example.org", GOOD)}}
    settings = {"address": "anna@example.org", "name": "anna", "pop3_since": 0, "file_sent": False}
    assert await door.ask("GET", "/api/v1/me", **anna) == (200, settings)
    changed = settings | {"pop3_since": 86400, "file_sent": True}
    assert await door.ask("PATCH", "/api/v1/me", {"pop3_since": 86400, "file_sent": True}, **anna) == (200, changed)
    actor, _ = door.site.commands[-1]
    assert (actor.name, actor.administrator, actor.protocol) == ("anna@example.org", False, "admin")
    token = {"headers": {"Authorization": "Bearer token-of-anna@example.org"}}
    assert await door.ask("PATCH", "/api/v1/me", {"file_sent": False}, **token) == (200, changed | {"file_sent": False})
    for body in ({"administrator": True}, {"name": "x"}, {"suspended": False}, {"pop3_since": -1}):
        assert (await door.ask("PATCH", "/api/v1/me", body, **anna))[0] in (400, 422), body
    assert (await door.ask("GET", "/api/v1/accounts/ben@example.org", **anna))[0] == 403
    assert (await door.ask("PATCH", "/api/v1/accounts/anna@example.org", {"name": "x"}, **anna))[0] == 403
    assert (await door.ask("GET", "/api/v1/me"))[0] == 403, "the site's token is nobody"
    for wrong in (basic("anna@example.org", "wrong"), "Bearer nonsense", ""):
        assert (await door.ask("GET", "/api/v1/me", headers={"Authorization": wrong}))[0] == 401
    assert (await door.ask("GET", "/api/v1/accounts", **token))[0] == 401, "a person's token is not the site's"


async def test_an_account_from_first_to_last_day(door: Asking) -> None:
    new = {"address": "Anna@Example.org", "password": GOOD, "name": "Anna", "administrator": True}
    status, made = await door.ask("POST", "/api/v1/accounts", new)
    assert status == 201
    assert made["address"] == "anna@example.org" and made["name"] == "Anna" and made["administrator"] is True
    assert made["has_password"] is True and isinstance(made["id"], str) and made["partition"] == "mail"
    status, changed = await door.ask("PATCH", "/api/v1/accounts/anna@example.org", {"suspended": True})
    assert (changed["suspended"], changed["name"]) == (True, "Anna")
    wanted = {"pop3_since": 86400, "suspended": False, "file_sent": True}
    status, changed = await door.ask("PATCH", "/api/v1/accounts/anna@example.org", wanted)
    assert (status, changed["pop3_since"], changed["suspended"], changed["file_sent"]) == (200, 86400, False, True)
    status, _ = await door.ask("PATCH", "/api/v1/accounts/anna@example.org", {"pop3_since": -1})
    assert status == 400
    assert (await door.ask("GET", "/api/v1/accounts/anna@example.org"))[1]["pop3_since"] == 86400
    assert await door.ask("DELETE", "/api/v1/accounts/anna@example.org") == (204, None)
    status, gone = await door.ask("GET", "/api/v1/accounts/anna@example.org")
    assert (status, gone["reason"]) == (404, "no-such-account")


async def test_quotas_by_domain_and_by_account(door: Asking) -> None:
    await door.ask("POST", "/api/v1/accounts", {"address": "anna@example.org"})
    anna, domain = "/api/v1/accounts/anna@example.org", "/api/v1/domains/example.org"

    def quota(item: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(item[f"quota_{name}"] for name in ("storage_bytes", "messages", "soft_percent"))

    assert quota((await door.ask("GET", anna))[1]) == (0, 0, [90])
    status, changed = await door.ask("PATCH", domain, {"quota_storage_bytes": 5000, "quota_soft_percent": [50, 80]})
    assert (status, *quota(changed)) == (200, 5000, 0, [50, 80])
    shown = (await door.ask("GET", anna))[1]
    assert (*quota(shown), shown["quota_own"]) == (5000, 0, [50, 80], [])
    assert (shown["used_percent"], shown["reached_percent"]) == (0, [])
    status, changed = await door.ask("PATCH", anna, {"quota_messages": 7, "quota_soft_percent": []})
    assert (*quota(changed), changed["quota_own"]) == (5000, 7, [], ["quota_messages", "quota_soft_percent"])
    status, changed = await door.ask("PATCH", anna, {"quota_storage_bytes": 0, "quota_messages": None})
    assert (*quota(changed), changed["quota_own"]) == (0, 0, [], ["quota_storage_bytes", "quota_soft_percent"])
    assert changed["used_percent"] is None
    for wrong in ({"quota_storage_bytes": -1}, {"quota_soft_percent": [100]}, {"quota_soft_percent": [90, 80]}):
        status, problem = await door.ask("PATCH", anna, wrong)
        assert status in (400, 403), problem


async def test_the_password_given_is_the_one_that_fits(door: Asking) -> None:
    await door.ask("POST", "/api/v1/accounts", {"address": "anna@example.org"})
    assert (await door.ask("GET", "/api/v1/accounts/anna@example.org"))[1]["has_password"] is False
    status, _ = await door.ask("PUT", "/api/v1/accounts/anna@example.org/password", {"password": GOOD})
    assert status == 204
    assert (await door.ask("GET", "/api/v1/accounts/anna@example.org"))[1]["has_password"] is True
    kept = door.site.state.entries["anna@example.org"]
    assert isinstance(kept, Account) and kept.verifier and GOOD not in repr(kept)
    assert await door.site.credentials.verify([("password", kept.verifier)], kept.id, GOOD) == "password"


@pytest.mark.parametrize("password", ["2short!", "anna@example.org", "aaaaaaaaaaaa"])
async def test_weak_passwords_are_refused(door: Asking, password: str) -> None:
    status, problem = await door.ask("POST", "/api/v1/accounts", {"address": "anna@example.org", "password": password})
    assert (status, problem["reason"]) == (422, "weak-password")
    assert password not in problem["detail"]
    assert (await door.ask("GET", "/api/v1/accounts/anna@example.org"))[0] == 404


async def test_app_passwords_are_shown_once_listed_and_revoked(door: Asking) -> None:
    await door.ask("POST", "/api/v1/accounts", {"address": "anna@example.org", "password": GOOD})
    path = "/api/v1/accounts/anna@example.org/app-passwords"
    status, made = await door.ask("POST", path, {"label": "old phone / kitchen"})
    assert status == 201 and len(made["password"]) == 19 and made["password"].count("-") == 3
    status, listed = await door.ask("GET", path)
    assert listed == {"items": ["old phone / kitchen"]} and made["password"] not in json.dumps(listed)
    assert (await door.ask("POST", path, {"label": "Password"}))[0] == 409
    async with door.http.delete(label_url(path, "old phone / kitchen")) as answer:
        assert answer.status == 204
    status, problem = await door.ask("DELETE", f"{path}/none")
    assert (status, problem["reason"]) == (404, "no-such-app-password")


async def test_accounts_come_in_pages(door: Asking) -> None:
    for number in range(5):
        await door.ask("POST", "/api/v1/accounts", {"address": f"p{number}@example.org"})
    await door.ask("POST", "/api/v1/domains", {"domain": "example.net"})
    await door.ask("POST", "/api/v1/accounts", {"address": "other@example.net"})
    seen, after = [], ""
    for _ in range(3):
        _, page = await door.ask("GET", "/api/v1/accounts", params={"domain": "example.org", "limit": 2, "after": after})
        seen += [item["address"] for item in page["items"]]
        after = page["next"]
    assert seen == [f"p{number}@example.org" for number in range(5)] and after is None


async def test_aliases(door: Asking) -> None:
    await door.ask("POST", "/api/v1/accounts", {"address": "anna@example.org"})
    new = {"address": "sales@example.org", "targets": ["anna@example.org", "far@example.com"]}
    assert await door.ask("POST", "/api/v1/aliases", new) == (201, new)
    assert (await door.ask("GET", "/api/v1/aliases"))[1]["items"] == [new]
    assert (await door.ask("POST", "/api/v1/aliases", new))[1]["reason"] == "address-taken"
    assert await door.ask("DELETE", "/api/v1/aliases/sales@example.org") == (204, None)
    assert (await door.ask("GET", "/api/v1/aliases/sales@example.org"))[0] == 404


async def test_groups_and_the_loop_they_may_not_make(door: Asking) -> None:
    await door.ask("POST", "/api/v1/accounts", {"address": "anna@example.org"})
    await door.ask("POST", "/api/v1/groups", {"address": "all@example.org", "members": ["anna@example.org"]})
    await door.ask("POST", "/api/v1/groups", {"address": "board@example.org", "members": ["all@example.org"]})
    members = "/api/v1/groups/all@example.org/members"
    status, problem = await door.ask("PATCH", members, {"add": ["board@example.org"]})
    assert (status, problem["reason"]) == (409, "members-loop")
    status, now = await door.ask("PATCH", members, {"add": ["ben@example.com"], "remove": ["anna@example.org"]})
    assert now == {"items": ["ben@example.com"]} == (await door.ask("GET", members))[1]
    assert len((await door.ask("GET", "/api/v1/groups", params={"limit": 1}))[1]["items"]) == 1
    assert await door.ask("DELETE", "/api/v1/groups/board@example.org") == (204, None)


async def test_who_did_it_is_told_to_the_domain(door: Asking) -> None:
    await door.ask("POST", "/api/v1/accounts", {"address": "anna@example.org", "password": GOOD, "administrator": True})
    actor, command = door.site.commands[-1]
    assert isinstance(command, AddAccount)
    assert (actor.name, actor.administrator, actor.protocol) == ("token", True, "admin")
    assert (actor.site, actor.node, actor.address) == ("north", "north-1", "127.0.0.1") and actor.session
    async with standing(door.site, Authorization=basic("anna@example.org", GOOD)) as anna:
        assert (await anna.ask("POST", "/api/v1/domains", {"domain": "example.net"}))[0] == 201
    assert door.site.commands[-1][0].name == "anna@example.org" and door.site.commands[-1][0].account


async def test_durable_but_not_shown_yet_is_told_as_such(door: Asking) -> None:
    door.site.refuse_next = Refusal(Reason.NOT_SHOWN_YET, "in the log; the tables follow")
    status, said = await door.ask("POST", "/api/v1/domains", {"domain": "example.net"})
    assert (status, said["reason"]) == (202, "not-shown-yet")


# -- importing ----------------------------------------------------------------------------------------------------------


async def test_an_import_names_what_failed_line_by_line(door: Asking) -> None:
    csv = (
        "\ufeffaddress,name,password,admin\r\n"
        'anna@example.org,"Anna, of ""the house""",a good long one,yes\r\n'
        'dora@example.org,"two\r\nlines",a good long one,\r\n'
        "ben@example.org,Ben,short,\r\n"
        "\r\n"
        "nobody@elsewhere.example,N,a good long one,no\r\n"
        "only-three,columns,here\r\n"
        "carl@example.org,Carl,a good long one,perhaps\r\n"
        "anna@example.org,Again,a good long one,\r\n"
    )
    path = "/api/v1/accounts:import"
    # Of two lines that name the same address one is refused, either of them; so the first is sent ahead.
    first = csv.split("dora@")[0]
    lines = await door.lines("POST", path, data=first.encode(), headers={"Content-Type": "text/csv"})
    assert lines[1] == {"kind": "row", "line": 2, "address": "anna@example.org", "problem": None}
    assert door.site.state.entries["anna@example.org"].name == 'Anna, of "the house"'  # type: ignore[union-attr]
    lines = await door.lines("POST", path, data=csv.encode(), headers={"Content-Type": "text/csv"})
    assert lines[0] == {"kind": "progress", "step": "import", "done": 0, "total": 7, "unit": "accounts"}
    rows = [(line["line"], line["problem"]["reason"]) for line in lines if line["kind"] == "row"]
    assert rows == [
        (2, "address-taken"), (3, "not-permitted"), (5, "weak-password"), (7, "no-such-domain"), (8, "malformed"),
        (9, "malformed"), (10, "address-taken"),
    ]  # fmt: skip
    assert lines[-1]["kind"] == "finished"


@pytest.mark.parametrize(
    ("csv", "word"),
    [("", "first line"), ("adress,name,password\n", "adress"), ("address,name\n", "password"), ('address,name,password\n"x', "CSV")],
)
async def test_a_file_of_another_form_is_refused_whole(door: Asking, csv: str, word: str) -> None:
    headers = {"Content-Type": "text/csv"}
    async with door.http.post("/api/v1/accounts:import", data=csv.encode(), headers=headers) as answer:
        problem = await answer.json(content_type="application/problem+json")
    assert (answer.status, problem["reason"]) == (400, "malformed") and word in problem["detail"]


# -- the log, the state, long work --------------------------------------------------------------------------------------


async def test_the_log_tells_who_did_what_and_no_secret(door: Asking) -> None:
    await door.ask("POST", "/api/v1/accounts", {"address": "anna@example.org", "password": GOOD})
    await door.ask("POST", "/api/v1/accounts/anna@example.org/app-passwords", {"label": "phone"})
    lines = await door.lines("GET", "/api/v1/log")
    assert [line.get("type") for line in lines] == ["DomainAdded.1", "AccountAdded.1", "AppPasswordAdded.1", None]
    added = lines[1]
    assert (added["partition"], added["position"], added["entity"]) == ("directory", "1.2", "example.org")
    assert (added["by"], added["protocol"], added["noun"]) == ("token", "admin", "directory")
    assert added["data"]["address"] == "anna@example.org" and added["data"]["verifier"] == "(secret)"
    assert lines[-1]["kind"] == "finished"
    assert "argon2" not in json.dumps(lines) and "SCRAM" not in json.dumps(lines)
    later = await door.lines("GET", "/api/v1/log", params={"after": "1.2"})
    assert [line.get("position") for line in later] == ["1.3", None]


async def test_the_log_is_followed_as_it_grows_and_ends_with_the_server(door: Asking) -> None:
    async with door.http.get("/api/v1/log", params={"follow": "true", "partition": "directory"}) as answer:
        assert json.loads(await answer.content.readline())["type"] == "DomainAdded.1"
        await door.ask("POST", "/api/v1/domains", {"domain": "example.net"})
        assert json.loads(await answer.content.readline())["data"]["domain"] == "example.net"


async def test_the_last_of_the_log_and_what_comes_after(door: Asking) -> None:
    for number in range(5):
        await door.ask("POST", "/api/v1/domains", {"domain": f"d{number}.example"})
    lines = await door.lines("GET", "/api/v1/log", params={"last": 2})
    assert [line.get("position") for line in lines] == ["1.5", "1.6", None]
    assert [line["kind"] for line in await door.lines("GET", "/api/v1/log", params={"partition": "mail"})] == ["finished"]
    async with door.http.get("/api/v1/log", params={"follow": "true", "last": 1}) as answer:
        assert json.loads(await answer.content.readline())["position"] == "1.6"
        await door.ask("POST", "/api/v1/domains", {"domain": "example.net"})
        assert json.loads(await answer.content.readline())["position"] == "1.7"


async def test_a_stream_that_cannot_begin_has_its_own_status(door: Asking) -> None:
    status, problem = await door.ask("GET", "/api/v1/log", params={"partition": "nowhere"})
    assert (status, problem["reason"]) == (404, "no-such-entry")


async def test_an_event_of_a_later_release_does_not_stop_the_log(door: Asking) -> None:
    door.site.records.append(msgspec.structs.replace(door.site.records[0], position=(1 << 40) + 2, payload=b"\xc1"))
    lines = await door.lines("GET", "/api/v1/log")
    assert [line.get("type") for line in lines] == ["DomainAdded.1", "(undecodable)", None]


async def test_rebuild_shows_progress_and_its_end(door: Asking) -> None:
    lines = await door.lines("POST", "/api/v1/rebuild")
    assert [line["kind"] for line in lines] == ["progress"] * 3 + ["finished"]
    assert lines[1] == {"kind": "progress", "step": "reading", "done": 2, "total": 2, "unit": "events"}


async def test_work_that_fails_on_the_way_ends_with_the_problem(door: Asking) -> None:
    door.site.rebuild_steps = (Progress("reading", 1, 2, "events"), Refusal(Reason.UNAVAILABLE, "the disk is full"))
    lines = await door.lines("POST", "/api/v1/rebuild")
    assert [line["kind"] for line in lines] == ["progress", "problem"]
    assert (lines[-1]["status"], lines[-1]["detail"]) == (503, "the disk is full")
    door.site.rebuild_steps = (Refusal(Reason.UNAVAILABLE, "the disk is full"),)
    assert (await door.ask("POST", "/api/v1/rebuild"))[0] == 503
    assert door.site.rebuilds_closed == 2


async def test_backup_wants_an_absolute_path(door: Asking) -> None:
    status, problem = await door.ask("POST", "/api/v1/backup", {"target": "here"})
    assert (status, problem["field"]) == (400, "target")
    async with door.http.post("/api/v1/backup", json={"target": "/backups/monday"}) as answer:
        last = json.loads((await answer.text()).splitlines()[-1])
    assert last == {"kind": "finished", "text": "backed up to /backups/monday and verified"}


async def test_the_state(door: Asking) -> None:
    status, state = await door.ask("GET", "/api/v1/state")
    assert status == 200 and state["site"] == "north" and state["started_at"] == "2023-11-14T22:13:20.000Z"
    assert state["partitions"][0]["mark"] == "1.1" and state["quarantine"][0]["position"] == "1.3"
    assert [engine["alive"] for engine in state["engines"]] == [True, False]


# -- what is refused before the domain is asked -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"address": "a@example.org", "colour": "red"}, "colour"),
        ({"name": "no address"}, "address"),
        ({"address": "a@example.org", "administrator": "yes"}, "administrator"),
        ({"address": "a@example.org", "name": "n" * 1000}, "name"),
    ],
)
async def test_a_body_that_is_not_of_the_type_is_refused_with_the_field(door: Asking, body: Any, field: str) -> None:
    status, problem = await door.ask("POST", "/api/v1/accounts", body)
    assert (status, problem["reason"], problem["field"]) == (400, "malformed", field)


async def test_parameters_are_of_their_type_too(door: Asking) -> None:
    for params, field in (({"limit": "0"}, "limit"), ({"limit": "many"}, "limit"), ({"page": "2"}, "page")):
        status, problem = await door.ask("GET", "/api/v1/accounts", params=params)
        assert (status, problem["field"]) == (400, field)
    twice = [("after", "a"), ("after", "b")]
    assert (await door.ask("GET", "/api/v1/accounts", params=twice))[1]["field"] == "after"
    assert (await door.ask("GET", "/api/v1/state?x=1"))[0] == 400


async def test_bodies_have_a_type_and_a_limit(door: Asking) -> None:
    async with door.http.post("/api/v1/domains", data=b'{"domain": "example.net"}') as answer:
        assert answer.status == 415  # a form of another site's page cannot say application/json
    headers = {"Content-Type": "application/json"}
    for broken in (b"{", b"[]", b"\xff", b""):
        async with door.http.post("/api/v1/domains", data=broken, headers=headers) as answer:
            assert answer.status == 400
    large = b'{"domain": "' + b"x" * model.BODY_BYTES_MAX + b'"}'
    async with door.http.post("/api/v1/domains", data=large, headers=headers) as answer:
        assert answer.status == 413


async def test_nothing_at_this_path_and_not_by_this_method(door: Asking) -> None:
    assert (await door.ask("GET", "/api/v1/nothing"))[1]["reason"] == "no-such-route"
    async with door.http.delete("/api/v1/domains") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, POST")


# -- who may come in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Digest {TOKEN}", "Bearer " + "x" * 5000])
async def test_without_the_token_nothing_is_told(door: Asking, header: str) -> None:
    for path in ("/api/v1/accounts", "/api/v1/nothing", "/api/v1/openapi.json"):
        async with door.http.get(path, headers={"Authorization": header}) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert TOKEN not in await answer.text()


async def test_an_administrator_may_come_in_with_the_own_password_and_others_not(door: Asking) -> None:
    await door.ask("POST", "/api/v1/accounts", {"address": "anna@example.org", "password": GOOD, "administrator": True})
    await door.ask("POST", "/api/v1/accounts", {"address": "ben@example.org", "password": GOOD})
    for name, password, wanted in (
        ("anna@example.org", GOOD, 200), ("anna@example.org", "wrong", 401), ("ben@example.org", GOOD, 403),
        ("nobody@example.org", GOOD, 401),
    ):  # fmt: skip
        headers = {"Authorization": basic(name, password)}
        assert (await door.ask("GET", "/api/v1/state", headers=headers))[0] == wanted, name


@pytest.mark.parametrize(
    ("peer", "secure", "wanted"),
    [
        ("127.0.0.1", False, True), ("::1", False, True), ("::ffff:127.0.0.1", False, True), ("192.0.2.7", False, False),
        ("198.51.100.7", False, True), ("192.0.2.7", True, True), (None, False, False),
    ],
)  # fmt: skip
def test_in_the_clear_only_from_this_machine_and_named_networks(peer: str | None, secure: bool, wanted: bool) -> None:
    class Request:
        remote = peer

    Request.secure = secure  # type: ignore[attr-defined]
    gate = Gate(TOKEN, (ipaddress.ip_network("198.51.100.0/24"),), "north", "1")
    assert trusted(gate, Request()) is wanted  # type: ignore[arg-type]


def label_url(path: str, label: str) -> URL:
    return URL(f"{path}/{quote(label, safe='')}", encoded=True)
