"""The site over the real engines keeps the port's promises."""

import asyncio
import hashlib

from cluster.domain.mailbox.commands import (
    AppendMessage,
    ChangeFlags,
    CopyMessages,
    CreateMailbox,
    DeleteMailbox,
    Deliver,
    Expunge,
    NewMessage,
    ReplaceMessage,
    SetAnnotations,
)
from cluster.domain.mailbox.events import DELETED, SEEN, FlagMode
from cluster.domain.refusal import Reason, Refusal
from cluster.log.model import EVENT_BYTES_MAX
from storage.ingest import SpooledMessage
from storage.shapes import Done, Selected
from tests.live import ACTOR, Live, Person

MESSAGE = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: hello\r\n\r\nbody\r\n"


async def spooled(live: Live, data: bytes) -> SpooledMessage:
    ingest = live.site.ingest(100 << 20)
    for start in range(0, len(data), 60_000):
        assert await ingest.feed(data[start : start + 60_000])
    message = await ingest.finish()
    assert isinstance(message, SpooledMessage)
    return message


async def append(live: Live, person: Person, data: bytes, mailbox: str = "INBOX", flags: int = 0) -> Done:
    message = await spooled(live, data)
    new = NewMessage(message.content, 1_700_000_000, 60, flags, ("$work",))
    done = await live.site.execute(ACTOR, AppendMessage(person.id, mailbox, (new,)), [message])
    message.release()
    assert isinstance(done, Done), done
    return done


async def select(live: Live, person: Person, name: str = "INBOX") -> Selected:
    selected = await live.site.select(person.id, name)
    assert isinstance(selected, Selected), selected
    return selected


async def body(live: Live, person: Person, mailbox: int, uid: int) -> bytes:
    async for batch in live.site.messages(person.id, mailbox, ((uid, uid),), contents=True):
        for message in batch:
            assert message.content is not None
            return b"".join([piece async for piece in live.site.read(message.content)])
    raise AssertionError(f"there is no message {uid}")


async def test_a_new_account_has_the_standard_mailboxes(live_site: Live) -> None:
    person = await live_site.person()
    mailboxes = await live_site.site.mailboxes(person.id)
    assert not isinstance(mailboxes, Refusal)
    assert [(m.name, m.special_use) for m in mailboxes] == [
        ("INBOX", ""),
        ("Archive", "\\Archive"),
        ("Drafts", "\\Drafts"),
        ("Junk", "\\Junk"),
        ("Sent", "\\Sent"),
        ("Trash", "\\Trash"),
    ]
    assert all(m.subscribed for m in mailboxes)


async def test_what_was_appended_is_read_back_byte_for_byte(live_site: Live) -> None:
    person = await live_site.person()
    await live_site.site.mailboxes(person.id)
    small, large = MESSAGE, MESSAGE + b"\x00\xff attachment\r\n" * 300_000
    first = await append(live_site, person, small)
    second = await append(live_site, person, large)
    inbox = await select(live_site, person)
    assert (first.uids, second.uids) == ((1,), (2,))
    assert list(inbox.uids) == [1, 2] and first.uidvalidity == inbox.status.mailbox.uidvalidity
    assert inbox.keywords == ("$work",) and inbox.status.size == len(small) + len(large)
    for uid, data in ((1, small), (2, large)):
        assert (
            hashlib.sha256(await body(live_site, person, inbox.status.mailbox.id, uid)).digest()
            == hashlib.sha256(data).digest()
        )


async def test_delivery_to_many_is_one_append_and_every_share_arrives(live_site: Live) -> None:
    people = [await live_site.person() for _ in range(3)]
    message = await spooled(live_site, MESSAGE)
    new_id = live_site.world.new_id
    shares = [Deliver(p.id, message.content, 1_700_000_000, tuple(new_id() for _ in range(6))) for p in people]
    answers = await live_site.site.deliver(ACTOR, [*shares, Deliver(7, message.content, 0, shares[0].ids)], [message])
    assert [type(answer) for answer in answers] == [Done, Done, Done, Refusal]
    assert isinstance(answers[3], Refusal) and answers[3].reason is Reason.NO_SUCH_ACCOUNT
    await live_site.parts.caught_up()
    for person in people:
        inbox = await select(live_site, person)
        assert await body(live_site, person, inbox.status.mailbox.id, 1) == MESSAGE


