"""Reads the noun mailbox from the tables."""

import asyncio
from array import array
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import msgspec

from cluster.domain.mailbox import ranges
from cluster.domain.mailbox.annotations import Annotated
from cluster.domain.mailbox.content import Content, Segment
from cluster.domain.mailbox.events import SEEN, Ranges
from cluster.domain.mailbox.names import FILED
from cluster.domain.mailbox.state import Entry, MessagesState, Tree
from cluster.domain.quota import Usage
from storage.alike import LOOKED_AT_MAX, message_id, message_ids
from storage.postgres.kept_uids import KEPT_UIDS_MIN, SINCE, UNKNOWN, KeptUids, made
from storage.postgres.kept_uids import UIDS as UIDS_KEPT
from storage.postgres.pool import Database
from storage.postgres.shared_view import as_read_by, changes_by, selected_by, unseen_by
from storage.postgres.walking import RANGES
from storage.shapes import Changes, Flags, Having, Mailbox, Message, Selected, Status

NUL = "\0"  # which the database's text cannot hold: no mailbox has it in its name (modified UTF-7 can spell it)
ROWS_A_BATCH = 1000
FLAGS_AT_ONCE = 5_000
CONTENT_ROWS_A_BATCH = 200  # descriptions are some KB each
COUNTED = "m.uidnext, m.modseq, m.messages, m.unseen, m.deleted, m.bytes"
SUBSCRIBED = "EXISTS (SELECT 1 FROM subscription s WHERE s.account = m.account AND s.name = m.name)"
MAILBOX = f"m.id, m.name, m.uidvalidity, m.special_use, {SUBSCRIBED}"

_segments = msgspec.msgpack.Decoder(tuple[Segment, ...])


class Row(NamedTuple):
    """A mailbox and its counters, as the tables have them."""

    id: int
    name: str
    uidvalidity: int
    special_use: str
    subscribed: bool
    uidnext: int
    modseq: int
    messages: int
    unseen: int
    deleted: int
    bytes: int

    def status(self, recent_from: int = 0) -> Status:
        mailbox = Mailbox(self.id, self.name, self.uidvalidity, self.special_use, self.subscribed)
        return Status(
            mailbox, self.messages, self.unseen, self.deleted, self.bytes, self.uidnext, self.modseq, recent_from
        )


