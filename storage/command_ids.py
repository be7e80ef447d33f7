"""Ids of commands that are made and not drawn, so that what is asked again is known again."""

import hashlib
from collections.abc import Sequence

from cluster.domain.mailbox.commands import Deliver

COMMAND_ID_BYTES = 16


def of_deliveries(transaction: int, deliveries: Sequence[Deliver]) -> bytes:
    whom = ",".join(str(delivery.account) for delivery in deliveries)
    return hashlib.sha256(f"{transaction}/{whom}".encode()).digest()[:COMMAND_ID_BYTES]


def together(ids: Sequence[bytes]) -> bytes:
    """The id of an append: of the one command that it is, or of those that are in it, which are not all that were asked, so
    that the log never answers for one that is not."""
    each = dict.fromkeys(ids)
    return ids[0] if len(each) == 1 else hashlib.sha256(b"".join(each)).digest()[:COMMAND_ID_BYTES]
