"""Facts about domains, accounts, aliases and groups. Addresses are in canonical form (addresses.py)."""

import msgspec


class Event(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of this noun's facts."""


class Verifier(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a password: an argon2id hash in PHC form, and SCRAM-SHA-256 (RFC 5803 form, from scramp)."""

    argon2: str
    scram_sha_256: str = ""


class DomainAdded(Event, frozen=True, tag="DomainAdded.1"):
    """`catch_all`: the address that takes mail for unknown names of the domain, or empty. `plus`: anna+x@ reaches
    anna@."""

    domain: str
    catch_all: str = ""
    plus: bool = True


class DomainChanged(Event, frozen=True, tag="DomainChanged.1"):
    domain: str
    catch_all: str
    plus: bool


class DomainQuotaChanged(Event, frozen=True, tag="DomainQuotaChanged.1"):
    """What accounts of the domain may hold that have no quota of their own: cluster.domain.quota."""

    domain: str
    storage: int
    messages: int
    soft: tuple[int, ...]


class UndeletePeriodChanged(Event, frozen=True, tag="UndeletePeriodChanged.1"):
    """For `days` days people of the domain can have restored what they expunged; 0 = it is given up at once."""

    domain: str
    days: int


class DomainRemoved(Event, frozen=True, tag="DomainRemoved.1"):
    domain: str


class AccountAdded(Event, frozen=True, tag="AccountAdded.1"):
    """`account`: 63-bit id for ever. `partition`: where its mail is kept."""

    account: int
    address: str
    partition: str
    name: str = ""
    verifier: Verifier | None = None
    administrator: bool = False


class AccountChanged(Event, frozen=True, tag="AccountChanged.1"):
    """All of what may change by hand, as it is from now on."""

    account: int
    address: str
    name: str = ""
    administrator: bool = False
    suspended: bool = False


class Pop3ThresholdChanged(Event, frozen=True, tag="Pop3ThresholdChanged.1"):
    """Of an account's mail POP3 offers only what arrived at `since` (unix seconds) or later; 0 = all."""

    account: int
    address: str
    since: int


class SentFilingChanged(Event, frozen=True, tag="SentFilingChanged.1"):
    """Whether mail that the account's owner submits is filed in the \\Sent mailbox."""

    account: int
    address: str
    filed: bool


class QuotaChanged(Event, frozen=True, tag="QuotaChanged.1"):
    """What an account may hold (cluster.domain.quota), all of it as it is from now on; None = as its domain has it."""

    account: int
    address: str
    storage: int | None = None
    messages: int | None = None
    soft: tuple[int, ...] | None = None


class AccountShared(Event, frozen=True, tag="AccountShared.1"):
    """Nobody signs in with it: it keeps mailboxes that several people work in."""

    account: int
    address: str


class AccountRemoved(Event, frozen=True, tag="AccountRemoved.1"):
    account: int
    address: str


class PasswordChanged(Event, frozen=True, tag="PasswordChanged.1"):
    account: int
    address: str
    verifier: Verifier


class AppPasswordAdded(Event, frozen=True, tag="AppPasswordAdded.1"):
    account: int
    address: str
    label: str
    verifier: Verifier


class AppPasswordRevoked(Event, frozen=True, tag="AppPasswordRevoked.1"):
    account: int
    address: str
    label: str


class AliasAdded(Event, frozen=True, tag="AliasAdded.1"):
    """`targets`: addresses here or elsewhere."""

    address: str
    targets: tuple[str, ...]


class AliasRemoved(Event, frozen=True, tag="AliasRemoved.1"):
    address: str


class GroupAdded(Event, frozen=True, tag="GroupAdded.1"):
    address: str
    name: str = ""
    members: tuple[str, ...] = ()


class GroupMembersChanged(Event, frozen=True, tag="GroupMembersChanged.1"):
    address: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class GroupRemoved(Event, frozen=True, tag="GroupRemoved.1"):
    address: str


class TopologyChanged(Event, frozen=True, tag="TopologyChanged.1"):
    """An operator changed where `partition` lies or how it is kept (or, with none, which nodes and sites serve); who it
    was is in the envelope. `what`: one word; `before` and `after` for people."""

    what: str
    partition: str = ""
    before: str = ""
    after: str = ""


AnyEvent = (
    DomainAdded | DomainChanged | DomainQuotaChanged | UndeletePeriodChanged | DomainRemoved | AccountAdded | AccountChanged
    | Pop3ThresholdChanged | QuotaChanged | AccountRemoved | PasswordChanged | AppPasswordAdded | AppPasswordRevoked
    | AliasAdded | AliasRemoved | GroupAdded | GroupMembersChanged | GroupRemoved | TopologyChanged | SentFilingChanged
    | AccountShared
)  # fmt: skip


def domain_key(domain: str) -> str:
    return f"domain/{domain}"


def members_key(domain: str) -> str:
    """Changes whenever an address of the domain comes or goes: removing a domain depends on it."""
    return f"members/{domain}"


def address_key(address: str) -> str:
    return f"address/{address}"


def topology_key(partition: str) -> str:
    return f"topology/{partition}"


def changes(event: AnyEvent) -> tuple[str, ...]:
    """The keys whose last change the appender remembers."""
    match event:
        case DomainAdded() | DomainChanged() | DomainQuotaChanged() | UndeletePeriodChanged() | DomainRemoved():
            return (domain_key(event.domain),)
        case AccountAdded() | AccountRemoved() | AliasAdded() | AliasRemoved() | GroupAdded() | GroupRemoved():
            return (address_key(event.address), members_key(event.address.rpartition("@")[2]))
        case TopologyChanged():
            return (topology_key(event.partition),)
        case _:
            return (address_key(event.address),)
