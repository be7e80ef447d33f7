"""Maildir: a file a message. Folders as Maildir++ has them (`.Work.Plans`) and as Dovecot's layout `fs` (`Work/Plans`).

The unique name (up to the colon) is the message's key, so that a flag that changed does not make another message of it.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from node.importing.lines import dated, with_crlf
from node.importing.model import KEY_BYTES, Bad, Folder, Item, Known, SourceUnreadable
from protocols.imap import utf7

DEPTH_MAX = 30
SMALL_FILE_BYTES_MAX = 1 << 20  # of Dovecot's own lists beside the mail

_INFO = re.compile(r"[:;!]2,([A-Za-z]*)")  # some filesystems cannot have the colon
_FLAGS = {"D": "\\Draft", "F": "\\Flagged", "R": "\\Answered", "S": "\\Seen", "T": "\\Deleted"}
_PASSED = "$Forwarded"  # P: passed, that is resent, forwarded or bounced
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")


class MaildirSource:
    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.name = "maildir"
        self._root = path
        self._limit = limit_bytes

    def folders(self) -> list[Folder]:
        if not (self._root / "cur").is_dir() and not any(self._found(self._root, (), 0)):
            raise SourceUnreadable(f"{self._root} is no Maildir: neither it nor a folder in it has a folder `cur`")
        found = []
        wanted = self._subscriptions()
        if (self._root / "cur").is_dir():
            found.append(Folder(("INBOX",), str(self._root), str(self._root)))
        for levels, path in sorted(self._found(self._root, (), 0)):
            subscribed = wanted is None or levels in wanted
            found.append(Folder(levels, str(path), str(path), subscribed=subscribed))
        return found

    def count(self, folder: Folder) -> int:
        return len(_files(folder))

    def messages(self, folder: Folder, known: Known) -> Iterator[Item | Bad]:
        keywords = _dovecot_keywords(Path(folder.handle))
        for _, path, name in sorted(_files(folder), key=lambda found: _order(found[2])):
            unique, info = _parted(name)
            key = hashlib.sha256(os.fsencode(unique)).digest()[:KEY_BYTES]
            if not known(key):
                yield self._read(path, key, info, keywords)

    def close(self) -> None:
        pass

    def _read(self, path: str, key: bytes, info: str, keywords: dict[str, str]) -> Item | Bad:
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_size > self._limit:
                    return Bad(
                        path,
                        f"it has {status.st_size} bytes, where {self._limit} is the most (limits.message_bytes_max)",
                    )
                data = file.read(self._limit + 1)
        except OSError as error:
            return Bad(path, f"it cannot be read: {error.strerror or error}")
        if data.startswith(_COMPRESSED):
            return Bad(path, "it is compressed (Dovecot's mail_compress): unpack it first, or import by IMAP")
        content = with_crlf(data)
        flags = tuple(flag for sign, flag in _FLAGS.items() if sign in info)
        words = tuple(keywords[sign] for sign in info if sign in keywords) + ((_PASSED,) if "P" in info else ())
        # Delivery sets the file's time, and Dovecot keeps INTERNALDATE there; a copy that lost it says 0.
        at, zone = (int(status.st_mtime), 0) if status.st_mtime >= 1 else dated(content) or (0, 0)
        return Item(key, path, content, at, zone, flags, words)

    def _found(self, at: Path, above: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], Path]]:
        """Folders beneath. A link to a folder is not followed: it may lead round in a circle."""
        try:
            entries = [entry for entry in os.scandir(at) if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise SourceUnreadable(f"{at} cannot be read: {error.strerror or error}") from None
        for entry in entries:
            path = Path(entry.path)
            if entry.name in ("cur", "new", "tmp") or depth > DEPTH_MAX:
                continue
            if not above and entry.name.startswith("."):
                if (path / "cur").is_dir():
                    yield tuple(map(decoded, entry.name[1:].split("."))), path
                continue
            levels = (*above, decoded(entry.name))
            if (path / "cur").is_dir():
                yield levels, path
            yield from self._found(path, levels, depth + 1)

    def _subscriptions(self) -> set[tuple[str, ...]] | None:
        """Dovecot's list beside the mail; None where there is none, and then all are."""
        text = _small(self._root / "subscriptions")
        if text is None:
            return None
        if text.startswith("V\t"):  # version 2: levels between tabs, after a line that says so
            return {tuple(map(decoded, line.split("\t"))) for line in text.split("\n")[1:] if line}
        lines = [line for line in text.split("\n") if line]
        return {tuple(map(decoded, line.split(mark))) for line in lines for mark in (".", "/")}


def _files(folder: Folder) -> list[tuple[str, str, str]]:
    """(cur or new, path, name) of every message."""
    found = []
    for part in ("cur", "new"):
        path = os.path.join(folder.handle, part)
        try:
            found += [(part, entry.path, entry.name) for entry in os.scandir(path) if not entry.name.startswith(".")]
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SourceUnreadable(f"{path} cannot be read: {error.strerror or error}") from None
    return found


def _parted(name: str) -> tuple[str, str]:
    """The unique name, and the flags behind it."""
    found = _INFO.search(name)
    return (name, "") if found is None else (name[: found.start()], found[1])


def _order(name: str) -> tuple[int, str]:
    """Unique names begin with the second in which they were made."""
    digits = re.match(r"\d{1,15}", name)
    return (int(digits[0]) if digits else 0, name)


def _dovecot_keywords(folder: Path) -> dict[str, str]:
    """`dovecot-keywords`: a number and a name a line; number 0 is the letter a in a file's name."""
    found = {}
    for line in (_small(folder / "dovecot-keywords") or "").split("\n"):
        number, _, name = line.partition(" ")
        if number.isascii() and number.isdecimal() and int(number) < 26 and name:
            found[chr(ord("a") + int(number))] = name
    return found


def _small(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(SMALL_FILE_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return None


def decoded(name: str) -> str:
    """Modified UTF-7 (RFC 3501 §5.1.3) where it is that, else as the filesystem has it."""
    try:
        return utf7.decode(os.fsencode(name))
    except utf7.NameUndecodable:
        return os.fsencode(name).decode("utf-8", "replace")
