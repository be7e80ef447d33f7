"""Who may do what with a mailbox beside its owner (RFC 4314): what is said of it at the door."""

from typing import Annotated

import msgspec
from msgspec import Meta

from protocols.admin.model import Asked

LETTERS = "lrswipkxteacd"  # RFC 4314 §2.1, and §2.1.1 for the last two


class NewRights(Asked, frozen=True):
    """All that it may do from now on; none: it is not named any more."""

    rights: Annotated[str, Meta(pattern=f"^[{LETTERS}]*$", max_length=len(LETTERS))]


class MailboxRight(msgspec.Struct, frozen=True):
    """`identifier`: an account's or a group's address, or anyone; with "-" before it the rights are taken away."""

    identifier: str
    rights: str


class MailboxRights(msgspec.Struct, frozen=True):
    items: tuple[MailboxRight, ...]
