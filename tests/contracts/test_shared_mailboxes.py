"""Rights to others' mailboxes on a real site: by the administrator's door, and looked at where a command is decided."""

from collections.abc import AsyncIterator
from typing import NamedTuple
from urllib.parse import quote

import aiohttp
import pytest

from cluster.domain.actor import Actor
from cluster.domain.mailbox import rights
from cluster.domain.mailbox.commands import AppendMessage, ChangeFlags, CopyMessages, Expunge, NewMessage, SetRights
from cluster.domain.mailbox.events import FLAGGED, SEEN, FlagMode
from cluster.domain.mailbox.ranges import EVERY_UID
from cluster.domain.refusal import Reason, Refusal
from storage.shapes import Done, Mailbox, Named
from tests.contracts.admin_door import api_of
from tests.live import Live, Person
from tests.memory_site import spool

LETTER = b"Subject: hello\r\n\r\nGood day.\r\n"


class Two(NamedTuple):
    """anna and her INBOX, with one message; bob, who has no right to it yet."""

    live: Live
    http: aiohttp.ClientSession
    anna: Person
    bob: Person
    inbox: Mailbox

    def path(self, *more: str) -> str:
        return f"/api/v1/accounts/{self.anna.address}/mailboxes/{self.inbox.id}/rights" + "".join(
            f"/{quote(one, safe='@')}" for one in more
        )

    def actor(self, person: Person) -> Actor:
        return Actor(person.address, person.id, protocol="imap")

    async def give(self, given: str, identifier: str = "") -> None:
        async with self.http.put(self.path(identifier or self.bob.address), json={"rights": given}) as answer:
            assert answer.status == 200, await answer.text()

    async def mine(self) -> str:
        named = await self.live.site.named(self.bob.id, f"Other Users/{self.anna.address}/INBOX")
        assert isinstance(named, Named), named
        return named.rights

    async def reason(self, command: object) -> Reason | None:
        done = await self.live.site.execute(self.actor(self.bob), command)  # type: ignore[arg-type]
        return done.reason if isinstance(done, Refusal) else None


@pytest.fixture
async def two(live_site: Live) -> AsyncIterator[Two]:
    async with api_of(live_site) as http:
        anna, bob = await live_site.person(), await live_site.person("bob")
        inbox = await live_site.site.mailbox(anna.id, "INBOX")
        assert isinstance(inbox, Mailbox)
        made = Two(live_site, http, anna, bob, inbox)
        ingest = live_site.site.ingest(1 << 20)
        await ingest.feed(LETTER)
        spooled = await ingest.finish()
        assert not isinstance(spooled, Refusal)
        command = AppendMessage(anna.id, "INBOX", (NewMessage(spooled.content, 5),))
        assert isinstance(await live_site.site.execute(made.actor(anna), command, [spooled]), Done)
        yield made


async def test_an_administrator_says_who_may_do_what(two: Two) -> None:
    assert await two.mine() == ""
    await two.give("dr")
    await two.give("lx", "anyone")
    await two.give("t", f"-{two.bob.address}")
    async with two.http.get(two.path()) as answer:
        shown = {item["identifier"]: item["rights"] for item in (await answer.json())["items"]}
    assert shown == {"anyone": "lx", f"-{two.bob.address}": "t", two.bob.address: "rte"}
    assert await two.mine() == "lrxe"
    async with two.http.put(two.path(two.bob.address), json={"rights": "q"}) as answer:
        assert answer.status == 422 or answer.status == 400
    async with two.http.put(two.path("nobody@nowhere.example"), json={"rights": "l"}) as answer:
        assert answer.status == 404
    async with two.http.delete(two.path("anyone")) as answer:
        assert answer.status == 204
    async with two.http.delete(two.path("anyone")) as answer:
        assert answer.status == 404
    assert await two.mine() == "re"


