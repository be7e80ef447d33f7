"""A site as its sessions see it: implements `protocols.port.Site` over the log, the tables and the blobs."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

from cluster.domain.actor import Actor
from cluster.domain.directory import addresses, resolve
from cluster.domain.directory.commands import AnyCommand as DirectoryCommand
from cluster.domain.directory.state import Slice
from cluster.domain.mailbox import names
from cluster.domain.mailbox.commands import AnyCommand as MailboxCommand
from cluster.domain.mailbox.commands import Deliver, OpenAccount
from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.events import Ranges
from cluster.domain.outbox.commands import AnyCommand as OutboxCommand
from cluster.domain.outbox.commands import QueueMessage
from cluster.domain.quota import Held
from cluster.domain.refusal import Reason, Refusal
from cluster.world import World
from storage.answers import UNAVAILABLE, answered
from storage.blobs import BlobCorrupt, BlobMissing, BlobsUnavailable, Contents
from storage.directory import Directory
from storage.executor import Executor
from storage.handing import Handing
from storage.ingest import MessageIngest, Spool, SpooledMessage
from storage.level import Level
from storage.mirrored import Mailboxes
from storage.news import Hub, Watch
from storage.postgres.mail_view import MailView
from storage.postgres.pool import AWAY
from storage.postgres.search_view import SearchView
from storage.search.index import Lookup, Place, SearchIndex, Verdict
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
from storage.sharing import Sharing
from storage.sign_in import SignIn
from storage.together import Together
from storage.whereabouts import Whereabouts, refusal

NO_SUCH_MAILBOX = Refusal(Reason.NO_SUCH_MAILBOX, "There is no such mailbox.")


class Spooled(Protocol):
    """What a session holds of a message that came in: as `ingest` gave it."""

    content: Content

    def release(self) -> None: ...


class Site:
    def __init__(
        self, world: World, name: str, executor: Executor, directory: Directory, sign_in: SignIn, stores: "Stores"
    ) -> None:
        self.world = world
        self.name = name
        self.directory = directory
        self._executor = executor
        self._sign_in = sign_in
        self._stores = stores
        self._sharing = Sharing(executor.views.shared, stores.mail, directory)

    # -- signing in ---------------------------------------------------------------------------------------------------

    async def sign_in(self, address: str, password: str, actor: Actor, *, throttled: bool = True) -> Account | Refusal:
        return await answered(self._sign_in.by_password(address, password, actor, throttled=throttled))

    async def scram_keys(self, address: str) -> ScramKeys | Refusal:
        return await answered(self._sign_in.scram_keys(address))

    async def signed_in(self, account: Account | None, actor: Actor, address: str) -> Account | Refusal:
        return await answered(self._sign_in.by_scram(account, actor, address))

    @property
    def tokens(self) -> TokensTaken | None:
        return self._sign_in.tokens

    async def sign_in_by_token(self, address: str, token: str, actor: Actor, *, throttled: bool = True) -> Account | Refusal:
        return await answered(self._sign_in.by_token(address, token, actor, throttled=throttled))

    async def introduced(self, address: str, by: str, actor: Actor) -> Account | Refusal:
        return await answered(self._sign_in.by_site(address, by, actor))

    async def elsewhere(self, account: int) -> tuple[str, ...] | Refusal:
        return await answered(self._stores.whereabouts.elsewhere(account))

    # -- changing -----------------------------------------------------------------------------------------------------

    async def execute(
        self,
        actor: Actor,
        command: MailboxCommand | DirectoryCommand | OutboxCommand,
        contents: Sequence[Spooled] = (),
    ) -> Done | Refusal:
        return await self._executor.execute(actor, command, _ours(contents))

    async def deliver(
        self, actor: Actor, deliveries: Sequence[Deliver], contents: Sequence[Spooled], transaction: int = 0
    ) -> list[Done | Refusal]:
        absent = await answered(self._stores.whereabouts.absent([one.account for one in deliveries]))
        if isinstance(absent, Refusal):
            return [absent] * len(deliveries)
        here = [one for one in deliveries if one.account not in absent]
        answers = await answered(self._executor.deliver(actor, here, _ours(contents), transaction))
        if isinstance(answers, Refusal):
            return [answers] * len(deliveries)
        delivered = iter(answers)
        return [absent[one.account] if one.account in absent else next(delivered) for one in deliveries]

    async def queue(self, actor: Actor, command: QueueMessage, contents: Sequence[Spooled]) -> Done | Refusal:
        return await self._stores.handing.take_in(actor, command, _ours(contents))

    def ingest(self, limit_bytes: int) -> MessageIngest:
        return self._stores.spool.ingest(limit_bytes)

    # -- the directory ------------------------------------------------------------------------------------------------

    async def resolve(self, address: str) -> Recipient | Refusal:
        canonical = addresses.canonical(address)
        if canonical is None:
            return Refusal(Reason.ADDRESS_INVALID, "This is no address.", (address,))
        found = await answered(self.directory.resolve(address))
        if isinstance(found, Refusal):
            return found
        if not found.complete:
            return Refusal(Reason.OVER_LIMIT, "The address leads to more people than one message may have.", (address,))
        if found.local_domain and not found.known:
            return Refusal(Reason.NO_SUCH_ADDRESS, "There is no such address here.", (address,))
        return Recipient(address, found.accounts, found.elsewhere, found.local_domain)

    async def addresses(self, accounts: Sequence[int]) -> Mapping[int, str] | Refusal:
        return await answered(self.directory.view.addresses_of(accounts))

    async def may_send_as(self, account: Account, address: str) -> bool | Refusal:
        def ask(known: Slice) -> Any:
            return resolve.may_send_as(known, account.id, account.address, address)

        answer = await answered(self.directory.ask(ask))
        return answer if isinstance(answer, Refusal) else bool(answer)

    # -- whose mailboxes ----------------------------------------------------------------------------------------------

    async def named(self, who: int, name: str) -> Named | Refusal:
        if not names.is_elsewhere(name):
            return Named(who, names.canonical(name))
        if (behind := await self._behind(who)) is not None:
            return behind
        found = await answered(self._sharing.named(who, name))
        if isinstance(found, Refusal) or not found.reader:
            return found
        return await self._behind(found.account) or found

    async def others(self, who: int) -> list[tuple[Named, Mailbox]] | Refusal:
        return await answered(self._sharing.others(who))

    async def rights(self, who: int, account: int, mailbox: int) -> str | Refusal:
        return await answered(self._sharing.rights(who, account, mailbox))

    async def entries(self, account: int, mailbox: int) -> list[tuple[str, str]] | Refusal:
        return await answered(self._sharing.entries(account, mailbox))

    async def naming(self, identifier: str) -> list[tuple[int, str]] | Refusal:
        return await answered(self._sharing.naming(identifier))

    async def identifier(self, given: str) -> str | Refusal:
        return await answered(self._sharing.identifier(given))

    # -- mailboxes ----------------------------------------------------------------------------------------------------

    async def token(self, account: int, modseq: int) -> int | Refusal | None:
        return await answered(self._stores.level.token(account, modseq))

    async def mailboxes(self, account: int) -> list[Mailbox] | Refusal:
        if (behind := await self._behind(account)) is not None:
            return behind
        found = await answered(self._mail.mailboxes(account))
        if isinstance(found, Refusal) or any(mailbox.name == names.INBOX for mailbox in found):
            return found
        opened = await self._open(account)
        return opened if isinstance(opened, Refusal) else await answered(self._mail.mailboxes(account))

    async def mailbox(self, account: int, name: str) -> Mailbox | Refusal:
        if (behind := await self._behind(account)) is not None:
            return behind
        canonical = names.canonical(name)
        found = await answered(self._mail.mailbox(account, canonical))
        if found is None and canonical == names.INBOX:
            opened = await self._open(account)
            if isinstance(opened, Refusal):
                return opened
            found = await answered(self._mail.mailbox(account, canonical))
        return NO_SUCH_MAILBOX if found is None else found

    async def expunged(self, account: int) -> list[Mailbox] | Refusal:
        if (behind := await self._behind(account)) is not None:
            return behind
        return await answered(self._mail.mirrored(account))

    async def subscriptions(self, account: int) -> list[str] | Refusal:
        if (absent := await self._absent(account)) is not None:
            return absent
        return await answered(self._mail.subscriptions(account))

    async def status(self, account: int, mailboxes: Sequence[int], *, reader: int = 0) -> list[Status] | Refusal:
        if (behind := await self._behind(account)) is not None:
            return behind
        return await answered(self._mail.status(account, mailboxes, reader))

    async def select(
        self, account: int, name: str, *, recent: bool = False, reader: int = 0
    ) -> Selected | Refusal:
        if (behind := await self._behind(account)) is not None:
            return behind
        canonical = names.canonical(name)
        selected = await answered(self._mail.select(account, canonical, recent=recent, reader=reader))
        if selected is None and canonical == names.INBOX and not reader:
            opened = await self._open(account)
            if isinstance(opened, Refusal):
                return opened
            selected = await answered(self._mail.select(account, canonical, recent=recent, reader=reader))
        return NO_SUCH_MAILBOX if selected is None else selected

    async def flags(
        self, account: int, mailbox: int, uids: Ranges, since: int = 0, *, reader: int = 0
    ) -> list[Flags] | Refusal:
        return await answered(self._mail.flags(account, mailbox, uids, since, reader))

    async def having(self, account: int, mailbox: int, asked: Having) -> Sequence[int] | Refusal:
        return await answered(self._mail.having(account, mailbox, asked))

    async def messages(
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
        try:
            async for batch in self._mail.messages(
                account, mailbox, uids, since=since, described=described, contents=contents, reader=reader
            ):
                yield batch
        except AWAY as error:
            raise SiteUnavailable(f"{type(error).__name__}: {error}") from error

    async def changes(self, account: int, mailbox: int, since: int, *, reader: int = 0) -> Changes | Refusal:
        if (absent := await self._absent(account)) is not None:
            return absent
        if reader:
            return await answered(self._mail.changes(account, mailbox, since, reader))
        partition = await answered(self.directory.partition_of(account))
        if isinstance(partition, Refusal):
            return partition
        at = self._stores.hub.position(partition) if partition is not None else 0
        return await self._stores.together.changes((account, mailbox, since), at)

    async def looked_up(self, account: int, mailbox: int, asked: Sequence[Lookup]) -> list[Verdict | None]:
        uidvalidity = await answered(self._stores.searched.uidvalidity(account, mailbox))
        if uidvalidity is None or isinstance(uidvalidity, Refusal):
            return [None] * len(asked)
        return await self._stores.index.look_up(Place(mailbox, uidvalidity), asked)

    @asynccontextmanager
    async def watch(
        self, account: int, mailbox: int | None = None, bell: asyncio.Event | None = None
    ) -> AsyncIterator[Watch]:
        with self._stores.hub.watch(account, None if mailbox is None else abs(mailbox), bell) as watch:
            yield watch

    # -- annotations --------------------------------------------------------------------------------------------------

    async def annotations(
        self, account: int, mailboxes: Sequence[int], reader: int, entries: Sequence[str] | None = None
    ) -> Mapping[int, Mapping[str, bytes]] | Refusal:
        if (behind := await self._behind(account)) is not None:
            return behind
        return await answered(self._mail.annotations(account, mailboxes, reader, entries))

    # -- quota --------------------------------------------------------------------------------------------------------

    async def quota(self, account: int, *, fresh: bool = True) -> Held | None | Refusal:
        if (absent := await self._absent(account)) is not None:
            return absent
        return await answered(self._executor.quotas.held(account, fresh=fresh))

    async def room(self, accounts: Sequence[int], size: int) -> Refusal | None:
        # Where the tables are away nothing is known to be full.
        refused = await answered(self._executor.quotas.refused(accounts, size))
        return None if refused is UNAVAILABLE else refused

    async def deleted_storage(self, account: int, mailbox: int) -> int | Refusal:
        return await answered(self._mail.deleted_storage(account, mailbox))

    # -- contents -----------------------------------------------------------------------------------------------------

    async def read(self, content: Content, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        try:
            async for piece in self._stores.blobs.read(content.segments, start, end):
                yield piece
        except (BlobMissing, BlobCorrupt, BlobsUnavailable) as error:
            raise SiteUnavailable(f"{type(error).__name__}: {error}") from error

    async def read_many(self, contents: Sequence[Content]) -> list[bytes | None]:
        hashes = [segment.hash for content in contents for segment in content.segments]
        try:
            blobs = iter(await self._stores.blobs.get_many(hashes))
        except BlobsUnavailable:
            return [None] * len(contents)
        whole: list[bytes | None] = []
        for content in contents:
            pieces = [next(blobs) for _ in content.segments]
            whole.append(None if None in pieces else b"".join(piece for piece in pieces if piece is not None))
        return whole

    # -----------------------------------------------------------------------------------------------------------------

    @property
    def _mail(self) -> Mailboxes:
        return self._stores.mailboxes

    async def _absent(self, account: int) -> Refusal | None:
        """UNAVAILABLE where the account's mail is kept at other sites only: what is not here must not look as if there
        were none, nor be made here."""
        where = await self.elsewhere(account)
        return where if isinstance(where, Refusal) else refusal(where) if where else None

    async def _behind(self, account: int) -> Refusal | None:
        """UNAVAILABLE where it is not here, or the tables do not come level with the home's in time: what they lack must
        not look as if it had been deleted."""
        if (absent := await self._absent(account)) is not None:
            return absent
        level = await answered(self._stores.level.with_home(account))
        if isinstance(level, Refusal):
            return level
        return None if level else UNAVAILABLE

    async def _open(self, account: int) -> Done | Refusal:
        ids = tuple(self.world.new_id() for _ in names.STANDARD)
        return await self._executor.execute(Actor(name="system", site=self.name), OpenAccount(account, ids), ())


class Stores:
    """Where a site keeps what it shows."""

    def __init__(
        self,
        mail: MailView,
        blobs: Contents,
        spool: Spool,
        hub: Hub,
        level: Level,
        whereabouts: Whereabouts,
        handing: Handing,
        index: SearchIndex,
    ) -> None:
        self.index = index
        self.mailboxes = mailboxes = Mailboxes(mail)
        self.searched = SearchView(mail.database)
        self.handing = handing
        self.mail = mail
        self.together = Together(lambda account, mailbox, since: answered(mailboxes.changes(account, mailbox, since)))
        hub.on_renewal(mail.forget)
        hub.on_renewal(self.together.forget)
        self.blobs = blobs
        self.spool = spool
        self.hub = hub
        self.level = level
        self.whereabouts = whereabouts


def _ours(contents: Sequence[Spooled]) -> Sequence[SpooledMessage]:
    """Sessions get them from `ingest` and know less of them than we do."""
    return cast(Sequence[SpooledMessage], contents)
