"""Writes the noun directory into the tables."""

from cluster.domain.directory import events as e
from storage.postgres.pool import Connection


class DirectoryFold:
    def __init__(self, partition: str) -> None:
        self.partition = partition

    async def apply(self, db: Connection, event: e.AnyEvent, position: int) -> None:
        match event:
            case e.DomainAdded() | e.DomainChanged():
                await db.execute(
                    "INSERT INTO domain (name, catch_all, plus) VALUES ($1, $2, $3) "
                    "ON CONFLICT (name) DO UPDATE SET catch_all = $2, plus = $3",
                    event.domain,
                    event.catch_all,
                    event.plus,
                )
            case e.DomainRemoved():
                await db.execute("DELETE FROM domain WHERE name = $1", event.domain)
            case e.AccountAdded() | e.AccountChanged() | e.AccountRemoved():
                await self._account(db, event, position)
            case e.PasswordChanged():
                await self._credential(db, event.account, "", event.verifier, position)
            case e.AppPasswordAdded():
                await self._credential(db, event.account, event.label, event.verifier, position)
            case e.AppPasswordRevoked():
                await db.execute("DELETE FROM credential WHERE account = $1 AND label = $2", event.account, event.label)
            case e.AliasAdded():
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

    async def _account(
        self, db: Connection, event: e.AccountAdded | e.AccountChanged | e.AccountRemoved, position: int
    ) -> None:
        match event:
            case e.AccountAdded():
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
            case e.AccountChanged():
                await db.execute(
                    "UPDATE account SET name = $2, administrator = $3, suspended = $4 WHERE id = $1",
                    event.account,
                    event.name,
                    event.administrator,
                    event.suspended,
                )
            case e.AccountRemoved():
                await db.execute("DELETE FROM account WHERE id = $1", event.account)
                await db.execute("DELETE FROM credential WHERE account = $1", event.account)

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
