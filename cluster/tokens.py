"""What a client's sync token (IMAP MODSEQ, WebDAV sync-token: a position) is worth after a failover."""

from collections.abc import Mapping

from cluster.control.partitions import Spans, clip, in_history
from cluster.position import split


def judged(history: Spans, token: int, salvaged: Mapping[int, int]) -> int | None:
    """The position to compute changes since; None: the token is lost, so the answer is everything.

    A token beyond the end of its epoch was given from a tail. It may stand for that end only as far as the tail is
    salvaged (`salvaged`: epoch → sequence), for then all that the tail had told is reaffirmed since."""
    if in_history(history, token):
        return token
    epoch, sequence = split(token)
    return clip(history, token) if sequence <= salvaged.get(epoch, 0) else None
