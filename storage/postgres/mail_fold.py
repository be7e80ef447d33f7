"""Writes the noun mailbox into the tables: the same fold as `cluster.domain.mailbox.state`, in SQL.

One fold, one partition, one transaction at a time. New messages gather in memory and go out together; everything else
is one statement. Counters of mailboxes are kept in memory, for who holds a partition is the only one who writes it.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from cluster.domain.mailbox import events as e
from cluster.domain.mailbox import ranges
from cluster.domain.mailbox.events import DELETED, SEEN, FlagMode
from storage.postgres import annotation_fold, expunged_fold, shared_fold
from storage.postgres.epoch_fold import EpochFold
from storage.postgres.folded import EVERYONE
from storage.postgres.pool import Connection
from storage.postgres.walking import RANGES

COUNTERS_KEPT_MAX = 20_000


class Unappliable(Exception):
    """This event cannot be folded, here and at every site: quarantined."""


@dataclass(slots=True)
class Counters:
    """A mailbox's row, as it will be at the end of the transaction."""

    account: int
    name: str
    uidnext: int
    modseq: int
    messages: int
    unseen: int
    deleted: int
    bytes: int
    keywords: set[str]
    dirty: bool = False


@dataclass(slots=True)
class Arrived:
    """Columns of messages that gather until the next flush."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    contents: dict[bytes, tuple[Any, ...]] = field(default_factory=dict)
    read: list[tuple[int, int, int, int]] = field(default_factory=list)  # (mailbox, UID, by whom, position)


class MailFold:
    def __init__(self, partition: str) -> None:
        self.partition = partition
        self.epochs = EpochFold(partition)
        self._counters: dict[int, Counters] = {}
        self._arrived = Arrived()
        self.touched: dict[int, set[int]] = {}  # account → mailboxes (0 = the tree), for who watches
        self.touched_all_at = 0  # position of the last event that touched every mailbox

    def forget(self) -> None:
        """After a transaction that failed: nothing in memory is true any more."""
        self._counters.clear()
        self._arrived = Arrived()
        self.touched = {}

    async def apply(self, db: Connection, entity: str, event: e.AnyEvent, position: int, at: int) -> None:
        """Raises Unappliable, having written nothing of the event. `at`: unix seconds of the event."""
        if not entity.isascii() or not entity.isdigit():
            raise Unappliable(f"{entity!r} is no account")
        account = int(entity)
        match event:
            case e.MessageAppended():
                await self._appended(db, account, event, position, at)
            case e.FlagsChanged():
                await self._flags_changed(db, account, event, position)
            case e.SeenChanged() | e.RightsChanged():
                await self._shared(db, account, event, position)
            case e.AnnotationsChanged():
                if not event.mailbox or await self._mailbox(db, account, event.mailbox) is not None:
                    await annotation_fold.changed(db, account, event)
                    self._touch(account, event.mailbox)
            case e.MessagesCopied():
                await self._copied(db, account, event, position, at)
            case e.MessagesExpunged():
                await self._expunged(db, account, event, position, at)
            case e.MessagesRestored():
                await self._restored(db, account, event, position, at)
            case e.ExpungedGivenUp():
                await self.flush(db)
                for mailbox in await expunged_fold.given_up(db, account, event, position):
                    self._touch(account, mailbox)
            case e.MailboxesCreated():
                await self._created(db, account, event, position)
            case e.MailboxesRenamed():
                await self._renamed(db, account, event, position)
            case e.MailboxDeleted():
                await self._deleted(db, account, event.mailbox, position, at)
            case e.Subscribed():
                await self._subscribed(db, account, event)
            case e.Reaffirmed():
                await self._reaffirmed(db, account, event, position)
            case _:
                await self._of_partition(db, event, position, at)

    async def finish(self, db: Connection) -> None:
        """Before the commit: what gathered is written."""
        await self.flush(db)
        dirty = [(i, c) for i, c in self._counters.items() if c.dirty]
        if dirty:
            await db.execute(
                UPDATE_COUNTERS,
                *zip(*((i, c.uidnext, c.modseq, c.messages, c.unseen, c.deleted, c.bytes) for i, c in dirty), strict=True),
                msgspec.json.encode([sorted(c.keywords) for _, c in dirty]).decode(),
            )
            for _, counters in dirty:
                counters.dirty = False
        if len(self._counters) > COUNTERS_KEPT_MAX:
            self._counters.clear()

    # -- messages -----------------------------------------------------------------------------------------------------

    async def _appended(self, db: Connection, account: int, event: e.MessageAppended, position: int, at: int) -> None:
        target, counters = await self._or_inbox(db, account, event.mailbox)
        content = event.content
        uid = counters.uidnext
        counters.uidnext += 1
        counters.messages += 1
        counters.bytes += content.size
        counters.unseen += not event.flags & SEEN
        counters.deleted += bool(event.flags & DELETED)
        counters.keywords.update(event.keywords)
        self._changed(account, target, counters, position)
        arrived = self._arrived
        if content.hash not in arrived.contents:
            segments = msgspec.msgpack.encode(content.segments)
            arrived.contents[content.hash] = (content.hash, content.size, content.sent, segments, content.description)
        if event.seen_by:
            arrived.read.append((target, uid, event.seen_by, position))
        keywords = list(event.keywords)
        arrived.rows.append(
            (
                target,
                uid,
                content.hash,
                content.size,
                event.internal_at,
                event.internal_zone,
                at,
                position,
                event.flags,
                keywords,
            )
        )

    async def flush(self, db: Connection) -> None:
        arrived = self._arrived
        if not arrived.rows:
            return
        self._arrived = Arrived()
        contents = list(zip(*arrived.contents.values(), strict=True))
        *columns, keywords = zip(*arrived.rows, strict=True)
        # Arrays of arrays must be rectangular in PostgreSQL: keywords, mostly none, ride as JSON.
        words = [None if not k else msgspec.json.encode(sorted(set(k))).decode() for k in keywords]
        await db.execute(INSERT_ARRIVED, *contents, *columns, words)
        if arrived.read:
            await shared_fold.arrived_read(db, arrived.read)

    async def _flags_changed(self, db: Connection, account: int, event: e.FlagsChanged, position: int) -> None:
        counters = await self._mailbox(db, account, event.mailbox)
        if counters is None:
            return
        await self.flush(db)
        firsts, lasts = _columns(event.uids)
        row = await db.fetchrow(
            CHANGE_FLAGS,
            event.mailbox,
            int(event.mode),
            event.flags,
            sorted(set(event.keywords)),
            firsts,
            lasts,
            position,
            event.kept,
        )
        assert row is not None
        counters.unseen += row["unseen"]
        counters.deleted += row["deleted"]
        if event.mode != FlagMode.REMOVE:
            counters.keywords.update(event.keywords)
        self._changed(account, event.mailbox, counters, position)

    async def _shared(self, db: Connection, account: int, event: shared_fold.Shared, position: int) -> None:
        counters = await self._mailbox(db, account, event.mailbox)
        if counters is None:
            return
        if isinstance(event, e.SeenChanged):
            await self.flush(db)
            await shared_fold.seen_changed(db, event, position)
            self._changed(account, event.mailbox, counters, position)
        else:
            await shared_fold.rights_changed(db, event)
            self._touch(account, 0)
            self._touch(account, event.mailbox)

    async def _copied(self, db: Connection, account: int, event: e.MessagesCopied, position: int, at: int) -> None:
        source = await self._mailbox(db, account, event.source)
        if source is None:
            return
        target, counters = await self._or_inbox(db, account, event.target)
        await self.flush(db)
        firsts, lasts = _columns(event.uids)
        row = await db.fetchrow(COPY_MESSAGES, event.source, target, firsts, lasts, counters.uidnext, position, at)
        assert row is not None
        counters.uidnext += row["messages"]
        counters.messages += row["messages"]
        counters.unseen += row["unseen"]
        counters.deleted += row["deleted"]
        counters.bytes += int(row["bytes"])
        counters.keywords.update(source.keywords)
        self._changed(account, target, counters, position)
        if event.moved:
            # A move into the same mailbox leaves the new ones alone: they lie above.
            await self._gone(
                db, account, event.source, firsts, [min(a, row["below"]) for a in lasts], False, position, at, moved=True
            )

    async def _expunged(self, db: Connection, account: int, event: e.MessagesExpunged, position: int, at: int) -> None:
        if await self._mailbox(db, account, event.mailbox) is None:
            return
        await self.flush(db)
        firsts, lasts = _columns(event.uids)
        only_deleted, moved = event.only_deleted, event.replaced
        await self._gone(db, account, event.mailbox, firsts, lasts, only_deleted, position, at, moved=moved)

    async def _gone(
        self,
        db: Connection,
        account: int,
        mailbox: int,
        firsts: list[int],
        lasts: list[int],
        only_deleted: bool,
        position: int,
        at: int,
        *,
        moved: bool = False,
    ) -> None:
        counters = self._counters[mailbox]
        row = await db.fetchrow(expunged_fold.EXPUNGE, mailbox, firsts, lasts, only_deleted, position, at, moved)
        assert row is not None
        counters.messages -= row["messages"]
        counters.unseen -= row["unseen"]
        counters.deleted -= row["deleted"]
        counters.bytes -= int(row["bytes"])
        self._changed(account, mailbox, counters, position)

    async def _restored(self, db: Connection, account: int, event: e.MessagesRestored, position: int, at: int) -> None:
        target, counters = await self._or_inbox(db, account, event.target)
        await self.flush(db)
        row = await expunged_fold.restored(db, account, event, (target, counters.uidnext), position, at)
        counters.uidnext += row["messages"]
        counters.messages += row["messages"]
        counters.unseen += row["unseen"]
        counters.bytes += row["bytes"]
        counters.keywords.update(row["keywords"])
        self._changed(account, target, counters, position)
        source = await self._mailbox(db, account, event.source)
        if source is not None:
            self._changed(account, event.source, source, position)
        self._touch(account, event.source)

    # -- the tree -----------------------------------------------------------------------------------------------------

    async def _created(self, db: Connection, account: int, event: e.MailboxesCreated, position: int) -> None:
        last = await db.fetchval(
            "INSERT INTO mail_account AS m (account, partition, uidvalidity) "
            "SELECT $1, $2, $3 + coalesce((SELECT uidvalidity_base FROM mail_partition WHERE partition = $2), 0) "
            "ON CONFLICT (account) DO UPDATE SET uidvalidity = m.uidvalidity + $3 RETURNING uidvalidity",
            account,
            self.partition,
            len(event.made),
        )
        for n, made in enumerate(event.made):
            await db.execute(
                "INSERT INTO mailbox (id, account, name, uidvalidity, uidnext, modseq, special_use) VALUES ($1, $2, $3, $4, 1, $5, $6)",
                made.mailbox,
                account,
                made.name,
                last - len(event.made) + 1 + n,
                position,
                made.special_use,
            )
            for identifier, rights in made.rights:
                await shared_fold.rights_changed(db, e.RightsChanged(made.mailbox, identifier, rights))
            if made.subscribed:
                await db.execute("INSERT INTO subscription VALUES ($1, $2) ON CONFLICT DO NOTHING", account, made.name)
        self._touch(account, 0)

    async def _renamed(self, db: Connection, account: int, event: e.MailboxesRenamed, position: int) -> None:
        await self.flush(db)
        ids = [mailbox for mailbox, _ in event.renamed]
        names = [name for _, name in event.renamed]
        await db.execute(
            "UPDATE mailbox m SET name = r.name FROM unnest($2::bigint[], $3::text[]) r(id, name) WHERE m.id = r.id AND m.account = $1",
            account,
            ids,
            names,
        )
        for mailbox, name in event.renamed:
            counters = await self._mailbox(db, account, mailbox)
            if counters is not None:
                counters.name = name
                self._changed(account, mailbox, counters, position)
        self._touch(account, 0)

    async def _deleted(self, db: Connection, account: int, mailbox: int, position: int, at: int) -> None:
        if await self._mailbox(db, account, mailbox) is None:
            return
        await self.flush(db)
        await self._gone(db, account, mailbox, [1], [(1 << 32) - 1], False, position, at)
        for table in ("vanished", "mailbox_right", "annotation"):
            await db.execute(f"DELETE FROM {table} WHERE mailbox = $1", mailbox)  # noqa: S608
        await db.execute(
            "WITH gone AS (DELETE FROM mailbox WHERE id = $1 RETURNING id, account, name, uidvalidity) "
            "INSERT INTO mailbox_deleted SELECT id, account, name, uidvalidity, $2, $3 FROM gone",
            mailbox,
            position,
            at,
        )
        del self._counters[mailbox]
        self._touch(account, 0)
        self._touch(account, mailbox)

    async def _subscribed(self, db: Connection, account: int, event: e.Subscribed) -> None:
        if event.subscribed:
            await db.execute("INSERT INTO subscription VALUES ($1, $2) ON CONFLICT DO NOTHING", account, event.name)
        else:
            await db.execute("DELETE FROM subscription WHERE account = $1 AND name = $2", account, event.name)
        self._touch(account, 0)

    # -- the partition ------------------------------------------------------------------------------------------------

    async def _of_partition(self, db: Connection, event: e.AnyEvent, position: int, at: int) -> None:
        match event:
            case e.EpochStarted() | e.TailDestroyed():
                await self.finish(db)
                if isinstance(event, e.TailDestroyed):
                    await self.epochs.destroyed(db, event, position)
                elif not await self.epochs.started(db, event, position):
                    return
                self._counters.clear()
                self._touch(EVERYONE, 0)
                self.touched_all_at = position
            case e.TailSalvaged():
                await self.epochs.salvaged(db, event.epoch, event.upto)
            case e.SalvageReported():
                await self.epochs.reported(db, event, position, at)
            case e.SalvageSettled():
                await self.epochs.settled(db, event)

    async def _reaffirmed(self, db: Connection, account: int, event: e.Reaffirmed, position: int) -> None:
        if not event.mailbox:
            self._touch(account, 0)
        counters = await self._mailbox(db, account, event.mailbox)
        uids = ranges.limit(event.uids, 1, counters.uidnext - 1) if counters is not None else ()
        if counters is None or not uids:
            return
        # Of another UIDVALIDITY: they name other messages today, or none yet.
        if await db.fetchval("SELECT uidvalidity FROM mailbox WHERE id = $1", event.mailbox) != event.uidvalidity:
            return
        await self.flush(db)
        await db.execute(REAFFIRM, event.mailbox, *_columns(uids), position)
        self._changed(account, event.mailbox, counters, position)

    # -- rows in memory -----------------------------------------------------------------------------------------------

    async def _mailbox(self, db: Connection, account: int, mailbox: int) -> Counters | None:
        known = self._counters.get(mailbox)
        if known is None:
            row = await db.fetchrow(f"SELECT {COUNTED} FROM mailbox WHERE id = $1 AND account = $2", mailbox, account)
            if row is None:
                return None
            known = self._keep(row)
        # A mailbox of another account is none of this one's.
        return known if known.account == account else None

    async def _or_inbox(self, db: Connection, account: int, mailbox: int) -> tuple[int, Counters]:
        """A mailbox that was deleted while a message was on its way to it: INBOX takes it, for it was acknowledged."""
        known = await self._mailbox(db, account, mailbox)
        if known is not None:
            return mailbox, known
        row = await db.fetchrow(f"SELECT {COUNTED} FROM mailbox WHERE account = $1 AND name = 'INBOX'", account)
        if row is None:
            raise Unappliable(f"account {account} has neither mailbox {mailbox} nor an INBOX")
        return row["id"], self._counters.get(row["id"]) or self._keep(row)

    def _keep(self, row: Any) -> Counters:
        counters = Counters(
            row["account"], row["name"], row["uidnext"], row["modseq"], row["messages"], row["unseen"],
            row["deleted"], row["bytes"], set(row["keywords"]),
        )  # fmt: skip
        self._counters[row["id"]] = counters
        return counters

    def _changed(self, account: int, mailbox: int, counters: Counters, position: int) -> None:
        counters.modseq = position
        counters.dirty = True
        self._touch(account, mailbox)

    def _touch(self, account: int, mailbox: int) -> None:
        self.touched.setdefault(account, set()).add(mailbox)


def _columns(uids: e.Ranges) -> tuple[list[int], list[int]]:
    return [first for first, _ in uids], [last for _, last in uids]


COUNTED = "id, account, name, uidnext, modseq, messages, unseen, deleted, bytes, keywords"

UPDATE_COUNTERS = """
UPDATE mailbox m SET uidnext = u.uidnext, modseq = u.modseq, messages = u.messages, unseen = u.unseen, deleted = u.deleted,
    bytes = u.bytes, keywords = ARRAY(SELECT jsonb_array_elements_text($8::jsonb -> (u.n::int - 1)))
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
    WITH ORDINALITY AS u(id, uidnext, modseq, messages, unseen, deleted, bytes, n)
