"""What may be done with domains, accounts, aliases and groups. Never raises.

Who calls asks `needs(known, command)` and looks up what is missing, in one snapshot, until nothing is; then `decide`.
"""

import unicodedata
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET

from cluster.domain.decision import Decision
from cluster.domain.directory import addresses
from cluster.domain.directory.commands import (
    AddAccount,
    AddAlias,
    AddAppPassword,
    AddDomain,
    AddGroup,
    AnyCommand,
    ChangeAccount,
    ChangeDomain,
    ChangeGroupMembers,
    RecordTopology,
    RemoveAccount,
    RemoveAlias,
    RemoveDomain,
    RemoveGroup,
    RevokeAppPassword,
    SetPassword,
    ShareAccount,
)
from cluster.domain.directory.events import (
    AccountAdded,
    AccountChanged,
    AccountRemoved,
    AccountShared,
    AliasAdded,
    AliasRemoved,
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
    address_key,
    domain_key,
    members_key,
    topology_key,
)
from cluster.domain.directory.resolve import expand
from cluster.domain.directory.state import Account, Alias, Entry, Group, Missing, Slice
from cluster.domain.quota import MESSAGES_MAX, STORAGE_BYTES_MAX, THRESHOLDS_MAX, Override, Quota
from cluster.domain.refusal import Reason, Refusal

NAME_BYTES_MAX = 256
UNIX_S_MAX = 253_402_300_799  # the last second of the year 9999
LABEL_BYTES_MAX = 64
APP_PASSWORDS_PER_ACCOUNT_MAX = 50
TARGETS_PER_ALIAS_MAX = 1_000
MEMBERS_PER_GROUP_MAX = 10_000
UNDELETE_DAYS_MAX = 366

Answer = Decision | Refusal
SHARED = Refusal(Reason.NOT_PERMITTED, "Nobody signs in with a shared account: it has no password and is no administrator.")


def decide(known: Slice, command: AnyCommand) -> Answer:
    """`known`: complete, as `needs` says."""
    return DECIDERS[type(command)](known, command)


def needs(known: Slice, command: AnyCommand) -> Missing:
    """What is still to be looked up. Empty when `decide` can answer."""
    match command:
        case AddDomain() | ChangeDomain():
            name = addresses.canonical_domain(command.domain)
            return known.without_known(Missing(domains=frozenset({name} if name else ())))
        case RemoveDomain():
            name = addresses.canonical_domain(command.domain)
            domains = frozenset({name} if name else ())
            return known.without_known(Missing(domains=domains, members=domains))
        case RecordTopology():
            return Missing()
        case AddAlias():
            outward = command.targets
        case AddGroup():
            outward = command.members
        case ChangeGroupMembers():
            outward = command.add
        case _:
            outward = ()
    own = addresses.canonical(command.address)
    if own is None:
        return Missing()
    if len(outward) > MEMBERS_PER_GROUP_MAX:
        outward = ()  # refused without a look at them
    named = [address for address in map(addresses.canonical, outward) if address]
    wanted = Missing(frozenset({own}), frozenset(addresses.domain_of(address) for address in (own, *named)))
    missing = known.without_known(wanted)
    if missing or not named:
        return missing
    # What it would lead to is followed, to see whether it leads back.
    reached = expand(known, outward)
    return reached if isinstance(reached, Missing) else Missing()


def add_domain(known: Slice, command: AddDomain) -> Answer:
    name = addresses.canonical_domain(command.domain)
    if name is None:
        return _invalid(command.domain)
    if known.domains[name] is not None:
        return Refusal(Reason.DOMAIN_EXISTS, "This domain is here already.", (name,))
    catch_all = _catch_all(command.catch_all)
    if isinstance(catch_all, Refusal):
        return catch_all
    return _of_domain(name, DomainAdded(name, catch_all, command.plus))


def change_domain(known: Slice, command: ChangeDomain) -> Answer:
    name = addresses.canonical_domain(command.domain)
    domain = known.domains[name] if name else None
    if domain is None:
        return _no_such_domain(command.domain)
    catch_all = domain.catch_all if command.catch_all is None else _catch_all(command.catch_all)
    if isinstance(catch_all, Refusal):
        return catch_all
    plus = domain.plus if command.plus is None else command.plus
    was = domain.quota
    quota = Quota(
        was.storage if command.quota_storage is None else command.quota_storage,
        was.messages if command.quota_messages is None else command.quota_messages,
        was.soft if command.quota_soft is None else command.quota_soft,
    )
    if refused := _no_quota(quota):
        return refused
    days = domain.undelete_days if command.undelete_days is None else command.undelete_days
    if not 0 <= days <= UNDELETE_DAYS_MAX:
        return Refusal(Reason.NOT_PERMITTED, f"What was expunged is kept for 0 to {UNDELETE_DAYS_MAX} days.")
    events: list[msgspec.Struct] = []
    if (catch_all, plus) != (domain.catch_all, domain.plus):
        events.append(DomainChanged(domain.name, catch_all, plus))
    if quota != was:
        events.append(DomainQuotaChanged(domain.name, quota.storage, quota.messages, quota.soft))
    if days != domain.undelete_days:
        events.append(UndeletePeriodChanged(domain.name, days))
    return _of_domain(domain.name, *events) if events else Decision()