async def test_a_transaction_given_twice_arrives_once(live_site: Live) -> None:
    person = await live_site.person()
    message = await spooled(live_site, MESSAGE)
    transaction = live_site.world.new_id()
    for _ in range(2):
        ids = tuple(live_site.world.new_id() for _ in range(6))
        answers = await live_site.site.deliver(
            ACTOR, [Deliver(person.id, message.content, 0, ids)], [message], transaction
        )
        assert isinstance(answers[0], Done)
    await live_site.parts.caught_up()
    assert list((await select(live_site, person)).uids) == [1]


async def test_a_transaction_to_many_given_twice_arrives_once_each(live_site: Live) -> None:
    domain = f"{live_site.world.new_id():x}.example"
    people = [await live_site.person(f"p{n}", domain=domain) for n in range(3)]
    message = await spooled(live_site, MESSAGE)
    transaction = live_site.world.new_id()
    for order in (people, people[::-1]):
        shares = [Deliver(p.id, message.content, 0, tuple(live_site.world.new_id() for _ in range(6))) for p in order]
        answers = await live_site.site.deliver(ACTOR, shares, [message], transaction)
        assert all(isinstance(answer, Done) for answer in answers)
    await live_site.parts.caught_up()
    assert [list((await select(live_site, person)).uids) for person in people] == [[1]] * 3


async def test_flags_copy_move_and_expunge_show_at_once(live_site: Live) -> None:
    site, person = live_site.site, await live_site.person()
    await site.mailboxes(person.id)
    for _ in range(4):
        await append(live_site, person, MESSAGE)
    inbox = (await select(live_site, person)).status.mailbox.id
    before = (await select(live_site, person)).status.highestmodseq
    stored = await site.execute(ACTOR, ChangeFlags(person.id, inbox, ((1, 2),), FlagMode.ADD, SEEN | DELETED))
    assert isinstance(stored, Done)
    changes = await site.changes(person.id, inbox, before)
    assert not isinstance(changes, Refusal)
    assert [(f.uid, f.flags, f.modseq) for f in changes.changed] == [(1, 9, stored.position), (2, 9, stored.position)]
    copied = await site.execute(ACTOR, CopyMessages(person.id, inbox, "Archive", ((1, 9),)))
    assert isinstance(copied, Done) and (copied.sources, copied.uids) == ((1, 2, 3, 4), (1, 2, 3, 4))
    moved = await site.execute(ACTOR, CopyMessages(person.id, inbox, "Trash", ((3, 3),), moved=True))
    assert isinstance(moved, Done) and (moved.sources, moved.uids) == ((3,), (1,))
    gone = await site.execute(ACTOR, Expunge(person.id, inbox, ((1, 9),)))
    assert isinstance(gone, Done)
    status = (await select(live_site, person)).status
    assert (status.messages, status.unseen, status.deleted, status.uidnext) == (1, 1, 0, 5)
    after = await site.changes(person.id, inbox, before)
    assert not isinstance(after, Refusal) and after.vanished == ((1, 3),)
    # A session that still holds the UID reads the message all the same.
    assert await body(live_site, person, inbox, 1) == MESSAGE


async def test_a_watch_wakes_for_its_mailbox_only(live_site: Live) -> None:
    person = await live_site.person()
    await live_site.site.mailboxes(person.id)
    inbox = (await select(live_site, person)).status.mailbox.id
    trash = (await select(live_site, person, "Trash")).status.mailbox.id
    bell, silent = asyncio.Event(), asyncio.Event()
    async with (
        live_site.site.watch(person.id, inbox) as watch,
        live_site.site.watch(person.id, trash, silent) as other,
        live_site.site.watch(person.id, None, bell) as everything,
    ):
        await append(live_site, person, MESSAGE)
        assert await watch.wait(5.0) and await everything.wait(5.0)
        assert not await other.wait(0.0)
        assert bell.is_set() and not silent.is_set()
        # The one of all says which were touched, once.
        assert everything.take() == frozenset({inbox}) and everything.take() == frozenset()
        noted = SetAnnotations(person.id, "Trash", person.id, (("/private/comment", b"a"),))
        assert not isinstance(await live_site.site.execute(ACTOR, noted), Refusal)
        assert await everything.wait(5.0) and everything.take() == frozenset({trash})


