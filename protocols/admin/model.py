"""The nouns of the administrator's language, as they stand in JSON. An unknown field is refused with its name.

Numbers of 63 bits (ids, positions) are strings, since JSON's readers keep 53 bits (RFC 8259 §6).
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from cluster.domain.directory.decide import UNDELETE_DAYS_MAX, UNIX_S_MAX
from cluster.domain.quota import MESSAGES_MAX, STORAGE_BYTES_MAX, THRESHOLDS_MAX
from protocols.admin.port import Alias, Did, Domain, Engine, Group, Planned, Progress

BODY_BYTES_MAX = 64 * 1024
IMPORT_BYTES_MAX = 32 * 1024 * 1024
PAGE_MAX = 1000
PAGE_DEFAULT = 100
NAME_CHARS_MAX = 200
ADDRESS_CHARS_MAX = 320
PASSWORD_CHARS_MAX = 1024
MEMBERS_MAX = 1000
SITES_MAX = 100
PARTITIONS_MAX = 1000

Name = Annotated[str, Meta(max_length=NAME_CHARS_MAX)]
Address = Annotated[str, Meta(min_length=1, max_length=ADDRESS_CHARS_MAX, description="local@domain")]
DomainName = Annotated[str, Meta(min_length=1, max_length=255)]
Password = Annotated[
    str, Meta(max_length=PASSWORD_CHARS_MAX, extra_json_schema={"format": "password", "writeOnly": True})
]
Label = Annotated[str, Meta(min_length=1, max_length=64, description="what the password is for: a device, a program")]
Addresses = Annotated[tuple[Address, ...], Meta(max_length=MEMBERS_MAX)]
Cursor = Annotated[str, Meta(max_length=ADDRESS_CHARS_MAX, description="the `next` of the page before")]
SiteName = Annotated[str, Meta(min_length=1, max_length=63)]
PartitionName = Annotated[str, Meta(min_length=1, max_length=63)]
QuotaBytes = Annotated[int, Meta(ge=0, le=STORAGE_BYTES_MAX, description="bytes, 0 = no limit")]
QuotaMessages = Annotated[int, Meta(ge=0, le=MESSAGES_MAX, description="0 = no limit")]
QuotaSoft = Annotated[
    tuple[Annotated[int, Meta(ge=1, le=99)], ...],
    Meta(max_length=THRESHOLDS_MAX, description="percentages, ascending, where it counts as filling up"),
]
UnixSeconds = Annotated[int, Meta(ge=0, le=UNIX_S_MAX, description="unix seconds")]
PositionText = Annotated[str, Meta(pattern=r"^\d{1,7}\.\d{1,13}$", description="epoch.sequence")]


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what clients send."""


# -- what is asked ------------------------------------------------------------------------------------------------------


class Paging(Asked, frozen=True):
    domain: str = ""
    after: Cursor = ""
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT


class DomainPaging(Asked, frozen=True):
    after: Cursor = ""
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT


class NewDomain(Asked, frozen=True):
    domain: DomainName
    catch_all: str = ""
    plus: bool = True


class DomainChange(Asked, frozen=True):
    """`quota_…`: of accounts that have none of their own."""

    catch_all: str | UnsetType = UNSET
    plus: bool | UnsetType = UNSET
    quota_storage_bytes: QuotaBytes | UnsetType = UNSET
    quota_messages: QuotaMessages | UnsetType = UNSET
    quota_soft_percent: QuotaSoft | UnsetType = UNSET
    undelete_days: Annotated[int, Meta(ge=0, le=UNDELETE_DAYS_MAX)] | UnsetType = UNSET


class NewAccount(Asked, frozen=True):
    """Without a password nobody can sign in until one is set; with a `shared` one nobody ever does. `partition` empty: the
    first one of this site."""

    address: Address
    password: Password | None = None
    name: Name = ""
    administrator: bool = False
    shared: bool = False
    partition: Name = ""


class AccountChange(Asked, frozen=True):
    """`quota_…`: null = as the domain has it."""

    name: Name | UnsetType = UNSET
    administrator: bool | UnsetType = UNSET
    suspended: bool | UnsetType = UNSET
    pop3_since: UnixSeconds | UnsetType = UNSET
    file_sent: bool | UnsetType = UNSET
    quota_storage_bytes: QuotaBytes | UnsetType | None = UNSET
    quota_messages: QuotaMessages | UnsetType | None = UNSET
    quota_soft_percent: QuotaSoft | UnsetType | None = UNSET


class MyChange(Asked, frozen=True):
    """What people settle for themselves."""

    pop3_since: UnixSeconds | UnsetType = UNSET
    file_sent: bool | UnsetType = UNSET


class NewPassword(Asked, frozen=True):
    password: Password


class NewAppPassword(Asked, frozen=True):
    label: Label


class NewAlias(Asked, frozen=True):
    address: Address
    targets: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=MEMBERS_MAX)]


class NewGroup(Asked, frozen=True):
    address: Address
    name: Name = ""
    members: Addresses = ()


