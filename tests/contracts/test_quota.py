"""What an account may hold is held, on the real engines: by every way in, once, and counted from the log alone."""

import asyncio

import pytest

from cluster.domain.directory.commands import ChangeAccount, ChangeDomain
from cluster.domain.mailbox.commands import AppendMessage, CopyMessages, Deliver, Expunge, NewMessage, ReplaceMessage
from cluster.domain.mailbox.events import DELETED
from cluster.domain.quota import Held, Quota, Usage
from cluster.domain.refusal import Reason, Refusal
from storage.ingest import SpooledMessage
from storage.moving_in import Brought, MovingIn, Place
from storage.postgres.moving_view import MovingView
from storage.shapes import Done
from tests.contracts.test_rebuild import rebuilt
from tests.contracts.test_site import MESSAGE, append, select, spooled
from tests.live import ACTOR, Live, Person

SIZE = len(MESSAGE)


async def limited(live: Live, *, storage: int = 0, messages: int = 0, domain: str = "") -> Person:
    person = await live.person(f"p{live.world.new_id():x}", domain=domain)
    change = ChangeAccount(person.address, quota_storage=storage, quota_messages=messages, quota_soft=(50, 90))
    assert isinstance(await live.site.execute(ACTOR, change), Done)
    await live.site.mailboxes(person.id)
    return person


async def delivered(live: Live, people: list[Person], message: SpooledMessage, transaction: int = 0) -> list[Done | Refusal]:
    deliveries = [
        Deliver(person.id, message.content, 1_700_000_000, tuple(live.world.new_id() for _ in range(6))) for person in people
    ]
    return await live.site.deliver(ACTOR, deliveries, [message], transaction)


async def shown(live: Live, answers: list[Done | Refusal]) -> list[Reason | None]:
    """Why each was refused, once the tables have what was not."""
    partition = await live.parts.directory.partition_of((await live.person()).id)
    for answer in answers:
        if isinstance(answer, Done):
            assert partition is not None and await live.parts.hub.reached(partition, answer.position, 10)
    return [answer.reason if isinstance(answer, Refusal) else None for answer in answers]


async def held(live: Live, person: Person) -> Usage:
    found = await live.site.quota(person.id)
    assert isinstance(found, Held)
    return found.usage


async def test_what_does_not_fit_is_refused_by_every_way_in(live_site: Live) -> None:
    live, site = live_site, live_site.site
    anna = await limited(live, storage=3 * SIZE, messages=3)
    for _ in range(3):
        await append(live, anna, MESSAGE)
    assert await held(live, anna) == Usage(3 * SIZE, 3)
    message = await spooled(live, MESSAGE)
    assert await shown(live, await delivered(live, [anna], message)) == [Reason.OVER_QUOTA]
    new = NewMessage(message.content, 1_700_000_000)
    inbox = (await select(live, anna)).status.mailbox.id
    coming = AppendMessage(anna.id, "INBOX", (new,)), CopyMessages(anna.id, inbox, "Sent", ((1, 1),))
    for command in coming:
        refused = await site.execute(ACTOR, command, [message])
        assert isinstance(refused, Refusal) and refused.reason is Reason.OVER_QUOTA
    # What an import brings passes by the site's own door.
    moving = MovingIn(live.parts.executor, MovingView(live.parts.database))
    brought = [Brought(message, 1_700_000_000, 0, 0, ())]
    answer = await moving.append(ACTOR, Place(anna.id, inbox, "INBOX"), brought, b"1" * 16, shown=True)
    assert isinstance(answer, Refusal) and answer.reason is Reason.OVER_QUOTA
    # What brings nothing that is not there is welcome.
    moved = CopyMessages(anna.id, inbox, "Sent", ((1, 1),), moved=True)
    assert isinstance(await site.execute(ACTOR, moved), Done)
    assert isinstance(await site.execute(ACTOR, ReplaceMessage(anna.id, inbox, 2, "INBOX", new), [message]), Done)
    assert await held(live, anna) == Usage(3 * SIZE, 3)
    refusal = await site.room((anna.id,), 1)
    assert refusal is not None and refusal.reason is Reason.OVER_QUOTA
    # What was just expunged makes room at once, though what is kept of the account is younger than a second.
    assert isinstance(await site.execute(ACTOR, Expunge(anna.id, inbox, ((1, 9),), only_deleted=False)), Done)
    assert await held(live, anna) == Usage(SIZE, 1)
    assert await site.room((anna.id,), SIZE) is None
    assert await shown(live, await delivered(live, [anna], message)) == [None]
    assert await held(live, anna) == Usage(2 * SIZE, 2)


async def test_more_than_it_may_ever_hold_is_another_refusal(live_site: Live) -> None:
    anna = await limited(live_site, storage=SIZE - 1)
    message = await spooled(live_site, MESSAGE)
    assert await shown(live_site, await delivered(live_site, [anna], message)) == [Reason.ABOVE_QUOTA]
    refusal = await live_site.site.room((anna.id,), SIZE)
    assert refusal is not None and refusal.reason is Reason.ABOVE_QUOTA
    bob = await live_site.person("bob")
    assert await live_site.site.room((anna.id, bob.id), SIZE) is None


