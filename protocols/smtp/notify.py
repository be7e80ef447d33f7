"""Tells a sender that a message could not be delivered, before the outbox forgets it."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from enum import Enum

import structlog

from cluster.domain.actor import Actor
from cluster.domain.outbox.commands import QueueMessage
from cluster.domain.outbox.events import SENT_COPY
from cluster.domain.outbox.state import Queued
from cluster.domain.refusal import Reason, Refusal
from protocols.port import Recipient, Site, SiteUnavailable
from protocols.smtp import bounce, local
from protocols.smtp.bounce import Failure, Report
from protocols.smtp.errors import passes

log = structlog.get_logger()


async def notify(
    site: Site, actor: Actor, hostname: str, message: Queued, queued_at: int, failures: Sequence[Failure]
) -> bool:
    """True when it is durable, or nobody is to be told; False = try again later. Doing it twice tells once."""
    if message.sender == SENT_COPY:
        log.error("relay.not_filed", queued=f"{message.queued:x}", account=message.account)
        return True
    if not message.sender:
        return True  # RFC 5321 §4.5.5, §6.1: nothing answers a message with the null reverse-path
    found = await site.resolve(message.sender)
    if isinstance(found, Refusal):
        if not passes(found):
            log.warning("relay.nobody_to_tell", queued=f"{message.queued:x}", sender=message.sender)
        return not passes(found)
    report = Report(
        id=_derived(message, failures),
        hostname=hostname,
        sender=message.sender,
        failures=tuple(failures),
        queued_at=queued_at,
        at=int(site.world.now()),
        header=await _header(site, message),
    )
    notification = bounce.notification(report)
    reached = await _deliver(site, actor, report.id, notification, found)
    if reached is Reached.FAILED:
        return False
    return await _queue(site, actor, report.id, notification, _whom(found, reached))


class Reached(Enum):
    """What became of the notification for people here. WAITS: it goes where they are, by the queue."""

    DONE, WAITS, FAILED = range(3)


def _whom(found: Recipient, reached: Reached) -> tuple[str, ...]:
    """To whom it is queued."""
    waiting = (found.address,) if reached is Reached.WAITS else ()
    if found.local_domain:
        return waiting + found.elsewhere
    return found.elsewhere or (found.address,)


async def _deliver(site: Site, actor: Actor, id: int, notification: bytes, found: Recipient) -> Reached:
    if not found.accounts:
        return Reached.DONE
    spooled = await local.taken_in(site, _pieces(notification), len(notification), "")
    if isinstance(spooled, Refusal):
        return Reached.FAILED
    try:
        results = await local.deliver(site, actor, spooled, {found.address: found.accounts}, id)
    finally:
        spooled.release()
    result = results[found.address]
    if result.code == 0:
        return Reached.WAITS
    # Who cannot have it for good is told no more.
    return Reached.DONE if result.code < 400 or result.code >= 500 else Reached.FAILED


async def _queue(site: Site, actor: Actor, id: int, notification: bytes, recipients: tuple[str, ...]) -> bool:
    if not recipients:
        return True
    spooled = await local.taken_in(site, _pieces(notification), len(notification), None)
    if isinstance(spooled, Refusal):
        return False
    eight_bit = not notification.isascii()
    try:
        command = QueueMessage(id, "", recipients, spooled.content, body_8bit=eight_bit, smtputf8=eight_bit)
        outcome = await site.queue(actor, command, (spooled,))
    finally:
        spooled.release()
    # A conflict: it was queued before we stopped short of recording that.
    return not isinstance(outcome, Refusal) or outcome.reason is Reason.CONFLICT or not passes(outcome)


async def _header(site: Site, message: Queued) -> bytes:
    """The original's header; empty where its bytes cannot be had now."""
    data = b""
    try:
        async for piece in site.read(message.content, 0, min(message.content.size, bounce.HEADER_BYTES_MAX)):
            data += piece
    except SiteUnavailable:
        return b""
    end = data.find(b"\r\n\r\n")
    return data if end < 0 else data[: end + 2]


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _derived(message: Queued, failures: Sequence[Failure]) -> int:
    """The same for the same failures of the same message: 63 bits, never 0."""
    text = f"notification/{message.queued:x}/" + "/".join(sorted(failure.recipient for failure in failures))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1 or 1