class MembersChange(Asked, frozen=True):
    add: Addresses = ()
    remove: Addresses = ()


class Tail(Asked, frozen=True):
    """Begins above `after`, or with the last events if `last` is given (0 = with what comes). `partition` empty = all."""

    partition: str = ""
    after: PositionText = "0.0"
    last: Annotated[int, Meta(ge=0, le=PAGE_MAX)] | None = None
    follow: bool = False


class NewBackup(Asked, frozen=True):
    """`target`: an absolute path on the site's machine, of a folder that is not there yet."""

    target: Annotated[str, Meta(pattern="^/", max_length=4096)]


Sites = Annotated[tuple[SiteName, ...], Meta(max_length=SITES_MAX)]
PartitionNames = Annotated[tuple[PartitionName, ...], Meta(max_length=PARTITIONS_MAX)]


class PlanOnly(Asked, frozen=True):
    """`plan`: only say what would be done."""

    plan: bool = False


class Switchover(Asked, frozen=True):
    """The partitions named, or all at home at the site `from`. `to` empty: each to the copy that is nearest."""

    partitions: PartitionNames = ()
    to: str = ""
    away_from: str = msgspec.field(default="", name="from")
    plan: bool = False


class Failover(Asked, frozen=True):
    """`force` must be true: what the copy lacks is rolled back until the old home returns."""

    partitions: Annotated[tuple[PartitionName, ...], Meta(min_length=1, max_length=PARTITIONS_MAX)]
    to: SiteName
    force: bool
    plan: bool = False


class Drain(Asked, frozen=True):
    plan: bool = False


class NewPartition(Asked, frozen=True):
    """`home` empty: this site. Without `copies` every other site gets one. `windows`: see PartitionChange."""

    name: PartitionName
    home: str = ""
    copies: Sites | UnsetType = UNSET
    durability: Literal["local", "remote"] = "local"
    strict: bool = False
    pinned: bool = False
    windows: dict[str, int] | UnsetType = UNSET
    plan: bool = False


class PartitionChange(Asked, frozen=True):
    """`strict`: with `remote`, writes are refused while no copy is there. `pinned`: only an operator moves it. `windows`:
    the copies at these sites keep so many days' content, 0 = all; those at others stay as they are."""

    home: str | UnsetType = UNSET
    copies: Sites | UnsetType = UNSET
    durability: Literal["local", "remote"] | UnsetType = UNSET
    strict: bool | UnsetType = UNSET
    pinned: bool | UnsetType = UNSET
    windows: dict[str, int] | UnsetType = UNSET
    plan: bool = False


class ReportsWanted(Asked, frozen=True):
    """`all`: those that are settled too."""

    all: bool = False


class Settle(Asked, frozen=True):
    """`applied`: the operator did what the report is about; `dismissed`: nobody wants it."""

    state: Literal["applied", "dismissed"]


class Verify(Asked, frozen=True):
    """`partitions` empty: all that are here. `deep`: every site's log is read whole and reckoned against the digests.
    `heal`: what differs is mended where nothing is lost by it."""

    partitions: PartitionNames = ()
    deep: bool = False
    heal: bool = False


# -- what is answered ---------------------------------------------------------------------------------------------------


class Domains(msgspec.Struct, frozen=True):
    items: tuple[Domain, ...]
    next: str | None = None


class DnsRecord(msgspec.Struct, frozen=True):
    """`name` absolute, `ttl` in seconds, `data` as in a zone file (RFC 1035 §5.1)."""

    name: str
    ttl: int
    type: str
    data: str


class Dns(msgspec.Struct, frozen=True):
    """What belongs into a domain's zone. `notes`: what an administrator has to see to. `zone`: all of it as zone-file text."""

    domain: str
    records: tuple[DnsRecord, ...]
    notes: tuple[str, ...]
    zone: str


class Account(msgspec.Struct, frozen=True):
    """`app_passwords`: their labels. `pop3_since`: unix seconds, 0 = POP3 offers all mail. `file_sent`: what is
    submitted is filed in the Sent mailbox. `messages` and `size_bytes`: what the mailboxes hold; null where not counted.
    `quota_…`: what they may hold, 0 = no limit; `quota_own`: which of these are its own and not its domain's.
    `used_percent`: of the nearest limit, null without one or where not counted. `reached_percent`: the thresholds at or
    beyond which it stands, 100 = it is full. `shared`: nobody signs in with it."""

    id: str
    address: str
    name: str
    partition: str
    administrator: bool
    suspended: bool
    has_password: bool
    app_passwords: tuple[str, ...]
    pop3_since: int
    file_sent: bool
    messages: int | None
    size_bytes: int | None
    quota_storage_bytes: int
    quota_messages: int
    quota_soft_percent: tuple[int, ...]
    quota_own: tuple[str, ...]
    used_percent: int | None
    reached_percent: tuple[int, ...]
    shared: bool


class Me(msgspec.Struct, frozen=True):
    """Whoever asks. As in Account."""

    address: str
    name: str
    pop3_since: int
    file_sent: bool


