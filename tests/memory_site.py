"""A whole site in memory: the pure fold of the domain behind the sessions' port, contents in a dictionary.

For fast transcripts, and for whoever wants to see the protocols without engines. It forgets everything when it ends; all
else is as the port promises. Mail leaving the site (outbox) it does not have.
"""

import asyncio
import hashlib
import hmac
import random
import time
from array import array
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec

from cluster.domain.actor import Actor
from cluster.domain.directory.commands import ChangeAccount
from cluster.domain.mailbox import annotations, names, ranges, sharing
from cluster.domain.mailbox.commands import AnyCommand, ChangeFlags, Deliver, Expunge, OpenAccount
from cluster.domain.mailbox.content import Content, Segment
from cluster.domain.mailbox.decide import annotates, decide, sent_again, tree_reads, tree_restores, weighs
from cluster.domain.mailbox.events import DELETED, SEEN, MessageAppended, MessagesCopied, MessagesRestored, Ranges
from cluster.domain.mailbox.state import (
    AccountMail,
    Box,
    MessagesState,
    Msg,
    Tree,
    Unappliable,
    annotated_of,
    as_read_by,
    evolve,
    messages_of,
    tree_of,
)
from cluster.domain.quota import Held, Quota, Usage
from cluster.domain.refusal import Reason, Refusal
from cluster.formats import mime
from protocols.port import (
    Account,
    Changes,
    Done,
    Flags,
    Having,
    Lookup,
    Mailbox,
    Message,
    Recipient,
    ScramKeys,
    Selected,
    Spooled,
    Status,
    TokensTaken,
    Uids,
    Verdict,
    World,
)
from storage.alike import message_id, message_ids
from storage.mirrored import named
from storage.search.index import Place, SearchIndex
from storage.sharing import asks_for_another
from tests import memory_expunged, memory_quota
from tests.having import has
from tests.memory_sharing import Whose

READ_PIECE_BYTES = 256 * 1024
BATCH_ROWS = 1000
SCRAM_ITERATIONS = 4096  # RFC 7677 §4
EPOCH = 1 << 40


