"""What a site's sessions see of mailboxes: those that there are, and beneath "Expunged/" a second one for each from which
something was expunged that can be restored (ops/decisions/undelete.md).

The second one of a mailbox has its id with a minus, so that whoever has asked by name goes on by id as with any other.
"""

from array import array
from collections.abc import AsyncIterator, Iterable, Sequence

from cluster.domain.mailbox.events import Ranges
from cluster.domain.mailbox.names import EXPUNGED, SEPARATOR, is_expunged
from cluster.domain.quota import Usage
from storage.postgres.expunged_view import ExpungedView, Kept
from storage.postgres.mail_view import MailView
from storage.shapes import Changes, Flags, Having, Mailbox, Message, Selected, Status


class Mailboxes:
    """As MailView, and the mirrored ones too. Every method raises one of AWAY."""

    def __init__(self, mail: MailView) -> None:
        self._mail = mail
        self._expunged = ExpungedView(mail.database)

    async def mailboxes(self, account: int) -> list[Mailbox]:
        return await self._mail.mailboxes(account)

    async def subscriptions(self, account: int) -> list[str]:
        return await self._mail.subscriptions(account)

    async def mirrored(self, account: int) -> list[Mailbox]:
        """Those in which something can be restored, ordered by name."""
        kept = named(await self._expunged.kept(account))
        subscribed = frozenset(await self._mail.subscriptions(account))
        return [_mailbox(name, kept[name], subscribed) for name in sorted(kept) if kept[name].messages]

    async def mailbox(self, account: int, name: str) -> Mailbox | None:
        return await self._mail.mailbox(account, name) or await self._mirror(account, name)

    async def status(self, account: int, mailboxes: Sequence[int], reader: int = 0) -> list[Status]:
        there = await self._mail.status(account, [id for id in mailboxes if id > 0], reader)
        found = {one.mailbox.id: one for one in there}
        if any(id < 0 for id in mailboxes):
            kept = named(await self._expunged.kept(account))
            mirrors = {-one.id: _mailbox(name, one, frozenset()) for name, one in kept.items()}
            for id in mailboxes:
                if id in mirrors:
                    found[id] = await self._expunged.status(account, -id, mirrors[id])
        return [found[id] for id in mailboxes if id in found]

    async def select(self, account: int, name: str, *, recent: bool, reader: int = 0) -> Selected | None:
        selected = await self._mail.select(account, name, recent=recent, reader=reader)
        if selected is not None or reader:
            return selected  # what was expunged is for the owner alone
        mirror = await self._mirror(account, name)
        return await self._expunged.select(account, -mirror.id, mirror) if mirror else None

    async def flags(self, account: int, mailbox: int, uids: Ranges, since: int, reader: int = 0) -> list[Flags]:
        if mailbox < 0:
            return await self._expunged.flags(account, -mailbox, uids, since)
        return await self._mail.flags(account, mailbox, uids, since, reader)

    async def having(self, account: int, mailbox: int, asked: Having) -> "array[int]":
        if mailbox < 0:
            return await self._expunged.having(account, -mailbox, asked)
        return await self._mail.having(account, mailbox, asked)

    def messages(
        self,
        account: int,
        mailbox: int,
        uids: Ranges,
        *,
        since: int,
        described: bool,
        contents: bool,
        reader: int = 0,
    ) -> AsyncIterator[list[Message]]:
        if mailbox < 0:
            return self._expunged.messages(
                account, -mailbox, uids, since=since, described=described, contents=contents
            )
        return self._mail.messages(
            account, mailbox, uids, since=since, described=described, contents=contents, reader=reader
        )

    async def changes(self, account: int, mailbox: int, since: int, reader: int = 0) -> Changes:
        if mailbox < 0:
            return await self._expunged.changes(account, -mailbox, since)
        return await self._mail.changes(account, mailbox, since, reader)

    async def weight(self, account: int, mailbox: int, uids: Ranges) -> Usage:
        """What these messages hold, of those that are there."""
        if mailbox < 0:
            return await self._expunged.weight(account, -mailbox, uids)
        return await self._mail.weight(account, mailbox, uids)

    async def deleted_storage(self, account: int, mailbox: int) -> int:
        """Bytes of the messages with \\Deleted."""
        return 0 if mailbox < 0 else await self._mail.deleted_storage(account, mailbox)

    async def annotations(
        self, account: int, mailboxes: Sequence[int], reader: int, entries: Sequence[str] | None
    ) -> dict[int, dict[str, bytes]]:
        return await self._mail.annotations(account, mailboxes, reader, entries)

    async def _mirror(self, account: int, name: str) -> Mailbox | None:
        if not is_expunged(name):
            return None
        one = named(await self._expunged.kept(account)).get(name)
        return _mailbox(name, one, frozenset()) if one else None


def named(kept: Iterable[Kept]) -> dict[str, Kept]:
    """By their names beneath "Expunged/". A deleted one whose name another has by now is told apart by its UIDVALIDITY."""
    names: dict[str, Kept] = {}
    # Those that there are first, then the one that was deleted last.
    for one in sorted(kept, key=lambda one: (one.deleted_at > 0, -one.deleted_at, -one.uidvalidity)):
        name = EXPUNGED + SEPARATOR + one.name
        names[f"{name} ({one.uidvalidity})" if name in names else name] = one
    return names


def _mailbox(name: str, one: Kept, subscribed: frozenset[str]) -> Mailbox:
    return Mailbox(-one.id, name, one.uidvalidity, "", name in subscribed)