class MailView:
    def __init__(self, database: Database, kept_uids_min: int = KEPT_UIDS_MIN) -> None:
        self.database = database
        self._kept = KeptUids(kept_uids_min)

    async def mailboxes(self, account: int) -> list[Mailbox]:
        rows = await self.database.fetch(
            f"SELECT {MAILBOX} FROM mailbox m WHERE account = $1 ORDER BY m.name <> 'INBOX', m.name COLLATE \"C\"",
            account,
        )
        return [Mailbox(*row) for row in rows]

    async def mailbox(self, account: int, name: str) -> Mailbox | None:
        if NUL in name:
            return None
        row = await self.database.row(
            f"SELECT {MAILBOX} FROM mailbox m WHERE m.account = $1 AND m.name = $2", account, name
        )
        return None if row is None else Mailbox(*row)

    async def subscriptions(self, account: int) -> list[str]:
        rows = await self.database.fetch(
            'SELECT name FROM subscription WHERE account = $1 ORDER BY name COLLATE "C"', account
        )
        return [row["name"] for row in rows]

    async def status(self, account: int, mailboxes: Sequence[int], reader: int = 0) -> list[Status]:
        rows = await self.database.fetch(
            f"SELECT {MAILBOX}, {_counted(reader)}, coalesce(r.uid, 1) "
            "FROM unnest($2::bigint[]) WITH ORDINALITY w(id, n) JOIN mailbox m ON m.id = w.id AND m.account = $1 "
            "LEFT JOIN recent r ON r.mailbox = m.id ORDER BY w.n",
            account,
            list(mailboxes),
        )
        return [Row(*row[:-1]).status(row[-1]) for row in rows]

    async def select(self, account: int, name: str, *, recent: bool, reader: int = 0) -> Selected | None:
        """One statement, one state of the tables. Its UIDs are those that were read before, with what came and went since."""
        if NUL in name:
            return None
        query = selected_by(SELECTED, reader) if reader else SELECTED
        before = self._kept.of(account, name, reader)
        row = await self.database.row(query, account, name, *(before.known if before is not None else UNKNOWN))
        if row is None:
            return None
        kept = before.now(row) if before is not None else made(row, self._kept.like(account, name))
        if kept is None:
            row = await self.database.row(query, account, name, *UNKNOWN)
            if row is None:
                return None
            kept = made(row)
        mailbox = Row(*row[:11])
        if recent and not reader and row["recent_from"] < mailbox.uidnext:
            await self.database.run(
                "INSERT INTO recent AS r VALUES ($1, $2) ON CONFLICT (mailbox) DO UPDATE SET uid = greatest(r.uid, $2)",
                mailbox.id,
                mailbox.uidnext,
            )
        self._kept.keep(account, name, reader, kept)
        status = mailbox.status(row["recent_from"])
        return Selected(status, kept.uids.copy(), tuple(row["keywords"]), kept.first_unseen)

    def forget(self) -> None:
        self._kept.forget()

    async def flags(self, account: int, mailbox: int, uids: Ranges, since: int, reader: int = 0) -> list[Flags]:
        firsts, lasts = columns(uids)
        rows = await self.database.fetch(
            as_read_by(FLAGS, reader) if reader else FLAGS,
            mailbox,
            firsts,
            lasts,
            since,
            account,
        )
        return await shown(rows)

    async def having(self, account: int, mailbox: int, asked: Having) -> "array[int]":
        rows = asked.first_day is not None or asked.last_day is not None or asked.larger is not None or asked.smaller is not None
        limits = (asked.first_day, asked.last_day, asked.larger, asked.smaller) if rows else ()
        row = await self.database.row(
            HAVING_ROWS if rows else HAVING, mailbox, account, asked.present, asked.absent, *limits
        )
        return array("I", (row["uids"] if row is not None else None) or ())

    async def messages(
        self,
        account: int,
        mailbox: int,
        uids: Ranges,
        *,
        since: int,
        described: bool,
        contents: bool,
        reader: int = 0,
    ) -> AsyncIterator[list[Message]]:
        """Batch after batch, so that no connection waits for a slow reader. Which UIDs there are is asked once: asked with
        every batch, it would cost the square of the mailbox."""
        limit = CONTENT_ROWS_A_BATCH if described or contents else ROWS_A_BATCH
        query = MESSAGES.replace("EXTRA", extra(described=described, contents=contents))
        query, uids_query = (as_read_by(query, reader), as_read_by(UIDS, reader)) if reader else (query, UIDS)
        if ranges.count(uids) <= limit:
            wanted = array("I", ranges.expand(uids))
        else:
            there = await self.database.row(uids_query, mailbox, *columns(uids), since, account)
            wanted = array("I", there["uids"] or ()) if there else array("I")
        for start in range(0, len(wanted), limit):
            # One that changed meanwhile is shown as it is now; one that was expunged is found among those.
            rows = await self.database.fetch(query, mailbox, wanted[start : start + limit].tolist(), since, account)
            if rows:
                yield [message_of(row) for row in rows]

    async def changes(self, account: int, mailbox: int, since: int, reader: int = 0) -> Changes:
        """One statement, one state of the tables."""
        rows = await self.database.fetch(changes_by(CHANGES, reader) if reader else CHANGES, mailbox, account, since)
        if not rows:
            return Changes(since, 0, 0, gone=True)
        of: tuple[list[Any], ...] = ([], [], [], [])
        for start in range(0, len(rows), FLAGS_AT_ONCE):
            for kind, *columns in rows[start : start + FLAGS_AT_ONCE]:
                of[kind].append(columns)
            await asyncio.sleep(0)
        box, there, gone, told = of
        changed = await shown(sorted(there))
        # Of what was reaffirmed, all that is there has changed.
        reaffirmed = ranges.normalise((first, last) for first, last, _, _ in told)
        absent = ranges.subtract(reaffirmed, ranges.compress(row.uid for row in changed)) if told else ()
        vanished = ranges.union(ranges.compress(row[0] for row in gone), absent)
        uidnext, uidvalidity, _, modseq = box[0]
        return Changes(modseq, uidnext, uidvalidity, tuple(changed), vanished)

    # -- what commands are decided on ---------------------------------------------------------------------------------

    async def tree(
        self,
        account: int,
        names: Sequence[str] | None,
        ids: Sequence[int],
        *,
        subscriptions: bool,
        rights: bool = False,
    ) -> Tree:
        """The mailboxes of these names and ids, or all (None)."""
        async with self.database.connection() as db:
            rows = await db.fetch(
                "SELECT name, id, uidvalidity, special_use FROM mailbox WHERE account = $1 "
                "AND ($2::text[] IS NULL OR name = ANY ($2) OR id = ANY ($3::bigint[]))",
                account,
                None if names is None else [name for name in names if NUL not in name],
                list(ids),
            )
            count = await db.fetchval("SELECT count(*) FROM mailbox WHERE account = $1", account)
            subscribed = []
            if subscriptions:
                subscribed = await db.fetch("SELECT name FROM subscription WHERE account = $1", account)
            granted = []
            if rights:
                granted = await db.fetch(
                    "SELECT mailbox, CASE WHEN negative THEN '-' ELSE '' END || identifier AS identifier, rights "
                    "FROM mailbox_right WHERE mailbox = ANY ($1::bigint[])",
                    [row["id"] for row in rows],
                )
        entries = {row["name"]: Entry(row["id"], row["uidvalidity"], row["special_use"]) for row in rows}
        given: dict[int, dict[str, str]] = {}
        for row in granted:
            given.setdefault(row["mailbox"], {})[row["identifier"]] = row["rights"]
        return Tree(entries, count, frozenset(row["name"] for row in subscribed), rights=given)

    async def messages_state(
        self, account: int, mailbox: int, uids: Ranges, *, modseqs: bool, reader: int = 0
    ) -> MessagesState:
        exists = await self.database.row("SELECT 1 FROM mailbox WHERE id = $1 AND account = $2", mailbox, account)
        if exists is None:
            return MessagesState(exists=False)
        if not modseqs:
            return MessagesState(exists=True)
        return MessagesState(True, {row.uid: row.modseq for row in await self.flags(account, mailbox, uids, 0, reader)})

    async def alike(self, mailbox: int, contents: Sequence[Content]) -> tuple[tuple[int, bool], ...]:
        """(UID, whether it was filed for its sender) of the newest messages that have a Message-ID of one of these. By their
        Date it is found out first which those may be: descriptions are large."""
        wanted = message_ids(contents)
        if not wanted:
            return ()
        dates = [content.sent for content in contents]
        rows = await self.database.fetch(ALIKE, mailbox, LOOKED_AT_MAX, [date for date in dates if date is not None], None in dates)
        return tuple((row["uid"], FILED in row["keywords"]) for row in rows if message_id(row["description"]) in wanted)

    async def usage(self, account: int, partition: str) -> tuple[Usage, int]:
        """What all of its mailboxes hold, and the position at which that was so."""
        row = await self.database.row(
            "SELECT coalesce(sum(bytes), 0)::bigint AS bytes, coalesce(sum(messages), 0)::bigint AS messages, "
            "coalesce((SELECT position FROM folded WHERE partition = $2), 0) AS position FROM mailbox WHERE account = $1",
            account,
            partition,
        )
        assert row is not None
        return Usage(row["bytes"], row["messages"]), row["position"]

    async def weight(self, account: int, mailbox: int, uids: Ranges) -> Usage:
        """What these messages hold, of those that are there."""
        row = await self.database.row(WEIGHT, mailbox, *columns(uids), account)
        assert row is not None
        return Usage(row["bytes"], row["messages"])

    async def deleted_storage(self, account: int, mailbox: int) -> int:
        """Bytes of the messages with \\Deleted."""
        row = await self.database.row(DELETED_STORAGE, mailbox, account)
        assert row is not None
        return int(row["bytes"])

    async def annotated(self, account: int, name: str) -> Annotated:
        """Of the mailbox of that name, or the account itself."""
        rows = await self.database.fetch(ANNOTATED, account, name.replace(NUL, ""))
        return Annotated(
            {(row["whose"], row["entry"]): row["size"] for row in rows if row["here"]}, sum(row["size"] for row in rows)
        )

    async def annotations(
        self, account: int, mailboxes: Sequence[int], reader: int, entries: Sequence[str] | None
    ) -> dict[int, dict[str, bytes]]:
        """By mailbox (0 = the account itself), what `reader` may see; only these entries, or all (None)."""
        rows = await self.database.fetch(
            "SELECT mailbox, entry, value FROM annotation WHERE mailbox = ANY ($2::bigint[]) AND account = $1 "
            'AND whose IN (0, $3) AND ($4::text[] IS NULL OR entry = ANY ($4)) ORDER BY entry COLLATE "C"',
            account,
            list(mailboxes),
            reader,
            None if entries is None else list(entries),
        )
        found: dict[int, dict[str, bytes]] = {}
        for row in rows:
            found.setdefault(row["mailbox"], {})[row["entry"]] = row["value"]
        return found

    async def knows(self, partition: str, command: bytes) -> bool:
        """Whether the tables have seen an event of that command."""
        return await self.database.row("SELECT 1 FROM command WHERE partition = $1 AND id = $2", partition, command) is not None

    async def made(
        self, account: int, name: str, first: int, last: int, expected: int
    ) -> tuple[int, list[int], list[int]]:
        """(UIDVALIDITY, new UIDs, UIDs they were copied from) of what the events from `first` to `last` made in a
        mailbox: about `expected` messages, near its end."""
        async with self.database.connection() as db:
            box = await db.fetchrow(
                "SELECT id, uidvalidity FROM mailbox WHERE account = $1 AND name = $2", account, name
            )
            if box is None:
                return 0, [], []
            limit = expected + 64
            while True:
                rows = await db.fetch(
                    "SELECT uid, origin_uid, position FROM message WHERE mailbox = $1 ORDER BY uid DESC LIMIT $2",
                    box["id"],
                    limit,
                )
                if len(rows) < limit or rows[-1]["position"] < first:
                    break
                limit *= 4
        made = [row for row in reversed(rows) if first <= row["position"] <= last]
        return box["uidvalidity"], [row["uid"] for row in made], [row["origin_uid"] for row in made]


