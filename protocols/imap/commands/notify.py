"""NOTIFY (RFC 5465): what the client wants to be told at any time, in IDLE or not."""

from protocols.imap.model import Notify, Reply, Request
from protocols.imap.notices import Notices, TooMuch
from protocols.imap.state import Talk

EVENTS = {
    name.upper(): name
    for name in (
        "FlagChange", "MailboxMetadataChange", "MailboxName", "MessageExpunge", "MessageNew", "ServerMetadataChange",
        "SubscriptionChange",
    )
}  # fmt: skip


async def notify(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Notify)
    if any(not EVENTS.keys() >= group.events for group in given.groups or ()):
        # RFC 5465 §5: those that there are
        return Reply("NO", "There is no such event.", f"BADEVENT ({' '.join(EVENTS.values())})")
    notices = Notices(talk, given)
    try:
        await notices.begin(status=given.status)
    except TooMuch:
        await notices.close()
        most = talk.settings.notify_mailboxes_max
        return Reply("NO", f"At most {most} mailboxes can be watched.", "NOTIFICATIONOVERFLOW")  # RFC 5465 §5.8
    except BaseException:
        await notices.close()
        raise
    await talk.notice(notices)
    return Reply("OK", "You will hear of it." if given.groups else "You will hear of nothing.")
