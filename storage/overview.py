"""The shapes in which a site tells its administrator about itself. protocols/admin/port.py hands them on."""

import msgspec

from cluster.domain.quota import Override, Quota
from cluster.log.model import Record


class Domain(msgspec.Struct, frozen=True):
    """`catch_all`: the address that takes mail for unknown names, or empty. `plus`: anna+x@ reaches anna@. `quota_…`: what
    its accounts may hold that have no limits of their own; 0 = no limit. `quota_soft_percent`: where they count as filling
    up. `undelete_days`: for so long what was expunged can be restored."""

    domain: str
    catch_all: str
    plus: bool
    quota_storage_bytes: int = 0
    quota_messages: int = 0
    quota_soft_percent: tuple[int, ...] = ()
    undelete_days: int = 0


class AccountRow(msgspec.Struct, frozen=True):
    """`app_passwords`: labels. `pop3_since`: unix seconds, 0 = POP3 offers all mail. `file_sent`: what its owner
    submits is filed. `messages` and `size_bytes`: what its mailboxes hold now, None where not counted. `quota`: what they
    may hold; `own`: what of that it does not have from its domain. `shared`: nobody signs in with it."""

    id: int
    address: str
    name: str
    partition: str
    administrator: bool
    suspended: bool
    has_password: bool
    app_passwords: tuple[str, ...]
    pop3_since: int = 0
    file_sent: bool = False
    messages: int | None = None
    size_bytes: int | None = None
    quota: Quota = Quota()
    own: Override = Override()
    shared: bool = False


class Alias(msgspec.Struct, frozen=True):
    address: str
    targets: tuple[str, ...]


class Group(msgspec.Struct, frozen=True):
    address: str
    name: str
    members: tuple[str, ...]


class Logged(msgspec.Struct, frozen=True):
    """One event of a partition's log (never a chunk of content)."""

    partition: str
    record: Record


class Progress(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="progress"):
    """Where long work stands. `total` 0 = not known yet. `unit`: events, bytes, blobs, rows… `warning`: no step, but
    something that whoever watches should know: so many (`done`) of these were found."""

    step: str
    done: int
    total: int
    unit: str
    warning: bool = False


class Engine(msgspec.Struct, frozen=True):
    """A program that the site stands on. `detail`: its version, or what is wrong with it."""

    name: str
    alive: bool
    detail: str = ""


class Partition(msgspec.Struct, frozen=True):
    """`mark`: up to where its events are durable; `applied`: up to where the tables are (both positions). `lag_events`
    between the two. `digest`: rolling digest at `applied`, hexadecimal. `queued`: messages that wait in it, of a queue or
    spool."""

    name: str
    home: str
    epoch: int
    mark: int
    applied: int
    lag_events: int
    digest: str = ""
    queued: int = 0


class Quarantined(msgspec.Struct, frozen=True):
    """An event that could not be applied and was put aside. `at`: unix seconds."""

    partition: str
    position: int
    noun: str
    entity: str
    why: str
    at: float


class Waiting(msgspec.Struct, frozen=True):
    """A partition that goes on only with a later release: the event at `position` is none that this one knows."""

    partition: str
    position: int
    event: str


class Agreed(msgspec.Struct, frozen=True):
    """With another site. `agreed`: its tables and ours are equal up to there; `differs`: the first digest that was seen to
    differ, None = none."""

    partition: str
    site: str
    agreed: int
    differs: int | None


class Search(msgspec.Struct, frozen=True):
    """The search index. `indexed` and `waiting`: messages in mailboxes, of those that are to be in it. `at`: unix seconds of
    the last look, 0 = none yet."""

    indexed: int = 0
    waiting: int = 0
    size_bytes: int = 0
    at: float = 0.0


class State(msgspec.Struct, frozen=True):
    """`started_at`: unix seconds. `waiting`, `agreed`: as the site noted it of late."""

    site: str
    node: str
    version: str
    started_at: float
    engines: tuple[Engine, ...]
    partitions: tuple[Partition, ...]
    quarantine: tuple[Quarantined, ...]
    waiting: tuple[Waiting, ...] = ()
    agreed: tuple[Agreed, ...] = ()
    search: Search = Search()
