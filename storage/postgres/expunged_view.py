"""Reads what was expunged and can be restored: each mailbox, living or deleted, as a second one that is only read.

Its UIDs are the places in which messages went from the mailbox: they only rise, as UIDs must (RFC 9051 §2.3.1.1), where the
messages' own would come in any order. A lost tail may have given some to others, so every unclean epoch changes UIDVALIDITY.
"""

from array import array
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from cluster.domain.directory.state import UNDELETE_DAYS_DEFAULT
from cluster.domain.mailbox import ranges
from cluster.domain.mailbox.events import DELETED, SEEN, Ranges
from cluster.domain.quota import Usage
from storage.postgres.mail_view import CONTENT_ROWS_A_BATCH, DAY, ROWS_A_BATCH, columns, extra, message_of, shown
from storage.postgres.pool import Database
from storage.shapes import Changes, Flags, Having, Mailbox, Message, Selected, Status
from storage.uids import Uids

UIDVALIDITY_END = 1 << 32


class Kept(NamedTuple):
    """A mailbox from which something can be restored. `deleted_at`: unix seconds, 0 = it is there."""

    id: int
    name: str
    uidvalidity: int
    deleted_at: int
    messages: int


class ExpungedView:
    def __init__(self, database: Database) -> None:
        self.database = database

    async def kept(self, account: int) -> list[Kept]:
        """Those that there are and those that were deleted, ordered by name, the latest first."""
        return [Kept(*row) for row in await self.database.fetch(KEPT, account)]

    async def restorable(self, account: int, mailbox: int, places: Ranges) -> Ranges | None:
        """Those of the places that can be restored; None = the account never had the mailbox."""
        known = await self.database.row(f"SELECT 1 FROM {EVER} b WHERE b.id = $1 AND b.account = $2", mailbox, account)
        if known is None:
            return None
        rows = await self.database.fetch(PLACES, mailbox, *columns(places), account, 0)
        return ranges.compress(row["place"] for row in rows)

    async def weight(self, account: int, mailbox: int, places: Ranges) -> Usage:
        """What these messages hold, of those that can be restored."""
        query = f"SELECT count(*) AS messages, coalesce(sum(size), 0)::bigint AS bytes FROM ({PLACES}) x"
        row = await self.database.row(query, mailbox, *columns(places), account, 0)
        assert row is not None
        return Usage(row["bytes"], row["messages"])

    async def status(self, account: int, mailbox: int, mirrored: Mailbox) -> Status:
        return _status(await self.database.row(COUNTS, mailbox, account), mirrored)

    async def select(self, account: int, mailbox: int, mirrored: Mailbox) -> Selected:
        """Of one state of the tables."""
        async with self.database.connection() as db, db.transaction(isolation="repeatable_read", readonly=True):
            status = _status(await db.fetchrow(COUNTS, mailbox, account), mirrored)
            rows = await db.fetch(PLACES, mailbox, *columns(ranges.EVERY_UID), account, 0)
        there = await shown(rows)
        keywords = {keyword for one in there for keyword in one.keywords}
        unseen = next((one.uid for one in there if not one.flags & SEEN), 0)
        return Selected(status, Uids(array("I", [one.uid for one in there])), tuple(sorted(keywords)), unseen)

    async def flags(self, account: int, mailbox: int, uids: Ranges, since: int) -> list[Flags]:
        return await shown(await self.database.fetch(PLACES, mailbox, *columns(uids), account, since))

    async def having(self, account: int, mailbox: int, asked: Having) -> "array[int]":
        limits = asked.first_day, asked.last_day, asked.larger, asked.smaller
        row = await self.database.row(HAVING, mailbox, account, asked.present, asked.absent, *limits)
        return array("I", (row["uids"] if row is not None else None) or ())

    async def messages(
        self, account: int, mailbox: int, uids: Ranges, *, since: int, described: bool, contents: bool
    ) -> AsyncIterator[list[Message]]:
        """In order of UID, batch after batch. SAVEDATE is when it went (RFC 8514 §4.1: when it came into this mailbox)."""
        limit = CONTENT_ROWS_A_BATCH if described or contents else ROWS_A_BATCH
        query = MESSAGES.format(extra(described=described, contents=contents))
        rows = await self.database.fetch(PLACES, mailbox, *columns(uids), account, since)
        wanted = [row["place"] for row in rows]
        for start in range(0, len(wanted), limit):
            found = await self.database.fetch(query, mailbox, wanted[start : start + limit])
            if found:
                yield [message_of(row) for row in found]

    async def changes(self, account: int, mailbox: int, since: int) -> Changes:
        """Of one state of the tables."""
        async with self.database.connection() as db, db.transaction(isolation="repeatable_read", readonly=True):
            row = await db.fetchrow(COUNTS, mailbox, account)
            if row is None:
                return Changes(since, 0, 0, gone=True)
            came = await db.fetch(PLACES, mailbox, *columns(ranges.EVERY_UID), account, since)
            went = await db.fetch("SELECT place FROM expunged WHERE mailbox = $1 AND taken > $2", mailbox, since)
        vanished = ranges.compress(sorted(one["place"] for one in went))
        return Changes(row["modseq"], row["uidnext"], row["uidvalidity"], tuple(await shown(came)), vanished)

    async def due(self, partition: str, now: int) -> list[tuple[int, int]]:
        """Of each account that has something to give up at `now` (unix seconds): up to which position."""
        return [(row["account"], row["upto"]) for row in await self.database.fetch(DUE, partition, now, UNDELETE_DAYS_DEFAULT)]


