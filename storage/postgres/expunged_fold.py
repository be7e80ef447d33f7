"""Writes into the tables what becomes of messages that go: they are expunged, then restored or given up. The same fold as
`cluster.domain.mailbox.state`, in SQL; the counters of mailboxes are kept by storage/postgres/mail_fold.py.

Rows of `expunged` are never removed: VANISHED needs them. What was restored or given up names no content there any more.
"""

from typing import Any

from cluster.domain.mailbox import events as e
from storage.postgres.pool import Connection
from storage.postgres.walking import RANGES


async def restored(
    db: Connection, account: int, event: e.MessagesRestored, target: tuple[int, int], position: int, at: int
) -> Any:
    """What came into `target` (mailbox, its UIDNEXT): the row of RESTORE."""
    firsts, lasts = [first for first, _ in event.places], [last for _, last in event.places]
    return await db.fetchrow(RESTORE, event.source, target[0], firsts, lasts, target[1], position, at, account)


async def given_up(db: Connection, account: int, event: e.ExpungedGivenUp, position: int) -> list[int]:
    """The mailboxes of which something was given up."""
    rows = await db.fetch(GIVE_UP, account, event.upto, position)
    return [row["mailbox"] for row in rows]


EXPUNGE = f"""
WITH wanted AS (
    SELECT f.place, m.place AS message FROM {RANGES.format("$2", "$3")} CROSS JOIN LATERAL
        (SELECT ctid AS place FROM message WHERE mailbox = $1 AND uid = f.uid OFFSET 0) m
    WHERE NOT $4 OR f.flags & 8 <> 0
), flags AS (
    DELETE FROM flag f USING wanted w WHERE f.ctid = w.place RETURNING f.flags, f.keywords, w.message
), gone AS (
    DELETE FROM message m USING flags g WHERE m.ctid = g.message
    RETURNING m.uid, g.flags, g.keywords, m.content, m.size, m.internal_at, m.internal_zone, m.saved_at, m.thread
), kept AS (
    INSERT INTO expunged
    SELECT $1, uid, $5, flags, keywords, content, size, internal_at, internal_zone, saved_at, thread, $6,
        row_number() OVER (ORDER BY uid) + (SELECT coalesce(max(place), 0) FROM expunged WHERE mailbox = $1
            AND modseq = (SELECT max(modseq) FROM expunged WHERE mailbox = $1)), $7
    FROM gone
), read AS (
    DELETE FROM seen_by s USING gone g CROSS JOIN LATERAL
        (SELECT ctid AS place FROM seen_by WHERE mailbox = $1 AND uid = g.uid OFFSET 0) w WHERE s.ctid = w.place
)
SELECT count(*) AS messages, count(*) FILTER (WHERE flags & 1 = 0) AS unseen, count(*) FILTER (WHERE flags & 8 <> 0) AS deleted,
    coalesce(sum(size), 0)::bigint AS bytes
FROM gone
"""

EVER = "(SELECT id, account FROM mailbox UNION ALL SELECT id, account FROM mailbox_deleted)"

RESTORE = f"""
WITH wanted AS (
    SELECT x.spot, x.place, x.content, x.size, x.internal_at, x.internal_zone, x.thread, x.flags & ~8 AS flags, x.keywords,
        $5::bigint - 1 + row_number() OVER (ORDER BY x.place) AS new_uid
    FROM unnest($3::bigint[], $4::bigint[]) r(a, b) CROSS JOIN LATERAL (
        SELECT ctid AS spot, * FROM expunged WHERE mailbox = $1 AND place BETWEEN r.a AND r.b AND taken = 0 OFFSET 0
    ) x
    WHERE EXISTS (SELECT 1 FROM {EVER} b WHERE b.id = $1 AND b.account = $8)
), gone AS (
    UPDATE expunged e SET taken = $6, content = '' FROM wanted w WHERE e.ctid = w.spot
), messages AS (
    INSERT INTO message SELECT $2, new_uid, content, size, internal_at, internal_zone, $7, $6, thread, place FROM wanted
), flags AS (
    INSERT INTO flag SELECT $2, new_uid, $6, flags, keywords FROM wanted
)
SELECT count(*) AS messages, count(*) FILTER (WHERE flags & 1 = 0) AS unseen, coalesce(sum(size), 0)::bigint AS bytes,
    ARRAY(SELECT DISTINCT unnest(keywords) FROM wanted) AS keywords
FROM wanted
"""

GIVE_UP = f"""
WITH over AS (
    UPDATE expunged e SET taken = $3, content = '' FROM {EVER} b
    WHERE b.account = $1 AND e.mailbox = b.id AND e.modseq <= $2 AND e.taken = 0 RETURNING e.mailbox
)
SELECT DISTINCT mailbox FROM over
"""
