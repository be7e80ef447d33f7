"""Clients: they append, flag, move and expunge at some site, try again under the same command id until they hear something,
and keep caches by UIDVALIDITY, UID and MODSEQ, as a mail program with QRESYNC does."""

import asyncio
import hashlib
from typing import TYPE_CHECKING

from cluster import codec
from cluster.domain.actor import Actor
from cluster.domain.decision import Decision
from cluster.domain.mailbox import decide
from cluster.domain.mailbox.commands import (
    AnyCommand,
    ChangeFlags,
    CopyMessages,
    Deliver,
    Expunge,
)
from cluster.domain.mailbox.content import Content, Segment
from cluster.domain.mailbox.events import DELETED, FLAGGED, SEEN, FlagMode, changes, uids_given
from cluster.domain.mailbox.state import Box, messages_of, tree_of
from cluster.domain.refusal import Refusal
from cluster.log.model import Append, Blob, LogUnavailable, NewEvent, Stale, Stored
from cluster.tokens import judged
from tests.sim.world import checks

if TYPE_CHECKING:
    from tests.sim.world.holding import Holding
    from tests.sim.world.site import Process, Site
    from tests.sim.world.world import World

TRIES_MAX = 5
SHOWN_S_MAX = 10.0
ATTEMPT_S = 4.0
ACTOR = Actor("client")
ACCOUNTS = (7, 7, 8)  # most are of one and the same


class Unavailable(Exception):
    """The client heard NO [UNAVAILABLE], or nothing."""


async def execute(
    process: "Process", partition: str, command: AnyCommand, id: bytes, blob: Blob | None
) -> Stored | Refusal | None:
    """What storage/executor.py does: decide on the site's tables, append, and again when that was stale. None: nothing had to
    change. Raises Unavailable."""
    site, holding = process.site, process.site.holdings[partition]
    for _ in range(TRIES_MAX):
        tables = holding.tables
        if isinstance(command, ChangeFlags | Expunge):
            decision = decide.decide(messages_of(tables.state, command.account, command.mailbox, command.uids), command)
        else:
            decision = decide.decide(tree_of(tables.state, command.account), command)
        if isinstance(decision, Refusal):
            return decision
        events = _encoded(site, command.account, decision, id)
        if not events:
            return None
        if isinstance(command, ChangeFlags) and command.unchanged_since is not None:
            site.world.checks[partition].truth.conditional[id] = command
        append = Append(partition, id, events, decision.depends, tables.position, (blob,) if blob is not None else ())
        outcome = await _appended(process, append)
        if isinstance(outcome, Stored):
            return outcome
        await holding.reached(outcome.changed_at, 5.0)
    raise Unavailable("stale again and again")


async def _appended(process: "Process", append: Append) -> Stored | Stale:
    try:
        outcome = await process.log.append(append, ATTEMPT_S)
    except LogUnavailable as error:
        raise Unavailable(str(error)) from error
    if process.dead:
        raise Unavailable("the process died before it could say so")
    if isinstance(outcome, Stored) and (process.name, append.partition, outcome.last) not in process.site.world.told:
        process.site.world.checks[append.partition].word(process.site.name, outcome)
    return outcome


def _encoded(site: "Site", account: int, decision: Decision, id: bytes) -> tuple[NewEvent, ...]:
    at_us = site.server.now_ns() // 1000
    return tuple(
        NewEvent(
            "mailbox",
            entity,
            codec.encode(event, at_us=at_us, by=ACTOR, command=id, n=n),
            changes(account, event),  # type: ignore[arg-type]  # of this noun
            uids_given(event),  # type: ignore[arg-type]
        )
        for n, (entity, event) in enumerate(decision.events)
    )