async def test_the_domain_says_it_for_who_has_no_quota_of_his_own(live_site: Live) -> None:
    site = live_site.site
    anna = await live_site.person()
    domain = anna.address.partition("@")[2]
    assert await site.quota(anna.id) is None
    change = ChangeDomain(domain, quota_storage=1000, quota_messages=10, quota_soft=(80,))
    assert isinstance(await site.execute(ACTOR, change), Done)
    assert await site.quota(anna.id) == Held(Quota(1000, 10, (80,)), Usage())
    assert isinstance(await site.execute(ACTOR, ChangeAccount(anna.address, quota_storage=0)), Done)
    assert await site.quota(anna.id) == Held(Quota(0, 10, (80,)), Usage())
    assert isinstance(await site.execute(ACTOR, ChangeAccount(anna.address, quota_storage=None, quota_messages=0)), Done)
    assert await site.quota(anna.id) == Held(Quota(1000, 0, (80,)), Usage())


async def test_asked_again_what_is_there_is_not_refused_and_what_was_refused_is_not_taken_for_done(live_site: Live) -> None:
    """Whose answer was lost asks again: who has it must not bounce it, who was full must not lose it, and nobody has it
    twice."""
    live = live_site
    domain = f"{live.world.new_id():x}.example"
    full, half = await limited(live, messages=1, domain=domain), await limited(live, messages=1, domain=domain)
    roomy = await limited(live, messages=9, domain=domain)
    await append(live, full, MESSAGE)
    message, transaction = await spooled(live, MESSAGE), live.world.new_id()
    everybody = [full, half, roomy]
    assert await shown(live, await delivered(live, everybody, message, transaction)) == [Reason.OVER_QUOTA, None, None]
    # `half` is full by this very message.
    assert await shown(live, await delivered(live, everybody, message, transaction)) == [Reason.OVER_QUOTA, None, None]
    inbox = (await select(live, full)).status.mailbox.id
    await live.site.execute(ACTOR, Expunge(full.id, inbox, ((1, 1),), only_deleted=False))
    for _ in range(2):
        assert await shown(live, await delivered(live, everybody, message, transaction)) == [None, None, None]
    assert [await held(live, person) for person in everybody] == [Usage(SIZE, 1)] * 3
    assert await shown(live, await delivered(live, [half], message)) == [Reason.OVER_QUOTA]


async def test_an_import_asked_again_is_answered_as_before(live_site: Live) -> None:
    anna = await limited(live_site, messages=1)
    inbox = (await select(live_site, anna)).status.mailbox.id
    moving = MovingIn(live_site.parts.executor, MovingView(live_site.parts.database))
    brought = [Brought(await spooled(live_site, MESSAGE), 1_700_000_000, 0, DELETED, ())]
    answers = [
        await moving.append(ACTOR, Place(anna.id, inbox, "INBOX"), brought, b"2" * 16, shown=True) for _ in range(2)
    ]
    assert answers == [False, True]
    assert await live_site.site.deleted_storage(anna.id, inbox) == SIZE


async def test_many_at_once_pass_the_limit_by_little_and_never_unseen(live_site: Live) -> None:
    """Those that are on their way at the same moment may pass together; whoever comes afterwards is refused."""
    anna = await limited(live_site, messages=5)
    message = await spooled(live_site, MESSAGE)
    answers = await asyncio.gather(*(delivered(live_site, [anna], message) for _ in range(8)))
    reasons = await shown(live_site, [answer for each in answers for answer in each])
    assert set(reasons) <= {None, Reason.OVER_QUOTA}
    taken = reasons.count(None)
    assert taken >= 5 and await held(live_site, anna) == Usage(taken * SIZE, taken)
    assert await shown(live_site, await delivered(live_site, [anna], message)) == [Reason.OVER_QUOTA]


async def test_each_threshold_is_told_once(live_site: Live) -> None:
    anna, told = await limited(live_site, messages=10), list[int]()
    live_site.parts.executor.quotas.crossed = told.append
    for _ in range(10):
        await append(live_site, anna, MESSAGE)
    assert told == [50, 90, 100]
    found = await live_site.site.quota(anna.id)
    assert isinstance(found, Held) and (found.percent, found.reached) == (100, (50, 90, 100))


async def test_made_anew_from_the_log_it_is_as_full_as_before(live_site: Live) -> None:
    """As at a site that takes over: what is there is what the log says."""
    anna = await limited(live_site, storage=100 * SIZE)
    for _ in range(4):
        await append(live_site, anna, MESSAGE)
    inbox = (await select(live_site, anna)).status.mailbox.id
    for command in (
        CopyMessages(anna.id, inbox, "Archive", ((1, 3),)),
        CopyMessages(anna.id, inbox, "Trash", ((4, 4),), moved=True),
        Expunge(anna.id, inbox, ((1, 1),), only_deleted=False),
    ):
        assert isinstance(await live_site.site.execute(ACTOR, command), Done)
    before = await held(live_site, anna)
    assert before == Usage(6 * SIZE, 6)
    await rebuilt(live_site)
    assert await held(live_site, anna) == before


@pytest.mark.parametrize("reason", [Reason.OVER_QUOTA, Reason.ABOVE_QUOTA])
def test_smtp_says_whether_to_come_again(reason: Reason) -> None:
    from protocols.smtp.errors import passes

    assert passes(Refusal(reason)) is (reason is Reason.OVER_QUOTA)
