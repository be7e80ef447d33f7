"""A refusal of the domain in IMAP's words (RFC 9051 §7.1, RFC 5530). Total: checked when imported."""

from cluster.domain.refusal import Reason, Refusal
from protocols.imap.model import Reply

# Reason → (response code, what is said where the refusal itself says nothing)
WORDS: dict[Reason, tuple[str, str]] = {
    Reason.NO_SUCH_DOMAIN: ("NONEXISTENT", "There is no such domain."),
    Reason.DOMAIN_EXISTS: ("ALREADYEXISTS", "The domain exists already."),
    Reason.DOMAIN_IN_USE: ("INUSE", "The domain is in use."),
    Reason.NO_SUCH_ADDRESS: ("NONEXISTENT", "There is no such address."),
    Reason.ADDRESS_TAKEN: ("ALREADYEXISTS", "The address is taken."),
    Reason.ADDRESS_INVALID: ("CANNOT", "This is no address."),
    Reason.NO_SUCH_ACCOUNT: ("NONEXISTENT", "There is no such account."),
    Reason.ACCOUNT_SUSPENDED: ("CONTACTADMIN", "The account is suspended."),
    Reason.MEMBERS_LOOP: ("CANNOT", "The group would be a member of itself."),
    Reason.NO_SUCH_APP_PASSWORD: ("NONEXISTENT", "There is no such app password."),
    # RFC 5530 §3: never said which of name and password was wrong
    Reason.WRONG_PASSWORD: ("AUTHENTICATIONFAILED", "The name or the password is wrong."),
    Reason.WEAK_PASSWORD: ("CANNOT", "The password is too weak."),
    Reason.THROTTLED: ("UNAVAILABLE", "Too many attempts: try again in some minutes."),
    Reason.NO_SUCH_MAILBOX: ("NONEXISTENT", "There is no such mailbox."),
    Reason.MAILBOX_EXISTS: ("ALREADYEXISTS", "The mailbox exists already."),
    Reason.MAILBOX_NAME_INVALID: ("CANNOT", "No mailbox can have this name."),
    Reason.MAILBOX_PROTECTED: ("CANNOT", "This mailbox must stay."),
    Reason.SPECIAL_USE_INVALID: ("USEATTR", "No mailbox can be made for this use."),
    Reason.MODIFIED: ("MODIFIED", "Some messages were changed meanwhile."),
    Reason.NOT_PERMITTED: ("NOPERM", "This is not permitted."),
    Reason.TOO_BIG: ("TOOBIG", "The message is too large."),
    Reason.OVER_LIMIT: ("LIMIT", "A limit is reached."),
    # RFC 9208 §4.3.1
    Reason.OVER_QUOTA: ("OVERQUOTA", "The account is full."),
    Reason.ABOVE_QUOTA: ("OVERQUOTA", "It is more than the account may hold."),
    Reason.NO_SUCH_ENTRY: ("NONEXISTENT", "There is no such entry."),
    Reason.CONFLICT: ("INUSE", "Others change the same thing now: try again."),
    Reason.UNAVAILABLE: ("UNAVAILABLE", "This cannot be done now: try again."),
    Reason.NOT_SHOWN_YET: ("UNAVAILABLE", "It is safe in the log and will be shown here soon; there is no need to repeat it."),
}

assert set(WORDS) == set(Reason), f"errors.py lacks {set(Reason) - set(WORDS)}"


def refused(refusal: Refusal, *, target: bool = False) -> Reply:
    """`target`: APPEND, COPY or MOVE to a mailbox that is not there says TRYCREATE (RFC 9051 §6.3.12, §6.4.7)."""
    code, said = WORDS[refusal.reason]
    if target and refusal.reason is Reason.NO_SUCH_MAILBOX:
        code = "TRYCREATE"
    if refusal.reason is Reason.NOT_SHOWN_YET:
        return Reply("NO", said, code)
    return Reply("NO", refusal.text or said, code)
