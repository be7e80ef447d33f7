"""What was expunged is seen and restored over the real engines."""

import asyncio

from cluster.domain.directory.commands import ChangeDomain
from cluster.domain.mailbox.commands import (
    CopyMessages,
    CreateMailbox,
    DeleteMailbox,
    Expunge,
    RestoreMessages,
)
from cluster.domain.mailbox.events import DELETED, FLAGGED
from cluster.domain.mailbox.ranges import EVERY_UID
from cluster.domain.refusal import Refusal
from node.cli import undelete
from node.cli.client import Api
from storage.postgres.pool import prepare
from storage.shapes import Done, Message
from tests.contracts.admin_door import api_of
from tests.contracts.test_site import MESSAGE, append, body, select
from tests.live import ACTOR, Live, Person

ALL = ((1, 99),)


async def rows(live: Live, person: Person, mailbox: int) -> list[Message]:
    return [row async for batch in live.site.messages(person.id, mailbox, EVERY_UID) for row in batch]


async def done(live: Live, command: object) -> Done:
    answer = await live.site.execute(ACTOR, command)  # type: ignore[arg-type]
    assert isinstance(answer, Done), answer
    return answer


async def test_what_was_expunged_comes_back_as_it_was(live_site: Live) -> None:
    person = await live_site.person()
    await live_site.site.mailboxes(person.id)
    await append(live_site, person, MESSAGE, flags=FLAGGED | DELETED)
    inbox = (await select(live_site, person)).status.mailbox.id
    [was] = await rows(live_site, person, inbox)
    await done(live_site, Expunge(person.id, inbox, ALL))
    gone = await select(live_site, person, "Expunged/INBOX")
    mirror = gone.status.mailbox.id
    assert list(gone.uids) == [1] and gone.keywords == ("$work",)
    assert await body(live_site, person, mirror, 1) == MESSAGE
    async with live_site.site.watch(person.id, mirror) as watch:
        restored = await done(live_site, RestoreMessages(person.id, inbox, ALL, "INBOX"))
        assert await watch.wait(10)
    assert (restored.uids, restored.sources) == ((2,), (1,))
    changes = await live_site.site.changes(person.id, mirror, gone.status.highestmodseq)
    assert not isinstance(changes, Refusal)
    assert (changes.vanished, changes.changed, changes.highestmodseq) == (((1, 1),), (), restored.position)
    [now] = [row for row in await rows(live_site, person, inbox) if row.uid == 2]
    same = ("keywords", "size", "internal_at", "internal_zone", "email_id", "thread_id")
    assert [getattr(now, name) for name in same] == [getattr(was, name) for name in same]
    assert (now.flags, now.modseq) == (FLAGGED, restored.position)
    assert await body(live_site, person, inbox, 2) == MESSAGE


async def test_two_who_restore_the_same_at_once_have_it_once(live_site: Live) -> None:
    person = await live_site.person()
    await live_site.site.mailboxes(person.id)
    for _ in range(3):
        await append(live_site, person, MESSAGE)
    inbox = (await select(live_site, person)).status.mailbox.id
    await done(live_site, Expunge(person.id, inbox, ALL, only_deleted=False))
    restoring = [done(live_site, RestoreMessages(person.id, inbox, ALL, name)) for name in ("INBOX", "Archive", "Sent")]
    assert sorted(len(one.uids) for one in await asyncio.gather(*restoring)) == [0, 0, 3]


