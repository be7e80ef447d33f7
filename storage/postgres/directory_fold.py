"""Writes the noun directory into the tables."""

from cluster.domain.directory import events as e
from storage.postgres.mail_fold import Unappliable
from storage.postgres.pool import Connection

ENTRY = """
SELECT 'account' AS kind, id FROM account WHERE address = $1
UNION ALL SELECT 'alias', 0 FROM alias WHERE address = $1
UNION ALL SELECT 'group', 0 FROM distribution_group WHERE address = $1
"""


class DirectoryFold:
    """The same fold as `cluster.domain.directory.state`, in SQL."""

    def __init__(self, partition: str) -> None:
        self.partition = partition

    async def apply(self, db: Connection, event: e.AnyEvent, position: int) -> None:
        """Raises Unappliable, having written nothing of the event."""
        match event:
            case e.UndeletePeriodChanged():
                await db.execute("UPDATE domain SET undelete_days = $2 WHERE name = $1", event.domain, event.days)
            case e.DomainAdded() | e.DomainChanged() | e.DomainQuotaChanged() | e.DomainRemoved():
                await self._domain(db, event)
            case e.AccountAdded():
                await self._account_added(db, event, position)
            case e.AliasAdded():
                await self._is_free(db, event.address)
                await db.execute(
                    "INSERT INTO alias (address, domain, targets) VALUES ($1, $2, $3)",
                    event.address,
                    _domain(event.address),
                    list(event.targets),
                )
            case e.AliasRemoved():
                await db.execute("DELETE FROM alias WHERE address = $1", event.address)
            case e.GroupAdded() | e.GroupMembersChanged() | e.GroupRemoved():
                await self._group(db, event)
            case e.TopologyChanged():
                pass  # For who reads the log; the control plane holds what is.
            case _:
                # The address may belong to somebody else by now.
                there = await db.fetchval(
                    "SELECT 1 FROM account WHERE id = $1 AND address = $2", event.account, event.address
                )
                if there is not None:
                    await self._account(db, event, position)

    async def _domain(
        self, db: Connection, event: e.DomainAdded | e.DomainChanged | e.DomainQuotaChanged | e.DomainRemoved
    ) -> None:
        match event:
            case e.DomainAdded():
                added = await db.fetchval(
                    "INSERT INTO domain (name, catch_all, plus) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING 1",
                    event.domain,
                    event.catch_all,
                    event.plus,
                )
                if added is None:
                    raise Unappliable(f"domain {event.domain} is there already")
            case e.DomainChanged():
                await db.execute(
                    "UPDATE domain SET catch_all = $2, plus = $3 WHERE name = $1",
                    event.domain,
                    event.catch_all,
                    event.plus,
                )
            case e.DomainQuotaChanged():
                await db.execute(
                    "UPDATE domain SET quota_storage = $2, quota_messages = $3, quota_soft = $4 WHERE name = $1",
                    event.domain,
                    event.storage,
                    event.messages,
                    list(event.soft),
                )
            case e.DomainRemoved():
                await db.execute("DELETE FROM domain WHERE name = $1", event.domain)

    async def _is_free(self, db: Connection, address: str, account: int = 0) -> None:
        taken = await db.fetchrow(ENTRY, address)
        if taken is not None:
            raise Unappliable(f"address {address} is taken by an {taken['kind']}")
        if account and await db.fetchval("SELECT 1 FROM account WHERE id = $1", account) is not None:
            raise Unappliable(f"account {account} is there already")

    async def _account_added(self, db: Connection, event: e.AccountAdded, position: int) -> None:
        await self._is_free(db, event.address, event.account)
        await db.execute(
            "INSERT INTO account (id, address, domain, name, partition, administrator) VALUES ($1, $2, $3, $4, $5, $6)",
            event.account,
            event.address,
            _domain(event.address),
            event.name,
            event.partition,
            event.administrator,
        )
        if event.verifier is not None:
            await self._credential(db, event.account, "", event.verifier, position)

    async def _account(
        self,
        db: Connection,
        event: e.AccountChanged
        | e.Pop3ThresholdChanged
        | e.SentFilingChanged
        | e.QuotaChanged
        | e.AccountRemoved
        | e.AccountShared
        | e.PasswordChanged
        | e.AppPasswordAdded
        | e.AppPasswordRevoked,
        position: int,
    ) -> None:
        match event:
            case e.AccountChanged():
                await db.execute(
                    "UPDATE account SET name = $2, administrator = $3, suspended = $4 WHERE id = $1",
                    event.account,
                    event.name,
                    event.administrator,
                    event.suspended,
                )
            case e.Pop3ThresholdChanged():
                await db.execute("UPDATE account SET pop3_since = $2 WHERE id = $1", event.account, event.since)
            case e.SentFilingChanged():
                await db.execute("UPDATE account SET file_sent = $2 WHERE id = $1", event.account, event.filed)
            case e.QuotaChanged():
                await db.execute(
                    "UPDATE account SET quota_storage = $2, quota_messages = $3, quota_soft = $4 WHERE id = $1",
                    event.account,
                    event.storage,
                    event.messages,
                    None if event.soft is None else list(event.soft),
                )
            case e.AccountShared():
                await db.execute("UPDATE account SET shared = true WHERE id = $1", event.account)
            case e.AccountRemoved():
                await db.execute("DELETE FROM account WHERE id = $1", event.account)
                await db.execute("DELETE FROM credential WHERE account = $1", event.account)
            case e.PasswordChanged():
                await self._credential(db, event.account, "", event.verifier, position)
            case e.AppPasswordAdded():
                await self._credential(db, event.account, event.label, event.verifier, position)
            case e.AppPasswordRevoked():
                await db.execute("DELETE FROM credential WHERE account = $1 AND label = $2", event.account, event.label)

    async def _credential(self, db: Connection, account: int, label: str, verifier: e.Verifier, position: int) -> None:
        await db.execute(
            "INSERT INTO credential VALUES ($1, $2, $3, $4, $5) "
            "ON CONFLICT (account, label) DO UPDATE SET argon2 = $3, scram_sha_256 = $4, position = $5",
            account,
            label,
            verifier.argon2,
            verifier.scram_sha_256,
            position,
        )

    async def _group(self, db: Connection, event: e.GroupAdded | e.GroupMembersChanged | e.GroupRemoved) -> None:
        match event:
            case e.GroupAdded():
                await self._is_free(db, event.address)
                await db.execute(
                    "INSERT INTO distribution_group (address, domain, name, members) VALUES ($1, $2, $3, $4)",
                    event.address,
                    _domain(event.address),
                    event.name,
                    list(event.members),
                )
            case e.GroupMembersChanged():
                row = await db.fetchrow("SELECT members FROM distribution_group WHERE address = $1", event.address)
                members = dict.fromkeys(m for m in (row["members"] if row else ()) if m not in event.removed)
                members.update(dict.fromkeys(event.added))
                await db.execute(
                    "UPDATE distribution_group SET members = $2 WHERE address = $1", event.address, list(members)
                )
            case e.GroupRemoved():
                await db.execute("DELETE FROM distribution_group WHERE address = $1", event.address)


def _domain(address: str) -> str:
    return address.rpartition("@")[2]
