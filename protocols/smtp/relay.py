"""Takes due messages out of the outbox, hands them to the smarthost (or to people here, or to the queue of another site),
and records what became of them.

Crashed between handing over and recording, a message is handed over again: SMTP cannot do better (RFC 5321 §6.1, RFC
1047). People here and other queues know it by its id, and have it once. Nothing leaves the outbox unrecorded.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from cluster import partitions
from cluster.domain.actor import Actor
from cluster.domain.outbox import handing, retry
from cluster.domain.outbox.commands import RecordAttempt
from cluster.domain.outbox.events import SENT_COPY, Attempt
from cluster.domain.outbox.state import Queued
from cluster.domain.refusal import Reason, Refusal
from protocols.port import Done, Site, SiteUnavailable
from protocols.smtp import local
from protocols.smtp.bounce import Failure
from protocols.smtp.client import RECIPIENTS_MAX, Connection, Letter, Result, Smarthost, SmarthostFailed
from protocols.smtp.errors import may_come, waits_for
from protocols.smtp.notify import notify

BATCH_MESSAGES_MAX = 100
LANES_MAX = 16  # messages at once
CONNECTIONS_MAX = 4  # to the smarthost at once
WAIT_S_MAX = 10.0
AHEAD_MAX = 10_000

NO_ROUTE = Result(0, "No route: no smarthost is configured")
NOT_READ = Result(0, "The message cannot be read here now")
OUR_FAULT = Result(0, "We failed; it is in our log")
IN_CIRCLES = Result(554, "5.4.6 The sites hand it on in a circle")
NOT_THEIRS = Result(550, "5.1.1 The address is somebody else's by now")
NOWHERE = "where its mail is kept"  # waits_for of what is known only when the control plane was heard

log = structlog.get_logger()


class OutboxView(Protocol):
    async def due(self, now: int, limit: int) -> Sequence[tuple[Queued, int]]:
        """Messages whose next try is not after `now`, oldest first, each with when it was queued (unix seconds). Raises
        SiteUnavailable."""
        ...

    async def waiting(self, text: str, limit: int) -> Sequence[tuple[Queued, int]]:
        """In the same way those with a recipient of whom the last attempt said `text`, whenever they are due."""
        ...

    def returned(self) -> Sequence[str]:
        """Partitions that can be reached again since this was last asked."""
        ...

    def still_away(self, partition: str) -> None:
        """It was said to have returned, and took nothing."""
        ...

    async def queue_of(self, message: Queued) -> str | None:
        """The partition in which it is queued."""
        ...

    async def hand_over(
        self, actor: Actor, message: Queued, taken_at: int, recipients: Sequence[str], target: str
    ) -> Done | Refusal:
        """These recipients into another queue. Durable there when it returns; done twice it is there once."""
        ...


class RelaySettings(msgspec.Struct, frozen=True):
    """`hostname`: how we greet. `through`: the queue of another site, which sends our mail for elsewhere, empty = we do.
    `smarthost` None: mail for elsewhere stays where it is, and the log says so."""

    hostname: str
    smarthost: Smarthost | None = None
    expiry_s: int = retry.EXPIRY_S
    through: str = ""


class Route:
    """A way to the smarthost, for one batch. Once it fails to connect, the batch waits for it no more."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._connection: Connection | None = None
        self._failed: Result | None = None

    async def send(self, site: Site, message: Queued, recipients: Sequence[str]) -> dict[str, Result]:
        results: dict[str, Result] = {}
        for start in range(0, len(recipients), RECIPIENTS_MAX):
            some = tuple(recipients[start : start + RECIPIENTS_MAX])
            results |= await self._send(site, message, some)
        return results

    async def _send(self, site: Site, message: Queued, recipients: tuple[str, ...]) -> dict[str, Result]:
        smarthost = self._settings.smarthost
        if smarthost is None:
            log.warning("relay.no_smarthost", queued=f"{message.queued:x}", recipients=recipients)
            return dict.fromkeys(recipients, NO_ROUTE)
        if self._failed is not None:
            return dict.fromkeys(recipients, self._failed)
        size = message.content.size
        letter = Letter(message.sender, recipients, size, message.body_8bit, message.smtputf8)
        try:
            if self._connection is None:
                self._connection = await Connection.connect(smarthost, self._settings.hostname)
        except SmarthostFailed as failure:
            log.warning("relay.smarthost_failed", smarthost=smarthost.host, reason=str(failure))
            # What is wrong between us and the smarthost is not the letter's fault.
            self._failed = Result(0, str(failure))
            return dict.fromkeys(recipients, self._failed)
        connection, self._connection = self._connection, None
        try:
            results = await connection.send(letter, site.read(message.content))
        except SmarthostFailed as failure:
            log.warning("relay.connection_failed", smarthost=smarthost.host, reason=str(failure))
            return dict.fromkeys(recipients, Result(0, str(failure)))
        except SiteUnavailable:
            return dict.fromkeys(recipients, NOT_READ)
        self._connection = connection
        return results

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.quit()
            self._connection = None


