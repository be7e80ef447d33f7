"""What the views answer from the tables is what the pure states answer."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cluster.domain.directory.state import Account, Missing, Slice, look_up
from cluster.domain.mailbox import annotations, ranges
from cluster.domain.mailbox.events import DELETED, SEEN, Ranges
from cluster.domain.mailbox.state import (
    AccountMail,
    Box,
    Msg,
    annotated_of,
    as_read_by,
    messages_of,
    restorable,
    tree_of,
)
from cluster.domain.quota import Quota, Usage
from node.config import Config
from storage.mirrored import Mailboxes, named
from storage.postgres.directory_view import DirectoryView
from storage.postgres.expunged_view import ExpungedView, Kept
from storage.postgres.mail_view import MailView
from storage.postgres.outbox_view import OutboxView
from storage.postgres.pool import Database
from storage.projector import Fold
from storage.shapes import Changes, Flags, Having, Mailbox, Message, Status
from tests import memory_expunged
from tests.having import has
from tests.laws.tables_of_law import Tables, folded, tables
from tests.laws.tables_story import ACCOUNTS, PARTITION, Model, Step, stories, told, uids

PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
DOMAINS = frozenset(["a.org", "b.org", "else.org"])
ADDRESSES = frozenset(["anna@a.org", "bo@a.org", "carl@b.org", "all@b.org", "nobody@a.org"])
NOBODY = 999
READERS = (8, 9)  # of tables_story, who is not the owner of every mailbox


class Views(NamedTuple):
    law: Tables
    database: Database
    mail: MailView


@pytest.fixture(scope="module")
def views(engines: Config) -> Iterator[Views]:
    with tables(engines.database_url, "law_views") as law:
        database = Database(law.url, schema=law.schema)
        law.runner.run(database.start())
        yield Views(law, database, MailView(database, kept_uids_min=1))
        law.runner.run(database.stop())


@given(stories(), st.lists(st.integers(0, 60), max_size=3), uids, st.floats(0, 1))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], phases=PHASES
)
def test_views_answer_as_the_pure_states_do(
    views: Views, story: list[Step], cuts: list[int], asked: Ranges, back: float
) -> None:
    model = told(story)
    since = model.records[int(back * (len(model.records) - 1))].position if model.records else 0
    views.law.runner.run(_alike(views, model, cuts, asked, since))


async def _alike(views: Views, model: Model, cuts: list[int], asked: Ranges, since: int) -> None:
    await views.law.empty()
    views.mail.forget()
    fold = Fold(views.law.db, PARTITION)
    await fold.start()
    # What was read on the way is what the last answers are made of.
    half = len(model.records) // 2
    await folded(fold, model.records[:half], cuts)
    for account, box in model.boxes():
        for reader in (0, *READERS):
            await views.mail.select(account, box.name, recent=False, reader=reader)
    await folded(fold, model.records[half:], cuts)
    for account in (*ACCOUNTS, NOBODY):
        await _tree(views.mail, model, account)
    for account, box in model.boxes():
        mail = model.mail.accounts[account]
        for reader in (0, *READERS):
            seen = {uid: as_read_by(message, reader) for uid, message in box.messages.items()}
            as_read = msgspec.structs.replace(box, messages=seen)
            await _mailbox(views.mail, account, mail, as_read, reader)
            await _messages(views.mail, model, (account, reader), as_read, (asked, since))
    for account, mail in model.mail.accounts.items():
        await _expunged(views.mail, model, account, mail, asked, since)
    await _made(views.mail, model)
    await _usage(views.mail, model)
    await _annotations(views.mail, model)
    await _directory(DirectoryView(views.database), model)
    await _outbox(OutboxView(views.database), model)

HAVINGS = (
    Having(),
    Having(present=SEEN),
    Having(absent=SEEN | DELETED),
    Having(first_day=0),
    Having(absent=DELETED, last_day=0, larger=1000, smaller=6000),
    Having(last_day=-1),
    Having(first_day=0, last_day=0, larger=0),
)


def _shown(mail: AccountMail, box: Box) -> Mailbox:
    return Mailbox(box.id, box.name, box.uidvalidity, box.special_use, box.name in mail.subscriptions)


def _status(mail: AccountMail, box: Box) -> Status:
    messages = box.messages.values()
    return Status(
        _shown(mail, box),
        len(messages),
        sum(not message.flags & SEEN for message in messages),
        sum(bool(message.flags & DELETED) for message in messages),
        sum(message.content.size for message in messages),
        box.uidnext,
        box.highestmodseq,
        1,
    )


async def _tree(view: MailView, model: Model, account: int) -> None:
    mail = model.mail.accounts.get(account) or AccountMail(0)
    tree = tree_of(model.mail, account)
    assert await view.tree(account, None, (), subscriptions=True, rights=True) == tree
    names, ids = ["a", "nowhere"], [mail.names.get("b", 1)]
    some = {name: entry for name, entry in tree.entries.items() if name in names or entry.id in ids}
    assert (await view.tree(account, names, ids, subscriptions=False)).entries == some
    shown = [_shown(mail, box) for box in mail.boxes.values()]
    assert await view.mailboxes(account) == sorted(shown, key=lambda one: (one.name != "INBOX", one.name))
    assert await view.subscriptions(account) == sorted(mail.subscriptions)


async def _mailbox(view: MailView, account: int, mail: AccountMail, box: Box, reader: int) -> None:
    """`box`: as the reader sees it."""
    selected = await view.select(account, box.name, recent=False, reader=reader)
    assert selected is not None
    assert selected.status == _status(mail, box) and list(selected.uids) == sorted(box.messages)
    unseen = [uid for uid, message in box.messages.items() if not message.flags & SEEN]
    assert selected.first_unseen == min(unseen, default=0)
    assert {keyword for message in box.messages.values() for keyword in message.keywords} <= set(selected.keywords)
    assert await view.status(account, [box.id, 1], reader) == [_status(mail, box)]
    assert await view.mailbox(account, box.name) == _shown(mail, box)
    assert await view.mailbox(account, f"{box.name} ") is None
    assert await view.status(NOBODY, [box.id]) == [] and await view.select(account, "nowhere", recent=False) is None


def _flags(uid: int, message: Msg) -> Flags:
    return Flags(uid, message.flags, message.keywords, message.modseq)


async def _messages(
    view: MailView, model: Model, who: tuple[int, int], box: Box, wanted_of: tuple[Ranges, int]
) -> None:
    """`who`: the owner, and who reads; `box`: as that one sees it."""
    account, reader = who
    asked, since = wanted_of
    there = [(uid, box.messages[uid]) for uid in sorted(box.messages)]
    wanted = [(uid, msg) for uid, msg in there if ranges.contains(asked, uid) and msg.modseq > since]
    assert await view.flags(account, box.id, asked, since, reader) == [_flags(uid, msg) for uid, msg in wanted]
    assert await view.flags(NOBODY, box.id, asked, 0) == []
    for having in HAVINGS if not reader else ():  # asked by the owner alone
        wanted_uids = [uid for uid, msg in there if has(msg, having)]
        assert list(await view.having(account, box.id, having)) == wanted_uids
        assert not await view.having(NOBODY, box.id, having)
    changed = tuple(_flags(uid, msg) for uid, msg in there if msg.modseq > since)
    vanished = ranges.compress(
        uid
        for uid in range(1, box.uidnext)
        if uid not in box.messages
        and (
            box.expunged.get(uid, 0) > since
            or any(first <= uid <= last and modseq > since for first, last, modseq in box.vanished)
        )
    )
    assert await view.changes(account, box.id, since, reader) == Changes(
        box.highestmodseq, box.uidnext, box.uidvalidity, changed, vanished
    )
    assert (await view.changes(NOBODY, box.id, since)).gone
    state = await view.messages_state(account, box.id, asked, modseqs=True, reader=reader)
    assert state == messages_of(model.mail, account, box.id, asked, reader)
    assert not (await view.messages_state(NOBODY, box.id, asked, modseqs=True)).exists
    taken = {one.uid for one in model.mail.accounts[account].gone.get(box.id, ()) if one.taken}
    gone = {
        uid
        for uid, modseq in box.expunged.items()
        if ranges.contains(asked, uid) and modseq > since and uid not in taken
    }
    found = await _read(view, account, box.id, asked, since, reader)
    assert [message.uid for message in found] == sorted([*gone, *(uid for uid, _ in wanted)])
    assert [message for message in found if message.uid not in gone] == [
        _message(model, uid, msg) for uid, msg in wanted
    ]
    # What of an expunged one somebody else had read is not known any more, and what its owner had is not told.
    known = {0, DELETED} if reader else {0, SEEN, DELETED, SEEN | DELETED}
    expunged = [message.flags for message in found if message.uid in gone]
    assert all(flags & DELETED and flags & (SEEN | DELETED) in known for flags in expunged)
    assert await _read(view, NOBODY, box.id, asked, 0) == []


async def _read(
    view: MailView, account: int, mailbox: int, asked: Ranges, since: int, reader: int = 0
) -> list[Message]:
    batches = view.messages(account, mailbox, asked, since=since, described=True, contents=True, reader=reader)
    return [message async for batch in batches for message in batch]


def _message(model: Model, uid: int, msg: Msg) -> Message:
    content = msg.content
    whole = type(content)(content.hash, content.size, content.segments, b"", content.sent)
    return Message(
        uid, msg.flags, msg.keywords, msg.modseq, content.size, msg.internal_at, msg.internal_zone,
        model.saved_at[msg.saved], content.sent, content.hash, msg.thread, content.description, whole,
    )  # fmt: skip


async def _annotations(view: MailView, model: Model) -> None:
    for account in (*ACCOUNTS, NOBODY):
        mail = model.mail.accounts.get(account) or AccountMail(0)
        for name in ("", "INBOX", "a", "nowhere"):
            assert await view.annotated(account, name) == annotated_of(model.mail, account, name)
        for reader in ACCOUNTS:
            for entries in (None, ["/shared/comment"]):
                boxes = [0, *mail.boxes]
                expected = annotations.seen_by(mail.annotations, reader, boxes, entries)
                assert await view.annotations(account, boxes, reader, entries) == expected


async def _usage(view: MailView, model: Model) -> None:
    """What an account holds is the sum over its messages, whatever befell them; and of which position that is true."""
    position = model.records[-1].position if model.records else 0
    for account in (*ACCOUNTS, NOBODY):
        boxes = [box for of, box in model.boxes() if of == account]
        there = [message for box in boxes for message in box.messages.values()]
        whole = Usage(sum(message.content.size for message in there), len(there))
        assert await view.usage(account, PARTITION) == (whole, position)
        for box in boxes:
            some = {uid: message.content.size for uid, message in box.messages.items() if 2 <= uid <= 5 or uid == 9}
            assert await view.weight(account, box.id, ((2, 5), (9, 9))) == Usage(sum(some.values()), len(some))
            assert await view.weight(NOBODY, box.id, ((1, ranges.UID_MAX),)) == Usage()
            deleted = [message.content.size for message in box.messages.values() if message.flags & DELETED]
            assert await view.deleted_storage(account, box.id) == sum(deleted)


async def _expunged(
    view: MailView, model: Model, account: int, mail: AccountMail, asked: Ranges, since: int
) -> None:
    """Every mailbox from which something went, as the one of which what went can be restored."""
    mirrored, expunged, base = Mailboxes(view), ExpungedView(view.database), model.mail.uidvalidity_base
    kept = memory_expunged.kept(mail, base)
    assert {one[:3] for one in await expunged.kept(account)} == {one[:3] for one in kept}
    names = {name: one.id for name, one in named(await expunged.kept(account)).items()}
    shown = await mirrored.mirrored(account)
    assert {one.name: -one.id for one in shown} == {name: names[name] for name in names if _count(kept, names[name])}
    assert [one.name for one in shown] == sorted(one.name for one in shown)
    for name, id in names.items():
        box = memory_expunged.mirror(mail, id, base)
        selected = await mirrored.select(account, name, recent=True)
        assert box is not None and selected is not None and list(selected.uids) == sorted(box.messages)
        counted = msgspec.structs.replace(_status(mail, box), mailbox=selected.status.mailbox, recent_from=1 << 32)
        assert selected.status == counted == (await mirrored.status(account, [-id]))[0]
        assert (selected.status.mailbox.id, selected.status.mailbox.uidvalidity) == (-id, box.uidvalidity)
        flags = tuple(_flags(uid, msg) for uid, msg in sorted(box.messages.items()) if msg.modseq > since)
        vanished = ranges.compress(sorted(uid for uid, at in box.expunged.items() if at > since))
        told = Changes(box.highestmodseq, box.uidnext, box.uidvalidity, flags, vanished)
        assert await mirrored.changes(account, -id, since) == told
        wanted = [(uid, one) for uid, one in sorted(box.messages.items()) if ranges.contains(asked, uid)]
        assert await mirrored.flags(account, -id, asked, 0) == [_flags(uid, one) for uid, one in wanted]
        rows = mirrored.messages(account, -id, asked, since=0, described=True, contents=True)
        assert [row async for rows in rows for row in rows] == [_message(model, uid, one) for uid, one in wanted]
        having = Having(present=SEEN, absent=DELETED, first_day=0, larger=1000)
        assert list(await mirrored.having(account, -id, having)) == [
            uid for uid, one in sorted(box.messages.items()) if has(one, having)
        ]
        weight = await mirrored.weight(account, -id, asked)
        assert weight == Usage(sum(one.content.size for _, one in wanted), len(wanted))
        assert await expunged.restorable(account, id, asked) == restorable(mail, id, asked)
        assert await mirrored.flags(NOBODY, -id, asked, 0) == [] and await expunged.restorable(NOBODY, id, asked) is None


def _count(kept: list[Kept], mailbox: int) -> int:
    return next(one.messages for one in kept if one.id == mailbox)


async def _made(view: MailView, model: Model) -> None:
    """What the last facts made in each mailbox, and is still there."""
    recent = model.records[-6:]
    first, last = (recent[0].position, recent[-1].position) if recent else (0, 0)
    for account, box in model.boxes():
        new = [uid for uid, msg in sorted(box.messages.items()) if first <= msg.saved <= last]
        origins = [box.messages[uid].origin_uid for uid in new]
        assert await view.made(account, box.name, first, last, 0) == (box.uidvalidity, new, origins)
    assert await view.made(NOBODY, "INBOX", 0, last, 1) == (0, [], [])


async def _directory(view: DirectoryView, model: Model) -> None:
    for missing in (
        Missing(ADDRESSES, DOMAINS, DOMAINS, DOMAINS),
        Missing(postmasters=DOMAINS),
        Missing(),
    ):
        assert await view.look_up(missing, Slice()) == look_up(model.directory, missing, Slice())
    for account in (1, 2, 3):
        address = model.directory.accounts.get(account, "")
        entry, domain = model.directory.entries.get(address), model.directory.domains.get(address.partition("@")[2])
        expected = isinstance(entry, Account) and ("law", entry.quota.over(domain.quota if domain else Quota()))
        assert await view.place_of(account) == (expected or None)
    assert await view.is_empty() == (not model.directory.domains)


async def _outbox(view: OutboxView, model: Model) -> None:
    messages = sorted(model.outbox.messages.values(), key=lambda one: (one.next_at, one.position))
    for now in (0, 20, 99):
        due = [one for one in messages if one.next_at <= now]
        found = await view.due([PARTITION], now, 10)
        assert [message for message, _ in found] == due
        assert [at for _, at in found] == [model.saved_at[one.position] for one in due]
    assert await view.next_at(PARTITION) == min((one.next_at for one in messages), default=None)
    for queued in (1, 2):
        assert await view.message(queued) == model.outbox.messages.get(queued)
