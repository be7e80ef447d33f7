"""A very small site for SMTP's own tests: what was delivered and queued can be looked at, what fails can be set."""

import hashlib
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from cluster.domain.actor import Actor
from cluster.domain.mailbox.commands import Deliver
from cluster.domain.mailbox.content import Content, Segment
from cluster.domain.outbox import handing
from cluster.domain.outbox.commands import AnyCommand, QueueMessage, RecordAttempt
from cluster.domain.outbox.decide import decide
from cluster.domain.outbox.events import AnyEvent
from cluster.domain.outbox.state import OutboxState, Queued, evolve
from cluster.domain.refusal import Reason, Refusal
from protocols.port import Account, Done, Recipient, ScramKeys, Site, TokensTaken

NOW = 1_790_000_000


class SteadyWorld:
    def __init__(self) -> None:
        self._ids = itertools.count(0x1000)
        self.at = float(NOW)

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def new_id(self) -> int:
        return next(self._ids)

    def entropy(self, size: int) -> bytes:
        return hashlib.shake_128(str(next(self._ids)).encode()).digest(size)


class Memo:
    """A finished message in memory."""

    def __init__(self, data: bytes) -> None:
        digest = hashlib.sha256(data).digest()
        self.data = data
        self.content = Content(digest, len(data), (Segment(digest, len(data)),), b"")
        self.released = False

    async def pieces(self) -> AsyncIterator[bytes]:
        yield self.data

    def release(self) -> None:
        self.released = True


class MemoryIngest:
    def __init__(self, site: "SmallSite", limit: int) -> None:
        self._site = site
        self._limit = limit
        self._data = bytearray()
        self.size = 0

    async def feed(self, data: bytes | memoryview) -> bool:
        if self._site.feed_fails:
            raise OSError(28, "No space left on device")
        self.size += len(data)
        if self.size > self._limit:
            self._data.clear()
            return False
        self._data += data
        return True

    def head(self, limit: int) -> bytes:
        return bytes(self._data[:limit])

    async def finish(self, prepend: bytes = b"", header: bytes | None = None) -> Memo | Refusal:
        body = bytes(self._data)
        if header is not None:
            _, blank, rest = body.partition(b"\r\n\r\n")
            body = header + (rest if blank else b"")
        return Memo(prepend + body)

    def abandon(self) -> None:
        self._site.abandoned += 1


