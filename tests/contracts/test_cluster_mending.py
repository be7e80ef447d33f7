"""An operator settles what salvage could not, and has the site's log reckoned anew, on a real site that is the only one."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
import pytest

from cluster import codec, partitions
from cluster.domain.actor import SYSTEM, Actor
from cluster.domain.mailbox import events as m
from cluster.domain.refusal import Refusal
from cluster.log.model import Append, NewEvent, Stored
from cluster.position import position, shown
from node.config import Config
from storage.inspection import Inspection
from storage.mending import Mending, Waiting
from storage.news import Hub
from storage.postgres.pool import Database
from storage.salvaging import Reports
from tests.contracts.admin_door import api_of
from tests.contracts.test_salvage import INBOX, LETTER, OTHER, Partition
from tests.contracts.test_salvaging import fold_all
from tests.laws.tables_of_law import Site, site_tables
from tests.live import CLI, REPOSITORY, Live, Person, eventually
from tests.memory_site import MemoryWorld

MAIL = partitions.mail("test")
SHOWN_S_MAX = 10.0
OLD_EPOCH = 1
LOST = m.FlagsChanged(11, ((5, 5),), m.FlagMode.ADD, m.FLAGGED)


class Said(NamedTuple):
    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


class Operator:
    """At the command line, and at the API."""

    def __init__(self, live: Live, http: aiohttp.ClientSession) -> None:
        self.live = live
        self.http = http

    async def says(self, *words: str) -> Said:
        """In a process of its own: in ours, what the site logs meanwhile would stand between its words."""
        command = (*CLI, "--dir", str(self.live.parts.config.dir), "cluster", *words)
        done = await asyncio.to_thread(
            subprocess.run, command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        return Said(done.returncode, done.stdout, done.stderr)

    async def json(self, *words: str) -> Any:
        result = await self.says(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    async def report(self, person: Person, sequence: int, *, event: bool = True) -> str:
        """As salvage would have told it; the position by which it is named."""
        at = position(OLD_EPOCH, sequence)
        lost = codec.encode(
            LOST, at_us=1_700_000_000_000_000, by=Actor(person.address, person.id, protocol="imap"), command=b"l" * 16
        )
        told = m.SalvageReported(
            at, "mailbox", str(person.id), "Flags of 1 message in 'INBOX'", "It is gone.", lost if event else b""
        )
        command = self.live.world.entropy(16)
        payload = codec.encode(told, at_us=int(self.live.world.now() * 1e6), by=SYSTEM, command=command)
        new = NewEvent("mailbox", m.PARTITION_ENTITY, payload, ())
        stored = await self.live.parts.log.append(Append(MAIL, command, (new,), (), self.live.parts.hub.position(MAIL)))
        assert isinstance(stored, Stored)
        assert await self.live.parts.hub.reached(MAIL, stored.last, SHOWN_S_MAX)
        return shown(at)


@pytest.fixture
async def operator(live_site: Live) -> AsyncIterator[Operator]:
    config = live_site.parts.config
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(config.tls.certificate, config.tls.key)
    async with api_of(live_site, config.bind, config.ports.https, tls) as http:
        yield Operator(live_site, http)


def of(person: Person, found: Any) -> list[Any]:
    return [report for report in found["items"] if report["whose"] == person.address]


async def test_a_report_is_listed_shown_and_settled_once(operator: Operator) -> None:
    anna = await operator.live.person()
    at = await operator.report(anna, 900_001)
    (report,) = of(anna, await operator.json("salvage", "list"))
    assert (report["partition"], report["position"], report["state"], report["by"]) == (
        MAIL, at, "open", f"{anna.address} ({anna.id})"
    )  # fmt: skip
    assert report["why"] == "It is gone." and 0 <= report["age_s"] < 60
    assert f"{MAIL}\t{at}\topen\t" in (await operator.says("salvage", "list")).stdout

    shown_text = (await operator.says("salvage", "show", MAIL, at)).stdout
    for words in (
        "FlagsChanged.1",
        f"It is about {anna.address}.",
        "Flags of 1 message",
        f"Ask {anna.address}",
        "`apply`",
    ):
        assert words in shown_text

    settled = await operator.says("salvage", "apply", MAIL, at)
    assert settled.exit_code == 0 and settled.stdout.endswith(": applied.\n"), settled.output
    assert not of(anna, await operator.json("salvage", "list"))
    (report,) = of(anna, await operator.json("salvage", "list", "--all"))
    assert (report["state"], report["advice"]) == ("applied", ["Nothing: it was applied."])

    again = await operator.says("salvage", "dismiss", MAIL, at)
    assert again.exit_code == 1 and again.stderr == (
        f"angarium: The report at {at} of {MAIL} is settled already: it was applied.\n"
    )
    async with operator.http.get("/api/v1/log", params={"partition": MAIL, "last": "1"}) as answer:
        event = json.loads((await answer.text()).splitlines()[0])
    assert (event["type"], event["by"], event["data"]["applied"]) == ("SalvageSettled.1", "token", True)


async def test_a_report_whose_event_was_too_large_is_dismissed(operator: Operator) -> None:
    anna = await operator.live.person()
    at = await operator.report(anna, 900_002, event=False)
    assert "too large to be kept" in (await operator.says("salvage", "show", MAIL, at)).stdout
    assert (await operator.json("salvage", "dismiss", MAIL, at))["state"] == "dismissed"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "salvage/nix/1.2", None, 404, "There is no report at 1.2 of nix"),
        ("PATCH", f"salvage/{MAIL}/1.2", {"state": "applied"}, 404, "There is no report at 1.2"),
        ("PATCH", f"salvage/{MAIL}/1.2", {"state": "done"}, 400, "Invalid enum value 'done'"),
        ("GET", f"salvage/{MAIL}/one", None, 404, "A position is epoch.sequence"),
        ("GET", f"salvage/{MAIL}/9999999.1", None, 404, "A position is epoch.sequence"),
        ("GET", "salvage?every=1", None, 400, "unknown field `every`"),
        ("DELETE", "salvage/nix/tails/1", None, 404, "There is no partition nix here; there are directory"),
        ("DELETE", f"salvage/{MAIL}/tails/x", None, 404, "An epoch is a number"),
        ("DELETE", f"salvage/{MAIL}/tails/1", None, 409, "No epoch 1 of mail-test-1 has ended"),
        ("POST", "verify", {"partitions": ["nix"]}, 404, "There is no partition nix here; there are directory"),
        ("POST", "verify", {"heel": True}, 400, "unknown field `heel`"),
    ],
)
async def test_what_is_not_there_is_refused(
    operator: Operator, method: str, path: str, body: Any, status: int, words: str
) -> None:
    async with operator.http.request(method, f"/api/v1/cluster/{path}", json=body) as answer:
        assert (answer.status, words in (await answer.json(content_type=None))["detail"]) == (status, True), (
            await answer.text()
        )


async def test_a_site_that_is_alone_compares_its_log_with_what_was_once_made_of_it(operator: Operator) -> None:
    alone = await operator.says("verify")
    assert alone.exit_code == 0 and "no other site has a copy" in alone.stderr, alone.output
    anna = await operator.live.person()
    assert anna.id
    well = await operator.says("verify", "--deep")
    assert well.exit_code == 0, well.output
    assert [line.split("\t")[:3] for line in well.stdout.splitlines()] == [
        [name, "test", "equal"] for name in ("directory", MAIL, "queue-test")
    ]
    (lines,) = [await operator.says("verify", "--deep", "--json", "directory")]
    kinds = [json.loads(line)["kind"] for line in lines.stdout.splitlines()]
    assert kinds == ["progress", "finding", "progress"] and lines.exit_code == 0


async def test_what_differs_and_cannot_be_mended_is_told_and_asked_about_and_is_no_success(operator: Operator) -> None:
    await operator.live.person()
    database = operator.live.parts.database
    spoil = (
        "UPDATE folded SET digest = set_byte(digest, 0, get_byte(digest, 0) # 1) WHERE partition = 'directory' RETURNING 1"
    )
    assert await database.row(spoil) is not None
    try:
        found = await operator.says("verify", "directory", "--deep")
        assert found.exit_code == 1 and "differs in disk" in found.stdout, found.output
        asked = await operator.says("verify", "directory", "--deep", "--heal")
        assert asked.exit_code == 1 and "will be mended: directory at test" in asked.stderr, asked.output
        assert "nothing was changed: say --yes" in asked.stderr
        tried = await operator.says("verify", "directory", "--deep", "--heal", "--yes")
        assert tried.exit_code == 1 and "it is at home there: move it" in tried.stdout, tried.output
    finally:
        await database.row(spoil)
    assert (await operator.says("verify", "directory", "--deep")).exit_code == 0


@pytest.fixture
async def tables(engines: Config) -> AsyncIterator[Site]:
    async with site_tables(engines.database_url, "mending") as made:
        yield made


def uncompared() -> Inspection:
    raise AssertionError("nobody asked to compare")


async def test_a_tail_that_is_not_salvaged_yet_is_shown_and_can_be_given_up(engines: Config, tables: Site) -> None:
    place = Partition(m.MailboxesCreated((m.Made(INBOX, "INBOX"),)))
    place.letter(LETTER)
    kept = place.end
    place.letter(OTHER)
    lost = place.end
    place.lose_after(kept)
    await fold_all(tables, place)
    database = Database(engines.database_url, schema=tables.schema)
    await database.start()
    hub, world = Hub(database), MemoryWorld()
    listening = asyncio.create_task(hub.run())
    mending = Mending(Reports(place.log, hub, database, world), place.log, lambda: ("p",), uncompared, world.now)
    try:
        found = await mending.salvaged(settled=False)
        assert not isinstance(found, Refusal)
        assert (
            found.waiting == (Waiting("p", 1, position(1, kept), position(1, lost), 0),)
            and not found.reports
            and not found.unread
        )
        assert isinstance(await mending.give_up(Actor("carla"), "p", 2), Refusal)
        given_up = asyncio.create_task(mending.give_up(Actor("carla"), "p", 1))

        async def is_told() -> bool:
            return any(isinstance(event, m.TailDestroyed) for event in place.new())

        await eventually(is_told)
        await fold_all(tables, place)
        assert await given_up is None
        found = await mending.salvaged(settled=False)
        assert not isinstance(found, Refusal) and found.waiting == ()
    finally:
        listening.cancel()
        await asyncio.wait((listening,))
        await database.stop()
