"""Reads from the tables who beside its owner may do what with a mailbox, and how somebody else than the owner sees it."""

from collections.abc import Sequence
from typing import NamedTuple

from cluster.domain.mailbox import rights
from cluster.domain.mailbox.events import SEEN
from storage.postgres.pool import Database
from storage.shapes import Mailbox

# What fits the account $1: its id, every alias and group that leads to it, and anyone. Nothing fits who is not there any more.
FITS = """
WITH RECURSIVE named(address) AS (
    SELECT address FROM account WHERE id = $1
    UNION
    SELECT x.address FROM named n CROSS JOIN LATERAL (
        SELECT address FROM alias WHERE targets @> ARRAY[n.address]
        UNION ALL SELECT address FROM distribution_group WHERE members @> ARRAY[n.address]
    ) x
), fits(identifier) AS (
    SELECT address FROM named
    UNION ALL SELECT given FROM account, unnest(ARRAY['anyone', id::text]) given WHERE id = $1
)
"""
GIVEN = "array_agg(CASE WHEN r.negative THEN '-' ELSE '' END || r.identifier), array_agg(r.rights)"

PLACE = f"""{FITS}
SELECT m.id, {GIVEN} FROM mailbox m JOIN mailbox_right r ON r.mailbox = m.id JOIN fits f ON f.identifier = r.identifier
WHERE m.account = $2 AND m.name = $3 GROUP BY m.id
"""

GRANTED = f"""{FITS}
SELECT m.id, {GIVEN} FROM mailbox m JOIN mailbox_right r ON r.mailbox = m.id JOIN fits f ON f.identifier = r.identifier
WHERE m.account = $2 AND ($3::bigint = 0 OR m.id = $3) GROUP BY m.id
"""

OTHERS = f"""{FITS}
SELECT a.id, a.address, a.shared, m.id, m.name, m.uidvalidity, {GIVEN}
FROM fits f JOIN mailbox_right r ON r.identifier = f.identifier JOIN mailbox m ON m.id = r.mailbox JOIN account a ON a.id = m.account
WHERE a.id <> $1 GROUP BY a.id, m.id ORDER BY a.shared, a.address COLLATE "C", m.name <> 'INBOX', m.name COLLATE "C"
"""

# What was named and is not there any more is passed over.
ENTRIES = """
SELECT CASE WHEN r.negative THEN '-' ELSE '' END || coalesce(a.address, r.identifier), r.rights
FROM mailbox m JOIN mailbox_right r ON r.mailbox = m.id LEFT JOIN account a ON a.id::text = r.identifier
WHERE m.id = $2 AND m.account = $1 AND (r.identifier = 'anyone' OR a.id IS NOT NULL
    OR EXISTS (SELECT 1 FROM distribution_group g WHERE g.address = r.identifier))
ORDER BY r.identifier <> 'anyone', CASE WHEN r.negative THEN '-' ELSE '' END || coalesce(a.address, r.identifier) COLLATE "C"
"""


class Found(NamedTuple):
    """A mailbox of another. `granted`: what the asker may do there."""

    account: int
    address: str
    shared: bool
    mailbox: Mailbox
    granted: str


class SharedView:
    def __init__(self, database: Database) -> None:
        self.database = database

    async def owner(self, address: str, *, shared: bool) -> int | None:
        row = await self.database.row("SELECT id FROM account WHERE address = $1 AND shared = $2", address, shared)
        return None if row is None else int(row["id"])

    async def place(self, reader: int, account: int, name: str) -> str:
        """What the reader may do with the mailbox of a name; nothing where there is none."""
        row = await self.database.row(PLACE, reader, account, name)
        return "" if row is None else _combined(row[1], row[2])

    async def granted(self, reader: int, account: int, mailbox: int = 0) -> dict[int, str]:
        """Mailbox → rights, of one or (0) all of the account's to which the reader has any."""
        rows = await self.database.fetch(GRANTED, reader, account, mailbox)
        return {row[0]: _combined(row[1], row[2]) for row in rows}

    async def others(self, reader: int) -> list[Found]:
        rows = await self.database.fetch(OTHERS, reader)
        return [
            Found(owner, address, shared, Mailbox(mailbox, name, uidvalidity, "", False), _combined(identifiers, given))
            for owner, address, shared, mailbox, name, uidvalidity, identifiers, given in rows
        ]

    async def entries(self, account: int, mailbox: int) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in await self.database.fetch(ENTRIES, account, mailbox)]

    async def naming(self, identifier: str) -> list[tuple[int, str]]:
        """(account, mailbox's name) of every mailbox that names this identifier."""
        rows = await self.database.fetch(
            "SELECT DISTINCT m.account, m.name FROM mailbox_right r JOIN mailbox m ON m.id = r.mailbox WHERE r.identifier = $1",
            identifier,
        )
        return [(row[0], row[1]) for row in rows]


def _combined(identifiers: Sequence[str], given: Sequence[str]) -> str:
    return rights.combined(zip(identifiers, given, strict=True))


def as_read_by(query: str, reader: int) -> str:
    """A query of flags, of the mailbox $1, as somebody else than the owner sees them: with its own \\Seen, and the MODSEQ of the
    later of both. Nothing of it comes from outside: `reader` is a number."""
    flags = (
        f"(SELECT g.ctid, g.mailbox, g.uid, greatest(g.modseq, s.modseq) AS modseq, "
        f"(g.flags & {~SEEN} | CASE WHEN s.seen THEN {SEEN} ELSE 0 END)::smallint AS flags, g.keywords "
        f"FROM flag g LEFT JOIN seen_by s ON s.mailbox = g.mailbox AND s.uid = g.uid AND s.account = {reader:d}) flag"
    )
    return query.replace("FROM flag WHERE", f"FROM {flags} WHERE").replace("x.flags | 8", f"x.flags & {~SEEN} | 8")


def changes_by(query: str, reader: int) -> str:
    """A query of what changed above $3: with what it has read since."""
    changed = (
        "uid IN (SELECT h.uid FROM flag h WHERE h.mailbox = $1 AND h.modseq > $3 UNION "
        f"SELECT s.uid FROM seen_by s WHERE s.mailbox = $1 AND s.account = {reader:d} AND s.modseq > $3)"
    )
    above = "FROM flag WHERE mailbox = $1 AND modseq > $3"
    assert above in query
    return as_read_by(query.replace(above, f"FROM flag WHERE mailbox = $1 AND {changed}"), reader)


def selected_by(query: str, reader: int) -> str:
    """A query of the mailbox `m` and its flags `f`, for how many and which it has not read."""
    read = f"SELECT 1 FROM seen_by s WHERE s.mailbox = m.id AND s.uid = f.uid AND s.account = {reader:d} AND s.seen"
    return query.replace("m.unseen", unseen_by(reader)).replace(f"f.flags & {SEEN} = 0", f"NOT EXISTS ({read})")


def unseen_by(reader: int) -> str:
    """Of the mailbox `m`: how many messages somebody else than the owner has not read."""
    return (
        "m.messages - (SELECT count(*) FROM seen_by s "
        f"WHERE s.mailbox = m.id AND s.account = {reader:d} AND s.seen)"
    )
