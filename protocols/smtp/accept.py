"""What becomes of a message that has come in whole. 250 is said only when the log has it on disk (RFC 5321 §6.1)."""

from typing import NamedTuple

import structlog

from cluster.domain.mailbox.commands import Deliver
from cluster.domain.outbox import handing
from cluster.domain.outbox.commands import QueueMessage
from cluster.domain.outbox.events import SENT_COPY
from cluster.domain.refusal import Refusal
from protocols.port import Account, Done, Spooled
from protocols.smtp import trace
from protocols.smtp.content import Incoming
from protocols.smtp.errors import may_come, may_wait, passes, refused
from protocols.smtp.model import Reply, Role
from protocols.smtp.state import Conversation, Transaction

LOOP = Reply(554, "5.4.6", ("Too many hops; the mail goes in circles",))
STANDARD_MAILBOXES = 6  # for which an account's first mail brings ids

log = structlog.get_logger()


async def accept(talk: Conversation, transaction: Transaction, incoming: Incoming) -> list[Reply]:
    """One reply; by LMTP one for every recipient, in order (RFC 2033 §4.2)."""
    count = len(transaction.recipients) if talk.role is Role.LMTP else 1
    if incoming.refusal is not None:
        return [incoming.refusal] * count
    head = incoming.ingest.head(trace.HEADER_BYTES_MAX)
    if trace.hops(head) >= talk.settings.hops_max:
        incoming.abandon()
        return [LOOP] * count
    leaves = any(accepted.recipient.elsewhere for accepted in transaction.recipients)
    prepended, header = _fields(talk, transaction, head, final=not leaves)
    spooled = await incoming.ingest.finish(prepended, header)
    if isinstance(spooled, Refusal):
        return [refused(spooled)] * count
    try:
        if leaves:
            replies = [await _queue(talk, transaction, incoming, spooled)] * count
        else:
            replies = await _deliver(talk, transaction, incoming, spooled)
        account = talk.account
        if account is not None and account.file_sent and any(reply.accepted for reply in replies):
            await _file(talk, account, transaction, spooled, trace.blind(head))
        return replies
    finally:
        spooled.release()


def _fields(talk: Conversation, transaction: Transaction, head: bytes, final: bool) -> tuple[bytes, bytes | None]:
    """What is put before the message, and what replaces its header. `final`: it stays here."""
    at = int(talk.site.world.now())
    only = transaction.recipients[0].address if len(transaction.recipients) == 1 else ""
    prepended = trace.received(
        trace.Hop(
            hello=talk.hello,
            peer=talk.peer,
            host=talk.settings.hostname,
            protocol=trace.protocol(
                talk.role is Role.LMTP, talk.extended, talk.wire.secured, talk.account is not None, transaction.smtputf8
            ),
            id=transaction.id,
            cipher=talk.wire.cipher,
            recipient=only,
            at=at,
        )
    )
    if final:
        prepended = trace.return_path(transaction.sender_address) + prepended
    if not talk.role.signs_in:
        return prepended, None
    mended = trace.mended(head, at, f"{transaction.id:016x}@{talk.settings.hostname}")
    return prepended + mended.added, mended.header


async def _queue(
    talk: Conversation, transaction: Transaction, incoming: Incoming, spooled: Spooled, only: tuple[str, ...] = ()
) -> Reply:
    """Whole into the outbox, the local recipients too, so that a retry by the client doubles nothing. An alias's own
    people are found again by its address; its addresses elsewhere stand for themselves."""
    recipients = only or tuple(
        dict.fromkeys(
            address
            for accepted in transaction.recipients
            for address in ((accepted.address,) if accepted.recipient.accounts else ()) + accepted.recipient.elsewhere
        )
    )
    command = QueueMessage(
        queued=transaction.id,
        sender=transaction.sender_address,
        recipients=recipients,
        content=spooled.content,
        account=talk.account.id if talk.account else 0,
        body_8bit=incoming.eight_bit,
        smtputf8=transaction.smtputf8,
    )
    done = await talk.site.queue(talk.actor(), command, (spooled,))
    return refused(done) if isinstance(done, Refusal) else _accepted(transaction)