WHERE m.id = u.id
"""

INSERT_ARRIVED = """
WITH described AS (
    INSERT INTO content (hash, size, sent, segments, description)
    SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bytea[], $5::bytea[]) ON CONFLICT DO NOTHING
), arrived AS (
    SELECT * FROM unnest($6::bigint[], $7::bigint[], $8::bytea[], $9::bigint[], $10::bigint[], $11::smallint[], $12::bigint[],
        $13::bigint[], $14::smallint[], $15::text[])
    AS a(mailbox, uid, content, size, internal_at, internal_zone, saved_at, position, flags, words)
), messages AS (
    INSERT INTO message SELECT mailbox, uid, content, size, internal_at, internal_zone, saved_at, position, position, 0 FROM arrived
)
INSERT INTO flag SELECT mailbox, uid, position, flags,
    CASE WHEN words IS NULL THEN '{}'::text[] ELSE ARRAY(SELECT jsonb_array_elements_text(words::jsonb)) END FROM arrived
"""

# RFC 7162 §3.1: a message whose flags stay as they are keeps its MODSEQ.
CHANGE_FLAGS = f"""
WITH wanted AS (
    SELECT f.place, f.flags AS was, f.keywords AS had,
        CASE $2::int WHEN 1 THEN f.flags | $3::int WHEN 2 THEN f.flags & ~$3::int ELSE $3::int | (f.flags & $8::int) END AS now,
        CASE $2::int
            WHEN 1 THEN CASE WHEN f.keywords @> $4::text[] THEN f.keywords
                ELSE ARRAY(SELECT DISTINCT k COLLATE "C" FROM unnest(f.keywords || $4::text[]) k ORDER BY 1) END
            WHEN 2 THEN CASE WHEN NOT f.keywords && $4::text[] THEN f.keywords
                ELSE ARRAY(SELECT k FROM unnest(f.keywords) k WHERE k <> ALL ($4::text[])) END
            ELSE $4::text[] END AS have
    FROM {RANGES.format("$5", "$6")}
), changed AS (
    UPDATE flag f SET flags = w.now, keywords = w.have, modseq = $7 FROM wanted w
    WHERE f.ctid = w.place AND (w.was <> w.now OR w.had <> w.have) RETURNING w.was, w.now
)
SELECT coalesce(sum((was & 1) - (now & 1)), 0)::bigint AS unseen,
    coalesce(sum((now & 8) / 8 - (was & 8) / 8), 0)::bigint AS deleted
