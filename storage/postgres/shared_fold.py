"""Writes into the tables what others than the owner may do with a mailbox, and what of it they have read."""

from collections.abc import Sequence

from cluster.domain.mailbox import events as e
from cluster.domain.mailbox import rights
from storage.postgres.pool import Connection

Shared = e.SeenChanged | e.RightsChanged

# As in mail_fold: range by range along the index, whatever the planner thinks of a mailbox that it has not counted yet. What
# nobody has read has no row, so that reading is all that makes some.
NOTE_READ = """
INSERT INTO seen_by AS s SELECT $1, f.uid, $4, true, $5 FROM unnest($2::bigint[], $3::bigint[]) r(a, b)
    CROSS JOIN LATERAL (SELECT uid FROM flag WHERE mailbox = $1 AND uid BETWEEN r.a AND r.b OFFSET 0) f
ON CONFLICT (mailbox, uid, account) DO UPDATE SET seen = true, modseq = $5 WHERE NOT s.seen
"""

NOTE_UNREAD = """
UPDATE seen_by s SET seen = false, modseq = $5 FROM unnest($2::bigint[], $3::bigint[]) r(a, b)
    CROSS JOIN LATERAL (SELECT ctid AS place FROM seen_by WHERE mailbox = $1 AND uid BETWEEN r.a AND r.b AND account = $4
        AND seen OFFSET 0) w
WHERE s.ctid = w.place
"""


async def seen_changed(db: Connection, event: e.SeenChanged, position: int) -> None:
    firsts, lasts = [first for first, _ in event.uids], [last for _, last in event.uids]
    await db.execute(NOTE_READ if event.seen else NOTE_UNREAD, event.mailbox, firsts, lasts, event.account, position)


async def arrived_read(db: Connection, read: Sequence[tuple[int, int, int, int]]) -> None:
    """(mailbox, UID, by whom, position) of messages that came with their bringer's \\Seen."""
    mailboxes, uids, accounts, positions = zip(*read, strict=True)
    await db.execute(
        "INSERT INTO seen_by SELECT mailbox, uid, account, true, position "
        "FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) r(mailbox, uid, account, position)",
        mailboxes,
        uids,
        accounts,
        positions,
    )


async def rights_changed(db: Connection, event: e.RightsChanged) -> None:
    identifier, negative = rights.bare(event.identifier), event.identifier.startswith(rights.NEGATIVE)
    if event.rights:
        await db.execute(
            "INSERT INTO mailbox_right VALUES ($1, $2, $3, $4) "
            "ON CONFLICT (mailbox, identifier, negative) DO UPDATE SET rights = $4",
            event.mailbox,
            identifier,
            negative,
            event.rights,
        )
    else:
        await db.execute(
            "DELETE FROM mailbox_right WHERE mailbox = $1 AND identifier = $2 AND negative = $3",
            event.mailbox,
            identifier,
            negative,
        )
