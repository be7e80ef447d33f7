"""How much an account may hold, and how full it is. The directory says the limits, the fold of its mail what it holds:
ops/decisions/quota.md.
"""

import msgspec

from cluster.domain.refusal import Reason, Refusal

SOFT_DEFAULT = (90,)  # percent
THRESHOLDS_MAX = 10
STORAGE_BYTES_MAX = 1 << 53  # JSON's readers keep no more (RFC 8259 §6)
MESSAGES_MAX = 1 << 32


class Quota(msgspec.Struct, frozen=True):
    """`storage`: bytes, `messages`: how many; 0 = no limit. `soft`: percentages, ascending, at which it counts as filling
    up."""

    storage: int = 0
    messages: int = 0
    soft: tuple[int, ...] = SOFT_DEFAULT

    def __bool__(self) -> bool:
        """Whether anything is limited."""
        return bool(self.storage or self.messages)


class Override(msgspec.Struct, frozen=True):
    """What an account has of its own; None = as its domain has it."""

    storage: int | None = None
    messages: int | None = None
    soft: tuple[int, ...] | None = None

    def over(self, domain: Quota) -> Quota:
        return Quota(
            domain.storage if self.storage is None else self.storage,
            domain.messages if self.messages is None else self.messages,
            domain.soft if self.soft is None else self.soft,
        )


class Usage(msgspec.Struct, frozen=True):
    """What mailboxes hold: bytes of RFC822.SIZE, and messages. Each mailbox counts its own, also of one content."""

    storage: int = 0
    messages: int = 0

    def plus(self, other: "Usage") -> "Usage":
        return Usage(self.storage + other.storage, self.messages + other.messages)


class Held(msgspec.Struct, frozen=True):
    """An account that has a quota, and what it holds."""

    quota: Quota
    usage: Usage

    @property
    def percent(self) -> int:
        """Of the limit that it is nearest to, rounded down; may be above 100."""
        pairs = ((self.usage.storage, self.quota.storage), (self.usage.messages, self.quota.messages))
        return max((used * 100 // limit for used, limit in pairs if limit), default=0)

    @property
    def reached(self) -> tuple[int, ...]:
        """The thresholds at which it stands or beyond, ascending; 100 is the limit itself."""
        percent = self.percent
        return tuple(threshold for threshold in sorted({*self.quota.soft, 100}) if percent >= threshold)

    def refuses(self, adding: Usage) -> Refusal | None:
        """What comes in must fit whole; what takes nothing away from the room is always welcome."""
        for used, more, limit, what in (
            (self.usage.storage, adding.storage, self.quota.storage, "bytes"),
            (self.usage.messages, adding.messages, self.quota.messages, "messages"),
        ):
            if limit and more > limit:
                return Refusal(Reason.ABOVE_QUOTA, f"It is more than the {limit} {what} that the account may hold.")
            if limit and more > 0 and used + more > limit:
                return Refusal(Reason.OVER_QUOTA, f"The account holds {used} of the {limit} {what} that it may.")
        return None
