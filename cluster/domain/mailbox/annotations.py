"""Annotations of mailboxes and of an account as a whole (RFC 5464 §3): named values, for everybody (/shared) or one person
(/private). Names are kept in lower case, for case makes no difference (RFC 5464 §3.2).
"""

import re
from collections.abc import Collection, Iterable, Mapping

import msgspec

from cluster.domain.refusal import Reason, Refusal

SHARED, PRIVATE = "/shared", "/private"
ENTRY_BYTES_MAX = 256
VALUE_BYTES_MAX = 16 * 1024  # RFC 5464 §4.1: at least 1024
PER_MAILBOX_MAX = 100  # shared ones, and as many of each person; RFC 5464 §4.1: at least 10
PER_COMMAND_MAX = 100
ACCOUNT_BYTES_MAX = 16 << 20  # of all values that lie in one account

Key = tuple[int, int, str]  # mailbox (0 = the account itself), whose (0 = everybody's), entry
Values = tuple[tuple[str, bytes | None], ...]

# RFC 5464 §3.2: printable ASCII without "*" and "%"; no level is empty.
_ENTRY = re.compile(r"/(?:private|shared)(?:/[\x20-\x24\x26-\x29\x2b-\x2e\x30-\x7e]+)*")


class Annotated(msgspec.Struct, frozen=True):
    """What is there: `sizes` of a mailbox's values by (whose, entry), `total` of all in the account, in bytes."""

    sizes: Mapping[tuple[int, str], int] = {}
    total: int = 0


def entry(given: str) -> str | None:
    """In its one spelling; None if it is no entry's name."""
    name = given.lower()
    return name if len(name) <= ENTRY_BYTES_MAX and _ENTRY.fullmatch(name) else None


def whose(name: str, account: int) -> int:
    """Whose value it is that `account` reads and writes under this name."""
    return account if name.startswith(PRIVATE + "/") else 0


def refused(values: Values, account: int, there: Annotated) -> Refusal | None:
    """Why these cannot be set, all of them; None = they can."""
    if len(values) > PER_COMMAND_MAX:
        return Refusal(Reason.OVER_LIMIT, f"At most {PER_COMMAND_MAX} annotations can be set at once.")
    sizes, total = dict(there.sizes), there.total
    for name, value in values:
        if entry(name) != name or name in (SHARED, PRIVATE):
            return Refusal(Reason.NOT_PERMITTED, "This is no name of an annotation.", (name,))
        if value is not None and len(value) > VALUE_BYTES_MAX:
            return Refusal(Reason.TOO_BIG, f"A value has at most {VALUE_BYTES_MAX} bytes.", (name,))
        key = whose(name, account), name
        total -= sizes.pop(key, 0)
        if value is not None:
            sizes[key] = len(value)
            total += len(value)
    if total > ACCOUNT_BYTES_MAX and total > there.total:
        return Refusal(Reason.OVER_LIMIT, f"An account has at most {ACCOUNT_BYTES_MAX} bytes of annotations.")
    if len(sizes) > len(there.sizes) and any(
        sum(owner == each for owner, _ in sizes) > PER_MAILBOX_MAX for each in {owner for owner, _ in sizes}
    ):
        return Refusal(Reason.OVER_LIMIT, f"A mailbox has at most {PER_MAILBOX_MAX} annotations.")
    return None


def seen_by(
    there: Mapping[Key, bytes], reader: int, mailboxes: Collection[int], entries: Collection[str] | None
) -> dict[int, dict[str, bytes]]:
    """Of these mailboxes, by mailbox, what a reader may see, in the order of names; only these entries, or all (None)."""
    found: dict[int, dict[str, bytes]] = {}
    for (mailbox, owner, name), value in sorted(there.items(), key=lambda item: item[0][2]):
        if mailbox in mailboxes and owner in (0, reader) and (entries is None or name in entries):
            found.setdefault(mailbox, {})[name] = value
    return found


def changed(
    there: Mapping[Key, bytes], mailbox: int, account: int, values: Iterable[tuple[str, bytes | None]]
) -> dict[Key, bytes]:
    """What is there afterwards."""
    after = dict(there)
    for name, value in values:
        key = mailbox, whose(name, account), name
        if value is None:
            after.pop(key, None)
        else:
            after[key] = value
    return after
