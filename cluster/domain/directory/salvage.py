"""What the facts of a lost tail mean in the directory as history has it: decided again, each as a command.

What was changed meanwhile stays as it is, and goes to the report.
"""

from collections.abc import Callable
from typing import Any

from cluster.domain.decision import Decision
from cluster.domain.directory import commands as c
from cluster.domain.directory import events as e
from cluster.domain.directory.decide import decide, needs
from cluster.domain.directory.state import Account, DirectoryState, Slice, evolve, look_up
from cluster.domain.refusal import Reason

Conflict = tuple[str, str]  # what is not done, and why: sentences for people

CHANGED = "It was changed meanwhile."
COMMANDS: dict[type, Callable[[Any], c.AnyCommand]] = {
    e.DomainAdded: lambda x: c.AddDomain(x.domain, x.catch_all, x.plus),
    e.DomainChanged: lambda x: c.ChangeDomain(x.domain, x.catch_all, x.plus),
    e.DomainQuotaChanged: lambda x: c.ChangeDomain(
        x.domain, quota_storage=x.storage, quota_messages=x.messages, quota_soft=x.soft
    ),
    e.UndeletePeriodChanged: lambda x: c.ChangeDomain(x.domain, undelete_days=x.days),
    e.DomainRemoved: lambda x: c.RemoveDomain(x.domain),
    e.AccountAdded: lambda x: c.AddAccount(x.address, x.account, x.partition, x.name, x.verifier, x.administrator),
    e.AccountChanged: lambda x: c.ChangeAccount(x.address, x.name, x.administrator, x.suspended),
    e.Pop3ThresholdChanged: lambda x: c.ChangeAccount(x.address, pop3_since=x.since),
    e.SentFilingChanged: lambda x: c.ChangeAccount(x.address, file_sent=x.filed),
    e.QuotaChanged: lambda x: c.ChangeAccount(
        x.address, quota_storage=x.storage, quota_messages=x.messages, quota_soft=x.soft
    ),
    e.AccountShared: lambda x: c.ShareAccount(x.address),
    e.AccountRemoved: lambda x: c.RemoveAccount(x.address),
    e.PasswordChanged: lambda x: c.SetPassword(x.address, x.verifier),
    e.AppPasswordAdded: lambda x: c.AddAppPassword(x.address, x.label, x.verifier),
    e.AppPasswordRevoked: lambda x: c.RevokeAppPassword(x.address, x.label),
    e.AliasAdded: lambda x: c.AddAlias(x.address, x.targets),
    e.AliasRemoved: lambda x: c.RemoveAlias(x.address),
    e.GroupAdded: lambda x: c.AddGroup(x.address, x.name, x.members),
    e.GroupMembersChanged: lambda x: c.ChangeGroupMembers(x.address, x.added, x.removed),
    e.GroupRemoved: lambda x: c.RemoveGroup(x.address),
}
REMOVALS = (e.DomainRemoved, e.AccountRemoved, e.AppPasswordRevoked, e.AliasRemoved, e.GroupRemoved)
NOT_THERE = frozenset(
    {Reason.NO_SUCH_DOMAIN, Reason.NO_SUCH_ADDRESS, Reason.NO_SUCH_ACCOUNT, Reason.NO_SUCH_APP_PASSWORD}
)


def decided_again(then: DirectoryState, now: DirectoryState, event: e.AnyEvent) -> Decision | Conflict:
    """`then`: what the tail's home knew before the event. Nothing, where history has it like that already."""
    if _shown(then, event) != _shown(now, event):
        return _what(event), CHANGED
    account = getattr(event, "account", 0)
    if account and not isinstance(event, e.AccountAdded) and now.accounts.get(account) != getattr(event, "address", ""):
        return Decision() if isinstance(event, REMOVALS) else (_what(event), "The account is not there any more.")
    command = COMMANDS[type(event)](event)
    known = Slice()
    while missing := needs(known, command):
        known = look_up(now, missing, known)
    answer = decide(known, command)
    if isinstance(answer, Decision):
        return answer
    if (isinstance(event, REMOVALS) and answer.reason in NOT_THERE) or _is_so(now, event):
        return Decision()
    return _what(event), answer.text


def _shown(state: DirectoryState, event: e.AnyEvent) -> Any:
    """What the event overwrites; None where it overwrites nothing, or nothing is there."""
    entry = state.entries.get(getattr(event, "address", ""))
    domain = state.domains.get(getattr(event, "domain", ""))
    match event:
        case e.DomainChanged() if domain is not None:
            return domain.catch_all, domain.plus
        case e.DomainQuotaChanged() if domain is not None:
            return domain.quota
        case e.UndeletePeriodChanged() if domain is not None:
            return domain.undelete_days
        case e.AccountChanged() if isinstance(entry, Account):
            return entry.name, entry.administrator, entry.suspended
        case e.Pop3ThresholdChanged() if isinstance(entry, Account):
            return entry.pop3_since
        case e.SentFilingChanged() if isinstance(entry, Account):
            return entry.file_sent
        case e.QuotaChanged() if isinstance(entry, Account):
            return entry.quota
        case e.PasswordChanged() if isinstance(entry, Account):
            return entry.verifier
    return None


def _is_so(now: DirectoryState, event: e.AnyEvent) -> bool:
    """Whether what was to be added is there, just so."""
    alone = evolve(DirectoryState(), event)
    assert isinstance(alone, DirectoryState)
    match event:
        case e.DomainAdded():
            return now.domains.get(event.domain) == alone.domains[event.domain]
        case e.AccountAdded() | e.AliasAdded() | e.GroupAdded():
            return now.entries.get(event.address) == alone.entries[event.address]
    return False


def _what(event: e.AnyEvent) -> str:
    name = getattr(event, "address", "") or getattr(event, "domain", "")
    return f"{type(event).__name__} of {name}"
