"""All that a session may ask of its site. The one door between the languages of the world and the domain.

`Site` is implemented once (storage/site.py); protocols know nothing else. Every method may be called from any task; none
blocks the event loop. Where a method can fail for the outside's sake it returns a Refusal (UNAVAILABLE) and does not raise.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from cluster.domain.actor import Actor
from cluster.domain.directory.commands import AnyCommand as DirectoryCommand
from cluster.domain.mailbox.commands import AnyCommand as MailboxCommand
from cluster.domain.mailbox.commands import Deliver
from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.events import Ranges
from cluster.domain.outbox.commands import AnyCommand as OutboxCommand
from cluster.domain.outbox.commands import QueueMessage
from cluster.domain.quota import Held
from cluster.domain.refusal import Refusal
from cluster.world import World
from storage.search.index import Lookup, Verdict
from storage.shapes import (
    Account,
    Changes,
    Done,
    Flags,
    Having,
    Mailbox,
    Message,
    Named,
    Recipient,
    ScramKeys,
    Selected,
    SiteUnavailable,
    Status,
    TokensTaken,
)
from storage.uids import Uids

__all__ = [
    "Account",
    "Changes",
    "Done",
    "Flags",
    "Having",
    "Ingest",
    "Lookup",
    "Mailbox",
    "Message",
    "Named",
    "Recipient",
    "ScramKeys",
    "Selected",
    "Site",
    "SiteUnavailable",
    "Spooled",
    "Status",
    "TokensTaken",
    "Uids",
    "Verdict",
    "Watch",
    "World",
]


class Watch(Protocol):
    """Tells that something changed; what, the watcher asks by `changes`. Never queues more than one. `rolled_back`: some of
    what was shown is not in history any more: a session that remembers it must end."""

    rolled_back: bool

    async def wait(self, timeout_s: float) -> bool:
        """True when something changed since the last call returned True; False on timeout."""
        ...

    def take(self) -> frozenset[int] | None:
        """Of a whole account: which mailboxes changed since the last call (0 = the tree, or what belongs to the account);
        None = it is not known which."""
        ...


class Ingest(Protocol):
    """Takes a message's bytes as they come. Above 1 MiB they are on disk, not in memory. Bounded: `feed` says when it
    is too big and keeps nothing then."""

    size: int

    async def feed(self, data: bytes | memoryview) -> bool:
        """False once the message is larger than the limit it was made with; later bytes are thrown away."""
        ...

    def head(self, limit: int) -> bytes:
        """The first bytes, up to `limit` (≤ 1 MiB), to look at the header before it is finished."""
        ...

    async def finish(self, prepend: bytes = b"", header: bytes | None = None) -> "Spooled | Refusal":
        """The message described and hashed. `prepend`: trace headers. `header`: what replaces the original header block
        (including its closing empty line), where submission mends it."""
        ...

    def abandon(self) -> None:
        """Frees what it holds. Harmless after finish or twice."""
        ...


class Spooled(Protocol):
    """A finished message, ready to be named by commands; `release` when they are done."""

    content: Content

    def pieces(self) -> AsyncIterator[bytes]:
        """The message's bytes, in order, until `release`. Raises OSError."""
        ...

    def release(self) -> None: ...