async def test_the_administrator_finds_and_restores(live_site: Live) -> None:
    person = await live_site.person()
    await live_site.site.mailboxes(person.id)
    await done(live_site, CreateMailbox(person.id, "old", (live_site.world.new_id(),)))
    await append(live_site, person, MESSAGE.replace(b"hello", b"=?utf-8?q?Gr=C3=BC=C3=9Fe?="), "old")
    await append(live_site, person, MESSAGE, "old")
    await append(live_site, person, MESSAGE)
    inbox = (await select(live_site, person)).status.mailbox.id
    await done(live_site, Expunge(person.id, inbox, ALL, only_deleted=False))
    await done(live_site, DeleteMailbox(person.id, "old"))
    async with api_of(live_site) as http:
        api = Api(http, None)
        found = await undelete.found(api, person.address, "", None, "")
        assert [(one["name"], one["subject"], one["sender"]) for one in found] == [
            ("Expunged/INBOX", "hello", "a@example.org"),
            ("Expunged/old", "Grüße", "a@example.org"),
            ("Expunged/old", "hello", "a@example.org"),
        ]
        [one] = await undelete.found(api, person.address, "old", "2020-01-01", "GRÜ")
        assert (one["place"], one["size"]) == (1, len(MESSAGE) + 22)
        assert await undelete.found(api, person.address, "", "2099-01-01", "") == []
        plan = [(one["mailbox"], [one["place"]])]
        assert await undelete.brought_back(api, person.address, plan, "", as_json=False) == 1
        assert await undelete.brought_back(api, person.address, plan, "", as_json=False) == 0
        left = await undelete.found(api, person.address, "", None, "")
        assert [each["subject"] for each in left] == ["hello", "hello"]
        plan = [(each["mailbox"], [each["place"]]) for each in left]
        assert await undelete.brought_back(api, person.address, plan, "back/again", as_json=False) == 2
        answer = await http.get(f"/api/v1/accounts/nobody@{person.address.partition('@')[2]}/expunged")
        assert "no-such" in await answer.text()
    assert list((await select(live_site, person, "old")).uids) == [1]
    assert list((await select(live_site, person, "back/again")).uids) == [1, 2]


async def test_what_is_older_than_the_domain_says_is_given_up(live_site: Live) -> None:
    person = await live_site.person()
    domain = person.address.partition("@")[2]
    await live_site.site.mailboxes(person.id)
    await append(live_site, person, MESSAGE)
    await append(live_site, person, MESSAGE)
    inbox = (await select(live_site, person)).status.mailbox.id
    giving_up, database = live_site.parts.giving_up(), live_site.parts.database
    await done(live_site, Expunge(person.id, inbox, ((1, 1),), only_deleted=False))
    # As if it had been expunged so long ago: with the period over, and one day that makes it one event a day.
    await database.run("UPDATE expunged SET at = at - 4 * 86400 - 9 WHERE mailbox = $1", inbox)
    await done(live_site, Expunge(person.id, inbox, ((2, 2),), only_deleted=False))
    await done(live_site, ChangeDomain(domain, undelete_days=4))
    assert await giving_up.look()
    assert list((await select(live_site, person, "Expunged/INBOX")).uids) == [1, 2]
    await done(live_site, ChangeDomain(domain, undelete_days=3))
    assert await giving_up.look()
    assert list((await select(live_site, person, "Expunged/INBOX")).uids) == [2]
    restored = await done(live_site, RestoreMessages(person.id, inbox, ALL, "INBOX"))
    assert restored.sources == (2,)
    row = await database.row("SELECT bool_and(content = '') AS nothing FROM expunged WHERE mailbox = $1", inbox)
    assert row is not None and row["nothing"]


async def test_tables_of_an_earlier_release_know_what_was_expunged(live_site: Live) -> None:
    person = await live_site.person()
    await live_site.site.mailboxes(person.id)
    await done(live_site, CreateMailbox(person.id, "old", (live_site.world.new_id(),)))
    for _ in range(5):
        await append(live_site, person, MESSAGE)
    inbox = (await select(live_site, person)).status.mailbox.id
    await done(live_site, Expunge(person.id, inbox, ((4, 4),), only_deleted=False))
    await done(live_site, CopyMessages(person.id, inbox, "Archive", ((1, 1),), moved=True))
    await done(live_site, CopyMessages(person.id, inbox, "old", ((2, 2), (5, 5)), moved=True))
    await done(live_site, DeleteMailbox(person.id, "old"))
    await done(live_site, Expunge(person.id, inbox, ((3, 3),), only_deleted=False))
    database = live_site.parts.database
    # Of this account alone: what others did on the same engines may have been restored, or be of mailboxes renumbered since.
    asked = (
        "SELECT mailbox, uid, place, moved, taken FROM expunged WHERE mailbox IN (SELECT id FROM mailbox WHERE account = $1 "
        "UNION SELECT id FROM mailbox_deleted WHERE account = $1) ORDER BY mailbox, uid"
    )
    before = [tuple(row) for row in await database.fetch(asked, person.id) if row["taken"] == 0]
    await database.run("ALTER TABLE live.expunged DROP COLUMN place, DROP COLUMN moved, DROP COLUMN taken")
    await database.run("DROP INDEX live.mailbox_deleted_account")
    await prepare(live_site.parts.config.database_url)
    after = {tuple(row) for row in await database.fetch(asked, person.id)}
    assert len(before) >= 6 and set(before) <= after
