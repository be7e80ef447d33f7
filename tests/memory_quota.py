"""What an account in memory holds: counted one by one, as nobody who serves people would."""

from collections.abc import Callable, Iterable

from cluster.domain.mailbox.state import AccountMail, Msg
from cluster.domain.quota import Held, Usage
from cluster.domain.refusal import Refusal


def usage(mail: AccountMail, counts: Callable[[int, int, Msg], bool] = lambda *_: True) -> Usage:
    """`counts`: by mailbox, UID and message."""
    sizes = [
        one.content.size
        for box in mail.boxes.values()
        for uid, one in box.messages.items()
        if counts(box.id, uid, one)
    ]
    return Usage(sum(sizes), len(sizes))


def no_room(accounts: Iterable[Held | None], size: int) -> Refusal | None:
    """Why it comes into none of them."""
    refusal = None
    for held in accounts:
        refusal = held.refuses(Usage(max(size, 1), 1)) if held else None
        if refusal is None:
            return None
    return refusal