async def test_an_account_that_goes_takes_its_rights_along(two: Two) -> None:
    await two.give("lr")
    await two.give("w", f"-{two.bob.address}")
    async with two.http.delete(f"/api/v1/accounts/{two.bob.address}") as answer:
        assert answer.status == 204
    assert await two.live.site.naming(str(two.bob.id)) == []
    assert await two.live.site.rights(two.bob.id, two.anna.id, two.inbox.id) == ""


async def test_what_nobody_may_do_is_refused_where_it_is_decided(two: Two) -> None:
    """RFC 4314 §4: also if a session should ask for it. What is not seen is not there (§6)."""
    anna, box, inbox = two.anna.id, two.inbox.id, "INBOX"
    commands = {
        "e": Expunge(anna, box, EVERY_UID),
        "te": Expunge(anna, box, EVERY_UID, only_deleted=False),
        "w": ChangeFlags(anna, box, EVERY_UID, FlagMode.ADD, FLAGGED),
        "s": ChangeFlags(anna, box, EVERY_UID, FlagMode.REPLACE, SEEN),
        "rswti": CopyMessages(anna, box, inbox, EVERY_UID),
        "i": AppendMessage(anna, inbox, (NewMessage(spool(LETTER).content, 5),)),
        "a": SetRights(anna, inbox, str(two.bob.id), FlagMode.ADD, "a"),
    }
    for needed, command in commands.items():
        await two.give("")
        assert await two.reason(command) is Reason.NO_SUCH_MAILBOX, needed
        for missing in needed:
            await two.give("l" + "".join(set(rights.ALL) - {missing, "l", *("wt" if needed == "s" else "")}))
            assert await two.reason(command) is Reason.NOT_PERMITTED, (needed, missing)
    # The least that each needs is enough; the rights themselves come last, for they change what bob may do.
    for needed, command in commands.items():
        if needed != "te":
            await two.give(needed)
            assert await two.reason(command) is None, needed
    assert await two.mine() == "a"


async def test_flags_of_the_owner_stay_when_somebody_else_replaces_all(two: Two) -> None:
    site, uid = two.live.site, ((1, 1),)
    await site.execute(two.actor(two.anna), ChangeFlags(two.anna.id, two.inbox.id, uid, FlagMode.ADD, SEEN | FLAGGED, ("mine",)))
    for given, flags, keywords in (("s", SEEN | FLAGGED, ("mine",)), ("w", SEEN, ()), ("swt", SEEN, ())):
        await two.give(given)
        assert await two.reason(ChangeFlags(two.anna.id, two.inbox.id, uid, FlagMode.REPLACE, 0)) is None
        rows = await site.flags(two.anna.id, two.inbox.id, uid)
        assert not isinstance(rows, Refusal) and [(row.flags, row.keywords) for row in rows] == [(flags, keywords)]


async def test_nobody_signs_in_with_a_shared_account(two: Two) -> None:
    domain = two.anna.address.partition("@")[2]
    body = {"address": f"office@{domain}", "shared": True}
    async with two.http.post("/api/v1/accounts", json=body) as answer:
        assert answer.status == 201 and (await answer.json())["shared"]
    async with two.http.put(f"/api/v1/accounts/office@{domain}/password", json={"password": "correct horse battery"}) as answer:
        assert answer.status in (403, 409)
    async with two.http.get(f"/api/v1/accounts/office@{domain}/mailboxes") as answer:
        inbox = next(box["id"] for box in (await answer.json())["items"] if box["name"] == "INBOX")
    path = f"/api/v1/accounts/office@{domain}/mailboxes/{inbox}/rights/{two.bob.address}"
    async with two.http.put(path, json={"rights": rights.ALL}) as answer:
        assert answer.status == 200
    others = await two.live.site.others(two.bob.id)
    assert not isinstance(others, Refusal)
    assert [named.shown for named, _ in others] == [f"Shared/office@{domain}/INBOX"]
