"""The tables after facts equal the pure folds of the same facts, however the facts were cut into batches."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cluster.domain.directory.state import Account, Alias, Group
from node.config import Config
from storage.projector import Fold
from tests.laws.tables_of_law import Tables, folded, tables
from tests.laws.tables_story import PARTITION, Model, Step, stories, told

cuts = st.lists(st.integers(0, 60), max_size=6)
# A story that fails names itself; to make it smaller takes longer than to read it.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
REUSED = settings(max_examples=40, deadline=None, phases=PHASES, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def law(engines: Config) -> Iterator[Tables]:
    with tables(engines.database_url, "law_tables") as made:
        yield made


@given(stories(), cuts, cuts)
@REUSED
def test_the_tables_equal_the_pure_fold_for_any_split(
    law: Tables, story: list[Step], first: list[int], second: list[int]
) -> None:
    law.runner.run(_equal(law, told(story), first, second))


async def _equal(law: Tables, model: Model, first: list[int], second: list[int]) -> None:
    await law.empty()
    await folded(await _fold(law), model.records, first)
    assert await mail_rows(law) == expected_mail(model)
    assert await directory_rows(law) == expected_directory(model)
    assert await outbox_rows(law) == expected_outbox(model)
    assert await projector_rows(law) == expected_projector(model)
    await _is_whole(law)
    before = await law.dump()
    # Again from the start: what was folded is passed over by position.
    await folded(await _fold(law), model.records, second)
    assert await law.dump() == before
    await law.empty()
    await folded(await _fold(law), model.records, second)
    assert await law.dump() == before


async def _fold(law: Tables) -> Fold:
    fold = Fold(law.db, PARTITION)
    await fold.start()
    return fold


Rows = dict[str, list[tuple[Any, ...]]]


async def mail_rows(law: Tables) -> Rows:
    return {
        "mailboxes": await law.rows(
            "SELECT id, account, name, uidvalidity, uidnext, modseq, special_use, messages, unseen, deleted, bytes "
            "FROM mailbox"
        ),
        "messages": await law.rows(
            "SELECT m.mailbox, m.uid, m.content, m.size, m.internal_at, m.internal_zone, m.saved_at, m.position, "
            "m.thread, m.origin_uid, f.flags, array_to_json(f.keywords)::text, f.modseq "
            "FROM message m JOIN flag f ON f.mailbox = m.mailbox AND f.uid = m.uid"
        ),
        "expunged": await law.rows(
            "SELECT mailbox, uid, modseq FROM expunged WHERE EXISTS (SELECT 1 FROM mailbox WHERE id = mailbox)"
        ),
        "gone": await law.rows(
            "SELECT b.account, x.mailbox, x.place, x.uid, x.modseq, x.moved, x.taken FROM expunged x JOIN "
            "(SELECT id, account FROM mailbox UNION ALL SELECT id, account FROM mailbox_deleted) b ON b.id = x.mailbox"
        ),
        "restorable": await law.rows(
            "SELECT mailbox, place, flags, array_to_json(keywords)::text, content, size, internal_at, internal_zone, "
            "saved_at, thread FROM expunged WHERE taken = 0"
        ),
        "vanished": await law.rows("SELECT mailbox, first, last, modseq FROM vanished"),
        "salvaged": await law.rows("SELECT epoch, upto FROM salvaged WHERE partition = $1", PARTITION),
        "reports": await law.rows("SELECT position, noun, entity, what, why, event, state FROM salvage_report"),
        "subscriptions": await law.rows("SELECT account, name FROM subscription"),
        "counters": await law.rows("SELECT account, uidvalidity FROM mail_account"),
        "annotations": await law.rows("SELECT account, mailbox, whose, entry, value FROM annotation"),
        "rights": await law.rows(
            "SELECT mailbox, CASE WHEN negative THEN '-' ELSE '' END || identifier, rights FROM mailbox_right"
        ),
        "read": await law.rows("SELECT mailbox, uid, account, seen, modseq FROM seen_by"),
    }


def expected_mail(model: Model) -> Rows:
    mailboxes, messages, expunged = [], [], []
    for account, box in model.boxes():
        flags = [message.flags for message in box.messages.values()]
        mailboxes.append(
            (
                box.id, account, box.name, box.uidvalidity, box.uidnext, box.highestmodseq, box.special_use, len(flags),
                sum(not one & 1 for one in flags), sum(bool(one & 8) for one in flags),
                sum(message.content.size for message in box.messages.values()),
            )
        )  # fmt: skip
        for uid, msg in box.messages.items():
            keywords = _words(msg.keywords)
            messages.append(
                (
                    box.id, uid, msg.content.hash, msg.content.size, msg.internal_at, msg.internal_zone,
                    model.saved_at[msg.saved], msg.saved, msg.thread, msg.origin_uid, msg.flags, keywords, msg.modseq,
                )
            )  # fmt: skip
        expunged += [(box.id, uid, modseq) for uid, modseq in box.expunged.items()]
    gone = [
        (account, mailbox, place, one)
        for account, mail in model.mail.accounts.items()
        for mailbox, went in mail.gone.items()
        for place, one in enumerate(went, 1)
    ]
    counted = model.mail.accounts.items()
    rows: Rows = {
        "mailboxes": mailboxes,
        "messages": messages,
        "expunged": expunged,
        "gone": [(a, mailbox, n, one.uid, one.at, one.moved, one.taken) for a, mailbox, n, one in gone],
        "restorable": [
            (
                mailbox, place, one.message.flags, _words(one.message.keywords), one.message.content.hash,
                one.message.content.size, one.message.internal_at, one.message.internal_zone,
                model.saved_at[one.message.saved], one.message.thread,
            )
            for _, mailbox, place, one in gone
            if not one.taken
        ],
        "vanished": [(box.id, *gone) for _, box in model.boxes() for gone in box.vanished],
        "salvaged": list(model.mail.salvaged.items()),
        "reports": [
            (at, one.told.noun, one.told.entity, one.told.what, one.told.why, one.told.event, one.state)
            for at, one in model.mail.reports.items()
        ],
        "subscriptions": [(account, name) for account, mail in counted for name in mail.subscriptions],
        # An account that never had a mailbox is counted with its partition.
        "annotations": [(a, *key, value) for a, mail in counted for key, value in mail.annotations.items()],
        "rights": [(box.id, *entry) for _, box in model.boxes() for entry in box.rights.items()],
        "read": [
            (box.id, uid, reader, *read)
            for _, box in model.boxes()
            for uid, msg in box.messages.items()
            for reader, read in msg.seen.items()
        ],
        "counters": [(a, mail.uidvalidity) for a, mail in counted if mail.uidvalidity != model.mail.uidvalidity_base],
    }
    return {name: sorted(row, key=repr) for name, row in rows.items()}


async def directory_rows(law: Tables) -> Rows:
    return {
        "domains": await law.rows(
            "SELECT name, catch_all, plus, quota_storage, quota_messages, array_to_json(quota_soft)::text, undelete_days "
            "FROM domain"
        ),
        "accounts": await law.rows(
            "SELECT id, address, domain, name, partition, administrator, suspended, pop3_since, file_sent, quota_storage, "
            "quota_messages, array_to_json(quota_soft)::text, shared FROM account"
        ),
        "credentials": await law.rows("SELECT account, label, argon2, scram_sha_256 FROM credential"),
        "aliases": await law.rows("SELECT address, domain, array_to_string(targets, ' ') FROM alias"),
        "groups": await law.rows(
            "SELECT address, domain, name, array_to_string(members, ' ') FROM distribution_group"
        ),
    }


def expected_directory(model: Model) -> Rows:
    rows: Rows = {"domains": [], "accounts": [], "credentials": [], "aliases": [], "groups": []}
    rows["domains"] = [
        (one.name, one.catch_all, one.plus, one.quota.storage, one.quota.messages, _json(one.quota.soft), one.undelete_days)
        for one in model.directory.domains.values()
    ]
    for address, entry in model.directory.entries.items():
        domain = address.partition("@")[2]
        match entry:
            case Account():
                standing = (entry.administrator, entry.suspended, entry.pop3_since, entry.file_sent)
                quota = (entry.quota.storage, entry.quota.messages, _json(entry.quota.soft))
                rows["accounts"].append((entry.id, address, domain, entry.name, entry.partition, *standing, *quota, entry.shared))
                kept = {**entry.app_passwords, **({"": entry.verifier} if entry.verifier else {})}
                rows["credentials"] += [(entry.id, label, v.argon2, v.scram_sha_256) for label, v in kept.items()]
            case Alias():
                rows["aliases"].append((address, domain, " ".join(entry.targets)))
            case Group():
                rows["groups"].append((address, domain, entry.name, " ".join(entry.members)))
    return {name: sorted(row, key=repr) for name, row in rows.items()}


def _words(keywords: tuple[str, ...]) -> str:
    return "[" + ",".join(f'"{keyword}"' for keyword in keywords) + "]"


def _json(soft: tuple[int, ...] | None) -> str | None:
    return None if soft is None else "[" + ",".join(map(str, soft)) + "]"


async def outbox_rows(law: Tables) -> Rows:
    return {
        "queued": await law.rows(
            "SELECT queued, partition, position, sender, account, content, body_8bit, smtputf8, next_at, attempts, handed FROM queued"
        ),
        "recipients": await law.rows("SELECT queued, n, recipient, attempts, code, text FROM queued_recipient"),
    }


def expected_outbox(model: Model) -> Rows:
    messages = model.outbox.messages.values()
    queued = [
        (q.queued, PARTITION, q.position, q.sender, q.account, q.content.hash, q.body_8bit, q.smtputf8, q.next_at, q.attempts, q.handed)
        for q in messages
    ]  # fmt: skip
    recipients = [
        (q.queued, n, one.recipient, one.attempts, one.last.code if one.last else 0, one.last.text if one.last else "")
        for q in messages
        for n, one in enumerate(q.pending, 1)
    ]
    return {"queued": sorted(queued, key=repr), "recipients": sorted(recipients, key=repr)}


async def projector_rows(law: Tables) -> Rows:
    return {
        "folded": await law.rows("SELECT position, digest, events FROM folded WHERE partition = $1", PARTITION),
        "commands": await law.rows("SELECT id, events, position, at FROM command"),
        "quarantine": await law.rows("SELECT partition, position, noun, entity, held FROM quarantine"),
    }


def expected_projector(model: Model) -> Rows:
    last = [(model.records[-1].position, model.digest(), len(model.records))] if model.records else []
    quarantine = [
        (PARTITION, record.position, record.noun, record.entity, False)
        for record, outcome in zip(model.records, model.outcomes, strict=True)
        if outcome == b"q"
    ]
    commands = [(command, *kept) for command, kept in model.commands.items()]
    return {
        "folded": last,
        "commands": sorted(commands, key=repr),
        "quarantine": sorted(quarantine, key=repr),
    }


async def _is_whole(law: Tables) -> None:
    """What the tables hold beside the pure fold's state: nothing without its other half."""
    counts = await law.rows("SELECT (SELECT count(*) FROM message), (SELECT count(*) FROM flag)")
    assert counts[0][0] == counts[0][1]
    wanting = await law.rows(
        "SELECT uid FROM message m WHERE NOT EXISTS (SELECT 1 FROM content c WHERE c.hash = m.content AND c.size = m.size)"
    )
    assert not wanting
    unnamed = await law.rows(
        "SELECT f.uid FROM flag f JOIN mailbox m ON m.id = f.mailbox WHERE NOT f.keywords <@ m.keywords"
    )
    assert not unnamed
