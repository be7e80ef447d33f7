"""Who may do what with a mailbox (RFC 4314). The owner of an account may do everything with its mailboxes, always.

An identifier is `anyone` (whoever is signed in), an account's id in digits, or a group's address; with "-" before it, it takes
rights away (RFC 4314 §2). A user has the union of what all identifiers that fit give, without what such negative ones take.
"""

from collections.abc import Iterable

from cluster.domain.mailbox.events import FlagMode

LOOKUP, READ, SEEN, WRITE, INSERT, POST = "l", "r", "s", "w", "i", "p"
CREATE, DELETE, DELETE_MESSAGES, EXPUNGE, ADMINISTER = "k", "x", "t", "e", "a"
ALL = "lrswipkxtea"  # RFC 4314 §2.1, in the order in which they are said
NEW = "kxte"  # RFC 4314 §2.2: those that RFC 2086 did not have
ANYONE = "anyone"
NEGATIVE = "-"
IDENTIFIERS_PER_MAILBOX_MAX = 200

# RFC 4314 §2.1.1: what older clients know. "x" is with "c" here.
_VIRTUAL = {"c": "kx", "d": "te"}


def parsed(given: str) -> str | None:
    """Rights as a client says them, in their one order; None if one of them is none."""
    wanted = "".join(_VIRTUAL.get(letter, letter) for letter in given)
    return ordered(wanted) if set(wanted) <= set(ALL) else None


def ordered(given: Iterable[str]) -> str:
    wanted = set(given)
    return "".join(letter for letter in ALL if letter in wanted)


def shown(rights: str) -> str:
    """As they are told: with the virtual ones (RFC 4314 §2.1.1)."""
    return rights + "".join(virtual for virtual, members in _VIRTUAL.items() if any(one in rights for one in members))


def modified(was: str, mode: FlagMode, given: str) -> str:
    """RFC 4314 §3.1: replaced, or with "+" or "-" before it added or removed."""
    match mode:
        case FlagMode.ADD:
            return ordered(was + given)
        case FlagMode.REMOVE:
            return ordered(set(was) - set(given))
        case _:
            return ordered(given)


def bare(identifier: str) -> str:
    return identifier.removeprefix(NEGATIVE)


def combined(entries: Iterable[tuple[str, str]]) -> str:
    """Of (identifier, rights) that all fit one user: what it may do."""
    given: set[str] = set()
    taken: set[str] = set()
    for identifier, rights in entries:
        (taken if identifier.startswith(NEGATIVE) else given).update(rights)
    return ordered(given - taken)