def _counted(reader: int) -> str:
    return COUNTED.replace("m.unseen", unseen_by(reader)) if reader else COUNTED


def columns(uids: Ranges) -> tuple[list[int], list[int]]:
    return [first for first, _ in uids], [last for _, last in uids]


def segments_of(packed: bytes) -> tuple[Segment, ...]:
    return _segments.decode(packed)


def extra(*, described: bool, contents: bool) -> str:
    """The last two columns of a message's row."""
    return f"{'c.description' if described else 'NULL'}, {'c.segments' if contents else 'NULL'}"


async def shown(rows: Sequence[Any]) -> list[Flags]:
    """In portions: a large mailbox in one piece would keep the loop from all others for too long."""
    shown: list[Flags] = []
    for start in range(0, len(rows), FLAGS_AT_ONCE):
        shown.extend([Flags(row[0], row[1], tuple(row[2]), row[3]) for row in rows[start : start + FLAGS_AT_ONCE]])
        await asyncio.sleep(0)
    return shown


def message_of(row: Any) -> Message:
    (uid, flags, keywords, modseq, size, at, zone, saved, thread, email_id, sent, description, segments) = row
    content = None if segments is None else Content(email_id, size, segments_of(segments), b"", sent)
    return Message(
        uid, flags, tuple(keywords), modseq, size, at, zone, saved, sent, email_id, thread, description or b"", content
    )


