"""Small blobs: rows of one SQLite file, each laid out as frames.py says, many written in one transaction.

A file for each message was dear: to make, write and rename one took ten times the processor time of a row, most of it in
the kernel (ops/decisions/small-blobs-are-rows.md). Nothing is fsynced until `sync`, and then one file. Several processes may
share it. What was committed and not synced may be gone after the machine went down, never half there: the write-ahead log is
read up to its last whole transaction.
"""

import contextlib
import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterator

from storage.blobs import BlobCorrupt, BlobMissing
from storage.blobs.files import fsync
from storage.blobs.frames import Codec, decode, encode, shape_of

SMALL_BYTES_MAX = 64 * 1024  # clear; from about 100 KB on files are as fast
BUSY_S_MAX = 10.0  # for another process's transaction
CACHE_KIB = 2048  # of each of two connections
WAL_BYTES = 16 << 20  # from so many on `sync` moves what the write-ahead log holds to its place
WAL_PAGES_MAX = 16_384  # 64 MiB, where nobody syncs: then the transaction that reaches it does
WALK_ROWS = 1000

_TABLE = "CREATE TABLE blob (id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, data BLOB NOT NULL)"
_FIND = "SELECT data FROM blob WHERE hash = ?"


class SmallShelf:
    """`path` is made where it is not there, in the folder `tmp` of the same filesystem first. Raises OSError, also where the
    file is damaged: then it is to be moved away, and what it held comes again from other sites, or from a backup."""

    def __init__(self, path: str, tmp: str, codec: Codec) -> None:
        self._path = path
        self._codec = codec
        with _told():
            if not os.path.exists(path):
                _make(path, tmp)
            self._writer, self._reader = _opened(path), _opened(path)
        self._writing = threading.RLock()  # a transaction, and the four below
        self._depth = 0
        self._put: set[bytes] = set()  # in the transaction that is open
        self._dirty: set[bytes] = set()
        self._broken: set[bytes] = set()  # could not be synced: what the page cache shows of them is not to be trusted
        self._reading = threading.Lock()
        self._syncing = threading.Lock()

    # -- writing ------------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is put within is one transaction: all is there afterwards, or, where this raises OSError, nothing."""
        with self._writing, _told():
            if self._depth:
                yield
                return
            self._depth = 1
            try:
                yield
                if self._writer.in_transaction:
                    self._writer.execute("COMMIT")
                self._dirty |= self._put
            finally:
                self._depth = 0
                self._put = set()
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")

    def put(self, hash: bytes, data: bytes) -> bool:
        if hashlib.sha256(data).digest() != hash:
            raise BlobCorrupt(f"these bytes are not {hash.hex()}")
        with self.together():
            if not self._writer.in_transaction:
                self._writer.execute("BEGIN IMMEDIATE")
            there = self._writer.execute(_FIND, (hash,)).fetchone()
            # It may be from before a crash and not on disk yet: it is synced like a new one.
            self._put.add(hash)
            if there is not None and hash not in self._broken and self._holds(there[0], data):
                return False
            self._write(hash, encode(self._codec, data))
            self._broken.discard(hash)
            return True

    def sync(self) -> None:
        """The kernel reports a lost page once and then forgets it, so what could not be synced is written anew by the next
        sync; what cannot be read back either, when it is put again: until then this raises OSError."""
        with self._syncing, _told():
            with self._writing:
                if self._broken:
                    self._mend()
                dirty, self._dirty = self._dirty, set()
            if not dirty:
                return
            try:
                # All that was committed lies in the write-ahead log, or was moved from there and synced.
                fsync(f"{self._path}-wal")
                fsync(os.path.dirname(self._path))
            except OSError:
                with self._writing:
                    self._broken |= dirty
                raise
            if os.path.getsize(f"{self._path}-wal") > WAL_BYTES:
                self._checkpoint()

    def delete(self, hash: bytes) -> bool:
        with self.together():
            self._broken.discard(hash)
            return self._writer.execute("DELETE FROM blob WHERE hash = ?", (hash,)).rowcount > 0

    def close(self) -> None:
        with self._writing, self._reading:
            self._writer.close()
            self._reader.close()

    # -- reading ------------------------------------------------------------------------------------------------------
    def find(self, hash: bytes) -> bytes | None:
        """None: it is not here. Raises BlobCorrupt, OSError."""
        raw = self._one(_FIND, hash)
        try:
            return None if raw is None else decode(self._codec, raw[0])
        except BlobCorrupt as error:
            raise BlobCorrupt(f"{hash.hex()}: {error}") from None

    def verify(self, hash: bytes) -> None:
        """Raises BlobMissing, BlobCorrupt, OSError."""
        data = self.find(hash)
        if data is None:
            raise BlobMissing(hash.hex())
        if hashlib.sha256(data).digest() != hash:
            raise BlobCorrupt(f"{hash.hex()} has other bytes")

    def size(self, hash: bytes) -> int | None:
        try:
            row = self._one("SELECT substr(data, 1, 24), length(data) FROM blob WHERE hash = ?", hash)
            return None if row is None else shape_of(*row).clear
        except BlobCorrupt:
            return None

    def walk(self) -> Iterator[bytes]:
        after = b""
        while True:
            with self._reading, _told():
                rows = self._reader.execute(
                    "SELECT hash FROM blob WHERE hash > ? ORDER BY hash LIMIT ?", (after, WALK_ROWS)
                ).fetchall()
            if not rows:
                return
            yield from (row[0] for row in rows)
            after = rows[-1][0]

    # -- inside -------------------------------------------------------------------------------------------------------
    def _one(self, query: str, hash: bytes) -> tuple[bytes, int] | None:
        try:
            with self._reading:
                row: tuple[bytes, int] | None = self._reader.execute(query, (hash,)).fetchone()
                return row
        except sqlite3.OperationalError as error:
            raise OSError(f"{self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise BlobCorrupt(f"{hash.hex()}: {self._path}: {error}") from error

    def _holds(self, raw: bytes, data: bytes) -> bool:
        try:
            return decode(self._codec, raw) == data
        except BlobCorrupt:
            return False

    def _write(self, hash: bytes, raw: bytes) -> None:
        # Not an update: SQLite leaves alone what would not change, and what cannot be trusted is to be written.
        self._writer.execute("DELETE FROM blob WHERE hash = ?", (hash,))
        self._writer.execute("INSERT INTO blob (hash, data) VALUES (?, ?)", (hash, raw))

    def _mend(self) -> None:
        """Writes anew what can be read of those that could not be synced. Raises OSError."""
        # What comes after a torn transaction in the write-ahead log would not be read after a crash.
        self._checkpoint()
        with self.together():
            self._writer.execute("BEGIN IMMEDIATE")
            for hash in tuple(self._broken):
                there = self._writer.execute(_FIND, (hash,)).fetchone()
                if there is not None:
                    try:
                        if hashlib.sha256(decode(self._codec, there[0])).digest() != hash:
                            continue
                    except BlobCorrupt:
                        continue
                    self._write(hash, there[0])
                    self._put.add(hash)
                self._broken.discard(hash)
        if self._broken:
            raise OSError(f"{len(self._broken)} small blobs could not be written to disk and are to be put again")

    def _checkpoint(self) -> None:
        """Moves what the write-ahead log holds to its place, most of it beside the writers. Raises OSError."""
        for how in ("PASSIVE", "TRUNCATE"):
            with self._reading:
                busy, _, _ = self._reader.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
        if busy and self._broken:
            raise OSError(f"{self._path} is in use by others")


def _make(path: str, tmp: str) -> None:
    """Whole at once, since others may make it too."""
    fresh = f"{tmp}/small-{os.urandom(8).hex()}"
    connection = sqlite3.connect(fresh, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(_TABLE)
    finally:
        connection.close()
    os.chmod(fresh, 0o600)
    fsync(fresh)
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass  # another process was first
    finally:
        os.unlink(fresh)
    fsync(os.path.dirname(path))


def _opened(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_S_MAX, isolation_level=None, check_same_thread=False)
    # NORMAL: the log is synced before its content takes its place; a commit waits for no disk.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_MAX}")
    return connection


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(f"the small blobs' file: {error}") from error
