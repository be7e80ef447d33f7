"""Moving in: what is said at the door by who brings mail from another system, and the port behind it.

The messages of one append come as the body of one request, `application/vnd.angarium.messages`: for each a line of JSON
(`Announced`), ended by LF, and then its `size` bytes. Nothing of a message is held twice: above 1 MiB it is on disk.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from cluster.domain.actor import Actor
from cluster.domain.mailbox.events import Ranges
from cluster.domain.refusal import Refusal
from protocols.admin.model import Asked, Finished, Problem, UnixSeconds
from protocols.port import Ingest, Mailbox, Message, Status
from storage.moving_in import Brought, Place

MESSAGES_TYPE = "application/vnd.angarium.messages"
LINE_BYTES_MAX = 64 * 1024
MESSAGES_PER_REQUEST_MAX = 100
PIECE_S_MAX = 60.0
CONTENTS_PER_LINE_MAX = 500
NAME_CHARS_MAX = 1000

MailboxId = Annotated[str, Meta(pattern=r"^\d{1,19}$")]


class Announced(Asked, frozen=True):
    """One message of `size` bytes follows. `internal_at`: unix seconds; `internal_zone`: minutes east of UTC."""

    size: Annotated[int, Meta(ge=0)]
    internal_at: UnixSeconds
    internal_zone: Annotated[int, Meta(ge=-1439, le=1439)] = 0
    flags: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()


class Command(Asked, frozen=True):
    """`command`: 16 bytes, of the sender's making; the same when it sends the same again. `shown`: answer when the site shows
    it, and not as soon as it is durable."""

    command: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
    shown: bool = True


class NewMailbox(Asked, frozen=True):
    """Superiors that are missing are made too. There already: nothing changes."""

    name: Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
    special_use: str = ""
    subscribed: bool = True


class MailboxShown(msgspec.Struct, frozen=True):
    id: str
    name: str
    special_use: str
    subscribed: bool
    uidvalidity: int
    messages: int


class Mailboxes(msgspec.Struct, frozen=True):
    items: tuple[MailboxShown, ...]


class Refused(msgspec.Struct, frozen=True):
    """`number`: which message of the request, from 0."""

    number: int
    reason: str
    detail: str


class Appended(msgspec.Struct, frozen=True):
    """`repeated`: all had been there before, by the same command. Those of `refused` are not there; all others are."""

    repeated: bool
    refused: tuple[Refused, ...] = ()


class Contents(msgspec.Struct, frozen=True, tag="contents", tag_field="kind"):
    """`items`: SHA-256 of a message in hex, and its INTERNALDATE in unix seconds; one for each message, by UID."""

    items: tuple[tuple[str, int], ...]


ContentsLine = Contents | Finished | Problem


class People(Protocol):
    """What of `Site` (protocols/port.py) is used of people's mailboxes."""

    async def mailboxes(self, account: int) -> list[Mailbox] | Refusal: ...

    async def status(self, account: int, mailboxes: Sequence[int]) -> list[Status] | Refusal: ...

    async def entries(self, account: int, mailbox: int) -> list[tuple[str, str]] | Refusal: ...

    async def identifier(self, given: str) -> str | Refusal: ...

    async def naming(self, identifier: str) -> list[tuple[int, str]] | Refusal: ...

    def ingest(self, limit_bytes: int) -> Ingest: ...

    async def expunged(self, account: int) -> list[Mailbox] | Refusal: ...

    def messages(
        self, account: int, mailbox: int, uids: Ranges, *, described: bool = False
    ) -> AsyncIterator[list[Message]]: ...


class Appending(Protocol):
    """storage.moving_in.MovingIn."""

    async def mailbox(self, account: int, mailbox: int) -> Mailbox | Refusal: ...

    def contents(self, account: int, mailbox: int) -> AsyncIterator[list[tuple[bytes, int]]]: ...

    async def append(
        self, actor: Actor, place: Place, brought: Sequence[Brought], command_id: bytes, *, shown: bool
    ) -> bool | Refusal: ...


class Moving:
    """What stands behind the door for it. `message_bytes_max`: of one message."""

    def __init__(self, people: People, appending: Appending, message_bytes_max: int) -> None:
        self.people = people
        self.appending = appending
        self.message_bytes_max = message_bytes_max
