"""Mail that comes from another system: many messages an append, each with its own INTERNALDATE and flags.

Who brings it gives every append a command id of its own making, and the same one when it asks again: then it is answered
with the first outcome (`repeated`), as the log has it, for at least as long as the fold remembers command ids.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from cluster.domain.actor import Actor
from cluster.domain.mailbox.commands import AppendMessage, NewMessage
from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.decide import MESSAGES_PER_APPEND_MAX
from cluster.domain.refusal import Reason, Refusal
from cluster.log.model import EVENT_BYTES_MAX, Stored
from cluster.position import split
from storage.answers import answered
from storage.command_ids import COMMAND_ID_BYTES
from storage.executor import (
    EVENT_OVERHEAD_BYTES_MAX,
    SEGMENT_BYTES_MAX,
    Carried,
    Executor,
)
from storage.news import SHOWN_S_MAX
from storage.postgres.moving_view import MovingView
from storage.postgres.pool import AWAY
from storage.shapes import Mailbox, SiteUnavailable

BEHIND_POSITIONS_MAX = 4000  # that an import may be ahead of the tables
SEGMENTS_PER_APPEND_MAX = 600  # blobs that may ride beside 100 events in one batch of the log

NO_SUCH_MAILBOX = Refusal(Reason.NO_SUCH_MAILBOX, "There is no such mailbox.")
LOST = Refusal(Reason.UNAVAILABLE, "What was just written is not in history any more: send it again.")


class Brought(NamedTuple):
    """A message of one append. `internal_at`: unix seconds, `internal_zone` minutes."""

    spooled: Carried
    internal_at: int
    internal_zone: int
    flags: int
    keywords: tuple[str, ...]


class Place(NamedTuple):
    """Where mail is brought: a mailbox by its id, and its name now."""

    account: int
    mailbox: int
    name: str


class MovingIn:
    def __init__(self, executor: Executor, view: MovingView) -> None:
        self._executor = executor
        self._view = view

    async def mailbox(self, account: int, mailbox: int) -> Mailbox | Refusal:
        """NO_SUCH_MAILBOX, UNAVAILABLE."""
        found = await answered(self._view.mailbox(account, mailbox))
        return NO_SUCH_MAILBOX if found is None else found

    async def contents(self, account: int, mailbox: int) -> AsyncIterator[list[tuple[bytes, int]]]:
        """SHA-256 and INTERNALDATE of all that is there. Raises SiteUnavailable."""
        try:
            async for batch in self._view.contents(account, mailbox):
                yield batch
        except AWAY as error:
            raise SiteUnavailable(f"{type(error).__name__}: {error}") from error

    async def append(
        self, actor: Actor, place: Place, brought: Sequence[Brought], command_id: bytes, *, shown: bool
    ) -> bool | Refusal:
        """In the log, and if `shown` in this site's tables where they follow in time. True: all of it had been there before.
        Refused as APPEND is; what was appended of a refused one stays and is found again under the same command id."""
        repeated = True
        for n, share in enumerate(_shares(brought)):
            made = await self._share(actor, place, share, _id(place, command_id, n), shown)
            if isinstance(made, Refusal):
                return made
            repeated = repeated and made
        return repeated

    async def _share(
        self, actor: Actor, place: Place, share: Sequence[Brought], command_id: bytes, shown: bool
    ) -> bool | Refusal:
        messages = tuple(
            NewMessage(one.spooled.content, one.internal_at, one.internal_zone, one.flags, one.keywords)
            for one in share
        )
        command = AppendMessage(place.account, place.name, messages)
        outcome = await self._executor.decided(actor, [command], [one.spooled for one in share], command_id)
        if isinstance(outcome, Refusal):
            return outcome
        if isinstance(outcome.decisions[0], Refusal):
            return outcome.decisions[0]
        stored = outcome.stored
        assert isinstance(stored, Stored)  # an append of messages always changes something
        hub = self._executor.hub
        # Waiting for the tables keeps an import from running away from them; where they lag it is durable all the same.
        behind = 0 if shown else min(BEHIND_POSITIONS_MAX, split(stored.last).sequence)
        if not await hub.reached(outcome.partition, stored.last - behind, SHOWN_S_MAX):
            if await hub.is_lost(outcome.partition, stored.last):
                return LOST
        return stored.repeated


def _shares(brought: Sequence[Brought]) -> list[list[Brought]]:
    """As the log's batch takes them: the same messages always give the same shares."""
    shares: list[list[Brought]] = []
    room = segments = 0
    for one in brought:
        size, pieces = _event_bytes(one.spooled.content), len(one.spooled.content.segments)
        if not shares or len(shares[-1]) == MESSAGES_PER_APPEND_MAX or size > room or pieces > segments:
            shares.append([])
            room, segments = EVENT_BYTES_MAX, SEGMENTS_PER_APPEND_MAX
        shares[-1].append(one)
        room, segments = room - size, segments - pieces
    return shares


def _event_bytes(content: Content) -> int:
    return len(content.description) + SEGMENT_BYTES_MAX * len(content.segments) + EVENT_OVERHEAD_BYTES_MAX


def _id(place: Place, command_id: bytes, share: int) -> bytes:
    """What is a command of one mailbox is never taken for another's, whatever the sender makes its ids of."""
    text = f"{place.account}/{place.mailbox}/{share}/".encode()
    return hashlib.sha256(text + command_id).digest()[:COMMAND_ID_BYTES]