class Client:
    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.chance = world.derived()
        self.name = name
        self.at = self.chance.choice(list(world.sites))
        self.partition = self.chance.choice(world.setting.partitions).name
        self.account = world.account(self.partition, self.chance.choice(ACCOUNTS))
        self.checks = world.checks[self.partition]
        self.count = 0
        self.cache: dict[int, tuple[bytes, int, tuple[str, ...]]] = {}
        self.token = 0
        self.uidvalidity = 0

    async def live(self) -> None:
        while not self.world.calm:
            await asyncio.sleep(self.chance.expovariate(1 / self.world.setting.pause_s))
            if self.chance.random() < 0.1:
                self.at = self.chance.choice(list(self.world.sites))
            await self._one()
            self._sync()

    async def _one(self) -> None:
        drawn = self._drawn()
        if drawn is None:
            return
        command, blob = drawn
        id = self.chance.randbytes(16)
        self.count += 1
        while True:
            process = self._process()
            if process is not None:
                try:
                    outcome = await execute(process, self.partition, command, id, blob)
                except Unavailable:
                    outcome = None
                    self.world.trace(f"{self.name} hears nothing good of {id.hex()[:8]} at {process.name}")
                else:
                    if await self._heard(process, id, command, outcome, blob):
                        return
            await asyncio.sleep(self.chance.uniform(0.1, 1.5))
            if self.chance.random() < 0.3:
                self.at = self.chance.choice(list(self.world.sites))
            if not self.world.calm and self.chance.random() < 0.03:
                self.world.trace(f"{self.name} gives up {id.hex()[:8]}")
                return

    async def _heard(
        self, process: "Process", id: bytes, command: AnyCommand, outcome: Stored | Refusal | None, blob: Blob | None
    ) -> bool:
        """Whether that was all. The log's OK is SMTP's; IMAP's comes when the tables have it."""
        if not isinstance(outcome, Stored):
            return True
        holding = process.site.holdings[self.partition]
        kind = type(command).__name__
        self.world.trace(f"{self.name} hears OK of {kind} {id.hex()[:8]} at {process.name}: {outcome.last:x}")
        self.checks.acknowledged(id, outcome, blob.hash if blob else b"")
        if await holding.reached(outcome.last, SHOWN_S_MAX):
            if not holding.tables.has_in_history(outcome.last) and id not in holding.tables.commands:
                return False  # The word was given in an epoch that lost it: asked again, under the same id.
            self.checks.own_write(holding, id, outcome.last)
        return True

    def _process(self) -> "Process | None":
        living = self.world.sites[self.at].living()
        return self.chance.choice(living) if living else None

    def _holding(self) -> "Holding":
        return self.world.sites[self.at].holdings[self.partition]

    def _drawn(self) -> tuple[AnyCommand, Blob | None] | None:
        box = self._holding().tables.box(self.account, "INBOX")
        kind = self.chance.random()
        if box is None or not box.messages or kind < 0.5:
            return self._delivery()
        uid = self.chance.choice(sorted(box.messages))
        uids = ((uid, uid),)
        if kind < 0.75:
            mode = self.chance.choice((FlagMode.ADD, FlagMode.REMOVE))
            flags = self.chance.choice((SEEN, FLAGGED, DELETED))
            since = box.messages[uid].modseq if self.chance.random() < 0.5 else None
            return ChangeFlags(self.account, box.id, uids, mode, flags, unchanged_since=since), None
        if kind < 0.9:
            return Expunge(self.account, box.id, uids, only_deleted=False), None
        return CopyMessages(self.account, box.id, "Archive", uids, moved=self.chance.random() < 0.5), None

    def _delivery(self) -> tuple[AnyCommand, Blob]:
        data = f"{self.name} {self.count} {self.chance.getrandbits(64):x}".encode()
        digest = hashlib.sha256(data).digest()
        content = Content(digest, len(data), (Segment(digest, len(data)),), b"")
        ids = tuple(self.world.mailbox_id() for _ in range(6))
        return Deliver(self.account, content, 1_800_000_000, ids), Blob(digest, data)

    # -- the cache -----------------------------------------------------------------------------------------------------
    def _sync(self) -> None:
        """SELECT (QRESYNC …): what changed since the token, and what vanished; then the cache must be what the site shows."""
        tables = self._holding().tables
        box = tables.box(self.account, "INBOX")
        if box is None or tables.position < self.token:
            return  # the tables wait for the token first
        if box.uidvalidity != self.uidvalidity:
            self.cache, self.uidvalidity, self.token = {}, box.uidvalidity, 0
        since = judged(tables.history, self.token, tables.state.salvaged)
        if since is None:
            self.cache, since = {}, 0  # lost: all flags, and VANISHED for every other UID that it may know
        for uid, message in box.messages.items():
            if message.modseq > since:
                self.cache[uid] = (message.content.hash, message.flags, message.keywords)
        gone = [uid for uid, at in box.expunged.items() if at > since]
        for first, last, at in box.vanished:
            gone.extend(uid for uid in self.cache if first <= uid <= last and at > since and uid not in box.messages)
        for uid in gone:
            self.cache.pop(uid, None)
        if box.highestmodseq < self.token:
            self.world.violated(
                checks.TOKENS_RISE, f"{self.name} had {self.token:x}, {self.at} says {box.highestmodseq:x}"
            )
        self.token = box.highestmodseq
        if self.cache != _shown(box):
            self.world.violated(checks.CACHE_IS_TRUE, f"{self.name} at {self.at}")


def _shown(box: Box) -> dict[int, tuple[bytes, int, tuple[str, ...]]]:
    return {uid: (message.content.hash, message.flags, message.keywords) for uid, message in box.messages.items()}