SELECTED = f"""
SELECT {MAILBOX}, {COUNTED}, coalesce(r.uid, 1) AS recent_from, m.keywords, k.known, k.grown, {UIDS_KEPT},
    CASE WHEN NOT k.known AND m.unseen > 0 THEN
        (SELECT min(f.uid) FROM flag f WHERE f.mailbox = m.id AND f.flags & {SEEN} = 0) END AS first_unseen
FROM mailbox m LEFT JOIN recent r ON r.mailbox = m.id CROSS JOIN LATERAL {SINCE} k
WHERE m.account = $1 AND m.name = $2
"""

FLAGS = f"""
SELECT f.uid, f.flags, f.keywords, f.modseq FROM {RANGES.format("$2", "$3")}
WHERE f.modseq > $4 AND EXISTS (SELECT 1 FROM mailbox m WHERE m.id = $1 AND m.account = $5) ORDER BY f.uid
"""

HAVING = """
SELECT array_agg(f.uid ORDER BY f.uid) AS uids FROM flag f
WHERE f.mailbox = $1 AND f.flags & $3::int = $3 AND f.flags & $4::int = 0
    AND EXISTS (SELECT 1 FROM mailbox b WHERE b.id = $1 AND b.account = $2)
"""

# Minutes east of Greenwich. Division of whole numbers goes towards zero, a day before 1970 away from it.
DAY = "floor((m.internal_at + m.internal_zone * 60) / 86400.0)::bigint"
HAVING_ROWS = f"""
SELECT array_agg(f.uid ORDER BY f.uid) AS uids FROM message m JOIN flag f ON f.mailbox = m.mailbox AND f.uid = m.uid
WHERE m.mailbox = $1 AND f.mailbox = $1 AND f.flags & $3::int = $3 AND f.flags & $4::int = 0
    AND ($5::bigint IS NULL OR {DAY} >= $5) AND ($6::bigint IS NULL OR {DAY} <= $6)
    AND ($7::bigint IS NULL OR m.size > $7) AND ($8::bigint IS NULL OR m.size < $8)
    AND EXISTS (SELECT 1 FROM mailbox b WHERE b.id = $1 AND b.account = $2)
"""

