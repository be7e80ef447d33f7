"""A whole site's directory in memory, over the pure fold: what the administrator's door and the command line stand on in
tests. The same suites run on a real site.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TypeVar

from cluster import codec
from cluster.domain.actor import SYSTEM, Actor
from cluster.domain.decision import Unappliable
from cluster.domain.directory import addresses, decide
from cluster.domain.directory.commands import AddDomain, AnyCommand
from cluster.domain.directory.state import Account as Entry
from cluster.domain.directory.state import Alias, DirectoryState, Group, Slice, evolve, look_up
from cluster.domain.mailbox.commands import AnyCommand as MailboxCommand
from cluster.domain.refusal import Reason, Refusal
from cluster.log.model import Record
from cluster.position import position
from protocols.admin import port
from protocols.port import Account, Done
from storage.administration import account_row, domain_row
from storage.credentials import PASSWORD_LABEL, Credentials

T = TypeVar("T")
FOREVER_S = 60.0


class RealWorld:
    def now(self) -> float:
        return time.time()  # noqa: TID251 (this is the door by which it comes in)

    def monotonic(self) -> float:
        return time.monotonic()

    def new_id(self) -> int:
        return secrets.randbits(62) + 1

    def entropy(self, size: int) -> bytes:
        return secrets.token_bytes(size)


class MemorySite:
    """Directory, log and administration in one. `refuse_next`: what the next command hears."""

    def __init__(self) -> None:
        self.world = RealWorld()
        self.credentials = Credentials(self.world, b"a test's own secret")
        self.state = DirectoryState()
        self.records: list[Record] = []
        self.grown = asyncio.Condition()
        self.commands: list[tuple[Actor, AnyCommand]] = []
        self.refuse_next: Refusal | None = None
        self.rebuilds_closed = 0
        self.rebuild_steps: Sequence[port.Progress | Refusal] = (
            port.Progress("reading", 0, 2, "events"),
            port.Progress("reading", 2, 2, "events"),
            port.Progress("exchange", 1, 1, "tables"),
        )

    @classmethod
    async def with_domain(cls, domain: str = "example.org") -> "MemorySite":
        site = cls()
        assert isinstance(await site.execute(SYSTEM, AddDomain(domain)), Done)
        return site

    async def execute(self, actor: Actor, command: AnyCommand | MailboxCommand) -> Done | Refusal:
        assert isinstance(command, AnyCommand), "there are no mailboxes here"
        if self.refuse_next is not None:
            refusal, self.refuse_next = self.refuse_next, None
            return refusal
        self.commands.append((actor, command))
        known = Slice()
        while missing := decide.needs(known, command):
            known = look_up(self.state, missing, known)
        decision = decide.decide(known, command)
        if isinstance(decision, Refusal):
            return decision
        command_id, at = secrets.token_bytes(16), 0
        for n, (entity, event) in enumerate(decision.events):
            state = evolve(self.state, event)  # type: ignore[arg-type]
            assert not isinstance(state, Unappliable), state
            self.state = state
            at = position(1, len(self.records) + 1)
            payload = codec.encode(event, at_us=int(self.world.now() * 1e6), by=actor, command=command_id, n=n)
            self.records.append(Record(at, "directory", entity, payload))
        async with self.grown:
            self.grown.notify_all()
        return Done(at)

    async def sign_in(self, address: str, password: str, actor: Actor) -> Account | Refusal:
        found = self._entry(address, Entry)
        kept = [(PASSWORD_LABEL, found.verifier)] if found and found.verifier else []
        if not await self.credentials.verify(kept, found.id if found else 0, password) or found is None:
            return Refusal(Reason.WRONG_PASSWORD, "wrong name or password")
        return Account(found.id, found.address, found.name, found.administrator)

    async def sign_in_by_token(self, address: str, token: str, actor: Actor) -> Account | Refusal:
        found = self._entry(token.removeprefix("token-of-"), Entry)
        if found is None:
            return Refusal(Reason.WRONG_PASSWORD, "not a good token")
        return Account(found.id, found.address, found.name, found.administrator, credential="token")

    # -- Administration -----------------------------------------------------------------------------------------------

    async def domains(self, *, after: str, limit: int) -> list[port.Domain] | Refusal:
        names = sorted(name for name in self.state.domains if name > after)[:limit]
        return [self._domain(name) for name in names]

    async def domain(self, domain: str) -> port.Domain | Refusal:
        name = addresses.canonical_domain(domain)
        if name is None or name not in self.state.domains:
            return Refusal(Reason.NO_SUCH_DOMAIN, "There is no such domain here.", (domain,))
        return self._domain(name)

    async def accounts(self, *, domain: str, after: str, limit: int) -> list[port.AccountRow] | Refusal:
        return [self._row(entry) for entry in self._page(Entry, domain, after, limit)]

    async def account(self, address: str) -> port.AccountRow | Refusal:
        entry = self._entry(address, Entry)
        return self._row(entry) if entry else Refusal(Reason.NO_SUCH_ACCOUNT, "There is no such account.", (address,))

    async def aliases(self, *, domain: str, after: str, limit: int) -> list[port.Alias] | Refusal:
        return [port.Alias(entry.address, entry.targets) for entry in self._page(Alias, domain, after, limit)]

    async def alias(self, address: str) -> port.Alias | Refusal:
        entry = self._entry(address, Alias)
        return port.Alias(entry.address, entry.targets) if entry else Refusal(Reason.NO_SUCH_ADDRESS, "", (address,))

    async def groups(self, *, domain: str, after: str, limit: int) -> list[port.Group] | Refusal:
        return [port.Group(entry.address, entry.name, entry.members) for entry in self._page(Group, domain, after, limit)]

    async def group(self, address: str) -> port.Group | Refusal:
        entry = self._entry(address, Group)
        if entry is None:
            return Refusal(Reason.NO_SUCH_ADDRESS, "", (address,))
        return port.Group(entry.address, entry.name, entry.members)

    async def place(self, address: str) -> str | Refusal:
        return "mail"

    async def log_tail(self, partition: str, *, after: int, follow: bool) -> AsyncIterator[port.Logged | Refusal]:
        seen = 0 if partition in ("", "directory") else len(self.records)
        while True:
            for record in self.records[seen:]:
                seen += 1
                if record.position > after and partition != "mail":
                    yield port.Logged("directory", record)
            if not follow:
                return
            async with self.grown:
                await self.grown.wait_for(lambda: len(self.records) > seen)  # noqa: B023 (awaited at once)

    async def state_now(self) -> port.State:
        end = self.records[-1].position if self.records else 0
        partitions = tuple(port.Partition(name, "north", 1, at, at, 0, "00ff") for name, at in (("directory", end), ("mail", 0)))
        engines = (port.Engine("nats", True, "2.14"), port.Engine("postgresql", False, "no answer"))
        bad = port.Quarantined("directory", position(1, 3), "directory", "example.org", "has no meaning", 1_700_000_000.0)
        return port.State("north", "north-1", "0.1.0", 1_700_000_000.0, engines, partitions, (bad,))

    async def rebuild(self) -> AsyncIterator[port.Progress | Refusal]:
        try:
            for step in self.rebuild_steps:
                yield step
        finally:
            self.rebuilds_closed += 1

    async def backup(self, target: str) -> AsyncIterator[port.Progress | Refusal]:
        yield port.Progress("blobs", 1, 1, "blobs")

    def _domain(self, name: str) -> port.Domain:
        there = self.state.domains[name]
        return domain_row(there)

    def _row(self, entry: Entry) -> port.AccountRow:
        return account_row(entry, self.state.domains.get(addresses.domain_of(entry.address)), 0, 0)

    def _entry(self, address: str, kind: type[T]) -> T | None:
        entry = self.state.entries.get(addresses.canonical(address) or "")
        return entry if isinstance(entry, kind) else None

    def _page(self, kind: type[T], domain: str, after: str, limit: int) -> list[T]:
        entries: Mapping[str, object] = self.state.entries
        there = [
            entry
            for address, entry in sorted(entries.items())
            if isinstance(entry, kind) and address > after and domain in ("", addresses.domain_of(address))
        ]
        return there[:limit]


class MemoryAdministration:
    """The port's names over a MemorySite whose `state` is the directory's."""

    def __init__(self, site: MemorySite) -> None:
        self.domains, self.domain = site.domains, site.domain
        self.accounts, self.account = site.accounts, site.account
        self.aliases, self.alias = site.aliases, site.alias
        self.groups, self.group = site.groups, site.group
        self.place, self.log_tail = site.place, site.log_tail
        self.rebuild, self.backup = site.rebuild, site.backup
        self.state = site.state_now
