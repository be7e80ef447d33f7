"""What may be asked of the directory. Addresses as people type them; decide makes them canonical."""

import msgspec
from msgspec import UNSET, UnsetType

from cluster.domain.directory.events import Verifier


class Command(msgspec.Struct, frozen=True):
    """Base."""


class AddDomain(Command, frozen=True):
    domain: str
    catch_all: str = ""
    plus: bool = True


class ChangeDomain(Command, frozen=True):
    """None = as it is. `quota_storage`: bytes, `quota_messages`: 0 = no limit; `quota_soft`: percentages. `undelete_days`: for
    so long what was expunged can be restored, 0 = not at all."""

    domain: str
    catch_all: str | None = None
    plus: bool | None = None
    quota_storage: int | None = None
    quota_messages: int | None = None
    quota_soft: tuple[int, ...] | None = None
    undelete_days: int | None = None


class RemoveDomain(Command, frozen=True):
    """Refused (DOMAIN_IN_USE) while an address of it exists."""

    domain: str


class AddAccount(Command, frozen=True):
    address: str
    account: int
    partition: str
    name: str = ""
    verifier: Verifier | None = None
    administrator: bool = False
    shared: bool = False


class ShareAccount(Command, frozen=True):
    """Nobody signs in with it from now on: its mailboxes are for several people."""

    address: str


class ChangeAccount(Command, frozen=True):
    """None = as it is. `pop3_since`: unix seconds, 0 = POP3 offers all mail. `file_sent`: mail that the person submits is filed in
    their \\Sent mailbox. Of the quota UNSET = as it is, None = as the domain has it."""

    address: str
    name: str | None = None
    administrator: bool | None = None
    suspended: bool | None = None
    pop3_since: int | None = None
    file_sent: bool | None = None
    quota_storage: int | UnsetType | None = UNSET
    quota_messages: int | UnsetType | None = UNSET
    quota_soft: tuple[int, ...] | UnsetType | None = UNSET


class RemoveAccount(Command, frozen=True):
    address: str


class SetPassword(Command, frozen=True):
    address: str
    verifier: Verifier


class AddAppPassword(Command, frozen=True):
    address: str
    label: str
    verifier: Verifier


class RevokeAppPassword(Command, frozen=True):
    address: str
    label: str


class AddAlias(Command, frozen=True):
    address: str
    targets: tuple[str, ...]


class RemoveAlias(Command, frozen=True):
    address: str


class AddGroup(Command, frozen=True):
    address: str
    name: str = ""
    members: tuple[str, ...] = ()


class ChangeGroupMembers(Command, frozen=True):
    """A group may be a member of a group, never of itself by any way (MEMBERS_LOOP)."""

    address: str
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


class RemoveGroup(Command, frozen=True):
    address: str


class RecordTopology(Command, frozen=True):
    """An operator's change of the topology, done already: only written down."""

    what: str
    partition: str = ""
    before: str = ""
    after: str = ""


AnyCommand = (
    AddDomain | ChangeDomain | RemoveDomain | AddAccount | ShareAccount | ChangeAccount | RemoveAccount | SetPassword | AddAppPassword
    | RevokeAppPassword | AddAlias | RemoveAlias | AddGroup | ChangeGroupMembers | RemoveGroup
    | RecordTopology
)  # fmt: skip
