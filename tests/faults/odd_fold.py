"""A worker whose projector passes over one event, and says that it stands beyond it."""

from collections.abc import Sequence

from cluster.log.model import Record
from node.worker import main
from storage.postgres.folded import Folded, Notes
from storage.projector import Fold, Read

SKIPPED = b"that is skipped"

_real = Fold._fold


async def _skipping(
    self: Fold, folded: Folded, records: Sequence[Record], read: Sequence[Read], notes: Notes
) -> Folded:
    kept = [number for number, record in enumerate(records) if SKIPPED not in record.payload]
    return await _real(self, folded, [records[n] for n in kept], [read[n] for n in kept], notes)


if __name__ == "__main__":
    Fold._fold = _skipping  # type: ignore[method-assign]
    main()
