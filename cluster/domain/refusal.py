"""The domain's no, a value. The wire's words for it belong to each protocol (one total table each)."""

from enum import Enum

import msgspec


class Reason(Enum):
    NO_SUCH_DOMAIN = "no-such-domain"
    DOMAIN_EXISTS = "domain-exists"
    DOMAIN_IN_USE = "domain-in-use"
    NO_SUCH_ADDRESS = "no-such-address"
    ADDRESS_TAKEN = "address-taken"
    ADDRESS_INVALID = "address-invalid"
    NO_SUCH_ACCOUNT = "no-such-account"
    ACCOUNT_SUSPENDED = "account-suspended"
    MEMBERS_LOOP = "members-loop"
    NO_SUCH_APP_PASSWORD = "no-such-app-password"
    WRONG_PASSWORD = "wrong-password"
    WEAK_PASSWORD = "weak-password"
    THROTTLED = "throttled"
    NO_SUCH_MAILBOX = "no-such-mailbox"
    MAILBOX_EXISTS = "mailbox-exists"
    MAILBOX_NAME_INVALID = "mailbox-name-invalid"
    MAILBOX_PROTECTED = "mailbox-protected"
    SPECIAL_USE_INVALID = "special-use-invalid"
    MODIFIED = "modified"
    NOT_PERMITTED = "not-permitted"
    TOO_BIG = "too-big"
    OVER_LIMIT = "over-limit"
    OVER_QUOTA = "over-quota"  # the account is full; less in it, and the same is welcome
    ABOVE_QUOTA = "above-quota"  # more than the account may ever hold
    NO_SUCH_ENTRY = "no-such-entry"
    CONFLICT = "conflict"
    UNAVAILABLE = "unavailable"
    NOT_SHOWN_YET = "not-shown-yet"  # durable in the log, but this site's tables have not reached it in time


class Refusal(msgspec.Struct, frozen=True):
    """`text` is one plain sentence for people; `detail` names the thing refused (an address, a mailbox, UIDs)."""

    reason: Reason
    text: str = ""
    detail: tuple[str, ...] = ()
