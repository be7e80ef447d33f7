"""What an import asks of the tables: a mailbox by its id, and what is in it."""

from collections.abc import AsyncIterator

from storage.postgres.mail_view import MAILBOX
from storage.postgres.pool import Database
from storage.shapes import Mailbox

ROWS_A_BATCH = 5_000


class MovingView:
    def __init__(self, database: Database) -> None:
        self.database = database

    async def mailbox(self, account: int, mailbox: int) -> Mailbox | None:
        row = await self.database.row(
            f"SELECT {MAILBOX} FROM mailbox m WHERE m.account = $1 AND m.id = $2", account, mailbox
        )
        return None if row is None else Mailbox(*row)

    async def contents(self, account: int, mailbox: int) -> AsyncIterator[list[tuple[bytes, int]]]:
        """(SHA-256 of the message, INTERNALDATE in unix seconds) of every message that is there, by UID."""
        after = 0
        while True:
            rows = await self.database.fetch(
                "SELECT m.uid, m.content, m.internal_at FROM message m JOIN flag f USING (mailbox, uid) "
                "JOIN mailbox b ON b.id = m.mailbox AND b.account = $1 "
                "WHERE m.mailbox = $2 AND m.uid > $3 ORDER BY m.uid LIMIT $4",
                account,
                mailbox,
                after,
                ROWS_A_BATCH,
            )
            if rows:
                yield [(row["content"], row["internal_at"]) for row in rows]
                after = rows[-1]["uid"]
            if len(rows) < ROWS_A_BATCH:
                return
