"""What an administrator asks of the site beyond its sessions' questions: implements `protocols.admin.port.Administration`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

from cluster import partitions
from cluster.domain.directory import addresses
from cluster.domain.directory.state import Account as Entry
from cluster.domain.directory.state import Alias as AliasEntry
from cluster.domain.directory.state import Domain as DomainEntry
from cluster.domain.directory.state import Group as GroupEntry
from cluster.domain.directory.state import Missing, Slice
from cluster.domain.quota import Quota
from cluster.domain.refusal import Reason, Refusal
from cluster.log.model import LogUnavailable, Record
from cluster.position import Position, split
from storage.answers import answered
from storage.overview import (
    AccountRow,
    Agreed,
    Alias,
    Domain,
    Engine,
    Group,
    Logged,
    Partition,
    Progress,
    Quarantined,
    Search,
    State,
    Waiting,
)
from storage.postgres.compared import read_agreements
from storage.postgres.directory_view import DirectoryView
from storage.postgres.folded import read_folded, read_quarantine, read_waiting
from storage.postgres.outbox_view import OutboxView
from storage.postgres.pool import AWAY, Database
from storage.postgres.search_view import SearchState, SearchView

LINES_WAITING_MAX = 1000
MARK_S_MAX = 2.0


Work = Callable[[], AsyncIterator[Progress | Refusal]]
BackupWork = Callable[[str], AsyncIterator[Progress | Refusal]]


class Source(Protocol):
    """The log, as far as looking at it goes: cluster.log.jetstream."""

    def follow(
        self, partition: str, after: Position, *, contents: bool = True
    ) -> AsyncIterator[tuple[Record, ...]]: ...

    def read(
        self, partition: str, after: int, upto: int, *, contents: bool = False
    ) -> AsyncIterator[tuple[Record, ...]]: ...

    async def mark(self, partition: str, timeout_s: float = MARK_S_MAX) -> Position: ...


class About(Protocol):
    """What the node says of itself."""

    @property
    def site(self) -> str: ...
    @property
    def node(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def started_at(self) -> float:
        """Unix seconds."""
        ...

    @property
    def partitions(self) -> Mapping[str, str]:
        """Those that are kept here, each with its home."""
        ...


class SiteAdministration:
    def __init__(
        self, about: About, source: Source, database: Database, view: DirectoryView, rebuild: Work, backup: BackupWork
    ) -> None:
        self._about = about
        self._source = source
        self._database = database
        self._view = view
        self.rebuild = rebuild
        self.backup = backup

    # -- the directory ------------------------------------------------------------------------------------------------

    async def domains(self, *, after: str, limit: int) -> list[Domain] | Refusal:
        found = await answered(self._view.domains(after, limit))
        return found if isinstance(found, Refusal) else [domain_row(each) for each in found]

    async def domain(self, domain: str) -> Domain | Refusal:
        name = addresses.canonical_domain(domain) or domain
        known = await answered(self._view.look_up(Missing(domains=frozenset({name})), Slice()))
        if isinstance(known, Refusal):
            return known
        found = known.domains[name]
        if found is None:
            return Refusal(Reason.NO_SUCH_DOMAIN, "There is no such domain here.", (domain,))
        return domain_row(found)

    async def accounts(self, *, domain: str, after: str, limit: int) -> list[AccountRow] | Refusal:
        found = await self._page("account", domain, after, limit)
        if isinstance(found, Refusal):
            return found
        entries = [entry for entry in found if isinstance(entry, Entry)]
        usage = await answered(self._view.usage([entry.id for entry in entries]))
        if isinstance(usage, Refusal):
            return usage
        known = await answered(self._view.look_up(Missing(domains=frozenset(_domain_of(entry) for entry in entries)), Slice()))
        if isinstance(known, Refusal):
            return known
        return [self._account(entry, usage, known) for entry in entries]

    async def account(self, address: str) -> AccountRow | Refusal:
        entry = await self._entry(address)
        if isinstance(entry, Refusal):
            return entry
        if not isinstance(entry, Entry):
            return Refusal(Reason.NO_SUCH_ACCOUNT, "There is no such account.", (address,))
        usage = await answered(self._view.usage([entry.id]))
        if isinstance(usage, Refusal):
            return usage
        known = await answered(self._view.look_up(Missing(domains=frozenset({_domain_of(entry)})), Slice()))
        return known if isinstance(known, Refusal) else self._account(entry, usage, known)

    def _account(self, entry: Entry, usage: dict[int, tuple[int, int]], known: Slice) -> AccountRow:
        """What is not kept here cannot be counted here."""
        counted = usage.get(entry.id, (0, 0)) if entry.partition in self._about.partitions else (None, None)
        return account_row(entry, known.domains[_domain_of(entry)], *counted)

    async def aliases(self, *, domain: str, after: str, limit: int) -> list[Alias] | Refusal:
        found = await self._page("alias", domain, after, limit)
        if isinstance(found, Refusal):
            return found
        return [Alias(entry.address, entry.targets) for entry in found if isinstance(entry, AliasEntry)]

    async def alias(self, address: str) -> Alias | Refusal:
        entry = await self._entry(address)
        if isinstance(entry, AliasEntry):
            return Alias(entry.address, entry.targets)
        if isinstance(entry, Refusal):
            return entry
        return Refusal(Reason.NO_SUCH_ADDRESS, "There is no such alias.", (address,))

    async def groups(self, *, domain: str, after: str, limit: int) -> list[Group] | Refusal:
        found = await self._page("group", domain, after, limit)
        if isinstance(found, Refusal):
            return found
        return [Group(entry.address, entry.name, entry.members) for entry in found if isinstance(entry, GroupEntry)]

    async def group(self, address: str) -> Group | Refusal:
        entry = await self._entry(address)
        if isinstance(entry, GroupEntry):
            return Group(entry.address, entry.name, entry.members)
        if isinstance(entry, Refusal):
            return entry
        return Refusal(Reason.NO_SUCH_ADDRESS, "There is no such group.", (address,))

    async def place(self, address: str) -> str | Refusal:
        """With one site: that site's first mail partition."""
        return partitions.mail(self._about.site)

    # -- the log ------------------------------------------------------------------------------------------------------

    async def log_tail(self, partition: str, *, after: int, follow: bool) -> AsyncIterator[Logged | Refusal]:
        names = tuple(self._about.partitions)
        if partition and partition not in names:
            yield Refusal(Reason.NO_SUCH_ENTRY, f"There is no partition {partition}; there are {', '.join(names)}.")
            return
        lines: asyncio.Queue[Logged | Refusal | None] = asyncio.Queue(LINES_WAITING_MAX)
        wanted = (partition,) if partition else names
        tasks = [asyncio.create_task(self._tail(name, after, follow, lines)) for name in wanted]
        ended = 0
        try:
            while ended < len(tasks):
                line = await lines.get()
                if line is None:
                    ended += 1
                else:
                    yield line
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tail(
        self, partition: str, after: int, follow: bool, lines: "asyncio.Queue[Logged | Refusal | None]"
    ) -> None:
        try:
            if follow:
                batches = self._source.follow(partition, Position(after), contents=False)
            else:
                upto = await self._source.mark(partition, MARK_S_MAX)
                batches = self._source.read(partition, after, upto)
            async for records in batches:
                for record in records:
                    await lines.put(Logged(partition, record))
        except LogUnavailable as error:
            await lines.put(Refusal(Reason.UNAVAILABLE, f"The log does not answer: {error}"))
        await lines.put(None)

    # -- the site -----------------------------------------------------------------------------------------------------

    async def state(self) -> State | Refusal:
        about = self._about
        try:
            folded = await read_folded(self._database)
            quarantine = await read_quarantine(self._database)
            waiting, agreed = await read_waiting(self._database), await read_agreements(self._database)
            queued = await OutboxView(self._database).counts()
            search = await SearchView(self._database).state()
            tables = Engine("postgresql", alive=True)
        except AWAY as error:
            folded, quarantine, waiting, agreed, queued = {}, [], [], [], {}
            search = SearchState(0, 0, 0, 0.0)
            tables = Engine("postgresql", alive=False, detail=f"{type(error).__name__}: {error}")
        kept = about.partitions  # as they are now: one may come or go meanwhile
        marks = await asyncio.gather(*(self._mark(name) for name in kept))
        down = [mark for mark in marks if isinstance(mark, str)]
        engine = Engine("nats", alive=not down, detail=down[0] if down else "")
        rows = []
        for name, mark in zip(kept, marks, strict=True):
            at = folded.get(name)
            applied, digest = (at.position, at.digest.hex()) if at else (0, "")
            known = applied if isinstance(mark, str) else mark
            count, _ = queued.get(name, (0, 0))
            lag = max(0, split(known).sequence - split(applied).sequence)
            rows.append(Partition(name, kept[name], split(known).epoch, known, applied, lag, digest, count))
        return State(
            about.site,
            about.node,
            about.version,
            about.started_at,
            (engine, tables),
            tuple(rows),
            tuple(Quarantined(q.partition, q.position, q.noun, q.entity, q.reason, 0.0) for q in quarantine),
            tuple(Waiting(*each) for each in waiting),
            tuple(Agreed(*each) for each in agreed),
            Search(*search),
        )

    async def _mark(self, partition: str) -> int | str:
        try:
            return await self._source.mark(partition, MARK_S_MAX)
        except LogUnavailable as error:
            return str(error) or "no answer"

    # -----------------------------------------------------------------------------------------------------------------

    async def _page(
        self, kind: str, domain: str, after: str, limit: int
    ) -> Sequence[Entry | AliasEntry | GroupEntry] | Refusal:
        name = addresses.canonical_domain(domain) or domain if domain else None
        found = await answered(self._view.addresses(kind, name, after, limit))
        if isinstance(found, Refusal):
            return found
        known = await answered(self._view.look_up(Missing(frozenset(found)), Slice()))
        if isinstance(known, Refusal):
            return known
        return [entry for address in found if (entry := known.entries[address]) is not None]

    async def _entry(self, address: str) -> Entry | AliasEntry | GroupEntry | None | Refusal:
        canonical = addresses.canonical(address)
        if canonical is None:
            return Refusal(Reason.ADDRESS_INVALID, "This is no address.", (address,))
        known = await answered(self._view.look_up(Missing(frozenset({canonical})), Slice()))
        return known if isinstance(known, Refusal) else known.entries[canonical]


def domain_row(found: DomainEntry) -> Domain:
    limits = found.quota.storage, found.quota.messages, found.quota.soft
    return Domain(found.name, found.catch_all, found.plus, *limits, found.undelete_days)


def _domain_of(entry: Entry) -> str:
    return addresses.domain_of(entry.address)


def account_row(entry: Entry, domain: DomainEntry | None, messages: int | None, size_bytes: int | None) -> AccountRow:


    return AccountRow(
        entry.id,
        entry.address,
        entry.name,
        entry.partition,
        entry.administrator,
        entry.suspended,
        entry.verifier is not None,
        tuple(sorted(entry.app_passwords)),
        entry.pop3_since,
        entry.file_sent,
        messages,
        size_bytes,
        entry.quota.over(domain.quota if domain is not None else Quota()),
        entry.quota,
        entry.shared,
    )