def _status(row: Any, mirrored: Mailbox) -> Status:
    counted = row["messages"], row["unseen"], 0, row["bytes"], row["uidnext"], row["modseq"]
    return Status(mirrored, *counted, recent_from=UIDVALIDITY_END)  # nothing in it is \\Recent


EVER = (
    "(SELECT id, account, name, uidvalidity, 0 AS deleted_at FROM mailbox "
    "UNION ALL SELECT id, account, name, uidvalidity, at FROM mailbox_deleted)"
)
BOXES = (
    f"{EVER} b JOIN mail_account a ON a.account = b.account LEFT JOIN mail_partition p ON p.partition = a.partition"
)
UIDVALIDITY = f"(b.uidvalidity + coalesce(p.uidvalidity_base, 0) - 1) % {UIDVALIDITY_END - 1} + 1"
RESTORABLE = "taken = 0 AND NOT moved"

KEPT = f"""
SELECT b.id, b.name, {UIDVALIDITY}, b.deleted_at, c.messages
FROM {BOXES} CROSS JOIN LATERAL (SELECT count(*) AS messages FROM expunged WHERE mailbox = b.id AND {RESTORABLE}) c
WHERE b.account = $1 AND (c.messages > 0 OR b.deleted_at = 0)
ORDER BY b.name COLLATE "C", b.deleted_at > 0, b.deleted_at DESC, b.id
"""

# What went last has the highest place.
COUNTS = f"""
SELECT {UIDVALIDITY} AS uidvalidity, c.messages, c.unseen, c.bytes, l.place + 1 AS uidnext,
    greatest(1, l.modseq, (SELECT max(taken) FROM expunged WHERE mailbox = b.id AND taken > 0)) AS modseq
FROM {BOXES} CROSS JOIN LATERAL (
    SELECT count(*) AS messages, count(*) FILTER (WHERE flags & {SEEN} = 0) AS unseen, coalesce(sum(size), 0)::bigint AS bytes
    FROM expunged WHERE mailbox = b.id AND {RESTORABLE}
) c CROSS JOIN LATERAL (
    SELECT coalesce(max(place), 0) AS place, max(modseq) AS modseq FROM expunged
    WHERE mailbox = b.id AND modseq = (SELECT max(modseq) FROM expunged WHERE mailbox = b.id)
) l
WHERE b.id = $1 AND b.account = $2
"""

PLACES = f"""
SELECT x.place, x.flags & ~{DELETED} AS flags, x.keywords, x.modseq, x.size FROM unnest($2::bigint[], $3::bigint[]) r(a, b)
    CROSS JOIN LATERAL (
        SELECT * FROM expunged WHERE mailbox = $1 AND place BETWEEN r.a AND r.b AND {RESTORABLE} AND modseq > $5 OFFSET 0
    ) x
WHERE EXISTS (SELECT 1 FROM {EVER} b WHERE b.id = $1 AND b.account = $4) ORDER BY x.place
"""

HAVING = f"""
SELECT array_agg(m.place ORDER BY m.place) AS uids FROM (
    SELECT place, flags & ~{DELETED} AS flags, internal_at, internal_zone, size FROM expunged
    WHERE mailbox = $1 AND {RESTORABLE} AND EXISTS (SELECT 1 FROM {EVER} b WHERE b.id = $1 AND b.account = $2)
) m
WHERE m.flags & $3::int = $3 AND m.flags & $4::int = 0
    AND ($5::bigint IS NULL OR {DAY} >= $5) AND ($6::bigint IS NULL OR {DAY} <= $6)
    AND ($7::bigint IS NULL OR m.size > $7) AND ($8::bigint IS NULL OR m.size < $8)
"""

MESSAGES = f"""
SELECT x.place, x.flags & ~{DELETED}, x.keywords, x.modseq, x.size, x.internal_at, x.internal_zone, x.at, x.thread, x.content,
    c.sent, {{}}
FROM unnest($2::bigint[]) u(place)
    CROSS JOIN LATERAL (SELECT * FROM expunged WHERE mailbox = $1 AND place = u.place AND taken = 0 OFFSET 0) x
    LEFT JOIN LATERAL (SELECT * FROM content WHERE hash = x.content OFFSET 0) c ON true
ORDER BY x.place
"""

# Looked at when the oldest has been due for a day; where nothing is to be kept, at once.
DUE = f"""
SELECT o.account, max(o.modseq) AS upto FROM (
    SELECT b.account, x.modseq, x.at, coalesce(d.undelete_days, $3::bigint) AS days
    FROM expunged x JOIN {EVER} b ON b.id = x.mailbox JOIN mail_account a ON a.account = b.account
        LEFT JOIN account p ON p.id = b.account LEFT JOIN domain d ON d.name = p.domain
    WHERE x.taken = 0 AND a.partition = $1
) o
WHERE o.at < $2::bigint - o.days * 86400
GROUP BY o.account, o.days HAVING min(o.at) < $2::bigint - (o.days + least(o.days, 1)) * 86400
"""
