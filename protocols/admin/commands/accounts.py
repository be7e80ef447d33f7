"""Accounts: people who sign in and have mail, their passwords and app passwords."""

from msgspec import UNSET

from cluster.domain.actor import Actor
from cluster.domain.directory import commands as directory
from cluster.domain.quota import Held, Usage
from cluster.domain.refusal import Reason, Refusal
from protocols.admin.commands import sharing
from protocols.admin.commands.paging import page
from protocols.admin.door import Answer, Call, Door
from protocols.admin.model import (
    Account,
    AccountChange,
    Accounts,
    AppPassword,
    AppPasswords,
    NewAccount,
    NewAppPassword,
    NewPassword,
    Paging,
)
from protocols.admin.port import AccountRow
from storage.credentials import PASSWORD_LABEL


async def show_all(door: Door, call: Call) -> Answer:
    asked: Paging = call.query
    found = await door.administration.accounts(domain=asked.domain, after=asked.after, limit=asked.limit + 1)
    if isinstance(found, Refusal):
        return found
    items, cursor = page(found, asked.limit, lambda row: row.address)
    return Accounts(tuple(map(_shown, items)), cursor)


async def add(door: Door, call: Call) -> Answer:
    new: NewAccount = call.body
    return await make(door, call.actor, new) or await _show(door, new.address)


async def make(door: Door, actor: Actor, new: NewAccount) -> Refusal | None:
    """Also what an import does for each of its lines."""
    if new.password is not None and (weak := door.passwords.weakness(new.password, new.address)):
        return weak
    partition = await _place(door, new)
    if isinstance(partition, Refusal):
        return partition
    command = directory.AddAccount(
        new.address,
        door.site.world.new_id(),
        partition,
        new.name,
        None if new.password is None else await door.passwords.make(new.password),
        new.administrator,
        new.shared,
    )
    return _refusal(await door.site.execute(actor, command))


async def _place(door: Door, new: NewAccount) -> str | Refusal:
    if not new.partition:
        return await door.administration.place(new.address)
    if door.cluster is not None and (unknown := await door.cluster.partition(new.partition)):
        return unknown
    return new.partition


async def show(door: Door, call: Call) -> Answer:
    return await _show(door, call.path["address"])


async def change(door: Door, call: Call) -> Answer:
    wanted: AccountChange = call.body
    address = call.path["address"]
    command = directory.ChangeAccount(
        address,
        name=None if wanted.name is UNSET else wanted.name,
        administrator=None if wanted.administrator is UNSET else wanted.administrator,
        suspended=None if wanted.suspended is UNSET else wanted.suspended,
        pop3_since=None if wanted.pop3_since is UNSET else wanted.pop3_since,
        file_sent=None if wanted.file_sent is UNSET else wanted.file_sent,
        quota_storage=wanted.quota_storage_bytes,
        quota_messages=wanted.quota_messages,
        quota_soft=wanted.quota_soft_percent,
    )
    return _refusal(await door.site.execute(call.actor, command)) or await _show(door, address)


async def remove(door: Door, call: Call) -> Answer:
    address = call.path["address"]
    row = await door.administration.account(address)
    done = await door.site.execute(call.actor, directory.RemoveAccount(address))
    if not isinstance(done, Refusal) and isinstance(row, AccountRow):
        await sharing.forget(door, call, row.id)
    return _refusal(done)


async def set_password(door: Door, call: Call) -> Answer:
    new: NewPassword = call.body
    address = call.path["address"]
    if weak := door.passwords.weakness(new.password, address):
        return weak
    command = directory.SetPassword(address, await door.passwords.make(new.password))
    return _refusal(await door.site.execute(call.actor, command))


async def app_passwords(door: Door, call: Call) -> Answer:
    row = await door.administration.account(call.path["address"])
    return row if isinstance(row, Refusal) else AppPasswords(row.app_passwords)


async def add_app_password(door: Door, call: Call) -> Answer:
    new: NewAppPassword = call.body
    if new.label.casefold() == PASSWORD_LABEL:  # the audit trail calls the account's own password so
        return Refusal(Reason.CONFLICT, f"an app password cannot be called {PASSWORD_LABEL}", (new.label,))
    password = door.passwords.generate()
    verifier = await door.passwords.make_generated(password)
    done = await door.site.execute(call.actor, directory.AddAppPassword(call.path["address"], new.label, verifier))
    if isinstance(done, Refusal) and done.reason is not Reason.NOT_SHOWN_YET:  # there it is in the log, so it must be told
        return done
    return AppPassword(new.label, password)


async def revoke_app_password(door: Door, call: Call) -> Answer:
    command = directory.RevokeAppPassword(call.path["address"], call.path["label"])
    return _refusal(await door.site.execute(call.actor, command))


async def _show(door: Door, address: str) -> Answer:
    row = await door.administration.account(address)
    return row if isinstance(row, Refusal) else _shown(row)


def _shown(row: AccountRow) -> Account:
    quota, own = row.quota, row.own
    held = None
    if quota and row.size_bytes is not None and row.messages is not None:
        held = Held(quota, Usage(row.size_bytes, row.messages))
    named = {"quota_storage_bytes": own.storage, "quota_messages": own.messages, "quota_soft_percent": own.soft}
    return Account(
        id=str(row.id),
        address=row.address,
        name=row.name,
        partition=row.partition,
        administrator=row.administrator,
        suspended=row.suspended,
        has_password=row.has_password,
        app_passwords=row.app_passwords,
        pop3_since=row.pop3_since,
        file_sent=row.file_sent,
        shared=row.shared,
        messages=row.messages,
        size_bytes=row.size_bytes,
        quota_storage_bytes=quota.storage,
        quota_messages=quota.messages,
        quota_soft_percent=quota.soft,
        quota_own=tuple(name for name, value in named.items() if value is not None),
        used_percent=None if held is None else held.percent,
        reached_percent=() if held is None else held.reached,
    )


def _refusal(outcome: object) -> Refusal | None:
    return outcome if isinstance(outcome, Refusal) else None
