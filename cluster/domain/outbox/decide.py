"""What may be done with messages on their way out. Never raises. The state is the queued message, or None."""

from cluster.domain.decision import Decision
from cluster.domain.directory import addresses
from cluster.domain.outbox.commands import AnyCommand, QueueMessage, RecordAttempt
from cluster.domain.outbox.events import SENT_COPY, DeliveryAttempted, MessageQueued, queued_key
from cluster.domain.outbox.state import OUTCOMES, Queued
from cluster.domain.refusal import Reason, Refusal

RECIPIENTS_PER_MESSAGE_MAX = 1_000
SENDER_BYTES_MAX = 320
REPLY_CHARACTERS_MAX = 2_000  # of what the other host said, kept as a fact

Answer = Decision | Refusal


def entity(queued: int) -> str:
    return f"{queued:x}"


def decide(message: Queued | None, command: AnyCommand) -> Answer:
    match command:
        case QueueMessage():
            return queue(message, command)
        case RecordAttempt():
            return record_attempt(message, command)


def queue(message: Queued | None, command: QueueMessage) -> Answer:
    """Recipients are kept with their local part as given (RFC 5321 §2.4), each once."""
    if message is not None:
        return Refusal(Reason.CONFLICT, "This message is queued already.", (entity(command.queued),))
    recipients: dict[str, None] = {}
    for given in command.recipients:
        address = addresses.preserved(given)
        if address is None:
            return Refusal(Reason.ADDRESS_INVALID, "This is no address.", (given,))
        recipients[address] = None
    if not recipients:
        return Refusal(Reason.ADDRESS_INVALID, "A message needs at least one recipient.")
    if len(recipients) > RECIPIENTS_PER_MESSAGE_MAX:
        return Refusal(Reason.OVER_LIMIT, f"A message has at most {RECIPIENTS_PER_MESSAGE_MAX} recipients.")
    # An empty sender is the null reverse-path (RFC 5321 §4.5.5).
    sender = SENT_COPY if command.sender == SENT_COPY else _sender(command.sender)
    if sender is None:
        return Refusal(Reason.ADDRESS_INVALID, "This is no address.", (command.sender,))
    event = MessageQueued(
        command.queued,
        sender,
        tuple(recipients),
        command.content,
        command.account,
        command.body_8bit,
        command.smtputf8,
        command.taken_at,
        command.handed,
    )
    return Decision(((entity(command.queued), event),), (queued_key(command.queued),))


def _sender(given: str) -> str | None:
    """Of mail that we hand on, somebody else's address: spelt as it came. Many are longer than RFC 5321 §4.5.3.1.1 has
    it, or name hosts with underscores; they can be bounced to all the same."""
    known = addresses.preserved(given) if given else ""
    if known is not None:
        return known
    local, _, domain = given.rpartition("@")
    sound = given.isprintable() and not set(given) & set(" <>") and len(given.encode()) <= SENDER_BYTES_MAX
    return given if local and domain and sound else None


def record_attempt(message: Queued | None, command: RecordAttempt) -> Answer:
    """Attempts for recipients that are not pending are dropped."""
    if message is None:
        return Refusal(Reason.NO_SUCH_ENTRY, "This message is not in the outbox.", (entity(command.queued),))
    if wrong := [attempt.outcome for attempt in command.attempts if attempt.outcome not in OUTCOMES]:
        return Refusal(Reason.NOT_PERMITTED, "There is no such outcome.", tuple(wrong))
    pending = {one.recipient for one in message.pending}
    attempts = tuple(
        type(attempt)(attempt.recipient, attempt.outcome, attempt.code, _readable(attempt.text))
        for attempt in command.attempts
        if attempt.recipient in pending
    )
    if not attempts and command.next_at == message.next_at:
        return Decision()
    event = DeliveryAttempted(command.queued, attempts, command.next_at)
    return Decision(((entity(command.queued), event),), (queued_key(command.queued),))


def _readable(reply: str) -> str:
    """What another host said may hold anything; tables and people want text."""
    return "".join(sign if sign.isprintable() else " " for sign in reply[:REPLY_CHARACTERS_MAX])
