"""UIDs of mailboxes as they were read last, so that whoever selects one reads only what came and went since.

To read all of 100,000 takes 30 ms, and any change of flags made that needed. What a mailbox lacked at a MODSEQ is known from
its UIDNEXT of then, what it lost since from the MODSEQ of each that was expunged. Both hold only within one epoch: in a later one
the tables may have been taken back meanwhile, to before what was read (ops/decisions/imap-beside-dovecot.md).
"""

from array import array
from typing import Any, NamedTuple

from cluster.position import SEQUENCE_BITS
from storage.uids import Uids

KEPT_UIDS_MAX = 4_000_000  # 4 bytes each
KEPT_MAILBOXES_MAX = 5_000
KEPT_UIDS_MIN = 256  # of a mailbox: fewer are read as soon

# Of the mailbox `m`: `known` is as it was read, `grown` is later in the same epoch. $3 to $6: what `Kept.known` gives.
SINCE = f"""
(SELECT s.same AND m.modseq = $5 AS known,
    s.same AND m.modseq > $5 AND m.modseq >> {SEQUENCE_BITS} = $5::bigint >> {SEQUENCE_BITS} AS grown
FROM (SELECT m.id = $3 AND m.uidvalidity = $4 AS same) s)
"""
# All of them, or of one that has grown those that came.
UIDS = """
CASE WHEN NOT k.known THEN (SELECT array_agg(f.uid ORDER BY f.uid) FROM flag f
    WHERE f.mailbox = m.id AND f.uid >= CASE WHEN k.grown THEN $6::bigint ELSE 0 END) END AS uids,
CASE WHEN k.grown THEN (SELECT array_agg(x.uid ORDER BY x.uid) FROM expunged x
    WHERE x.mailbox = m.id AND x.modseq > $5 AND x.uid < $6) END AS gone
"""


class Kept(NamedTuple):
    """What was read of a mailbox when it stood at `modseq`. A mailbox comes to that only once, with what was in it then."""

    mailbox: int
    uidvalidity: int
    modseq: int
    uidnext: int
    uids: Uids
    first_unseen: int

    @property
    def known(self) -> tuple[int, int, int, int]:
        return self.mailbox, self.uidvalidity, self.modseq, self.uidnext

    def now(self, row: Any) -> "Kept | None":
        """From the answer to a question with `known`; None where they do not add up to what the mailbox counts."""
        if row["known"]:
            return self
        if not row["grown"]:
            return made(row, self.uids)
        uids = self.uids.copy()
        uids.remove([uid for uid in row["gone"] or () if uids.left_of(uid) < uids.up_to(uid)])
        uids.extend(row["uids"] or ())
        return _made(row, uids) if len(uids) == row["messages"] else None


UNKNOWN = (0, 0, 0, 0)


def made(row: Any, like: Uids | None = None) -> Kept:
    """From the answer that has them all. `like`: what is probably nearly the same."""
    return _made(row, Uids(array("I", row["uids"] or ()), like))


def _made(row: Any, uids: Uids) -> Kept:
    return Kept(row["id"], row["uidvalidity"], row["modseq"], row["uidnext"], uids, row["first_unseen"] or 0)


class KeptUids:
    """By account, name and reader (0 = the owner; others have first-unseen messages of their own), bounded; those that were not
    used for long go first. `uids_min`: of a mailbox with fewer none are kept."""

    def __init__(self, uids_min: int = KEPT_UIDS_MIN) -> None:
        self._uids_min = uids_min
        self._kept: dict[tuple[int, str, int], Kept] = {}  # the last used last
        self._count = 0

    def of(self, account: int, name: str, reader: int) -> Kept | None:
        return self._kept.get((account, name, reader))

    def like(self, account: int, name: str) -> Uids | None:
        """What the owner saw last: another's list is probably the same, and need not be there twice."""
        kept = self._kept.get((account, name, 0))
        return kept.uids if kept is not None else None

    def forget(self) -> None:
        self._kept.clear()
        self._count = 0

    def keep(self, account: int, name: str, reader: int, kept: Kept) -> None:
        """As the last used."""
        key = account, name, reader
        before = self._kept.pop(key, None)
        self._count -= len(before.uids) if before is not None else 0
        if len(kept.uids) < self._uids_min:
            return
        self._count += len(kept.uids)
        self._kept[key] = kept
        while self._count > KEPT_UIDS_MAX or len(self._kept) > KEPT_MAILBOXES_MAX:
            self._count -= len(self._kept.pop(next(iter(self._kept))).uids)
