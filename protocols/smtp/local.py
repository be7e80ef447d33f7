"""Mail that the relay hands to people here: queued whole with mail for elsewhere, or a notification for its sender."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from cluster.domain.actor import Actor
from cluster.domain.mailbox.commands import Deliver
from cluster.domain.refusal import Reason, Refusal
from protocols.port import Done, Site, Spooled
from protocols.smtp import trace
from protocols.smtp.accept import STANDARD_MAILBOXES
from protocols.smtp.client import Result
from protocols.smtp.errors import WORDS, may_wait, passes, waits_for

RETURN_PATH = b"return-path:"
DELIVERED = Result(250, "2.0.0 Delivered")


async def taken_in(site: Site, pieces: AsyncIterator[bytes], size: int, sender: str | None) -> Spooled | Refusal:
    """A message of at most `size` bytes, with a Return-Path at its top that names `sender`; None = as it is. One that
    has a Return-Path there was meant for people here from the beginning: what comes from others begins with Received."""
    ingest = site.ingest(size)
    try:
        async for piece in pieces:
            if not await ingest.feed(piece):
                return Refusal(Reason.TOO_BIG)
        has_one = ingest.head(len(RETURN_PATH)).lower() == RETURN_PATH
        return await ingest.finish(b"" if sender is None or has_one else trace.return_path(sender))
    finally:
        ingest.abandon()


async def deliver(
    site: Site, actor: Actor, spooled: Spooled, shares: Mapping[str, Sequence[int]], transaction: int
) -> dict[str, Result]:
    """`shares`: the accounts behind each address."""
    outcomes = await each(site, actor, spooled, [account for share in shares.values() for account in share], transaction)
    return {address: shared([outcomes[account] for account in share]) for address, share in shares.items()}


async def each(
    site: Site, actor: Actor, spooled: Spooled, accounts: Iterable[int], transaction: int, *, sent: bool = False
) -> dict[int, Done | Refusal]:
    """Each account gets it once, whoever asks how often for the same ones: `transaction`. `sent`: it is what they sent."""
    accounts = tuple(dict.fromkeys(accounts))
    at = int(site.world.now())
    deliveries = [
        Deliver(account, spooled.content, at, tuple(site.world.new_id() for _ in range(STANDARD_MAILBOXES)), sent=sent)
        for account in accounts
    ]
    return dict(zip(accounts, await site.deliver(actor, deliveries, (spooled,), transaction), strict=True))


def shared(outcomes: Sequence[Done | Refusal]) -> Result:
    """To be tried again where one asks for it; a group of which some cannot have it at all has been reached."""
    refusals = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    for refusal in refusals:
        if passes(refusal):
            return refused(refusal)
    return refused(refusals[0]) if refusals and len(refusals) == len(outcomes) else DELIVERED


def refused(refusal: Refusal) -> Result:
    if may_wait(refusal):
        return Result(0, waits_for(refusal.detail[0]))
    code, enhanced, text = WORDS[refusal.reason]
    return Result(code, f"{enhanced} {text}")
