"""What the search index is made from, and `site.search_state`, which tells how far it has come."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from cluster.domain.mailbox.content import Content
from cluster.formats import mime
from storage.postgres.mail_view import segments_of
from storage.postgres.pool import Database

_description = msgspec.msgpack.Decoder(mime.Description).decode


class Large(NamedTuple):
    """A mailbox that is to have an index."""

    mailbox: int
    uidvalidity: int
    uidnext: int
    messages: int


class Row(NamedTuple):
    """`saved_at`: unix seconds."""

    uid: int
    saved_at: int
    content: Content
    described: mime.Description


class SearchState(NamedTuple):
    """`indexed` and `waiting`: messages in mailboxes, of those that are to be in the index. `size_bytes` on disk. `at`: unix
    seconds of when it was so, 0 = it was never looked at."""

    indexed: int
    waiting: int
    size_bytes: int
    at: float = 0.0


class SearchView:
    """Every method raises one of AWAY."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def uidvalidity(self, account: int, mailbox: int) -> int | None:
        row = await self._database.row(
            "SELECT uidvalidity FROM mailbox WHERE id = $1 AND account = $2", mailbox, account
        )
        return None if row is None else int(row[0])

    async def there(self, mailboxes: Sequence[int]) -> set[tuple[int, int]]:
        """(id, UIDVALIDITY) of those that there are."""
        rows = await self._database.fetch(
            "SELECT id, uidvalidity FROM mailbox WHERE id = ANY ($1::bigint[])", list(mailboxes)
        )
        return {(row[0], row[1]) for row in rows}

    async def large(self, messages_min: int) -> list[Large]:
        """Mailboxes that hold so many messages."""
        rows = await self._database.fetch(
            "SELECT id, uidvalidity, uidnext, messages FROM mailbox WHERE messages >= $1 ORDER BY id", messages_min
        )
        return [Large(*row) for row in rows]

    async def tail(self, mailbox: int, after: int) -> int:
        """How many messages come after that UID."""
        row = await self._database.row("SELECT count(*) FROM flag WHERE mailbox = $1 AND uid > $2", mailbox, after)
        assert row is not None
        return int(row[0])

    async def rows(self, mailbox: int, after: int, limit: int) -> list[Row]:
        """The next messages after that UID, ascending."""
        rows = await self._database.fetch(
            "SELECT m.uid, m.saved_at, c.hash, c.size, c.segments, c.description FROM "
            "(SELECT * FROM message WHERE mailbox = $1 AND uid > $2 ORDER BY uid LIMIT $3) m "
            "CROSS JOIN LATERAL (SELECT * FROM content WHERE hash = m.content OFFSET 0) c ORDER BY m.uid",
            mailbox,
            after,
            limit,
        )
        return [
            Row(row[0], row[1], Content(row[2], row[3], segments_of(row[4]), b""), _description(row[5])) for row in rows
        ]

    async def note(self, state: SearchState) -> None:
        await self._database.run(
            "INSERT INTO search_state VALUES (true, $1, $2, $3) ON CONFLICT (one) DO UPDATE "
            "SET indexed = $1, waiting = $2, size_bytes = $3, at = now()",
            state.indexed,
            state.waiting,
            state.size_bytes,
        )

    async def state(self) -> SearchState:
        row = await self._database.row(
            "SELECT indexed, waiting, size_bytes, extract(epoch FROM at)::float8 FROM search_state"
        )
        return SearchState(0, 0, 0) if row is None else SearchState(*row)