def remove_domain(known: Slice, command: RemoveDomain) -> Answer:
    name = addresses.canonical_domain(command.domain)
    if name is None or known.domains[name] is None:
        return _no_such_domain(command.domain)
    if known.members[name]:
        return Refusal(Reason.DOMAIN_IN_USE, "Addresses of this domain exist: remove them first.", (name,))
    return Decision(((name, DomainRemoved(name)),), (domain_key(name), members_key(name)))


def add_account(known: Slice, command: AddAccount) -> Answer:
    address = _free(known, command.address)
    if isinstance(address, Refusal):
        return address
    if refused := _not_readable(command.name, NAME_BYTES_MAX):
        return refused
    event = AccountAdded(
        command.account, address, command.partition, command.name, command.verifier, command.administrator
    )
    if not command.shared:
        return _of_address(address, event, new=True)
    if command.verifier is not None or command.administrator:
        return SHARED
    return _of_address(address, event, AccountShared(command.account, address), new=True)


def share_account(known: Slice, command: ShareAccount) -> Answer:
    account = _account(known, command.address)
    if isinstance(account, Refusal):
        return account
    if account.shared:
        return Decision()
    if account.verifier is not None or account.app_passwords or account.administrator:
        return SHARED
    return _of_address(account.address, AccountShared(account.id, account.address))


def change_account(known: Slice, command: ChangeAccount) -> Answer:
    account = _account(known, command.address)
    if isinstance(account, Refusal):
        return account
    if account.shared and command.administrator:
        return SHARED
    name = account.name if command.name is None else command.name
    administrator = account.administrator if command.administrator is None else command.administrator
    suspended = account.suspended if command.suspended is None else command.suspended
    if refused := _not_readable(name, NAME_BYTES_MAX):
        return refused
    since = account.pop3_since if command.pop3_since is None else command.pop3_since
    if not 0 <= since <= UNIX_S_MAX:
        return Refusal(Reason.NOT_PERMITTED, "There is no such time.")
    was = account.quota
    quota = Override(
        was.storage if command.quota_storage is UNSET else command.quota_storage,
        was.messages if command.quota_messages is UNSET else command.quota_messages,
        was.soft if command.quota_soft is UNSET else command.quota_soft,
    )
    if refused := _no_quota(quota.over(Quota())):
        return refused
    events: list[msgspec.Struct] = []
    if (name, administrator, suspended) != (account.name, account.administrator, account.suspended):
        events.append(AccountChanged(account.id, account.address, name, administrator, suspended))
    if since != account.pop3_since:
        events.append(Pop3ThresholdChanged(account.id, account.address, since))
    if command.file_sent is not None and command.file_sent != account.file_sent:
        events.append(SentFilingChanged(account.id, account.address, command.file_sent))
    if quota != was:
        events.append(QuotaChanged(account.id, account.address, quota.storage, quota.messages, quota.soft))
    return _of_address(account.address, *events) if events else Decision()


def remove_account(known: Slice, command: RemoveAccount) -> Answer:
    account = _account(known, command.address)
    if isinstance(account, Refusal):
        return account
    return _of_address(account.address, AccountRemoved(account.id, account.address))


def set_password(known: Slice, command: SetPassword) -> Answer:
    account = _account(known, command.address)
    if isinstance(account, Refusal):
        return account
    if account.shared:
        return SHARED
    return _of_address(account.address, PasswordChanged(account.id, account.address, command.verifier))


def add_app_password(known: Slice, command: AddAppPassword) -> Answer:
    account = _account(known, command.address)
    if isinstance(account, Refusal):
        return account
    if account.shared:
        return SHARED
    if not command.label:
        return Refusal(Reason.NOT_PERMITTED, "An app password needs a label.")
    if refused := _not_readable(command.label, LABEL_BYTES_MAX):
        return refused
    if command.label in account.app_passwords:
        return Refusal(Reason.CONFLICT, "There is an app password with this label.", (command.label,))
    if len(account.app_passwords) >= APP_PASSWORDS_PER_ACCOUNT_MAX:
        return Refusal(Reason.OVER_LIMIT, f"An account has at most {APP_PASSWORDS_PER_ACCOUNT_MAX} app passwords.")
    event = AppPasswordAdded(account.id, account.address, command.label, command.verifier)
    return _of_address(account.address, event)


