"""From a folder's messages to what one append brings: in a thread, one batch ahead of the one that is under way."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from node.importing.journal import Journal, content_key, message_key
from node.importing.model import Bad, Folder, Item, Source, SourceUnreadable

MESSAGES_MAX = 100  # as APPEND takes them at once
TOLD_MAX = 1000  # of others than those to be brought, before they are told of
BYTES_MAX = 1_000_000  # so much rides in an append; a larger message goes alone


class Ready(NamedTuple):
    """`found`: (key, content's key) of messages that were in the mailbox already, by content and INTERNALDATE. `known`: how
    many had been brought before. `last`: there is nothing more."""

    items: tuple[Item, ...]
    keys: tuple[tuple[bytes, bytes], ...]
    found: tuple[tuple[bytes, bytes], ...]
    known: int
    bad: tuple[Bad, ...]
    last: bool
    failed: str = ""


class Present:
    """What a mailbox of ours has, as far as others than this journal put it there. `there`: how often each content."""

    def __init__(self) -> None:
        self.there: Counter[bytes] = Counter()
        self._claimed: Counter[bytes] = Counter()

    def claim(self, content: bytes) -> bool:
        """One more message of the source with this content: is it one of those that are there? Of equal ones each needs
        one of its own."""
        self._claimed[content] += 1
        return self.there[content] >= self._claimed[content]


class Batches:
    """`mailbox`: the id of ours. `at_once`: messages of a batch."""

    def __init__(
        self,
        source: Source,
        folder: Folder,
        mailbox: str,
        journal: Journal,
        present: Present,
        *,
        at_once: int = MESSAGES_MAX,
    ) -> None:
        self._source = source
        self._mailbox = mailbox
        self._at_once = at_once
        self._journal = journal
        self._present = present
        self._known = 0
        self._kept: Item | None = None
        self._messages: Iterator[Item | Bad] = source.messages(folder, self._is_known)

    def gather(self) -> Ready:
        """The next one. Blocks. What makes the source unreadable ends it (`failed`)."""
        items: list[Item] = []
        keys: list[tuple[bytes, bytes]] = []
        found: list[tuple[bytes, bytes]] = []
        bad: list[Bad] = []
        room, last, failed = BYTES_MAX, False, ""
        while len(items) < self._at_once and len(bad) + len(found) < TOLD_MAX:
            item, self._kept = self._kept, None
            try:
                given = item or next(self._messages, None)
            except SourceUnreadable as error:
                last, failed = True, str(error)
                break
            if given is None:
                last = True
                break
            if isinstance(given, Bad):
                bad.append(given)
                continue
            if items and len(given.content) > room:
                self._kept = given
                break
            pair = self._pair(given)
            if self._present.claim(pair[1]):
                found.append(pair)
                continue
            items.append(given)
            keys.append(pair)
            room -= len(given.content)
        known, self._known = self._known, 0
        return Ready(tuple(items), tuple(keys), tuple(found), known, tuple(bad), last, failed)

    def _pair(self, item: Item) -> tuple[bytes, bytes]:
        content = content_key(hashlib.sha256(item.content).digest(), item.internal_at)
        return message_key(self._mailbox, self._source.name, item.key), content

    def _is_known(self, key: bytes) -> bool:
        content = self._journal.content_of(message_key(self._mailbox, self._source.name, key))
        if content is None:
            return False
        self._present.claim(content)
        self._known += 1
        return True