BOX, THERE, GONE, TOLD = range(4)
# Asked whenever something happened in a mailbox, once by each session that has it selected: one round trip.
NEWS = "EXISTS (SELECT FROM box WHERE modseq > $3)"
CHANGES = f"""
WITH box AS (SELECT modseq, uidnext, uidvalidity FROM mailbox WHERE id = $1 AND account = $2)
SELECT {BOX}, uidnext, uidvalidity, NULL::text[], modseq FROM box
UNION ALL
SELECT {THERE}, uid, flags, keywords, modseq FROM flag WHERE mailbox = $1 AND modseq > $3 AND {NEWS}
UNION ALL
SELECT {GONE}, uid, 0, NULL, 0 FROM expunged WHERE mailbox = $1 AND modseq > $3 AND {NEWS}
UNION ALL
SELECT {TOLD}, first, last, NULL, 0 FROM vanished WHERE mailbox = $1 AND modseq > $3 AND {NEWS}
"""

ANNOTATED = """
SELECT whose, entry, length(value) AS size,
    mailbox = CASE WHEN $2 = '' THEN 0 ELSE (SELECT id FROM mailbox WHERE account = $1 AND name = $2) END AS here
FROM annotation WHERE account = $1
"""

WEIGHT = f"""
SELECT coalesce(sum(m.size), 0)::bigint AS bytes, count(*) AS messages FROM {RANGES.format("$2", "$3")}
    CROSS JOIN LATERAL (SELECT size FROM message WHERE mailbox = $1 AND uid = f.uid OFFSET 0) m
WHERE EXISTS (SELECT 1 FROM mailbox b WHERE b.id = $1 AND b.account = $4)
"""