def revoke_app_password(known: Slice, command: RevokeAppPassword) -> Answer:
    account = _account(known, command.address)
    if isinstance(account, Refusal):
        return account
    if command.label not in account.app_passwords:
        return Refusal(Reason.NO_SUCH_APP_PASSWORD, "There is no app password with this label.", (command.label,))
    return _of_address(account.address, AppPasswordRevoked(account.id, account.address, command.label))


def add_alias(known: Slice, command: AddAlias) -> Answer:
    address = _free(known, command.address)
    if isinstance(address, Refusal):
        return address
    if not command.targets:
        return Refusal(Reason.ADDRESS_INVALID, "An alias needs at least one target.", (address,))
    targets = _outward(known, address, command.targets, TARGETS_PER_ALIAS_MAX)
    if isinstance(targets, Refusal):
        return targets
    return _of_address(address, AliasAdded(address, targets.addresses), new=True, seen=targets.seen)


def remove_alias(known: Slice, command: RemoveAlias) -> Answer:
    entry = _entry(known, command.address)
    if not isinstance(entry, Alias):
        return _no_such_address(command.address)
    return _of_address(entry.address, AliasRemoved(entry.address))


def add_group(known: Slice, command: AddGroup) -> Answer:
    address = _free(known, command.address)
    if isinstance(address, Refusal):
        return address
    if refused := _not_readable(command.name, NAME_BYTES_MAX):
        return refused
    members = _outward(known, address, command.members, MEMBERS_PER_GROUP_MAX)
    if isinstance(members, Refusal):
        return members
    event = GroupAdded(address, command.name, members.addresses)
    return _of_address(address, event, new=True, seen=members.seen)


def change_group_members(known: Slice, command: ChangeGroupMembers) -> Answer:
    """Who is a member is not added again; who is none need not be removed. In both: stays."""
    group = _entry(known, command.address)
    if not isinstance(group, Group):
        return _no_such_address(command.address)
    members = _outward(known, group.address, command.add, MEMBERS_PER_GROUP_MAX)
    if isinstance(members, Refusal):
        return members
    there = {addresses.canonical(member): member for member in group.members}
    kept = {addresses.canonical(member) for member in members.addresses}
    unwanted = {addresses.canonical(member) for member in command.remove} - kept
    added = tuple(member for member in members.addresses if addresses.canonical(member) not in there)
    removed = tuple(member for canonical, member in there.items() if canonical in unwanted)
    if len(there) + len(added) - len(removed) > MEMBERS_PER_GROUP_MAX:
        return Refusal(Reason.OVER_LIMIT, f"A group has at most {MEMBERS_PER_GROUP_MAX} members.", (group.address,))
    if not added and not removed:
        return Decision()
    return _of_address(group.address, GroupMembersChanged(group.address, added, removed), seen=members.seen)


def remove_group(known: Slice, command: RemoveGroup) -> Answer:
    entry = _entry(known, command.address)
    if not isinstance(entry, Group):
        return _no_such_address(command.address)
    return _of_address(entry.address, GroupRemoved(entry.address))


def record_topology(known: Slice, command: RecordTopology) -> Answer:
    """Always written: what was done cannot be refused."""
    key = topology_key(command.partition)
    event = TopologyChanged(command.what, command.partition, command.before, command.after)
    return Decision(((command.partition or "topology", event),), (key,))


DECIDERS: dict[type, Callable[[Slice, Any], Answer]] = {
    AddDomain: add_domain,
    ChangeDomain: change_domain,
    RemoveDomain: remove_domain,
    AddAccount: add_account,
    ShareAccount: share_account,
    ChangeAccount: change_account,
    RemoveAccount: remove_account,
    SetPassword: set_password,
    AddAppPassword: add_app_password,
    RevokeAppPassword: revoke_app_password,
    AddAlias: add_alias,
    RemoveAlias: remove_alias,
    AddGroup: add_group,
    ChangeGroupMembers: change_group_members,
    RemoveGroup: remove_group,
    RecordTopology: record_topology,
}


class Outward(msgspec.Struct, frozen=True):
    """Addresses that an alias or a group leads to, and what was looked at to find no loop."""

    addresses: tuple[str, ...]
    seen: tuple[str, ...]