async def _file(talk: Conversation, account: Account, transaction: Transaction, spooled: Spooled, blind: bytes) -> None:
    """The sender's copy goes the way of the queue, which finds the mailbox wherever it is and waits where it cannot be reached.
    The message itself is on its way: what fails here is no reason to have it sent again. `blind`: what only the sender sees."""
    copy: Spooled | Refusal = spooled
    try:
        if blind:
            ingest = talk.site.ingest(spooled.content.size)
            async for piece in spooled.pieces():
                await ingest.feed(piece)
            copy = await ingest.finish(blind)
        if not isinstance(copy, Refusal):
            command = QueueMessage(
                handing.sent_copy(transaction.id), SENT_COPY, (account.address,), copy.content, account.id
            )
            done = await talk.site.queue(talk.actor(), command, (copy,))
        if isinstance(copy, Refusal) or isinstance(done, Refusal):
            log.error("smtp.not_filed", session=talk.session, account=account.address, transaction=f"{transaction.id:x}")
    except OSError as error:
        log.error("smtp.not_filed", session=talk.session, account=account.address, error=str(error))
    finally:
        if not isinstance(copy, Refusal):
            copy.release()


async def _deliver(talk: Conversation, transaction: Transaction, incoming: Incoming, spooled: Spooled) -> list[Reply]:
    """Each account gets the message once, whichever of its addresses were named."""
    world = talk.site.world
    at = int(world.now())
    accounts = tuple(dict.fromkeys(account for one in transaction.recipients for account in one.recipient.accounts))
    deliveries = [
        Deliver(
            account=account,
            content=spooled.content,
            internal_at=at,
            ids=tuple(world.new_id() for _ in range(STANDARD_MAILBOXES)),
        )
        for account in accounts
    ]
    outcomes = await talk.site.deliver(talk.actor(), deliveries, (spooled,), transaction.id)
    results = dict(zip(accounts, outcomes, strict=True))
    shares = [Share(one.address, [results[account] for account in one.recipient.accounts]) for one in transaction.recipients]
    left: dict[str, tuple[str, ...]] = {}  # of each address that is queued, under which names
    if talk.role is not Role.LMTP:
        # All recipients share one reply and so one fate: who has it has it, and the others must not cost a second copy.
        whole = Share("", list(results.values()))
        if whole.reached_nobody and not whole.may_wait:
            return [whole.refusal]
        queued = {share.address for share in shares if share.reached_nobody or share.may_reach_more}
    else:
        queued = {share.address for share in shares if share.waits}
    for one in transaction.recipients:
        if one.address in queued:
            left[one.address] = await _lacking(talk, one.address, one.recipient.accounts, results)
    names = tuple(dict.fromkeys(name for some in left.values() for name in some))
    answer = await _queue(talk, transaction, incoming, spooled, names) if names else _accepted(transaction)
    if talk.role is not Role.LMTP:
        return [answer]
    fine = _accepted(transaction)
    return [
        answer if share.address in left else share.refusal if share.reached_nobody else fine for share in shares
    ]


async def _lacking(
    talk: Conversation, address: str, accounts: tuple[int, ...], results: dict[int, Done | Refusal]
) -> tuple[str, ...]:
    """Under which names an address is queued: a group of which some have it is those who lack it, each for himself."""
    waiting = [account for account in accounts if may_come(results[account])]
    if not 0 < len(waiting) < len(accounts):
        return (address,)
    names = await talk.site.addresses(waiting)
    return (address,) if isinstance(names, Refusal) else tuple(names.values())


class Share(NamedTuple):
    """What became of the accounts behind one address. A group of which some cannot have it at all has been reached."""

    address: str
    outcomes: list[Done | Refusal]

    @property
    def refusals(self) -> list[Refusal]:
        return [outcome for outcome in self.outcomes if isinstance(outcome, Refusal)]

    @property
    def reached_nobody(self) -> bool:
        return len(self.refusals) == len(self.outcomes)

    @property
    def may_reach_more(self) -> bool:
        return any(passes(refusal) for refusal in self.refusals)

    @property
    def may_wait(self) -> bool:
        return any(may_wait(refusal) for refusal in self.refusals)

    @property
    def waits(self) -> bool:
        """Of those who have a reply of their own, who is queued."""
        return self.may_wait or self.may_reach_more and not self.reached_nobody

    @property
    def refusal(self) -> Reply:
        """Of several the one that says to try again."""
        return refused(next((one for one in self.refusals if passes(one)), self.refusals[0]))


def _accepted(transaction: Transaction) -> Reply:
    return Reply(250, "2.0.0", (f"Accepted as {transaction.id:x}",))
