"""When a message that could not be handed on is tried again (RFC 5321 §4.5.4.1)."""

MINUTE_S = 60
DELAYS_S = tuple(minutes * MINUTE_S for minutes in (1, 2, 5, 10, 20, 30, 60))  # the last one for ever after
EXPIRY_S = 5 * 86_400  # RFC 5321 §4.5.4.1: at least 4–5 days


def next_try(tries: int, queued_at: int, now: int, expiry_s: int = EXPIRY_S) -> int | None:
    """Unix seconds of the next try after `tries` (1 or more) that failed, the last of them `now`; None = give up.

    The last try comes when the time is over, not an hour before it."""
    end = queued_at + expiry_s
    if now >= end:
        return None
    return min(now + DELAYS_S[min(max(tries, 1), len(DELAYS_S)) - 1], end)
