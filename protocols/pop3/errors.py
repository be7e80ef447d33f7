"""A refusal of the domain in POP3's words (RFC 2449 §8, RFC 3206). Total: checked when imported."""

from cluster.domain.refusal import Reason, Refusal
from protocols.pop3.model import Reply

AUTH, TEMPORARY, PERMANENT = "AUTH", "SYS/TEMP", "SYS/PERM"

# Reason → (response code, what is said where the refusal itself says nothing)
WORDS: dict[Reason, tuple[str, str]] = {
    Reason.NO_SUCH_DOMAIN: (PERMANENT, "There is no such domain."),
    Reason.DOMAIN_EXISTS: (PERMANENT, "The domain exists already."),
    Reason.DOMAIN_IN_USE: (PERMANENT, "The domain is in use."),
    Reason.NO_SUCH_ADDRESS: (PERMANENT, "There is no such address."),
    Reason.ADDRESS_TAKEN: (PERMANENT, "The address is taken."),
    Reason.ADDRESS_INVALID: (PERMANENT, "This is no address."),
    Reason.NO_SUCH_ACCOUNT: (PERMANENT, "There is no such account."),
    # RFC 3206 §4: AUTH is said of what the person, or the administrator, must do something about
    Reason.ACCOUNT_SUSPENDED: (AUTH, "The account is suspended."),
    Reason.MEMBERS_LOOP: (PERMANENT, "The group would be a member of itself."),
    Reason.NO_SUCH_APP_PASSWORD: (PERMANENT, "There is no such app password."),
    # never said which of name and password was wrong
    Reason.WRONG_PASSWORD: (AUTH, "The name or the password is wrong."),
    Reason.WEAK_PASSWORD: (PERMANENT, "The password is too weak."),
    # RFC 3206 §4: not AUTH, or programs ask their user for another password
    Reason.THROTTLED: (TEMPORARY, "Too many attempts: try again in some minutes."),
    Reason.NO_SUCH_MAILBOX: (TEMPORARY, "There is no such mailbox."),
    Reason.MAILBOX_EXISTS: (PERMANENT, "The mailbox exists already."),
    Reason.MAILBOX_NAME_INVALID: (PERMANENT, "No mailbox can have this name."),
    Reason.MAILBOX_PROTECTED: (PERMANENT, "This mailbox must stay."),
    Reason.SPECIAL_USE_INVALID: (PERMANENT, "No mailbox can be made for this use."),
    Reason.MODIFIED: (TEMPORARY, "It was changed meanwhile: try again."),
    Reason.NOT_PERMITTED: (PERMANENT, "This is not permitted."),
    Reason.TOO_BIG: (PERMANENT, "It is too large."),
    Reason.OVER_LIMIT: (PERMANENT, "A limit is reached."),
    Reason.OVER_QUOTA: (TEMPORARY, "The account is full."),
    Reason.ABOVE_QUOTA: (PERMANENT, "It is more than the account may hold."),
    Reason.NO_SUCH_ENTRY: (PERMANENT, "There is no such entry."),
    Reason.CONFLICT: (TEMPORARY, "Others change the same thing now: try again."),
    Reason.UNAVAILABLE: (TEMPORARY, "This cannot be done now: try again."),
    Reason.NOT_SHOWN_YET: (TEMPORARY, "It is safe in the log and will be shown here soon."),
}

assert set(WORDS) == set(Reason), f"errors.py lacks {set(Reason) - set(WORDS)}"


def refused(refusal: Refusal) -> Reply:
    code, said = WORDS[refusal.reason]
    return Reply(False, refusal.text or said, code)
