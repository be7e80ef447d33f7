"""Positions: where an event stands in its partition's history.

`position = epoch << 40 | sequence`, a 63-bit number that only rises and is equal at every site. It is what IMAP calls
MODSEQ (RFC 7162 §3.1: 63 bits) and what WebDAV calls a sync-token. Shape: int, 0 = before everything.
"""

from typing import NamedTuple, NewType

Position = NewType("Position", int)

SEQUENCE_BITS = 40
SEQUENCE_MAX = (1 << SEQUENCE_BITS) - 1
EPOCH_MAX = (1 << 23) - 1
BEGINNING = Position(0)


class Split(NamedTuple):
    epoch: int
    sequence: int


def position(epoch: int, sequence: int) -> Position:
    """Raises ValueError outside 23 bits of epoch and 40 bits of sequence."""
    if not (0 <= epoch <= EPOCH_MAX and 0 <= sequence <= SEQUENCE_MAX):
        raise ValueError(f"no such position: epoch {epoch}, sequence {sequence}")
    return Position(epoch << SEQUENCE_BITS | sequence)


def split(at: int) -> Split:
    return Split(at >> SEQUENCE_BITS, at & SEQUENCE_MAX)


def shown(at: int) -> str:
    """As people read it: `epoch.sequence`."""
    return f"{at >> SEQUENCE_BITS}.{at & SEQUENCE_MAX}"
