"""Writes annotations into the tables (RFC 5464): the same fold as `cluster.domain.mailbox.annotations.changed`."""

from cluster.domain.mailbox import annotations
from cluster.domain.mailbox import events as e
from storage.postgres.pool import Connection


async def changed(db: Connection, account: int, event: e.AnnotationsChanged) -> None:
    # Of an entry that is named twice the last value counts.
    values = dict(event.values)
    owners = [annotations.whose(name, event.by) for name in values]
    await db.execute(
        "DELETE FROM annotation a USING unnest($3::bigint[], $4::text[]) n(whose, entry) "
        "WHERE a.mailbox = $2 AND a.account = $1 AND a.whose = n.whose AND a.entry = n.entry",
        account,
        event.mailbox,
        owners,
        list(values),
    )
    kept = [(owner, name, value) for owner, (name, value) in zip(owners, values.items(), strict=True) if value is not None]
    if kept:
        await db.execute(
            "INSERT INTO annotation SELECT $1, $2, n.* FROM unnest($3::bigint[], $4::text[], $5::bytea[]) n",
            account,
            event.mailbox,
            *zip(*kept, strict=True),
        )
