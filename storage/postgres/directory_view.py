"""Reads the noun directory from the tables."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from cluster.domain.directory.events import Verifier
from cluster.domain.directory.state import Account, Alias, Domain, Entry, Group, Missing, Slice
from cluster.domain.quota import Override, Quota
from storage.postgres.pool import Connection, Database

ENTRIES = """
SELECT 1 AS kind, a.address, a.id, a.partition, a.name, a.administrator, a.suspended, a.pop3_since, a.file_sent,
    a.quota_storage, a.quota_messages, a.quota_soft, a.shared, NULL::text[] AS list,
    (SELECT jsonb_object_agg(c.label, jsonb_build_array(c.argon2, c.scram_sha_256)) FROM credential c WHERE c.account = a.id) AS credentials
FROM account a WHERE a.address = ANY ($1::text[])
UNION ALL SELECT 2, address, 0, '', '', false, false, 0, false, 0, 0, NULL, false, targets, NULL
FROM alias WHERE address = ANY ($1::text[])
UNION ALL SELECT 3, address, 0, '', name, false, false, 0, false, 0, 0, NULL, false, members, NULL
FROM distribution_group WHERE address = ANY ($1::text[])
"""

# The rule is cluster.domain.directory.state.postmasters, in its order.
POSTMASTERS = """
SELECT 1 AS rank, array_agg(id ORDER BY address COLLATE "C") AS ids FROM account WHERE domain = $1 AND administrator AND NOT suspended
UNION ALL SELECT 2, array_agg(id ORDER BY address COLLATE "C") FROM account WHERE administrator AND NOT suspended
UNION ALL SELECT 3, array_agg(id) FROM (SELECT id FROM account WHERE domain = $1 ORDER BY address COLLATE "C" LIMIT 1) one
UNION ALL SELECT 4, array_agg(id) FROM (SELECT id FROM account ORDER BY address COLLATE "C" LIMIT 1) one
ORDER BY rank
"""

MEMBERS = """
SELECT (SELECT count(*) FROM account WHERE domain = $1) + (SELECT count(*) FROM alias WHERE domain = $1)
    + (SELECT count(*) FROM distribution_group WHERE domain = $1)
"""


DOMAINS = "SELECT name, catch_all, plus, quota_storage, quota_messages, quota_soft, undelete_days FROM domain"

# The rule is cluster.domain.quota.Override.over.
PLACE = """
SELECT a.partition, coalesce(a.quota_storage, d.quota_storage, 0) AS storage,
    coalesce(a.quota_messages, d.quota_messages, 0) AS messages, coalesce(a.quota_soft, d.quota_soft, '{90}') AS soft
FROM account a LEFT JOIN domain d ON d.name = a.domain WHERE a.id = $1
"""


class Place(NamedTuple):
    """Where an account's mail is kept, and how much of it there may be."""

    partition: str
    quota: Quota


class DirectoryView:
    def __init__(self, database: Database) -> None:
        self.database = database

    async def look_up(self, missing: Missing, known: Slice) -> Slice:
        """`known` and what was missing, of one state of the tables."""
        async with self.database.connection() as db, db.transaction(isolation="repeatable_read", readonly=True):
            entries: dict[str, Entry | None] = dict.fromkeys(missing.addresses)
            if missing.addresses:
                for row in await db.fetch(ENTRIES, list(missing.addresses)):
                    entries[row["address"]] = _entry(row)
            domains: dict[str, Domain | None] = dict.fromkeys(missing.domains)
            if missing.domains:
                rows = await db.fetch(f"{DOMAINS} WHERE name = ANY ($1::text[])", list(missing.domains))
                domains.update({row["name"]: _domain(row) for row in rows})
            members = {domain: await db.fetchval(MEMBERS, domain) for domain in missing.members}
            postmasters = {domain: await _postmasters(db, domain) for domain in missing.postmasters}
        return Slice(
            {**known.entries, **entries},
            {**known.domains, **domains},
            {**known.members, **members},
            {**known.postmasters, **postmasters},
        )

    async def place_of(self, account: int) -> Place | None:
        row = await self.database.row(PLACE, account)
        return None if row is None else Place(row["partition"], Quota(row["storage"], row["messages"], tuple(row["soft"])))

    async def domains(self, after: str, limit: int) -> list[Domain]:
        rows = await self.database.fetch(
            f'{DOMAINS} WHERE name COLLATE "C" > $1 ORDER BY name COLLATE "C" LIMIT $2',
            after,
            limit,
        )
        return [_domain(row) for row in rows]

    async def addresses(self, kind: str, domain: str | None, after: str, limit: int) -> list[str]:
        """Addresses of a kind (account, alias, group) above `after`, in order."""
        table = {"account": "account", "alias": "alias", "group": "distribution_group"}[kind]
        rows = await self.database.fetch(
            f'SELECT address FROM {table} WHERE ($1::text IS NULL OR domain = $1) AND address COLLATE "C" > $2 '
            'ORDER BY address COLLATE "C" LIMIT $3',
            domain,
            after,
            limit,
        )
        return [row["address"] for row in rows]

    async def addresses_of(self, accounts: Sequence[int]) -> dict[int, str]:
        """Of those accounts that are there."""
        rows = await self.database.fetch("SELECT id, address FROM account WHERE id = ANY ($1::bigint[])", list(accounts))
        return {row["id"]: row["address"] for row in rows}

    async def usage(self, accounts: list[int]) -> dict[int, tuple[int, int]]:
        """Messages and bytes in the mailboxes of each."""
        rows = await self.database.fetch(
            "SELECT account, sum(messages)::bigint AS messages, sum(bytes)::bigint AS bytes FROM mailbox "
            "WHERE account = ANY ($1::bigint[]) GROUP BY account",
            accounts,
        )
        return {row["account"]: (row["messages"], row["bytes"]) for row in rows}

    async def is_empty(self) -> bool:
        return await self.database.row("SELECT 1 FROM domain LIMIT 1") is None


async def _postmasters(db: Connection, domain: str) -> tuple[int, ...]:
    rows = await db.fetch(POSTMASTERS, domain)
    return next((tuple(row["ids"]) for row in rows if row["ids"]), ())


def _domain(row: Any) -> Domain:
    quota = Quota(row["quota_storage"], row["quota_messages"], tuple(row["quota_soft"]))
    return Domain(row["name"], row["catch_all"], row["plus"], quota, row["undelete_days"])


def _entry(row: Any) -> Entry:
    match row["kind"]:
        case 1:
            credentials = {label: Verifier(*kept) for label, kept in _json(row["credentials"]).items()}
            verifier = credentials.pop("", None)
            soft = row["quota_soft"]
            return Account(
                row["id"], row["address"], row["partition"], row["name"], verifier,
                row["administrator"], row["suspended"], credentials, row["pop3_since"], row["file_sent"],
                Override(row["quota_storage"], row["quota_messages"], None if soft is None else tuple(soft)),
                row["shared"],
            )  # fmt: skip
        case 2:
            return Alias(row["address"], tuple(row["list"]))
        case _:
            return Group(row["address"], row["name"], tuple(row["list"]))


def _json(text: str | None) -> Mapping[str, list[str]]:
    return msgspec.json.decode(text, type=dict[str, list[str]]) if text else {}