FROM changed
"""

REAFFIRM = f"""
WITH again AS (
    UPDATE flag f SET modseq = $4 FROM (SELECT f.place FROM {RANGES.format("$2", "$3")}) w WHERE f.ctid = w.place
)
INSERT INTO vanished SELECT $1, a, b, $4 FROM unnest($2::bigint[], $3::bigint[]) r(a, b)
"""

COPY_MESSAGES = f"""
WITH copied AS (
    SELECT m.uid, m.content, m.size, m.internal_at, m.internal_zone, m.thread, f.flags, f.keywords,
        $5::bigint - 1 + row_number() OVER (ORDER BY m.uid) AS new_uid
    FROM {RANGES.format("$3", "$4")} CROSS JOIN LATERAL
        (SELECT * FROM message WHERE mailbox = $1 AND uid = f.uid OFFSET 0) m
), messages AS (
    INSERT INTO message SELECT $2, new_uid, content, size, internal_at, internal_zone, $7, $6, thread, uid FROM copied
), flags AS (
    INSERT INTO flag SELECT $2, new_uid, $6, flags, keywords FROM copied
), read AS (
    INSERT INTO seen_by SELECT $2, c.new_uid, s.account, s.seen, $6 FROM copied c
        CROSS JOIN LATERAL (SELECT * FROM seen_by WHERE mailbox = $1 AND uid = c.uid OFFSET 0) s
)
SELECT count(*) AS messages, count(*) FILTER (WHERE flags & 1 = 0) AS unseen, count(*) FILTER (WHERE flags & 8 <> 0) AS deleted,
    coalesce(sum(size), 0)::bigint AS bytes, coalesce(max(uid), 0) AS below
FROM copied
"""
