"""What a message has, read plainly: for the site in memory, and to compare the tables with."""

from cluster.domain.mailbox.state import Msg
from protocols.port import Having


def has(one: Msg, asked: Having) -> bool:
    day, size = (one.internal_at + one.internal_zone * 60) // 86_400, one.content.size
    return (
        one.flags & asked.present == asked.present
        and not one.flags & asked.absent
        and (asked.first_day is None or day >= asked.first_day)
        and (asked.last_day is None or day <= asked.last_day)
        and (asked.larger is None or size > asked.larger)
        and (asked.smaller is None or size < asked.smaller)
    )
