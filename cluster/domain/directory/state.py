"""What the directory's facts add up to, and the part of it that a decision or a look-up needs.

A site does not load the whole directory to answer one question: pure functions are given a `Slice` of what was looked up
already, and answer with what is `Missing` until nothing is.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cluster.domain.decision import Unappliable
from cluster.domain.directory import addresses
from cluster.domain.directory.events import (
    AccountAdded,
    AccountChanged,
    AccountRemoved,
    AccountShared,
    AliasAdded,
    AliasRemoved,
    AnyEvent,
    AppPasswordAdded,
    AppPasswordRevoked,
    DomainAdded,
    DomainChanged,
    DomainQuotaChanged,
    DomainRemoved,
    GroupAdded,
    GroupMembersChanged,
    GroupRemoved,
    PasswordChanged,
    Pop3ThresholdChanged,
    QuotaChanged,
    SentFilingChanged,
    TopologyChanged,
    UndeletePeriodChanged,
    Verifier,
)
from cluster.domain.quota import Override, Quota

UNDELETE_DAYS_DEFAULT = 14


class Domain(msgspec.Struct, frozen=True):
    """`quota`: of its accounts that have none of their own. `undelete_days`: for so long what was expunged can be restored."""

    name: str
    catch_all: str = ""
    plus: bool = True
    quota: Quota = Quota()
    undelete_days: int = UNDELETE_DAYS_DEFAULT


class Account(msgspec.Struct, frozen=True, tag=True):
    """`app_passwords`: by label. `pop3_since`: unix seconds, 0 = POP3 offers all mail. `file_sent`: what is submitted is filed. `shared`:
    nobody signs in with it."""

    id: int
    address: str
    partition: str = ""
    name: str = ""
    verifier: Verifier | None = None
    administrator: bool = False
    suspended: bool = False
    app_passwords: Mapping[str, Verifier] = {}
    pop3_since: int = 0
    file_sent: bool = False
    quota: Override = Override()
    shared: bool = False


class Alias(msgspec.Struct, frozen=True, tag=True):
    address: str
    targets: tuple[str, ...]


class Group(msgspec.Struct, frozen=True, tag=True):
    address: str
    name: str = ""
    members: tuple[str, ...] = ()


Entry = Account | Alias | Group


class DirectoryState(msgspec.Struct, frozen=True):
    """`entries`: by canonical address. `accounts`: of each account's id, its address."""

    domains: Mapping[str, Domain] = {}
    entries: Mapping[str, Entry] = {}
    accounts: Mapping[int, str] = {}


class Missing(msgspec.Struct, frozen=True):
    """What must be looked up before there is an answer. `members` and `postmasters` are domains."""

    addresses: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    members: frozenset[str] = frozenset()
    postmasters: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.addresses or self.domains or self.members or self.postmasters)


class Slice(msgspec.Struct, frozen=True):
    """What was looked up, in one snapshot; None = it is not there. `members`: how many addresses a domain has.
    `postmasters`: as the function of this name gives them."""

    entries: Mapping[str, Entry | None] = {}
    domains: Mapping[str, Domain | None] = {}
    members: Mapping[str, int] = {}
    postmasters: Mapping[str, tuple[int, ...]] = {}

    def without_known(self, missing: Missing) -> Missing:
        return Missing(
            frozenset(address for address in missing.addresses if address not in self.entries),
            frozenset(domain for domain in missing.domains if domain not in self.domains),
            frozenset(domain for domain in missing.members if domain not in self.members),
            frozenset(domain for domain in missing.postmasters if domain not in self.postmasters),
        )


def look_up(state: DirectoryState, missing: Missing, known: Slice) -> Slice:
    """`known` and what was missing, from a whole directory. A site's tables answer in the same way."""
    domains = [addresses.domain_of(address) for address in state.entries]
    return Slice(
        {**known.entries, **{address: state.entries.get(address) for address in missing.addresses}},
        {**known.domains, **{domain: state.domains.get(domain) for domain in missing.domains}},
        {**known.members, **{domain: domains.count(domain) for domain in missing.members}},
        {**known.postmasters, **{domain: postmasters(state, domain) for domain in missing.postmasters}},
    )


def postmasters(state: DirectoryState, domain: str) -> tuple[int, ...]:
    """Who reads mail for postmaster@ and abuse@ of a domain where nothing else is set (RFC 5321 §4.5.1, RFC 2142 §1):
    the first of these that is anybody:
    1. all administrators whose address is in the domain and who are not suspended
    2. all administrators of the system who are not suspended
    3. the account of the domain whose address sorts first
    4. the account of the system whose address sorts first
    """
    accounts = [entry for _, entry in sorted(state.entries.items()) if isinstance(entry, Account)]
    here = [account for account in accounts if addresses.domain_of(account.address) == domain]
    for choice in (
        [account for account in here if account.administrator and not account.suspended],
        [account for account in accounts if account.administrator and not account.suspended],
        here[:1],
        accounts[:1],
    ):
        if choice:
            return tuple(account.id for account in choice)
    return ()


def evolve(state: DirectoryState, event: AnyEvent) -> DirectoryState | Unappliable:
    """What comes where something is already is Unappliable; a change of what is not there is passed over."""
    return FOLDS[type(event)](state, event)


Folded = DirectoryState | Unappliable


def _domain_added(state: DirectoryState, event: DomainAdded) -> Folded:
    if event.domain in state.domains:
        return Unappliable(f"domain {event.domain} is there already")
    return _with_domain(state, Domain(event.domain, event.catch_all, event.plus))


def _domain_changed(state: DirectoryState, event: DomainChanged) -> Folded:
    domain = state.domains.get(event.domain)
    if domain is None:
        return state
    return _with_domain(state, msgspec.structs.replace(domain, catch_all=event.catch_all, plus=event.plus))