class Site(Protocol):
    world: World
    name: str

    @property
    def tokens(self) -> TokensTaken | None:
        """None = nobody signs in by a token of an issuer."""
        ...

    # -- signing in ---------------------------------------------------------------------------------------------------
    async def sign_in(self, address: str, password: str, actor: Actor, *, throttled: bool = True) -> Account | Refusal:
        """WRONG_PASSWORD, ACCOUNT_SUSPENDED, THROTTLED, UNAVAILABLE. Slow (25 ms) once, then from a cache."""
        ...

    async def scram_keys(self, address: str) -> ScramKeys | Refusal: ...

    async def signed_in(self, account: Account | None, actor: Actor, address: str) -> Account | Refusal:
        """Tells the outcome of a SCRAM exchange (None = it failed), for throttling and the audit trail."""
        ...

    async def sign_in_by_token(self, address: str, token: str, actor: Actor, *, throttled: bool = True) -> Account | Refusal:
        """By a token of the issuer that the site trusts (RFC 6750). `address`: whom the client wants to be, empty = whom the token
        names. WRONG_PASSWORD, NOT_PERMITTED (its scope), ACCOUNT_SUSPENDED, THROTTLED, UNAVAILABLE (the issuer is away)."""
        ...

    async def introduced(self, address: str, by: str, actor: Actor) -> Account | Refusal:
        """Somebody who has signed in at the site `by`, which carries the session to here: the audit trail of both sites says
        so. `actor.address` is the client's own. NO_SUCH_ACCOUNT, ACCOUNT_SUSPENDED, UNAVAILABLE."""
        ...

    async def elsewhere(self, account: int) -> tuple[str, ...] | Refusal:
        """Names of the sites that have the account's mail where this one has not, in the order in which to try them; () = it
        is here. What is asked of its mailboxes here is UNAVAILABLE then. UNAVAILABLE: it is not known where."""
        ...

    # -- changing -----------------------------------------------------------------------------------------------------
    async def execute(
        self, actor: Actor, command: MailboxCommand | DirectoryCommand | OutboxCommand, contents: Sequence[Spooled] = ()
    ) -> Done | Refusal:
        """Decided, in the log, and in this site's tables. `contents`: what the command names and the log does not have."""
        ...

    async def deliver(
        self, actor: Actor, deliveries: Sequence[Deliver], contents: Sequence[Spooled], transaction: int = 0
    ) -> "list[Done | Refusal]":
        """Durable in the log when it returns; the tables follow. One answer for each, in order. `transaction`: not 0,
        the command ids are made of it and of whom they are for, so that the same deliveries given twice arrive once."""
        ...

    async def queue(self, actor: Actor, command: QueueMessage, contents: Sequence[Spooled]) -> Done | Refusal:
        """Durable in the log when it returns: in the queue, or in the spool where nobody takes it there. The same message
        given twice is there once."""
        ...

    # -- messages coming in -------------------------------------------------------------------------------------------
    def ingest(self, limit_bytes: int) -> Ingest: ...

    # -- the directory ------------------------------------------------------------------------------------------------
    async def resolve(self, address: str) -> Recipient | Refusal:
        """Refusals: NO_SUCH_ADDRESS (a local domain without it), ADDRESS_INVALID, UNAVAILABLE."""
        ...

    async def addresses(self, accounts: Sequence[int]) -> Mapping[int, str] | Refusal:
        """Each account's own, of those that there are."""
        ...

    async def may_send_as(self, account: Account, address: str) -> bool | Refusal:
        """Its own address, an alias that leads to it, a group it is in directly."""
        ...

    # -- whose mailboxes ----------------------------------------------------------------------------------------------
    async def named(self, who: int, name: str) -> Named | Refusal:
        """What a mailbox name means that somebody says; costs nothing where it is its own. Whoever asks for anything of
        another's mailbox looks at the rights first. NO_SUCH_MAILBOX: a name of others, and no mailbox could be there for the
        asker; UNAVAILABLE: also where the owner's mail is not here."""
        ...

    async def others(self, who: int) -> list[tuple[Named, Mailbox]] | Refusal:
        """Every mailbox of others to which somebody has a right, ordered by name; each Mailbox as its owner has it."""
        ...

    async def rights(self, who: int, account: int, mailbox: int) -> str | Refusal:
        """What somebody may do with another's mailbox now (RFC 4314 §2.1)."""
        ...

    async def entries(self, account: int, mailbox: int) -> list[tuple[str, str]] | Refusal:
        """(identifier as people write it, rights) of who has rights to a mailbox, beside its owner; in order."""
        ...

    async def naming(self, identifier: str) -> list[tuple[int, str]] | Refusal:
        """(account, name) of every mailbox at this site that has rights of this identifier, as the domain knows it."""
        ...

    async def identifier(self, given: str) -> str | Refusal:
        """As the domain knows it (cluster.domain.mailbox.rights). NO_SUCH_ADDRESS: it is nobody's."""
        ...

    # -- mailboxes ----------------------------------------------------------------------------------------------------
    # `reader`: somebody else than the owner, whose own \\Seen is shown, with a MODSEQ that rises with it; 0 = the owner.
    async def mailboxes(self, account: int) -> list[Mailbox] | Refusal:
        """Ordered by name; INBOX first. Makes the standard ones for an account that has none yet."""
        ...

    async def mailbox(self, account: int, name: str) -> Mailbox | Refusal:
        """The one of a name, without looking at the others. NO_SUCH_MAILBOX, UNAVAILABLE."""
        ...

    async def expunged(self, account: int) -> list[Mailbox] | Refusal:
        """Those of "Expunged/": of each mailbox, living or deleted, from which something was expunged that can be restored,
        one to be read only, of a negative id. What is asked by name or by id takes them as any other."""
        ...

    async def subscriptions(self, account: int) -> list[str] | Refusal:
        """Names subscribed to, also of mailboxes that are not there (RFC 9051 §6.3.9)."""
        ...

    async def status(self, account: int, mailboxes: Sequence[int], *, reader: int = 0) -> list[Status] | Refusal:
        """For each that exists, in the order asked."""
        ...

    async def select(
        self, account: int, name: str, *, recent: bool = False, reader: int = 0
    ) -> Selected | Refusal:
        """`recent`: take the \\Recent messages for this session (revision 1, SELECT but not EXAMINE). For a reader nothing
        is \\Recent."""
        ...

    async def flags(
        self, account: int, mailbox: int, uids: Ranges, since: int = 0, *, reader: int = 0
    ) -> list[Flags] | Refusal:
        """Those with modseq > since, by UID; of messages that are there."""
        ...

    async def having(self, account: int, mailbox: int, asked: Having) -> Sequence[int] | Refusal:
        """UIDs of the messages that are there and have it, with flags as the owner sees them, ascending."""
        ...

    def messages(
        self,
        account: int,
        mailbox: int,
        uids: Ranges,
        *,
        since: int = 0,
        described: bool = False,
        contents: bool = False,
        reader: int = 0,
    ) -> AsyncIterator[list[Message]]:
        """In order of UID, in batches, from a cursor; also messages expunged a short time ago (their flags with
        \\Deleted), as sessions may still hold their UIDs. Raises SiteUnavailable."""
        ...

    async def changes(self, account: int, mailbox: int, since: int, *, reader: int = 0) -> Changes | Refusal: ...

    async def looked_up(self, account: int, mailbox: int, asked: Sequence[Lookup]) -> list[Verdict | None]:
        """What the site's search index knows of each text, in order; None where it knows nothing. It never fails: whoever
        asks can read the messages."""
        ...

    async def token(self, account: int, modseq: int) -> int | Refusal | None:
        """A MODSEQ that the client was given before, perhaps at another site, as it counts here, for `since` and
        UNCHANGEDSINCE: the tables have reached it. None = it is lost, the client must be told everything. UNAVAILABLE
        where the tables do not reach it in time."""
        ...

    def watch(
        self, account: int, mailbox: int | None = None, bell: asyncio.Event | None = None
    ) -> AbstractAsyncContextManager[Watch]:
        """One mailbox, or all and the tree of an account (None). `bell`: rung whenever it is woken, for who has several."""
        ...

    # -- annotations --------------------------------------------------------------------------------------------------
    async def annotations(
        self, account: int, mailboxes: Sequence[int], reader: int, entries: Sequence[str] | None = None
    ) -> Mapping[int, Mapping[str, bytes]] | Refusal:
        """RFC 5464, by mailbox (0 = the account itself): /shared ones and the reader's /private ones; only these entries, or
        all (None). Those without any are left out."""
        ...

    # -- quota --------------------------------------------------------------------------------------------------------
    async def quota(self, account: int, *, fresh: bool = True) -> Held | None | Refusal:
        """What it may hold and holds; None = it has no quota. `fresh`: as the tables have it now, else a moment old."""
        ...

    async def room(self, accounts: Sequence[int], size: int) -> Refusal | None:
        """Why a message of `size` bytes (0 = not known) would come into none of them now: OVER_QUOTA, ABOVE_QUOTA."""
        ...

    async def deleted_storage(self, account: int, mailbox: int) -> int | Refusal:
        """Bytes of the messages with \\Deleted."""
        ...

    # -- contents -----------------------------------------------------------------------------------------------------
    def read(self, content: Content, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The message's bytes of a range, in pieces of at most 256 KiB. Raises SiteUnavailable (a blob cannot be had)."""
        ...

    async def read_many(self, contents: Sequence[Content]) -> list[bytes | None]:
        """Whole messages, of at most 4 MiB together, in one go; None where one cannot be had. What is read is the segments
        named: a Content with the first ones of a message gives its beginning."""
        ...
