"""Accounts that may hold so much and no more: what they hold, and what of it is decided on (ops/decisions/quota.md).

An account without a quota costs one look into a dictionary. Of the others, what they hold is kept for a moment, with what
this process added since; nothing is refused without a fresh look at the tables.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec
import structlog

from cluster.domain.decision import Decision
from cluster.domain.mailbox.commands import AnyCommand
from cluster.domain.mailbox.decide import decide
from cluster.domain.mailbox.needs import adds, comes_in, weighs
from cluster.domain.mailbox.state import Tree
from cluster.domain.quota import Held, Quota, Usage
from cluster.domain.refusal import Reason, Refusal
from storage.mirrored import Mailboxes
from storage.postgres.mail_view import MailView

KEPT_S_MAX = 1.0  # what other processes and sites add is not seen for so long, beside the lag of the tables
KEPT_MAX = 50_000
FULL = frozenset({Reason.OVER_QUOTA, Reason.ABOVE_QUOTA})

log = structlog.get_logger("quota")


class Accounts(Protocol):
    """storage.directory.Directory."""

    async def partition_of(self, account: int) -> str | None: ...

    async def quota_of(self, account: int) -> Quota | None:
        """None where nothing is limited."""
        ...


class Taken(NamedTuple):
    """What a command that was decided on adds to an account that has a quota."""

    account: int
    held: Held
    adding: Usage


class _Kept:
    """What the tables showed, and `added` since by this process: (position, how much). `whole`: all of it."""

    def __init__(self, usage: Usage, looked_at: float) -> None:
        self.looked_at = looked_at
        self.whole = usage
        self.added: list[tuple[int, Usage]] = []

    def add(self, position: int, adding: Usage) -> None:
        self.added.append((position, adding))
        self.whole = self.whole.plus(adding)


class Quotas:
    def __init__(self, mail: MailView, accounts: Accounts, monotonic: Callable[[], float]) -> None:
        self.crossed: Callable[[int], None] | None = None  # told of each threshold (percent) that was reached
        self._mail = mail
        self._mailboxes = Mailboxes(mail)
        self._accounts = accounts
        self._monotonic = monotonic
        self._kept: OrderedDict[int, _Kept] = OrderedDict()

    async def held(self, account: int, *, fresh: bool) -> Held | None:
        """None = it has no quota. `fresh`: as the tables have it now, else as it is kept. Raises AWAY's."""
        quota = await self._accounts.quota_of(account)
        if quota is None:
            return None
        return Held(quota, await self._look(account)) if fresh else await self._room(account, quota, Usage())

    async def refused(self, accounts: Sequence[int], size: int) -> Refusal | None:
        """Why a message of `size` bytes (0 = not known) comes into none of these accounts now. Raises AWAY's."""
        refusal = None
        for account in accounts:
            quota = await self._accounts.quota_of(account)
            if quota is None:
                return None
            adding = Usage(max(size, 1), 1)
            refusal = (await self._room(account, quota, adding)).refuses(adding)
            if refusal is None:
                return None
        return refusal

    async def decide(
        self,
        tree: Tree,
        command: AnyCommand,
        partition: str,
        command_id: bytes,
        taken: list[Taken],
        decides: Callable[[Tree, AnyCommand], Decision | Refusal] = decide,
    ) -> Decision | Refusal:
        """With what the account holds, where it has a quota. What it adds is noted in `taken`. `decides`: for whoever asks.
        Raises AWAY's."""
        quota = await self._accounts.quota_of(command.account) if comes_in(command) else None
        if quota is None:
            return decides(tree, command)
        weighed = weighs(command)
        weight = Usage() if weighed is None else await self._mailboxes.weight(command.account, *weighed)
        adding = adds(command, weight)
        held = await self._room(command.account, quota, adding)
        answer = decides(msgspec.structs.replace(tree, held=held, weight=weight), command)
        if isinstance(answer, Refusal):
            if answer.reason in FULL and await self._mail.knows(partition, command_id):
                # It was asked before and is there, and is what fills the account: the log gives its first outcome.
                return decides(tree, command)
            return answer
        taken.append(Taken(command.account, held, adding))
        return answer

    def stored(self, taken: Sequence[Taken], position: int) -> None:
        """What was decided on is in the log."""
        for account, held, adding in taken:
            kept = self._kept.get(account)
            if kept is not None:
                kept.add(position, adding)
            before, after = held.reached, Held(held.quota, held.usage.plus(adding)).reached
            for threshold in after[len(before) :]:
                log.info("quota threshold reached", account=account, percent=threshold)
                if self.crossed is not None:
                    self.crossed(threshold)

    async def _room(self, account: int, quota: Quota, adding: Usage) -> Held:
        """What is kept will do where it is young and all fits."""
        kept = self._kept.get(account)
        if kept is not None and self._monotonic() - kept.looked_at < KEPT_S_MAX:
            held = Held(quota, kept.whole)
            if held.refuses(adding) is None:
                return held
        return Held(quota, await self._look(account))

    async def _look(self, account: int) -> Usage:
        partition = await self._accounts.partition_of(account)
        looked_at = self._monotonic()
        usage, position = await self._mail.usage(account, partition or "")
        before = self._kept.pop(account, None)
        kept = self._kept[account] = _Kept(usage, looked_at)
        for at, more in before.added if before is not None else ():
            if at > position:  # The tables do not show it yet.
                kept.add(at, more)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return kept.whole
