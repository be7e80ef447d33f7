"""What was expunged, as a site in memory shows it: from the pure fold, as slowly and plainly as can be."""

import msgspec

from cluster.domain.mailbox.events import DELETED
from cluster.domain.mailbox.state import AccountMail, Box
from storage.mirrored import named
from storage.postgres.expunged_view import Kept


def kept(mail: AccountMail, base: int) -> list[Kept]:
    """Every mailbox from which something can be restored, and all that there are."""
    found = []
    for mailbox, (name, uidvalidity, deleted) in {**mail.deleted, **_living(mail)}.items():
        count = sum(not one.moved and not one.taken for one in mail.gone.get(mailbox, ()))
        if count or not deleted:
            found.append(Kept(mailbox, name, uidvalidity + base, deleted, count))
    return found


def mirror(mail: AccountMail, mailbox: int, base: int) -> Box | None:
    """As if it were a mailbox: its UIDs are the places."""
    known = {**mail.deleted, **_living(mail)}.get(mailbox)
    if known is None:
        return None
    gone = mail.gone.get(mailbox, ())
    messages = {
        place: msgspec.structs.replace(one.message, modseq=one.at, saved=one.at, flags=one.message.flags & ~DELETED)
        for place, one in enumerate(gone, 1)
        if not one.moved and not one.taken
    }
    taken = {place: one.taken for place, one in enumerate(gone, 1) if one.taken}
    modseq = max([1, *(max(one.at, one.taken) for one in gone)])
    name = next((name for name, one in named(kept(mail, base)).items() if one.id == mailbox), "")
    return Box(-mailbox, name, known[1] + base, modseq, "", len(gone) + 1, messages, taken)


def _living(mail: AccountMail) -> dict[int, tuple[str, int, int]]:
    return {box.id: (box.name, box.uidvalidity, 0) for box in mail.boxes.values()}