@dataclass
class SmallSite:
    """`people`: address → account; `aliases`: address → what resolve answers."""

    people: dict[str, int] = field(default_factory=lambda: {"alice@example.org": 1, "bob@example.org": 2})
    aliases: dict[str, Recipient | Refusal] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=lambda: {"alice@example.org": "secret"})
    domains: set[str] = field(default_factory=lambda: {"example.org"})
    world: SteadyWorld = field(default_factory=SteadyWorld)
    name: str = "north"
    delivered: list[tuple[int, bytes]] = field(default_factory=list)
    queued: list[tuple[QueueMessage, bytes]] = field(default_factory=list)
    recorded: list[RecordAttempt] = field(default_factory=list)
    refuse: dict[int, Refusal] = field(default_factory=dict)  # deliveries to these accounts
    full: dict[int, Refusal] = field(default_factory=dict)  # known at RCPT
    holds: dict[int, int] = field(default_factory=dict)  # bytes at most
    refuse_queue: Refusal | None = None
    refuse_record: Refusal | None = None
    outbox: OutboxState = field(default_factory=OutboxState)
    queued_at: dict[int, int] = field(default_factory=dict)
    refuse_all: Refusal | None = None
    actors: list[Actor] = field(default_factory=list)
    seen: dict[tuple[int, int], Done] = field(default_factory=dict)
    blobs: dict[bytes, bytes] = field(default_factory=dict)
    feed_fails: bool = False
    abandoned: int = 0
    away: dict[int, tuple[str, ...]] = field(default_factory=dict)  # accounts whose mail is at these sites only
    handed: dict[str, dict[int, tuple[str, ...]]] = field(default_factory=dict)  # by queue: id → recipients
    refuse_handed: dict[str, Refusal] = field(default_factory=dict)  # by queue
    back: list[str] = field(default_factory=list)
    away_still: list[str] = field(default_factory=list)
    scram: dict[str, ScramKeys] = field(default_factory=dict)
    throttled: list[bool] = field(default_factory=list)
    tokens: TokensTaken | None = None
    issued: dict[str, str] = field(default_factory=dict)  # token → whose it is
    file_sent: bool = False  # for everybody
    sent: list[int] = field(default_factory=list)  # of `delivered`, for whom it was filed

    async def sign_in(self, address: str, password: str, actor: Actor, *, throttled: bool = True) -> Account | Refusal:
        self.throttled.append(throttled)
        if self.passwords.get(address) != password:
            return Refusal(Reason.WRONG_PASSWORD)
        return Account(self.people[address], address, address, file_sent=self.file_sent)

    async def sign_in_by_token(self, address: str, token: str, actor: Actor, *, throttled: bool = True) -> Account | Refusal:
        named = self.issued.get(token, "")
        if not named or address not in ("", named):
            return Refusal(Reason.WRONG_PASSWORD)
        return Account(self.people[named], named, named, credential="token")

    async def scram_keys(self, address: str) -> ScramKeys | Refusal:
        return self.scram[address]

    async def signed_in(self, account: Account | None, actor: Actor, address: str) -> Account | Refusal:
        return account or Refusal(Reason.WRONG_PASSWORD)

    async def deliver(
        self, actor: Actor, deliveries: Sequence[Deliver], contents: Sequence[Memo], transaction: int = 0
    ) -> list[Done | Refusal]:
        self.actors.append(actor)
        answers: list[Done | Refusal] = []
        for one in deliveries:
            refusal = self.refuse_all or self.refuse.get(one.account)
            key = (transaction, one.account)
            if refusal is not None:
                answers.append(refusal)
            elif transaction and key in self.seen:
                answers.append(self.seen[key])
            else:
                self.delivered.append((one.account, _bytes(one.content, contents)))
                self.sent += [one.account] * one.sent
                self.seen[key] = Done(len(self.delivered))
                answers.append(self.seen[key])
        return answers

    async def queue(self, actor: Actor, command: AnyCommand, contents: Sequence[Memo]) -> Done | Refusal:
        if self.refuse_queue is not None:
            return self.refuse_queue
        decision = decide(self.outbox.messages.get(command.queued), command)
        if isinstance(decision, Refusal):
            return decision
        if isinstance(command, QueueMessage):
            data = _bytes(command.content, contents)
            self.blobs[command.content.hash] = data
            self.queued.append((command, data))
            self.queued_at[command.queued] = int(self.world.now())
        else:
            self.recorded.append(command)
        for _, event in decision.events:
            state = evolve(self.outbox, cast(AnyEvent, event), len(self.queued) + len(self.recorded))
            assert isinstance(state, OutboxState)
            self.outbox = state
        return Done(1)

    async def execute(self, actor: Actor, command: AnyCommand, contents: Sequence[Memo] = ()) -> Done | Refusal:
        if self.refuse_record is not None:
            return self.refuse_record
        return await self.queue(actor, command, contents)

    async def due(self, now: int, limit: int) -> list[tuple[Queued, int]]:
        waiting = [one for one in self.outbox.messages.values() if one.next_at <= now]
        return [(one, self.queued_at[one.queued]) for one in waiting[:limit]]

    async def waiting(self, text: str, limit: int) -> list[tuple[Queued, int]]:
        found = [
            one for one in self.outbox.messages.values()
            if any(each.last is not None and each.last.text == text for each in one.pending)
        ]  # fmt: skip
        return [(one, self.queued_at[one.queued]) for one in found[:limit]]

    def returned(self) -> list[str]:
        back, self.back = self.back, []
        return back

    def still_away(self, partition: str) -> None:
        self.away_still.append(partition)

    async def queue_of(self, message: Queued) -> str | None:
        return f"queue-{self.name}"

    async def addresses(self, accounts: Sequence[int]) -> dict[int, str] | Refusal:
        return {account: address for address, account in self.people.items() if account in accounts}

    async def hand_over(
        self, actor: Actor, message: Queued, taken_at: int, recipients: Sequence[str], target: str
    ) -> Done | Refusal:
        if target in self.refuse_handed:
            return self.refuse_handed[target]
        command = handing.handed(message, recipients, target, taken_at)
        self.handed.setdefault(target, {})[command.queued] = command.recipients
        return Done(1)

    async def elsewhere(self, account: int) -> tuple[str, ...] | Refusal:
        return self.away.get(account, ())

    def ingest(self, limit_bytes: int) -> MemoryIngest:
        return MemoryIngest(self, limit_bytes)

    async def resolve(self, address: str) -> Recipient | Refusal:
        address = address.lower()
        if self.refuse_all is not None:
            return self.refuse_all
        if address in self.aliases:
            return self.aliases[address]
        if address in self.people:
            return Recipient(address, (self.people[address],))
        if address.rpartition("@")[2] not in self.domains:
            return Recipient(address, (), (address,), local_domain=False)
        return Refusal(Reason.NO_SUCH_ADDRESS)

    async def room(self, accounts: Sequence[int], size: int) -> Refusal | None:
        too_big = Refusal(Reason.ABOVE_QUOTA)
        found = [self.full.get(one) or (too_big if size > self.holds.get(one, size) else None) for one in accounts]
        return found[0] if found and all(found) else None

    async def may_send_as(self, account: Account, address: str) -> bool | Refusal:
        return account.address == address

    async def read(self, content: Content, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        data = self.blobs[content.hash][start:end]
        for at in range(0, len(data), 4096):
            yield data[at : at + 4096]

    @property
    def port(self) -> Site:
        """As sessions see it: SMTP asks nothing of mailboxes."""
        return cast(Site, cast(Any, self))


def _bytes(content: Content, contents: Sequence[Memo]) -> bytes:
    return next(memo.data for memo in contents if memo.content.hash == content.hash and not memo.released)