def _domain_quota_changed(state: DirectoryState, event: DomainQuotaChanged) -> Folded:
    domain = state.domains.get(event.domain)
    if domain is None:
        return state
    quota = Quota(event.storage, event.messages, event.soft)
    return _with_domain(state, msgspec.structs.replace(domain, quota=quota))


def _undelete_period_changed(state: DirectoryState, event: UndeletePeriodChanged) -> Folded:
    domain = state.domains.get(event.domain)
    if domain is None:
        return state
    return _with_domain(state, msgspec.structs.replace(domain, undelete_days=event.days))


def _domain_removed(state: DirectoryState, event: DomainRemoved) -> Folded:
    domains = {name: domain for name, domain in state.domains.items() if name != event.domain}
    return msgspec.structs.replace(state, domains=domains)


def _account_added(state: DirectoryState, event: AccountAdded) -> Folded:
    if event.account in state.accounts:
        return Unappliable(f"account {event.account} is there already")
    account = Account(event.account, event.address, event.partition, event.name, event.verifier, event.administrator)
    added = _added(state, account)
    if isinstance(added, Unappliable):
        return added
    return msgspec.structs.replace(added, accounts={**state.accounts, event.account: event.address})


def _account_changed(state: DirectoryState, event: AccountChanged) -> Folded:
    return _changed(
        state,
        event.address,
        event.account,
        name=event.name,
        administrator=event.administrator,
        suspended=event.suspended,
    )


def _quota_changed(state: DirectoryState, event: QuotaChanged) -> Folded:
    return _changed(state, event.address, event.account, quota=Override(event.storage, event.messages, event.soft))


def _account_removed(state: DirectoryState, event: AccountRemoved) -> Folded:
    if state.accounts.get(event.account) != event.address:
        return state
    accounts = {account: address for account, address in state.accounts.items() if account != event.account}
    return msgspec.structs.replace(_removed(state, event.address, Account), accounts=accounts)


def _password_changed(state: DirectoryState, event: PasswordChanged) -> Folded:
    return _changed(state, event.address, event.account, verifier=event.verifier)


def _app_password_added(state: DirectoryState, event: AppPasswordAdded) -> Folded:
    account = state.entries.get(event.address)
    if not isinstance(account, Account):
        return state
    passwords = {**account.app_passwords, event.label: event.verifier}
    return _changed(state, event.address, event.account, app_passwords=passwords)


def _app_password_revoked(state: DirectoryState, event: AppPasswordRevoked) -> Folded:
    account = state.entries.get(event.address)
    if not isinstance(account, Account):
        return state
    passwords = {label: verifier for label, verifier in account.app_passwords.items() if label != event.label}
    return _changed(state, event.address, event.account, app_passwords=passwords)


def _alias_added(state: DirectoryState, event: AliasAdded) -> Folded:
    return _added(state, Alias(event.address, event.targets))


def _group_added(state: DirectoryState, event: GroupAdded) -> Folded:
    return _added(state, Group(event.address, event.name, event.members))


def _group_members_changed(state: DirectoryState, event: GroupMembersChanged) -> Folded:
    group = state.entries.get(event.address)
    if not isinstance(group, Group):
        return state
    members = dict.fromkeys(member for member in group.members if member not in event.removed)
    members.update(dict.fromkeys(event.added))
    return _with_entry(state, msgspec.structs.replace(group, members=tuple(members)))


def _with_domain(state: DirectoryState, domain: Domain) -> DirectoryState:
    return msgspec.structs.replace(state, domains={**state.domains, domain.name: domain})


def _with_entry(state: DirectoryState, entry: Entry) -> DirectoryState:
    return msgspec.structs.replace(state, entries={**state.entries, entry.address: entry})


def _added(state: DirectoryState, entry: Entry) -> Folded:
    if entry.address in state.entries:
        return Unappliable(f"address {entry.address} is taken")
    return _with_entry(state, entry)


def _changed(state: DirectoryState, address: str, id: int, **changes: Any) -> DirectoryState:
    account = state.entries.get(address)
    # The address may belong to somebody else by now.
    if not isinstance(account, Account) or account.id != id:
        return state
    return _with_entry(state, msgspec.structs.replace(account, **changes))


def _removed(state: DirectoryState, address: str, kind: type) -> DirectoryState:
    if not isinstance(state.entries.get(address), kind):
        return state
    entries = {name: entry for name, entry in state.entries.items() if name != address}
    return msgspec.structs.replace(state, entries=entries)


FOLDS: dict[type, Callable[[DirectoryState, Any], Folded]] = {
    DomainAdded: _domain_added,
    DomainChanged: _domain_changed,
    DomainQuotaChanged: _domain_quota_changed,
    UndeletePeriodChanged: _undelete_period_changed,
    DomainRemoved: _domain_removed,
    AccountAdded: _account_added,
    AccountChanged: _account_changed,
    Pop3ThresholdChanged: lambda state, event: _changed(state, event.address, event.account, pop3_since=event.since),
    SentFilingChanged: lambda state, event: _changed(state, event.address, event.account, file_sent=event.filed),
    QuotaChanged: _quota_changed,
    AccountShared: lambda state, event: _changed(state, event.address, event.account, shared=True),
    AccountRemoved: _account_removed,
    PasswordChanged: _password_changed,
    AppPasswordAdded: _app_password_added,
    AppPasswordRevoked: _app_password_revoked,
    AliasAdded: _alias_added,
    AliasRemoved: lambda state, event: _removed(state, event.address, Alias),
    GroupAdded: _group_added,
    GroupMembersChanged: _group_members_changed,
    GroupRemoved: lambda state, event: _removed(state, event.address, Group),
    TopologyChanged: lambda state, _: state,
}