DELETED_STORAGE = """
SELECT coalesce(sum(m.size), 0)::bigint AS bytes
FROM flag f CROSS JOIN LATERAL (SELECT size FROM message WHERE mailbox = $1 AND uid = f.uid OFFSET 0) m
WHERE f.mailbox = $1 AND f.flags & 8 <> 0 AND EXISTS (SELECT 1 FROM mailbox b WHERE b.id = $1 AND b.account = $2)
"""

# Expunged ones too, for sessions that still hold their UIDs (RFC 2180 §4.1.2): with \Deleted.
OWN = "(EXISTS (SELECT 1 FROM mailbox b WHERE b.id = $1 AND b.account = {0}){1})"
DELETED_OWN = " OR EXISTS (SELECT 1 FROM mailbox_deleted d WHERE d.id = $1 AND d.account = {0})"

# Walks along the keys, message by message (OFFSET 0): of a mailbox that it has not counted yet the planner thinks that it
# holds one row, and compares every message with every other.
MESSAGES = f"""
WITH wanted AS (
    SELECT f.uid, f.flags, f.keywords, f.modseq, m.size, m.internal_at, m.internal_zone, m.saved_at, m.thread, m.content
    FROM unnest($2::bigint[]) u(uid)
        CROSS JOIN LATERAL (SELECT * FROM flag WHERE mailbox = $1 AND uid = u.uid OFFSET 0) f
        CROSS JOIN LATERAL (SELECT * FROM message WHERE mailbox = $1 AND uid = u.uid OFFSET 0) m
    WHERE f.modseq > $3 AND {OWN.format("$4", "")}
    UNION ALL
    SELECT x.uid, x.flags | 8, x.keywords, x.modseq, x.size, x.internal_at, x.internal_zone, x.saved_at, x.thread, x.content
    FROM unnest($2::bigint[]) u(uid)
        CROSS JOIN LATERAL (SELECT * FROM expunged WHERE mailbox = $1 AND uid = u.uid OFFSET 0) x
    WHERE x.taken = 0 AND x.modseq > $3 AND {OWN.format("$4", DELETED_OWN.format("$4"))}
)
SELECT w.*, c.sent, EXTRA FROM wanted w
    LEFT JOIN LATERAL (SELECT * FROM content WHERE hash = w.content OFFSET 0) c ON true ORDER BY w.uid
"""

ALIKE = """
SELECT n.uid, f.keywords, c.description
FROM (SELECT uid, content FROM message WHERE mailbox = $1 ORDER BY uid DESC LIMIT $2) n
    CROSS JOIN LATERAL (SELECT * FROM content WHERE hash = n.content OFFSET 0) c
    CROSS JOIN LATERAL (SELECT * FROM flag WHERE mailbox = $1 AND uid = n.uid OFFSET 0) f
WHERE c.sent = ANY ($3::bigint[]) OR ($4 AND c.sent IS NULL) ORDER BY n.uid
"""

UIDS = f"""
SELECT array_agg(uid ORDER BY uid) AS uids FROM (
    SELECT f.uid FROM {RANGES.format("$2", "$3")}
    WHERE f.modseq > $4 AND {OWN.format("$5", "")}
    UNION ALL
    SELECT f.uid FROM {RANGES.format("$2", "$3").replace("flag", "expunged")}
    WHERE f.modseq > $4 AND {OWN.format("$5", DELETED_OWN.format("$5"))}
) wanted
"""
