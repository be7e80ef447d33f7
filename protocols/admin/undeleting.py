"""Undelete: what is said at the door by who looks for expunged mail and has it restored. What stands behind the door for it
is the same as for moving in: the site's own mailboxes."""

from typing import Annotated

import msgspec
from msgspec import Meta

from protocols.admin.model import NAME_CHARS_MAX, Asked, Finished, Problem, UnixSeconds
from protocols.admin.moving import MailboxId

RANGES_MAX = 1000  # of places in one request
Place = Annotated[int, Meta(ge=1, le=2**32 - 1)]
Text = Annotated[str, Meta(max_length=NAME_CHARS_MAX)]


class Wanted(Asked, frozen=True):
    """Of this mailbox (by the name it has, or had), expunged at `since` or later, with this in the subject."""

    mailbox: Text = ""
    since: UnixSeconds = 0
    subject: Text = ""


class Expunged(msgspec.Struct, frozen=True, tag="expunged", tag_field="kind"):
    """A message that can be restored. `name`: of its mailbox, beneath "Expunged/". `place`: by which it is restored.
    `expunged_at`, `internal_at`: unix seconds."""

    mailbox: str
    name: str
    place: int
    subject: str
    sender: str
    size: int
    internal_at: int
    expunged_at: int


ExpungedLine = Expunged | Finished | Problem


class Restore(Asked, frozen=True):
    """`into` empty: where they were; it is made if it is not there. `places`: (first, last)."""

    mailbox: MailboxId
    places: Annotated[tuple[tuple[Place, Place], ...], Meta(min_length=1, max_length=RANGES_MAX)]
    into: Text = ""


class Restored(msgspec.Struct, frozen=True):
    """`messages`: how many; those that were restored already are none of them."""

    messages: int
    into: str
