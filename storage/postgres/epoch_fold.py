"""Writes what befalls a whole partition of mail into the tables: its epochs, and what became of tails that were lost.

The same fold as `cluster.domain.mailbox.state`, in SQL. The caller has written all that it had in memory of mailboxes, and
reads it anew afterwards.
"""

from cluster.domain.mailbox import events as e
from cluster.position import SEQUENCE_MAX
from storage.postgres.pool import Connection


class EpochFold:
    def __init__(self, partition: str) -> None:
        self.partition = partition

    async def started(self, db: Connection, event: e.EpochStarted, position: int) -> bool:
        """Whether any mailbox is another than before: not where all ended clean."""
        unclean = [gap for _, _, gap in event.ended if gap]
        if not unclean:
            return False
        gap, fresh = sum(max(0, gap) for gap in unclean), e.UIDVALIDITY_FRESH in unclean
        raised = e.UID_GAP * len(unclean)
        await db.execute(RAISE_BASE, self.partition, raised)
        await db.execute(RAISE_COUNTERS, self.partition, raised)
        begun = await db.fetch(BEGIN_ANEW, self.partition, gap, e.UIDNEXT_RAISED_MAX)
        await db.execute(GIVE_UIDVALIDITY, self.partition, fresh, gap, e.UIDNEXT_RAISED_MAX)
        await db.execute(RAISE_UIDNEXT, self.partition, gap, position, e.UIDNEXT_RAISED_MAX)
        for row in begun:
            for statement in RENUMBER:
                await db.execute(statement, row["id"])
        return True

    async def destroyed(self, db: Connection, event: e.TailDestroyed, position: int) -> None:
        for statement in REAFFIRM_ALL:
            await db.execute(statement, self.partition, position)
        await self.salvaged(db, event.epoch, SEQUENCE_MAX)

    async def salvaged(self, db: Connection, epoch: int, upto: int) -> None:
        await db.execute(
            "INSERT INTO salvaged AS s VALUES ($1, $2, $3) ON CONFLICT (partition, epoch) "
            "DO UPDATE SET upto = greatest(s.upto, $3)",
            self.partition,
            epoch,
            upto,
        )

    async def reported(self, db: Connection, event: e.SalvageReported, position: int, at: int) -> None:
        await db.execute(
            "INSERT INTO salvage_report VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'open') ON CONFLICT DO NOTHING",
            self.partition,
            event.position,
            position,
            event.noun,
            event.entity,
            event.what,
            event.why,
            event.event,
            at,
        )

    async def settled(self, db: Connection, event: e.SalvageSettled) -> None:
        await db.execute(
            "UPDATE salvage_report SET state = $3 WHERE partition = $1 AND position = $2",
            self.partition,
            event.position,
            "applied" if event.applied else "dismissed",
        )


OWN = "SELECT m.* FROM mailbox m JOIN mail_account a ON a.account = m.account WHERE a.partition = $1"

RAISE_BASE = """
INSERT INTO mail_partition AS p VALUES ($1, $2) ON CONFLICT (partition)
DO UPDATE SET uidvalidity_base = p.uidvalidity_base + $2
"""

RAISE_COUNTERS = "UPDATE mail_account SET uidvalidity = uidvalidity + $2 WHERE partition = $1"

BEGIN_ANEW = f"SELECT id FROM ({OWN}) own WHERE uidnext + $2 > $3"

# Each mailbox that needs one takes the account's next one, in the order of their ids.
GIVE_UIDVALIDITY = """
WITH given AS (
    SELECT m.id, m.account, a.uidvalidity + row_number() OVER (PARTITION BY m.account ORDER BY m.id) AS value
    FROM mailbox m JOIN mail_account a ON a.account = m.account
    WHERE a.partition = $1 AND ($2 OR m.uidnext + $3 > $4)
), told AS (
    UPDATE mailbox m SET uidvalidity = given.value FROM given WHERE m.id = given.id
)
UPDATE mail_account a SET uidvalidity = last.value
FROM (SELECT account, max(value) AS value FROM given GROUP BY account) last WHERE a.account = last.account
"""

RAISE_UIDNEXT = """
UPDATE mailbox m SET modseq = $3, uidnext = CASE WHEN uidnext + $2 > $4 THEN messages + 1 ELSE uidnext + $2 END
FROM mail_account a WHERE a.account = m.account AND a.partition = $1
"""

# RFC 9051 §2.3.1.1: with a new UIDVALIDITY, UIDs begin at 1; the order of messages stays. By way of negative numbers,
# so that no key is met twice.
RENUMBER = (
    "DELETE FROM expunged WHERE mailbox = $1",
    "DELETE FROM vanished WHERE mailbox = $1",
    "UPDATE seen_by s SET uid = -n.uid FROM (SELECT uid AS was, row_number() OVER (ORDER BY uid) AS uid "
    "FROM message WHERE mailbox = $1) n WHERE s.mailbox = $1 AND s.uid = n.was",
    "UPDATE seen_by SET uid = -uid WHERE mailbox = $1",
    *(
        statement
        for table in ("message", "flag")
        for statement in (
            f"UPDATE {table} t SET uid = -n.uid FROM (SELECT uid AS was, row_number() OVER (ORDER BY uid) AS uid "
            f"FROM {table} WHERE mailbox = $1) n WHERE t.mailbox = $1 AND t.uid = n.was",
            f"UPDATE {table} SET uid = -uid WHERE mailbox = $1",
        )
    ),
)

REAFFIRM_ALL = (
    f"UPDATE flag f SET modseq = $2 FROM ({OWN}) own WHERE f.mailbox = own.id",
    f"INSERT INTO vanished SELECT id, 1, uidnext - 1, $2 FROM ({OWN}) own WHERE uidnext > 1",
    "UPDATE mailbox m SET modseq = $2 FROM mail_account a WHERE a.account = m.account AND a.partition = $1 AND uidnext > 1",
)