class Accounts(msgspec.Struct, frozen=True):
    items: tuple[Account, ...]
    next: str | None = None


class AppPasswords(msgspec.Struct, frozen=True):
    items: tuple[str, ...]


class AppPassword(msgspec.Struct, frozen=True):
    """The only time that the password is shown."""

    label: str
    password: str


class Aliases(msgspec.Struct, frozen=True):
    items: tuple[Alias, ...]
    next: str | None = None


class Groups(msgspec.Struct, frozen=True):
    items: tuple[Group, ...]
    next: str | None = None


class Members(msgspec.Struct, frozen=True):
    items: tuple[str, ...]


class Partition(msgspec.Struct, frozen=True):
    name: str
    home: str
    epoch: int
    mark: PositionText
    applied: PositionText
    lag_events: int
    digest: str
    queued: int


class Quarantined(msgspec.Struct, frozen=True):
    partition: str
    position: PositionText
    noun: str
    entity: str
    why: str
    at: str


class Waiting(msgspec.Struct, frozen=True):
    """A partition that goes on only with a later release: the event at `position` is none that this one knows."""

    partition: str
    position: PositionText
    event: str


class Agreed(msgspec.Struct, frozen=True):
    """`agreed`: that site's tables and ours are equal up to there. `differs`: the first position seen to differ."""

    partition: str
    site: str
    agreed: PositionText
    differs: PositionText | None = None


class Search(msgspec.Struct, frozen=True):
    """The search index. `indexed` and `waiting`: messages in mailboxes, of those that are to be in it. `at`: when it was so,
    empty = it was never looked at."""

    indexed: int = 0
    waiting: int = 0
    size_bytes: int = 0
    at: str = ""


class State(msgspec.Struct, frozen=True):
    """Times in RFC 3339 form, UTC."""

    site: str
    node: str
    version: str
    started_at: str
    engines: tuple[Engine, ...]
    partitions: tuple[Partition, ...]
    quarantine: tuple[Quarantined, ...]
    waiting: tuple[Waiting, ...] = ()
    agreed: tuple[Agreed, ...] = ()
    search: Search = Search()


# -- lines of streams ---------------------------------------------------------------------------------------------------


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="problem"):
    """RFC 9457 §3.1. `reason`: one word for programs. `field`: what of the request was wrong. `names`: what was refused."""

    type: str
    title: str
    status: int
    detail: str
    reason: str
    field: str = ""
    names: tuple[str, ...] = ()


class Finished(msgspec.Struct, frozen=True, tag_field="kind", tag="finished"):
    """The last line of work that was done to its end; a stream that ends without it was cut."""

    text: str


class Imported(msgspec.Struct, frozen=True, tag_field="kind", tag="row"):
    """What became of one line of a CSV (1 is the header). `problem` null = the account was made."""

    line: int
    address: str
    problem: Problem | None


class Event(msgspec.Struct, frozen=True, tag_field="kind", tag="event"):
    """A fact of the log for people. Secrets and contents are masked. `index`: which of its command's events it is."""

    at: str
    partition: str
    position: PositionText
    noun: str
    entity: str
    type: str
    by: str
    protocol: str
    address: str
    session: str
    command: str
    index: int
    data: dict[str, Any]


class Report(msgspec.Struct, frozen=True):
    """What of a tail could not be decided again. `what`, `why`: sentences. `whose`: address of the account it is about.
    `event`: what stood in the tail, null where it was too large to be kept. `advice`: what an operator can do."""

    partition: str
    position: PositionText
    state: Literal["open", "applied", "dismissed"]
    what: str
    why: str
    whose: str
    by: str
    reported_at: str
    age_s: float
    event: Event | None
    advice: tuple[str, ...]


class WaitingTail(msgspec.Struct, frozen=True):
    """What lies at this site from a lost home and is not in history yet: above `after`, up to `last`; done up to `done`."""

    partition: str
    epoch: int
    after: PositionText
    last: PositionText
    done: PositionText


class Reports(msgspec.Struct, frozen=True):
    """`unread`: partitions whose log did not say whether there is a tail of them here."""

    items: tuple[Report, ...]
    waiting: tuple[WaitingTail, ...]
    unread: tuple[str, ...]


class Found(msgspec.Struct, frozen=True, tag_field="kind", tag="finding"):
    """How a site stands to this one. `upto`: there is no difference up to there. `first`: the first event that differs.
    `differs_in`: `log`, `tables` (only what was made of the log) or `disk` (the log is not what was once folded from it).
    `healed`: it was mended and found equal afterwards."""

    partition: str
    site: str
    verdict: Literal["equal", "behind", "differs", "unknown"]
    upto: PositionText
    first: PositionText | None
    differs_in: str
    why: str
    healed: bool


VerifyLine = Progress | Found | Finished | Problem
ClusterLine = Planned | Did | Progress | Finished | Problem
WorkLine = Progress | Finished | Problem
ImportLine = Progress | Imported | Finished | Problem
LogLine = Event | Finished | Problem
