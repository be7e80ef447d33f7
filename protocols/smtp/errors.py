"""Refusal → SMTP's words: one total table, checked at import (RFC 5321 §4.2, RFC 3463)."""

from cluster.domain.refusal import Reason, Refusal
from protocols.smtp.model import Reply

WORDS: dict[Reason, tuple[int, str, str]] = {
    Reason.NO_SUCH_DOMAIN: (550, "5.1.2", "No such domain here"),
    Reason.DOMAIN_EXISTS: (554, "5.3.0", "The domain exists"),
    Reason.DOMAIN_IN_USE: (554, "5.3.0", "The domain is in use"),
    Reason.NO_SUCH_ADDRESS: (550, "5.1.1", "No such address here"),
    Reason.ADDRESS_TAKEN: (554, "5.3.0", "The address is taken"),
    Reason.ADDRESS_INVALID: (553, "5.1.3", "The address is not valid"),
    Reason.NO_SUCH_ACCOUNT: (550, "5.1.1", "No such account here"),
    Reason.ACCOUNT_SUSPENDED: (550, "5.2.1", "The account is suspended"),
    Reason.MEMBERS_LOOP: (550, "5.4.6", "The group contains itself"),
    Reason.NO_SUCH_APP_PASSWORD: (554, "5.3.0", "No such app password"),
    Reason.WRONG_PASSWORD: (535, "5.7.8", "Name or password is wrong"),
    Reason.WEAK_PASSWORD: (554, "5.3.0", "The password is too weak"),
    Reason.THROTTLED: (454, "4.7.0", "Too many failed tries; wait and try again"),
    Reason.NO_SUCH_MAILBOX: (550, "5.2.0", "No such mailbox"),
    Reason.MAILBOX_EXISTS: (554, "5.3.0", "The mailbox exists"),
    Reason.MAILBOX_NAME_INVALID: (554, "5.3.0", "The mailbox's name is not valid"),
    Reason.MAILBOX_PROTECTED: (554, "5.3.0", "The mailbox is protected"),
    Reason.SPECIAL_USE_INVALID: (554, "5.3.0", "No such special use"),
    Reason.MODIFIED: (451, "4.3.0", "It changed meanwhile; try again"),
    Reason.NOT_PERMITTED: (550, "5.7.1", "Not permitted"),
    Reason.TOO_BIG: (552, "5.3.4", "The message is too big"),
    Reason.OVER_LIMIT: (452, "4.2.2", "The mailbox is over its limit"),
    # RFC 3463 §3.3: X.2.2 mailbox full. What would fit into an emptier one is tried again (RFC 5321 §4.2.1).
    Reason.OVER_QUOTA: (452, "4.2.2", "The mailbox is full; try again later"),
    Reason.ABOVE_QUOTA: (552, "5.2.2", "The message is larger than the mailbox may become"),
    Reason.NO_SUCH_ENTRY: (554, "5.3.0", "No such entry"),
    Reason.CONFLICT: (451, "4.3.0", "It conflicts with another change; try again"),
    Reason.UNAVAILABLE: (451, "4.3.0", "Not available now; try again"),
    Reason.NOT_SHOWN_YET: (451, "4.3.0", "Not shown yet; try again"),
}

if missing := set(Reason) - set(WORDS):
    raise AssertionError(f"SMTP has no words for {missing}")


def refused(refusal: Refusal) -> Reply:
    """Only the table's words go out: what a refusal says more is for our people."""
    code, enhanced, text = WORDS[refusal.reason]
    return Reply(code, enhanced, (text,))


def passes(refusal: Refusal) -> bool:
    """True where the same may be accepted later (a 4xx)."""
    return WORDS[refusal.reason][0] < 500


def may_come(outcome: object) -> bool:
    """Of what became of a delivery: it was refused, and may be taken later."""
    return isinstance(outcome, Refusal) and passes(outcome)


def may_wait(refusal: Refusal) -> bool:
    """True where it is only that a partition cannot be written now: what is for it is taken in, and waits in the queue."""
    return refusal.reason is Reason.UNAVAILABLE and bool(refusal.detail)


def waits_for(partition: str) -> str:
    """What the outbox notes of a recipient that waits for it; the relay looks for these words when it is back."""
    return f"{partition} cannot be reached"


OUR_FAULT = Reply(451, "4.3.0", ("We failed; it is not your fault. Try again later",))