class Routes:
    """The ways to the smarthost that a batch shares."""

    def __init__(self, settings: RelaySettings) -> None:
        self._all = [Route(settings) for _ in range(CONNECTIONS_MAX)]
        self._free: asyncio.LifoQueue[Route] = asyncio.LifoQueue()
        for route in self._all:
            self._free.put_nowait(route)

    async def send(self, site: Site, message: Queued, recipients: Sequence[str]) -> dict[str, Result]:
        route = await self._free.get()
        try:
            return await route.send(site, message, recipients)
        finally:
            self._free.put_nowait(route)

    async def close(self) -> None:
        for route in self._all:
            await route.close()


class Relay:
    """`leads`: this process holds the queue partition's lease, so nobody else sends. `wait(seconds)` returns when the
    outbox changed, or after that time."""

    def __init__(
        self,
        site: Site,
        outbox: OutboxView,
        settings: RelaySettings,
        leads: Callable[[], bool],
        wait: Callable[[float], Awaitable[object]],
    ) -> None:
        self._site = site
        self._outbox = outbox
        self._settings = settings
        self._leads = leads
        self._wait = wait
        self._actor = Actor(name="relay", site=site.name, protocol="smtp")
        self._unrecorded: dict[int, tuple[RecordAttempt, int]] = {}
        self._ahead: dict[int, int] = {}  # tries that are in the log and not in the tables yet, by message

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            worked = False
            try:
                worked = await self.once()
            except SiteUnavailable as failure:
                log.warning("relay.waits", reason=str(failure))
            except Exception:
                log.exception("relay.failed")
            if not worked:
                await self._wait(WAIT_S_MAX)

    async def once(self) -> bool:
        """One batch. False = there was nothing to do, or it cannot be done now. Raises SiteUnavailable."""
        if not self._leads():
            return False
        for command, tries in list(self._unrecorded.values()):
            if not await self._record(command, tries):
                return False
        for partition in self._outbox.returned():
            await self._returned(partition)
        due = await self._outbox.due(int(self._site.world.now()), BATCH_MESSAGES_MAX)
        return bool(await self._all_of(due))

    async def _returned(self, partition: str) -> None:
        """What waits for it is not left to its next try. The first message tells whether it is really there."""
        limit = 1
        while True:
            found = await self._outbox.waiting(waits_for(partition), limit)
            commands = await self._all_of(found)
            if any(attempt.text == waits_for(partition) for each in commands for attempt in each.attempts):
                self._outbox.still_away(partition)
                return
            if not commands:
                return
            limit = BATCH_MESSAGES_MAX

    async def _all_of(self, due: Sequence[tuple[Queued, int]]) -> list[RecordAttempt]:
        """What became of those that the tables show as they are."""
        fresh = [(message, queued_at) for message, queued_at in due if self._is_fresh(message)]
        done: list[RecordAttempt] = []
        waiting, routes = iter(fresh), Routes(self._settings)
        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(min(LANES_MAX, len(fresh))):
                    lanes.create_task(self._lane(routes, waiting, done))
        finally:
            await routes.close()
        return done

    def _is_fresh(self, message: Queued) -> bool:
        """False where the tables do not show yet what we know of it."""
        if message.queued in self._unrecorded or message.attempts < self._ahead.get(message.queued, 0):
            return False
        self._ahead.pop(message.queued, None)
        return True

    async def _lane(
        self, routes: Routes, waiting: Iterator[tuple[Queued, int]], done: list[RecordAttempt]
    ) -> None:
        for message, queued_at in waiting:
            if not self._leads():
                return
            done.append(await self._handle(routes, message, queued_at))

    async def _handle(self, routes: Routes, message: Queued, queued_at: int) -> RecordAttempt:
        try:
            results = await self._handed_over(routes, message, queued_at)
        except Exception:
            # One message that we cannot handle must not keep the others.
            log.exception("relay.message_failed", queued=f"{message.queued:x}")
            results = dict.fromkeys((one.recipient for one in message.pending), OUR_FAULT)
        command = await self._judged(message, queued_at, results)
        for attempt in command.attempts:
            log.info(
                "relay.attempt", queued=f"{message.queued:x}", recipient=attempt.recipient, outcome=attempt.outcome,
                code=attempt.code, text=attempt.text,
            )  # fmt: skip
        await self._record(command, message.attempts + 1)
        return command

    async def _handed_over(self, routes: Routes, message: Queued, queued_at: int) -> dict[str, Result]:
        """One result for each pending recipient."""
        results: dict[str, list[Result]] = {one.recipient: [] for one in message.pending}
        here: dict[str, tuple[int, ...]] = {}
        handed: dict[str, dict[str, tuple[str, ...]]] = {}  # by queue: for each recipient, whom it stands for there
        leads_to: dict[str, tuple[str, ...]] = {}
        for one in message.pending:
            found = await self._site.resolve(one.recipient)
            if isinstance(found, Refusal):
                results[one.recipient].append(local.refused(found))
            elif message.sender == SENT_COPY and found.accounts != (message.account,):
                results[one.recipient].append(NOT_THEIRS)
            elif found.local_domain and found.accounts:
                # Its addresses elsewhere were queued for themselves.
                target, addresses = await self._place(message, one.recipient, found.accounts)
                if addresses:
                    handed.setdefault(target, {})[one.recipient] = addresses
                elif target:
                    results[one.recipient].append(Result(0, waits_for(target)))
                else:
                    here[one.recipient] = found.accounts
            else:
                leads_to[one.recipient] = found.elsewhere or (one.recipient,)
        through = await self._through(message) if leads_to else ""
        if through:
            handed.setdefault(through, {}).update(leads_to)
        elif leads_to:
            addresses = tuple(dict.fromkeys(address for group in leads_to.values() for address in group))
            sent = await routes.send(self._site, message, addresses)
            for recipient, group in leads_to.items():
                results[recipient] += [sent[address] for address in group]
        if here:
            for recipient, result in (await self._delivered(message, queued_at, here)).items():
                results[recipient].append(result)
        for target, groups in handed.items():
            result = await self._put(message, queued_at, groups, target)
            for recipient in groups:
                results[recipient].append(result)
        return {recipient: max(found, key=_badness) for recipient, found in results.items()}

    async def _place(self, message: Queued, recipient: str, accounts: Sequence[int]) -> tuple[str, tuple[str, ...]]:
        """Where mail for a local address goes, and under which names: ("", ()) = all its accounts have their mail here.
        Without names: it waits."""
        away: list[str] = []
        for account in accounts:
            sites = await self._site.elsewhere(account)
            if isinstance(sites, Refusal):
                return NOWHERE, ()
            if sites:
                away.append(partitions.queue(sites[0]))
        if not away:
            return "", ()
        if len(accounts) == 1:
            return away[0], (recipient,)
        return await self._each_for_himself(message, accounts)

    async def _each_for_himself(self, message: Queued, accounts: Sequence[int]) -> tuple[str, tuple[str, ...]]:
        """The queue in which the message lies, and under which names it goes there once more for some people behind one
        address: else who has it would be given it again as long as another one waits."""
        names, own = await self._site.addresses(accounts), await self._outbox.queue_of(message)
        if isinstance(names, Refusal) or own is None:
            return NOWHERE, ()
        return own, tuple(names[account] for account in accounts if account in names)

    async def _through(self, message: Queued) -> str:
        """The queue of the site by which mail for elsewhere leaves. Its own messages are not handed to it once more."""
        through = self._settings.through
        if through and message.handed and await self._outbox.queue_of(message) == through:
            return ""
        return through

    async def _put(
        self, message: Queued, queued_at: int, groups: Mapping[str, Sequence[str]], target: str
    ) -> Result:
        if message.handed >= handing.HANDED_MAX:
            log.error("relay.in_circles", queued=f"{message.queued:x}", recipients=list(groups), target=target)
            return IN_CIRCLES
        addresses = tuple(dict.fromkeys(address for group in groups.values() for address in group))
        done = await self._outbox.hand_over(self._actor, message, queued_at, addresses, target)
        return local.refused(done) if isinstance(done, Refusal) else Result(250, f"2.0.0 Handed to {target}")

    async def _delivered(
        self, message: Queued, queued_at: int, here: dict[str, tuple[int, ...]]
    ) -> dict[str, Result]:
        try:
            pieces = self._site.read(message.content)
            filed = message.sender == SENT_COPY
            sender = None if filed else message.sender
            spooled = await local.taken_in(self._site, pieces, message.content.size, sender)
        except SiteUnavailable:
            return dict.fromkeys(here, NOT_READ)
        if isinstance(spooled, Refusal):
            return dict.fromkeys(here, local.refused(spooled))
        try:
            people = [account for share in here.values() for account in share]
            outcomes = await local.each(self._site, self._actor, spooled, people, message.queued, sent=filed)
        finally:
            spooled.release()
        results = {}
        for recipient, share in here.items():
            waiting = [account for account in share if may_come(outcomes[account])]
            target, names = "", tuple[str, ...]()
            if 0 < len(waiting) < len(share):
                target, names = await self._each_for_himself(message, waiting)
            if names:
                results[recipient] = await self._put(message, queued_at, {recipient: names}, target)
            else:
                results[recipient] = local.shared([outcomes[account] for account in share])
        return results

    async def _judged(self, message: Queued, queued_at: int, results: dict[str, Result]) -> RecordAttempt:
        """What is recorded, and told to the sender first: so a crash between the two loses no notification."""
        now = int(self._site.world.now())
        next_at = retry.next_try(message.attempts + 1, queued_at, now, self._settings.expiry_s)
        attempts = [_attempt(recipient, result, next_at is None) for recipient, result in results.items()]
        over = [attempt for attempt in attempts if attempt.outcome in ("failed", "expired")]
        if over and not await self._told(message, queued_at, over):
            attempts = [
                Attempt(one.recipient, "deferred", one.code, one.text) if one in over else one for one in attempts
            ]
            next_at = next_at or now + retry.DELAYS_S[0]
        waits = any(attempt.outcome == "deferred" for attempt in attempts)
        return RecordAttempt(message.queued, tuple(attempts), next_at if waits and next_at else 0)

    async def _told(self, message: Queued, queued_at: int, over: Sequence[Attempt]) -> bool:
        host = self._settings.smarthost.host if self._settings.smarthost is not None else ""
        failures = [
            Failure(one.recipient, one.code, one.text, host if one.code else "", one.outcome == "expired") for one in over
        ]
        try:
            return await notify(self._site, self._actor, self._settings.hostname, message, queued_at, failures)
        except Exception:
            log.exception("relay.notification_failed", queued=f"{message.queued:x}")
            return False

    async def _record(self, command: RecordAttempt, tries: int) -> bool:
        """False where it is not known to be in the log: it is tried again before anything else, and not sent again."""
        outcome = await self._site.execute(self._actor, command)
        if isinstance(outcome, Refusal) and outcome.reason in (Reason.UNAVAILABLE, Reason.CONFLICT, Reason.MODIFIED):
            self._unrecorded[command.queued] = (command, tries)
            return False
        self._unrecorded.pop(command.queued, None)
        if isinstance(outcome, Refusal):
            if outcome.reason is Reason.NOT_SHOWN_YET:
                if len(self._ahead) >= AHEAD_MAX:
                    del self._ahead[next(iter(self._ahead))]
                self._ahead[command.queued] = tries
            else:
                log.error("relay.not_recorded", queued=f"{command.queued:x}", reason=outcome.reason.value)
        return True


def _badness(result: Result) -> int:
    """A recipient that leads to several is sent only when all are; what may pass is waited for before what may not."""
    return 0 if 200 <= result.code < 300 else 1 if result.code >= 500 else 2


def _attempt(recipient: str, result: Result, over: bool) -> Attempt:
    text = result.text.replace("\n", " ")
    if 200 <= result.code < 300:
        return Attempt(recipient, "sent", result.code, text)
    if result.code >= 500:
        return Attempt(recipient, "failed", result.code, text)
    return Attempt(recipient, "expired" if over else "deferred", result.code, text)