async def test_sign_in_by_password_and_what_it_refuses(live_site: Live) -> None:
    person = await live_site.person()
    account = await live_site.site.sign_in(person.address.upper(), person.password, ACTOR)
    assert not isinstance(account, Refusal) and (account.id, account.address) == (person.id, person.address)
    wrong = await live_site.site.sign_in(person.address, "wrong password", ACTOR)
    assert isinstance(wrong, Refusal) and wrong.reason is Reason.WRONG_PASSWORD
    nobody = await live_site.site.sign_in("nobody@nowhere.example", person.password, ACTOR)
    assert isinstance(nobody, Refusal) and nobody.reason is Reason.WRONG_PASSWORD


async def test_addresses_lead_where_the_directory_says(live_site: Live) -> None:
    person = await live_site.person()
    domain = person.address.partition("@")[2]
    plus = await live_site.site.resolve(f"Anna+news@{domain}")
    assert not isinstance(plus, Refusal) and plus.accounts == (person.id,)
    # The domain's own administrator: others on these engines may have made one who is everybody's.
    admin = await live_site.person("root", domain=domain, administrator=True)
    postmaster = await live_site.site.resolve(f"postmaster@{domain}")
    assert not isinstance(postmaster, Refusal) and postmaster.accounts == (admin.id,)
    nobody = await live_site.site.resolve(f"nobody@{domain}")
    assert isinstance(nobody, Refusal) and nobody.reason is Reason.NO_SUCH_ADDRESS
    elsewhere = await live_site.site.resolve("somebody@elsewhere.example")
    assert not isinstance(elsewhere, Refusal) and not elsewhere.local_domain


async def test_a_message_with_a_header_of_the_largest_kind_reaches_many_people(live_site: Live) -> None:
    first = await live_site.person("p0")
    domain = first.address.rpartition("@")[2]
    people = [first, *[await live_site.person(f"p{n}", domain=domain) for n in range(1, 60)]]
    to = ",\r\n ".join(f"somebody with a long name {n} <somebody{n}@example.org>" for n in range(1500))
    message = await spooled(live_site, f"To: {to}\r\n\r\nbody\r\n".encode())
    assert len(message.content.description) * len(people) > EVENT_BYTES_MAX
    deliveries = [
        Deliver(person.id, message.content, 1_700_000_000, tuple(live_site.world.new_id() for _ in range(6)))
        for person in people
    ]
    answers = await live_site.site.deliver(ACTOR, deliveries, [message])
    assert all(isinstance(answer, Done) for answer in answers), answers


async def test_a_name_that_no_database_can_hold_is_no_mailbox(live_site: Live) -> None:
    person = await live_site.person()
    ids = (live_site.world.new_id(),)
    for answer in (
        await live_site.site.select(person.id, "a\0b"),
        await live_site.site.execute(ACTOR, CreateMailbox(person.id, "a\0b", ids)),
        await live_site.site.execute(ACTOR, DeleteMailbox(person.id, "a\0b")),
    ):
        assert isinstance(answer, Refusal)
        assert answer.reason in (Reason.NO_SUCH_MAILBOX, Reason.MAILBOX_NAME_INVALID)


async def test_two_replace_one(live_site: Live) -> None:
    """RFC 8508 §3.4: at once, on the real engines: one of them does, the other is told that it is gone; no UID twice."""
    person = await live_site.person()
    await live_site.site.mailboxes(person.id)
    await append(live_site, person, b"Subject: draft\r\n\r\n1")
    inbox = await select(live_site, person)
    box = inbox.status.mailbox.id
    messages = [await spooled(live_site, b"Subject: draft\r\n\r\n%d" % n) for n in range(2, 6)]
    commands = [ReplaceMessage(person.id, box, 1, "INBOX", NewMessage(one.content, 0)) for one in messages]
    asked = zip(commands, messages, strict=True)
    answers = await asyncio.gather(*(live_site.site.execute(ACTOR, command, [one]) for command, one in asked))
    done = [one for one in answers if isinstance(one, Done)]
    refused = [one for one in answers if isinstance(one, Refusal)]
    assert len(done) == 1 and done[0].uids == (2,) and len(refused) == 3, answers
    assert {one.reason for one in refused} <= {Reason.NO_SUCH_ENTRY, Reason.CONFLICT}
    after = await select(live_site, person)
    assert list(after.uids) == [2] and after.status.uidnext == 3
    assert (await body(live_site, person, box, 2)).startswith(b"Subject: draft")
