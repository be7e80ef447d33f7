"""Mail that was submitted is filed in \\Sent, and the client's own copy takes its place: however the two meet."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cluster.domain.actor import Actor
from cluster.domain.mailbox.commands import (
    AppendMessage,
    ChangeFlags,
    CreateMailbox,
    DeleteMailbox,
    Deliver,
    NewMessage,
)
from cluster.domain.mailbox.events import SEEN, FlagMode
from cluster.domain.mailbox.names import FILED
from cluster.domain.refusal import Refusal
from protocols.port import Done, Flags, Mailbox, Spooled
from tests.contracts.smtp_site import NOW
from tests.live import Live, Person

ACTOR = Actor("anna")


def text(number: int, body: str = "Hello", date: str = "Wed, 01 Jul 2026 10:00:00 +0200") -> bytes:
    head = f"From: a@x.example\r\nTo: b@y.example\r\nMessage-ID: <n{number}@x.example>\r\nDate: {date}\r\n"
    return f"{head}Subject: {number}\r\n\r\n{body}\r\n".encode()


async def spooled(site: Live, data: bytes) -> Spooled:
    ingest = site.site.ingest(1 << 20)
    await ingest.feed(data)
    done = await ingest.finish()
    assert not isinstance(done, Refusal)
    return done


async def file(site: Live, person: Person, data: bytes, transaction: int) -> None:
    message = await spooled(site, data)
    ids = tuple(site.world.new_id() for _ in range(6))
    share = Deliver(person.id, message.content, NOW, ids, sent=True)
    (done,) = await site.site.deliver(ACTOR, [share], (message,), transaction)
    assert isinstance(done, Done), done
    assert await site.parts.hub.reached(await partition(site, person), done.position, 10)


async def partition(site: Live, person: Person) -> str:
    found = await site.parts.directory.partition_of(person.id)
    assert found
    return found


async def append(site: Live, person: Person, *data: bytes, mailbox: str = "Sent") -> Done:
    messages = [await spooled(site, each) for each in data]
    news = tuple(NewMessage(each.content, NOW) for each in messages)
    done = await site.site.execute(ACTOR, AppendMessage(person.id, mailbox, news), messages)
    assert isinstance(done, Done), done
    return done


async def sent(site: Live, person: Person, name: str = "Sent") -> list[Flags]:
    box = await site.site.mailbox(person.id, name)
    assert not isinstance(box, Refusal)
    found = await site.site.flags(person.id, box.id, ((1, 1 << 31),))
    assert not isinstance(found, Refusal)
    return found


@pytest.fixture
async def anna(live_site: Live) -> AsyncIterator[Person]:
    yield await live_site.person("anna")


async def test_the_clients_copy_takes_the_place_of_the_filed_one(live_site: Live, anna: Person) -> None:
    await file(live_site, anna, b"Received: by us\r\n" + text(1), 1)
    (filed,) = await sent(live_site, anna)
    assert filed.flags == SEEN and filed.keywords == (FILED,)
    await file(live_site, anna, text(2), 2)
    done = await append(live_site, anna, text(1), text(3))
    assert done.uids == (3, 4), "its own UIDs are told"
    assert [(each.uid, each.keywords) for each in await sent(live_site, anna)] == [(2, (FILED,)), (3, ()), (4, ())]


async def test_nothing_is_filed_where_the_client_was_first(live_site: Live, anna: Person) -> None:
    await live_site.site.mailboxes(anna.id)
    await append(live_site, anna, text(1))
    await file(live_site, anna, text(1), 1)
    await file(live_site, anna, b"Subject: no Message-ID, no Date\r\n\r\n", 2)
    assert [each.uid for each in await sent(live_site, anna)] == [1, 2]


async def test_filed_once_however_often_it_is_submitted(live_site: Live, anna: Person) -> None:
    for transaction in (1, 1, 2):
        await file(live_site, anna, text(1), transaction)
    await file(live_site, anna, text(1, "another body, the same message"), 3)
    assert len(await sent(live_site, anna)) == 1


async def test_elsewhere_and_others_are_left_alone(live_site: Live, anna: Person) -> None:
    """A copy in another mailbox, another Message-ID, a copy that its owner took for an own one."""
    await file(live_site, anna, text(1), 1)
    await append(live_site, anna, text(1), mailbox="Archive")
    await append(live_site, anna, text(9))
    (box,) = [box for box in await mailboxes(live_site, anna) if box.name == "Sent"]
    unmarked = ChangeFlags(anna.id, box.id, ((1, 1),), FlagMode.REMOVE, keywords=(FILED,))
    assert isinstance(await live_site.site.execute(ACTOR, unmarked), Done)
    await append(live_site, anna, text(1))
    assert [each.uid for each in await sent(live_site, anna)] == [1, 2, 3]


async def mailboxes(site: Live, person: Person) -> list[Mailbox]:
    found = await site.site.mailboxes(person.id)
    assert not isinstance(found, Refusal)
    return found


async def test_both_at_the_same_moment(live_site: Live, anna: Person) -> None:
    """Each is decided before it can see the other; the home refuses the second one, which is decided again."""
    await live_site.site.mailboxes(anna.id)
    for number in range(5):
        await asyncio.gather(
            file(live_site, anna, text(number), number + 1), append(live_site, anna, text(number))
        )
    found = await sent(live_site, anna)
    assert len(found) == 5 and not any(FILED in each.keywords for each in found)


async def test_without_a_sent_mailbox(live_site: Live, anna: Person) -> None:
    """An account that nobody opened yet gets its mailboxes; of one whose owner has no \\Sent, nothing is filed."""
    await file(live_site, anna, text(1), 1)
    assert len(await sent(live_site, anna)) == 1
    ben = await live_site.person("ben")
    await live_site.site.mailboxes(ben.id)
    for command in (DeleteMailbox(ben.id, "Sent"), CreateMailbox(ben.id, "Sent", (77,))):
        assert isinstance(await live_site.site.execute(ACTOR, command), Done)
    await file(live_site, ben, text(1), 1)
    assert await sent(live_site, ben) == []
