"""What was brought into an account from this machine: so that an import goes on where it was, and brings nothing again that
its person has moved or deleted since.

A file for each account, in the site's folder: 16 bytes that say what it is, 16 by which its command ids are its own, and then
32 bytes a message: its key (mailbox, source, name there) and its content's. It is a help and no truth: what it lost is found
in the mailbox itself.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

MAGIC = b"angarium-import1"
KEY_BYTES = 16
RECORD_BYTES = 2 * KEY_BYTES
HEAD_BYTES = 2 * KEY_BYTES


class JournalTaken(Exception):
    """Another import into the same account is under way."""


class Journal:
    """Held alone while it is open. `again`: what was brought before is forgotten."""

    def __init__(self, path: Path, nonce: bytes, *, again: bool = False) -> None:
        """`nonce`: 16 random bytes, for a file that is made now. Raises JournalTaken, OSError."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._done: dict[bytes, bytes] = {}
        try:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JournalTaken from None
            self.nonce = self._load(nonce, again)
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            os.fsync(self._fd)
        os.close(self._fd)

    def __len__(self) -> int:
        return len(self._done)

    def content_of(self, key: bytes) -> bytes | None:
        """The content's key of a message that was brought; None of one that was not."""
        return self._done.get(key)

    def note(self, brought: Sequence[tuple[bytes, bytes]]) -> None:
        """(key, content's key) of each. Raises OSError."""
        data = b"".join(key + content for key, content in brought)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self._done.update(brought)

    def _load(self, nonce: bytes, again: bool) -> bytes:
        data = b""
        while piece := os.read(self._fd, 1 << 20):
            data += piece
        if again or data[:KEY_BYTES] != MAGIC or len(data) < HEAD_BYTES:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
            os.write(self._fd, MAGIC + nonce)
            return nonce
        whole = HEAD_BYTES + (len(data) - HEAD_BYTES) // RECORD_BYTES * RECORD_BYTES
        os.ftruncate(self._fd, whole)  # half a record: the machine went down while it was written
        os.lseek(self._fd, whole, os.SEEK_SET)
        for at in range(HEAD_BYTES, whole, RECORD_BYTES):
            self._done[data[at : at + KEY_BYTES]] = data[at + KEY_BYTES : at + RECORD_BYTES]
        return data[KEY_BYTES:HEAD_BYTES]


def message_key(mailbox: str, source: str, key: bytes) -> bytes:
    """`mailbox`: the id of ours, so that a mailbox made anew is filled anew."""
    return hashlib.sha256(f"{mailbox}\n{source}\n".encode() + key).digest()[:KEY_BYTES]


def content_key(content_hash: bytes, internal_at: int) -> bytes:
    return hashlib.sha256(content_hash + b"%d" % internal_at).digest()[:KEY_BYTES]


def command_id(nonce: bytes, keys: Sequence[bytes]) -> bytes:
    """Of an append: the same messages under the same journal are the same command, however often it is sent."""
    return hashlib.sha256(nonce + b"".join(keys)).digest()[:KEY_BYTES]