def _outward(known: Slice, own: str, given: tuple[str, ...], at_most: int) -> Outward | Refusal:
    """Addresses of ours in canonical form, others with the local part as given; each once."""
    if len(given) > at_most:
        return Refusal(Reason.OVER_LIMIT, f"At most {at_most} addresses can be here.", (own,))
    chosen: dict[str, str] = {}
    for address in given:
        canonical, preserved = addresses.canonical(address), addresses.preserved(address)
        if canonical is None or preserved is None:
            return _invalid(address)
        domain = known.domains[addresses.domain_of(canonical)]
        chosen.setdefault(canonical, canonical if domain else preserved)
    reached = expand(known, tuple(chosen.values()))
    if isinstance(reached, Missing) or not reached.complete:
        return Refusal(Reason.OVER_LIMIT, "It would lead to too many addresses.", (own,))
    domain = known.domains[addresses.domain_of(own)]
    # anna+x@ is a way back to anna@, too.
    if any(
        own == seen or (domain and domain.plus and own == addresses.split_plus(seen)[0]) for seen in reached.visited
    ):
        return Refusal(Reason.MEMBERS_LOOP, "It would lead back to itself.", (own,))
    # What is an account or elsewhere leads no further; the rest must not change its meaning meanwhile.
    inner = [seen for seen in sorted(reached.visited) if not isinstance(known.entries.get(seen), Account)]
    ours = tuple(seen for seen in inner if known.domains[addresses.domain_of(seen)] is not None)
    return Outward(tuple(chosen.values()), ours)


def _of_domain(name: str, *events: msgspec.Struct) -> Decision:
    return Decision(tuple((name, event) for event in events), (domain_key(name),))


def _of_address(address: str, *events: msgspec.Struct, new: bool = False, seen: tuple[str, ...] = ()) -> Decision:
    """`new`: it depends on the domain's being there. `seen`: addresses whose meaning it depends on."""
    domain = addresses.domain_of(address)
    keys = {address_key(address): None} | ({domain_key(domain): None} if new else {})
    return Decision(tuple((domain, event) for event in events), tuple(keys | dict.fromkeys(map(address_key, seen))))


def _entry(known: Slice, given: str) -> Entry | None:
    address = addresses.canonical(given)
    return known.entries[address] if address else None


def _account(known: Slice, given: str) -> Account | Refusal:
    entry = _entry(known, given)
    if isinstance(entry, Account):
        return entry
    return Refusal(Reason.NO_SUCH_ACCOUNT, "There is no account with this address.", (given,))


def _free(known: Slice, given: str) -> str | Refusal:
    """The canonical form of an address that is to be made."""
    address = addresses.canonical(given)
    if address is None:
        return _invalid(given)
    if known.domains[addresses.domain_of(address)] is None:
        return _no_such_domain(addresses.domain_of(address))
    if known.entries[address] is not None:
        return Refusal(Reason.ADDRESS_TAKEN, "This address is taken.", (address,))
    return address


def _catch_all(given: str) -> str | Refusal:
    if not given:
        return ""
    return addresses.preserved(given) or _invalid(given)


def _no_quota(quota: Quota) -> Refusal | None:
    """Why there can be none such."""
    if not 0 <= quota.storage <= STORAGE_BYTES_MAX or not 0 <= quota.messages <= MESSAGES_MAX:
        return Refusal(
            Reason.NOT_PERMITTED, f"A quota is at most {STORAGE_BYTES_MAX} bytes and {MESSAGES_MAX} messages; 0 = none."
        )
    soft = quota.soft
    if len(soft) > THRESHOLDS_MAX or list(soft) != sorted(set(soft)) or not all(1 <= each <= 99 for each in soft):
        return Refusal(
            Reason.NOT_PERMITTED, f"Thresholds are at most {THRESHOLDS_MAX} percentages from 1 to 99, ascending."
        )
    return None


def _not_readable(text: str, bytes_max: int) -> Refusal | None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return Refusal(Reason.NOT_PERMITTED, "A name must be Unicode text.")
    if size > bytes_max:
        return Refusal(Reason.OVER_LIMIT, f"A name is at most {bytes_max} bytes long.", (text,))
    if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in text):
        return Refusal(Reason.NOT_PERMITTED, "A name cannot contain control characters.", (text,))
    return None


def _invalid(given: str) -> Refusal:
    return Refusal(Reason.ADDRESS_INVALID, "This is no address.", (given,))


def _no_such_domain(name: str) -> Refusal:
    return Refusal(Reason.NO_SUCH_DOMAIN, "There is no such domain here.", (name,))


def _no_such_address(given: str) -> Refusal:
    return Refusal(Reason.NO_SUCH_ADDRESS, "There is no such address here.", (given,))
