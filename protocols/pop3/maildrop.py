"""The maildrop of a session: INBOX as it was when the session began (RFC 1939 §5), and what is to be deleted.

It holds no messages, only their UIDs and sizes: 12 bytes a message. A UID names one content for ever, and one that others
expunge meanwhile can be read for some time, so that nobody has to be kept out of the mailbox (ops/decisions/pop3.md).
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from cluster.domain.mailbox import ranges
from cluster.domain.mailbox.events import Ranges
from cluster.domain.mailbox.names import INBOX
from cluster.domain.refusal import Refusal
from cluster.formats import mime
from protocols.port import Account, Message, Site, Uids

ROWS_AHEAD_MAX = 32  # of messages that are likely to be asked for next, fetched with the one that is
ROWS_AT_ONCE = 1000
NOT_KNOWN = -1

_described = msgspec.msgpack.Decoder(mime.Description).decode


class Maildrop:
    """`uids`: of the messages that are offered, in order; a message's number is its place from 1 on. `deleted`: numbers.
    Methods that ask the site raise SiteUnavailable."""

    def __init__(self, account: int, mailbox: int, uidvalidity: int, uids: Sequence[int]) -> None:
        self.account, self.mailbox, self.uidvalidity, self.uids = account, mailbox, uidvalidity, uids
        self.deleted: set[int] = set()
        self._sizes = array("q", [NOT_KNOWN]) * len(uids)
        self._unknown = len(uids)
        self._ahead: dict[int, Message] = {}

    def has(self, number: int) -> bool:
        """RFC 1939 §5: a message marked as deleted is spoken of no more."""
        return 1 <= number <= len(self.uids) and number not in self.deleted

    def numbers(self) -> Iterator[int]:
        return (number for number in range(1, len(self.uids) + 1) if number not in self.deleted)

    def unique_id(self, number: int) -> str:
        """RFC 1939 §7: at most 70 printable characters, and the same in every session; here also at every site."""
        return f"{self.uidvalidity}.{self.uids[number - 1]}"

    def size(self, number: int) -> int:
        """RFC 1939 §11: in bytes, with every line ending in CRLF and no dot doubled; of one that is known already."""
        assert self._sizes[number - 1] != NOT_KNOWN
        return self._sizes[number - 1]

    async def know_sizes(self, site: Site) -> None:
        """Of all. What was expunged before it could be asked for has none."""
        for start in range(0, len(self.uids) if self._unknown else 0, ROWS_AT_ONCE):
            places = range(start, min(start + ROWS_AT_ONCE, len(self.uids)))
            wanted = [self.uids[place] for place in places if self._sizes[place] == NOT_KNOWN]
            found: dict[int, Message] = {}
            if wanted:
                async for rows in site.messages(self.account, self.mailbox, ranges.compress(wanted), described=True):
                    found.update((row.uid, row) for row in rows)
                self._learn(places, found)

    def _learn(self, places: range, found: Mapping[int, Message]) -> None:
        for place in places:
            if self._sizes[place] == NOT_KNOWN:
                row = found.get(self.uids[place])
                self._sizes[place] = octets(row) if row is not None else 0
                self._unknown -= 1

    async def message(self, site: Site, number: int) -> Message | None:
        """With its content; its size is known afterwards. None: others have expunged it, too long ago."""
        uid = self.uids[number - 1]
        if uid not in self._ahead:
            self._ahead = {}
            places = range(number - 1, min(number - 1 + ROWS_AHEAD_MAX, len(self.uids)))
            asked = ranges.compress(self.uids[place] for place in places)
            async for rows in site.messages(self.account, self.mailbox, asked, described=True, contents=True):
                self._ahead.update((row.uid, row) for row in rows)
            self._learn(places, self._ahead)
        return self._ahead.get(uid)

    def deletions(self) -> Ranges:
        return ranges.compress(self.uids[number - 1] for number in sorted(self.deleted))


def octets(row: Message) -> int:
    """RFC 1939 §11. `row`: described."""
    return row.size + _described(row.description).crlf_added


async def opened(site: Site, account: Account) -> Maildrop | Refusal:
    """What is offered to this account now. Raises SiteUnavailable."""
    # A new account gets its mailboxes when they are first asked for.
    found = await site.mailboxes(account.id)
    if isinstance(found, Refusal):
        return found
    selected = await site.select(account.id, INBOX)
    if isinstance(selected, Refusal):
        return selected
    box = selected.status.mailbox
    uids = selected.uids
    if account.pop3_since and len(uids):
        # The day on which it arrived, also of mail that was moved in from elsewhere afterwards.
        uids = Uids()
        async for rows in site.messages(account.id, box.id, ranges.compress(selected.uids)):
            uids.extend([row.uid for row in rows if row.internal_at >= account.pop3_since])
    return Maildrop(account.id, box.id, box.uidvalidity, uids)