class MemoryWorld:
    """The machine's time, and chance from a seed."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def now(self) -> float:
        return time.time()  # noqa: TID251  # this is a World

    def monotonic(self) -> float:
        return time.monotonic()

    def new_id(self) -> int:
        return self._random.getrandbits(62) + 1

    def entropy(self, size: int) -> bytes:
        return self._random.randbytes(size)


class _Spooled(msgspec.Struct):
    content: Content
    data: bytes

    async def pieces(self) -> AsyncIterator[bytes]:
        yield self.data

    def release(self) -> None:
        pass


class _Ingest:
    def __init__(self, limit_bytes: int) -> None:
        self.size, self._limit, self._data = 0, limit_bytes, bytearray()

    async def feed(self, data: bytes | memoryview) -> bool:
        self.size += len(data)
        if self.size > self._limit:
            self._data.clear()
            return False
        self._data += data
        return True

    def head(self, limit: int) -> bytes:
        return bytes(self._data[:limit])

    async def finish(self, prepend: bytes = b"", header: bytes | None = None) -> "Spooled | Refusal":
        if self.size > self._limit:
            return Refusal(Reason.TOO_BIG)
        data = bytes(self._data)
        if header is not None:
            data = header + data[mime.describe(data).header_bytes :]
        return spool(prepend + data)

    def abandon(self) -> None:
        self._data = bytearray()


def spool(data: bytes) -> Spooled:
    described = mime.describe(data)
    digest = hashlib.sha256(data).digest()
    content = Content(
        digest, len(data), (Segment(digest, len(data)),), msgspec.msgpack.encode(described), described.sent
    )
    return _Spooled(content, data)


class _Watch:
    def __init__(self, bell: asyncio.Event | None) -> None:
        self.news = asyncio.Event()
        self.bell = bell
        self.rolled_back = False

    def wake(self) -> None:
        self.news.set()
        if self.bell is not None:
            self.bell.set()

    def take(self) -> frozenset[int] | None:
        return None

    async def wait(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self.news.wait()
        except TimeoutError:
            return False
        self.news.clear()
        return True


class MemorySite(Whose):
    name = "memory"

    def __init__(self, world: MemoryWorld | None = None) -> None:
        self.world: World = world or MemoryWorld()
        super().__init__()
        self.quotas: dict[int, Quota] = {}
        self.introductions: list[tuple[str, str, Actor]] = []  # (address, by which site, who)
        self.tokens: TokensTaken | None = None
        self.issued: dict[str, str] = {}  # token → whose it is, or "!" and why it is refused
        self.index: SearchIndex | None = None
        self._data: dict[bytes, bytes] = {}
        self._position = EPOCH
        self._times: dict[int, int] = {}
        self._expunged: dict[tuple[int, int, int], Msg] = {}
        self._recent: dict[int, int] = {}
        self._watches: dict[int, set[_Watch]] = {}

    async def account(self, address: str, password: str, *, administrator: bool = False) -> Account:
        account = Account(self.world.new_id(), address, address.partition("@")[0], administrator)
        self._people[address] = (account, password)
        await self.execute(Actor("system"), OpenAccount(account.id, self._ids(6)))
        return account

    def _ids(self, count: int) -> tuple[int, ...]:
        return tuple(self.world.new_id() for _ in range(count))

    # -- signing in ----------------------------------------------------------------------------------------------------
    async def sign_in(self, address: str, password: str, actor: Actor, *, throttled: bool = True) -> Account | Refusal:
        found = self._people.get(address.lower())
        if found is None or not hmac.compare_digest(found[1].encode(), password.encode()):
            return Refusal(Reason.WRONG_PASSWORD)
        return found[0]

    async def scram_keys(self, address: str) -> ScramKeys | Refusal:
        account, password = self._people.get(address.lower(), (None, "nobody"))
        salt = hashlib.sha256(address.encode()).digest()[:16]
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, SCRAM_ITERATIONS)
        stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
        return ScramKeys(salt, SCRAM_ITERATIONS, stored, hmac.digest(salted, b"Server Key", "sha256"), account)

    async def signed_in(self, account: Account | None, actor: Actor, address: str) -> Account | Refusal:
        return account or Refusal(Reason.WRONG_PASSWORD)

    async def sign_in_by_token(self, address: str, token: str, actor: Actor, *, throttled: bool = True) -> Account | Refusal:
        named = self.issued.get(token, "")
        if named.startswith("!"):
            return Refusal(Reason(named[1:]))
        if not named or address not in ("", named):
            return Refusal(Reason.WRONG_PASSWORD)
        return self._people[named][0]

    async def introduced(self, address: str, by: str, actor: Actor) -> Account | Refusal:
        self.introductions.append((address, by, actor))
        found = self._people.get(address.lower())
        return found[0] if found is not None else Refusal(Reason.NO_SUCH_ACCOUNT)

    async def elsewhere(self, account: int) -> tuple[str, ...] | Refusal:
        return self.kept_at.get(account, ())

    # -- changing ------------------------------------------------------------------------------------------------------
    async def execute(self, actor: Actor, command: object, contents: Sequence[Spooled] = ()) -> Done | Refusal:
        await asyncio.sleep(0)
        if isinstance(command, ChangeAccount):
            assert isinstance(command.quota_storage, int) and isinstance(command.quota_messages, int)
            self.quotas[self._people[command.address][0].id] = Quota(command.quota_storage, command.quota_messages)
            return Done(self._position)
        assert isinstance(command, AnyCommand)
        for spooled in contents:
            assert isinstance(spooled, _Spooled)
            self._data[spooled.content.hash] = spooled.data
        account = command.account
        another = asks_for_another(actor, command)
        state: Tree | MessagesState
        if isinstance(command, ChangeFlags | Expunge):
            reader = actor.account if another else 0
            state = messages_of(self.state, account, command.mailbox, command.uids, reader)
        else:
            tree = tree_of(self.state, account, tree_reads(command), tree_restores(command))
            if (sent := sent_again(tree, command)) is not None:
                tree = msgspec.structs.replace(tree, alike=self._alike(account, *sent))
            if (name := annotates(command)) is not None:
                tree = msgspec.structs.replace(tree, annotated=annotated_of(self.state, account, name))
            source, uids = weighs(command) or (0, ())
            box = self._box(account, source)  # or what went from one
            sizes = [one.content.size for _, one in _within(box.messages, uids)] if box is not None else []
            state = msgspec.structs.replace(tree, held=self._held(account), weight=Usage(sum(sizes), len(sizes)))
        if another:
            granted = {box.id: self._granted(actor.account, box) for box in self._mail(account).boxes.values()}
            decision = sharing.decide(state, command, sharing.Reader(actor.account, granted))
        else:
            decision = decide(state, command)
        if isinstance(decision, Refusal):
            return decision
        done = Done(0, modified=decision.modified)
        for _, event in decision.events:
            done = self._fold(account, event, done)
        if decision.events:
            for watch in self._watches.get(account, ()):
                watch.wake()
        return done

    def _alike(self, account: int, mailbox: int, contents: Sequence[Content]) -> tuple[tuple[int, bool], ...]:
        wanted, messages = message_ids(contents), self._mail(account).boxes[mailbox].messages
        return tuple(
            (uid, names.FILED in one.keywords)
            for uid, one in messages.items()
            if message_id(one.content.description) in wanted
        )

    def _fold(self, account: int, event: object, done: Done) -> Done:
        before = self._mail(account)
        self._position += 1
        self._times[self._position] = int(self.world.now())
        state = evolve(self.state, account, event, self._position)  # type: ignore[arg-type]  # any of this noun's facts
        assert not isinstance(state, Unappliable), state.why
        self.state = state
        after = self._mail(account)
        for box in before.boxes.values():
            left = after.boxes.get(box.id)
            for uid, message in box.messages.items():
                if left is None or uid not in left.messages:
                    self._expunged[account, box.id, uid] = message
        done = msgspec.structs.replace(done, position=self._position)
        match event:
            case MessageAppended():
                box = after.boxes[event.mailbox]
                return msgspec.structs.replace(done, uidvalidity=box.uidvalidity, uids=(*done.uids, box.uidnext - 1))
            case MessagesCopied():
                target, old = after.boxes[event.target], before.boxes[event.target]
                made = [uid for uid in range(old.uidnext, target.uidnext)]
                sources = sorted(uid for uid in before.boxes[event.source].messages if ranges.contains(event.uids, uid))
                return msgspec.structs.replace(
                    done, uidvalidity=target.uidvalidity, uids=tuple(made), sources=tuple(sources)
                )
            case MessagesRestored():
                target = after.boxes[event.target]
                new = [uid for uid, one in target.messages.items() if one.saved == self._position]
                places = tuple(target.messages[uid].origin_uid for uid in new)
                return msgspec.structs.replace(done, uidvalidity=target.uidvalidity, uids=tuple(new), sources=places)
        return done

    async def deliver(
        self, actor: Actor, deliveries: Sequence[Deliver], contents: Sequence[Spooled], transaction: int = 0
    ) -> "list[Done | Refusal]":
        return [await self.execute(actor, one, contents) for one in deliveries]

    async def queue(self, actor: Actor, command: object, contents: Sequence[Spooled]) -> Done | Refusal:
        return Refusal(Reason.UNAVAILABLE, "A site in memory sends no mail.")

    def ingest(self, limit_bytes: int) -> _Ingest:
        return _Ingest(limit_bytes)

    # -- the directory -------------------------------------------------------------------------------------------------
    async def resolve(self, address: str) -> Recipient | Refusal:
        found = self._people.get(address.lower())
        return Recipient(address, (found[0].id,)) if found else Refusal(Reason.NO_SUCH_ADDRESS)

    async def addresses(self, accounts: Sequence[int]) -> dict[int, str] | Refusal:
        return {account.id: account.address for account, _ in self._people.values() if account.id in accounts}

    async def may_send_as(self, account: Account, address: str) -> bool | Refusal:
        return account.address == address.lower()

    # -- mailboxes -----------------------------------------------------------------------------------------------------
    def _box(self, account: int, mailbox: int) -> Box | None:
        if mailbox < 0:
            return memory_expunged.mirror(self._mail(account), -mailbox, self.state.uidvalidity_base)
        return super()._box(account, mailbox)

    async def mailboxes(self, account: int) -> list[Mailbox] | Refusal:
        if (absent := self._absent(account)) is not None:
            return absent
        mail = self._mail(account)
        boxes = sorted(mail.boxes.values(), key=lambda box: (box.name != names.INBOX, box.name))
        return [_mailbox(mail, box) for box in boxes]

    async def mailbox(self, account: int, name: str) -> Mailbox | Refusal:
        if (absent := self._absent(account)) is not None:
            return absent
        box = self._named(account, name)
        return Refusal(Reason.NO_SUCH_MAILBOX) if box is None else _mailbox(self._mail(account), box)

    def _named(self, account: int, name: str) -> Box | None:
        mail = self._mail(account)
        there = named(memory_expunged.kept(mail, self.state.uidvalidity_base))
        mirror = -there[name].id if name in there else 0
        return self._box(account, mail.names.get(names.canonical(name), mirror))

    async def expunged(self, account: int) -> list[Mailbox] | Refusal:
        if (absent := self._absent(account)) is not None:
            return absent
        there = named(memory_expunged.kept(self._mail(account), self.state.uidvalidity_base))
        boxes = [self._box(account, -there[name].id) for name in sorted(there) if there[name].messages]
        return [_mailbox(self._mail(account), box) for box in boxes if box is not None]

    async def subscriptions(self, account: int) -> list[str] | Refusal:
        if (absent := self._absent(account)) is not None:
            return absent
        return sorted(self._mail(account).subscriptions)

    async def status(self, account: int, mailboxes: Sequence[int], *, reader: int = 0) -> list[Status] | Refusal:
        if (absent := self._absent(account)) is not None:
            return absent
        boxes = [self._box(account, one) for one in mailboxes]
        return [self._status(account, box, reader) for box in boxes if box is not None]

    def _status(self, account: int, box: Box, reader: int) -> Status:
        messages = [as_read_by(one, reader) for one in box.messages.values()]
        return Status(
            _mailbox(self._mail(account), box),
            messages=len(messages),
            unseen=sum(not one.flags & SEEN for one in messages),
            deleted=sum(bool(one.flags & DELETED) for one in messages),
            size=sum(one.content.size for one in messages),
            uidnext=box.uidnext,
            highestmodseq=box.highestmodseq,
            recent_from=self._recent.get(box.id, 1) if box.id > 0 else 1 << 32,
        )

    async def select(
        self, account: int, name: str, *, recent: bool = False, reader: int = 0
    ) -> Selected | Refusal:
        if (absent := self._absent(account)) is not None:
            return absent
        box = self._named(account, name)
        if box is None:
            return Refusal(Reason.NO_SUCH_MAILBOX, "There is no such mailbox.", (name,))
        status = self._status(account, box, reader)
        if recent:
            self._recent[box.id] = box.uidnext
        keywords = sorted({keyword for one in box.messages.values() for keyword in one.keywords})
        unseen = min((uid for uid, one in box.messages.items() if not as_read_by(one, reader).flags & SEEN), default=0)
        return Selected(status, Uids(array("I", sorted(box.messages))), tuple(keywords), unseen)

    async def flags(
        self, account: int, mailbox: int, uids: Ranges, since: int = 0, *, reader: int = 0
    ) -> list[Flags] | Refusal:
        box = self._box(account, mailbox)
        return _flags(box, uids, since, reader) if box else []

    async def having(self, account: int, mailbox: int, asked: Having) -> Sequence[int] | Refusal:
        box = self._box(account, mailbox)
        return [uid for uid, one in sorted(box.messages.items()) if has(one, asked)] if box is not None else []

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
        box = self._box(account, mailbox)
        there = dict(box.messages) if box else {}
        for (owner, where, uid), message in self._expunged.items():
            if (owner, where) == (account, mailbox):
                there[uid] = msgspec.structs.replace(message, flags=message.flags | DELETED)
        seen = {uid: as_read_by(one, reader) for uid, one in there.items()}
        rows = [self._row(uid, one, described, contents) for uid, one in _within(seen, uids) if one.modseq > since]
        for at in range(0, len(rows), BATCH_ROWS):
            yield rows[at : at + BATCH_ROWS]

    def _row(self, uid: int, one: Msg, described: bool, contents: bool) -> Message:
        return Message(
            uid,
            one.flags,
            one.keywords,
            one.modseq,
            one.content.size,
            one.internal_at,
            one.internal_zone,
            self._times[one.saved],
            one.content.sent,
            one.content.hash,
            one.thread,
            one.content.description if described else b"",
            one.content if contents else None,
        )

    async def looked_up(self, account: int, mailbox: int, asked: Sequence[Lookup]) -> list[Verdict | None]:
        box = self._box(account, mailbox)
        if self.index is None or box is None:
            return [None] * len(asked)
        return await self.index.look_up(Place(mailbox, box.uidvalidity), asked)

    async def changes(self, account: int, mailbox: int, since: int, *, reader: int = 0) -> Changes | Refusal:
        if (absent := self._absent(account)) is not None:
            return absent
        box = self._box(account, mailbox)
        if box is None:
            return Changes(since, 1, 0, gone=True)
        changed = _flags(box, ranges.EVERY_UID, since, reader)
        vanished = ranges.compress(uid for uid, at in box.expunged.items() if at > since)
        return Changes(box.highestmodseq, box.uidnext, box.uidvalidity, tuple(changed), vanished)

    async def token(self, account: int, modseq: int) -> int | Refusal | None:
        return modseq if modseq <= self._position else None

    def watch(
        self, account: int, mailbox: int | None = None, bell: asyncio.Event | None = None
    ) -> AbstractAsyncContextManager[_Watch]:
        return self._watching(account, bell)

    @asynccontextmanager
    async def _watching(self, account: int, bell: asyncio.Event | None) -> AsyncIterator[_Watch]:
        watch = _Watch(bell)
        watches = self._watches.setdefault(account, set())
        watches.add(watch)
        try:
            yield watch
        finally:
            watches.discard(watch)

    # -- annotations ---------------------------------------------------------------------------------------------------
    async def annotations(
        self, account: int, mailboxes: Sequence[int], reader: int, entries: Sequence[str] | None = None
    ) -> dict[int, dict[str, bytes]] | Refusal:
        if (absent := self._absent(account)) is not None:
            return absent
        return annotations.seen_by(self._mail(account).annotations, reader, mailboxes, entries)

    # -- quota ---------------------------------------------------------------------------------------------------------
    async def quota(self, account: int, *, fresh: bool = True) -> Held | None | Refusal:
        return self._held(account)

    async def room(self, accounts: Sequence[int], size: int) -> Refusal | None:
        return memory_quota.no_room(map(self._held, accounts), size)

    async def deleted_storage(self, account: int, mailbox: int) -> int | Refusal:
        counted = memory_quota.usage(self._mail(account), lambda box, _, one: box == mailbox and bool(one.flags & DELETED))
        return counted.storage

    def _held(self, account: int) -> Held | None:
        quota = self.quotas.get(account)
        return Held(quota, memory_quota.usage(self._mail(account))) if quota else None

    # -- contents ------------------------------------------------------------------------------------------------------
    async def read(self, content: Content, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        data = self._data[content.hash][start:end]
        for at in range(0, len(data), READ_PIECE_BYTES):
            yield data[at : at + READ_PIECE_BYTES]

    async def read_many(self, contents: Sequence[Content]) -> list[bytes | None]:
        return [self._data.get(content.hash) for content in contents]


def _mailbox(mail: AccountMail, box: Box) -> Mailbox:
    return Mailbox(box.id, box.name, box.uidvalidity, box.special_use, box.name in mail.subscriptions)


def _flags(box: Box, uids: Ranges, since: int, reader: int) -> list[Flags]:
    shown = ((uid, as_read_by(one, reader)) for uid, one in _within(box.messages, uids))
    return [Flags(uid, one.flags, one.keywords, one.modseq) for uid, one in shown if one.modseq > since]


def _within(messages: "dict[int, Msg] | object", uids: Ranges) -> Iterator[tuple[int, Msg]]:
    assert isinstance(messages, dict)
    for uid in sorted(messages):
        if ranges.contains(uids, uid):
            yield uid, messages[uid]
