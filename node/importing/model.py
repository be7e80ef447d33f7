"""What a source of mail gives: folders, and their messages in order. Sources block: they are asked in threads."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

KEY_BYTES = 16


class SourceUnreadable(Exception):
    """The source as a whole, or a folder of it, cannot be read. The text is one line for people."""


class Folder(NamedTuple):
    """`levels`: the name, a level each, as the source has it; ("INBOX",) is the inbox. `where`: for people. `special_use`
    as the source says, else empty. `handle`: what the source itself knows it by."""

    levels: tuple[str, ...]
    where: str
    handle: str
    special_use: str = ""
    subscribed: bool = True


class Item(NamedTuple):
    """A message. `key`: 16 bytes that name it in its folder and stay the same (not the folder itself). `content` has CRLF.
    `internal_at` unix seconds, `internal_zone` minutes east. `flags` as IMAP writes them, `keywords` as they are kept."""

    key: bytes
    where: str
    content: bytes
    internal_at: int
    internal_zone: int = 0
    flags: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()


class Bad(NamedTuple):
    """A message that cannot be read, and why."""

    where: str
    why: str


Known = Callable[[bytes], bool]


class Source(Protocol):
    """`name`: of which source it is, in words that do not change from one run to the next."""

    name: str

    def folders(self) -> list[Folder]:
        """Raises SourceUnreadable."""
        ...

    def count(self, folder: Folder) -> int:
        """About how many messages it has. Raises SourceUnreadable."""
        ...

    def messages(self, folder: Folder, known: Known) -> Iterator[Item | Bad]:
        """In the source's order, without those whose key is known. Raises SourceUnreadable."""
        ...

    def close(self) -> None: ...
