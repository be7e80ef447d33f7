"""Blobs as files: `ab/cd/<SHA-256 in hex>` below a root, each as frames.py says.

A blob is written under a name in `tmp/` and renamed, so that no reader meets half of one. Nothing is fsynced until
`sync`, which does many at once. Several processes may share a root: none trusts what it did not write or read itself.
"""

import ctypes
import hashlib
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from storage.blobs import HASH_BYTES, BlobCorrupt, BlobMissing
from storage.blobs.frames import Codec, FrameWriter, decode, encode, pieces, shape_at, write_all

SYNC_THREADS = 8  # one fsync at a time gave 3,400 files/s, eight at a time 8,000
# From so many files on the whole filesystem is synced at once: each file lies in a folder of its own, so that they would
# cost two fsyncs each, and half of a worker's system time.
TOGETHER_MIN = 64
SYNCFS_TELLS_SINCE = (5, 8)  # Linux: before, syncfs(2) did not say what could not be written
KNOWN_MAX = 16_384  # names whose file was compared by this process
WHOLE_BYTES_MAX = 1 << 20  # of a file that is read at once

NAME_FILE = "store"  # holds the store's name, and tells a folder that was emptied from the one that was filled

_FAN = 1 << 16
_Stamp = tuple[int, int]  # inode, time of change: tells a file from another of the same name


class FileShelf:
    """`root` is made where it is not there. Raises OSError."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.abspath(root)
        self._tmp = f"{self._root}/tmp"
        os.makedirs(self._tmp, mode=0o700, exist_ok=True)
        self.name = _named(self._root)
        self._codec = Codec()
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # of the four below
        self._known: OrderedDict[bytes, _Stamp] = OrderedDict()
        self._dirty: set[bytes] = set()
        self._broken: set[bytes] = set()  # could not be synced: what the page cache shows of them is not to be trusted
        self._entered = bytearray(_FAN)  # 1: the folder's own entry in its parent is on disk, or will be with `sync`
        self._syncing = threading.Lock()
        self._syncers = ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="blobs-sync")
        self._syncfs = _syncfs()

    # -- writing ------------------------------------------------------------------------------------------------------
    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def put(self, hash: bytes, data: bytes) -> bool:
        path = self._path(hash)
        if self._is_known(hash, path):
            return False
        if hashlib.sha256(data).digest() != hash:
            raise BlobCorrupt(f"these bytes are not {hash.hex()}")
        stamp = None if hash in self._broken else self._holding(path, data)
        if stamp is not None:
            # It may be from before a crash and not on disk yet: sync it like a new one.
            self._note(hash, stamp)
            return False
        fd, name = self._temporary()
        try:
            write_all(fd, encode(self._codec, data))
            self.place(hash, fd, name)
        except OSError:
            _unlink(name)
            raise
        finally:
            os.close(fd)
        return True

    def sink(self) -> "FileSink":
        return FileSink(self, self._codec, *self._temporary())

    def place(self, hash: bytes, fd: int, name: str) -> None:
        """Gives the finished file `name`, open as `fd`, its own name."""
        path = self._path(hash)
        status = os.fstat(fd)
        try:
            os.rename(name, path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.rename(name, path)
        self._note(hash, (status.st_ino, status.st_mtime_ns))

    def sync(self) -> None:
        """Raises OSError. The kernel reports a lost page once and then forgets it, so what could not be synced is written
        anew by the next sync; what cannot be read back either, when it is put again: until then sync fails."""
        with self._syncing:
            for hash in tuple(self._broken):
                self._mend(hash)
            with self._lock:
                dirty = self._dirty
                self._dirty = set()
                fresh = {hash[:2] for hash in dirty if not self._entered[hash[0] << 8 | hash[1]]}
            folders = {os.path.dirname(self._path(hash)) for hash in dirty}
            parents = {f"{self._root}/{fan[:1].hex()}" for fan in fresh}
            if fresh:
                parents |= {self._root, os.path.dirname(self._root)}
            try:
                if len(dirty) < TOGETHER_MIN or not self._sync_filesystem():
                    self._sync_all(self._path(hash) for hash in dirty)
                    self._sync_all(folders)
                    self._sync_all(parents)
            except OSError:
                with self._lock:
                    self._broken |= dirty
                    for hash in dirty:
                        self._known.pop(hash, None)
                raise
            for fan in fresh:
                self._entered[fan[0] << 8 | fan[1]] = 1
            with self._lock:
                if self._broken:
                    raise OSError(f"{len(self._broken)} blobs could not be written to disk and are to be put again")

    def clean(self, before: float) -> int:
        """Removes what was begun before `before` (Unix seconds) and never finished: the leftovers of a crash."""
        removed = 0
        for entry in os.scandir(self._tmp):
            if entry.stat(follow_symlinks=False).st_mtime < before:
                _unlink(entry.path)
                removed += 1
        return removed

    def delete(self, hash: bytes) -> bool:
        with self._lock:
            self._known.pop(hash, None)
            self._broken.discard(hash)
        try:
            os.unlink(self._path(hash))
        except FileNotFoundError:
            return False
        return True

    def close(self) -> None:
        self._syncers.shutdown(wait=False)

    # -- reading ------------------------------------------------------------------------------------------------------
    def get(self, hash: bytes) -> bytes:
        fd = self._open(hash)
        try:
            length = os.fstat(fd).st_size
            if length > WHOLE_BYTES_MAX:
                return b"".join(pieces(self._codec, fd, 0, None))
            return decode(self._codec, os.read(fd, length))
        except BlobCorrupt as error:
            raise BlobCorrupt(f"{hash.hex()}: {error}") from None
        finally:
            os.close(fd)

    def pieces(self, hash: bytes, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Bytes `start` to `end` in pieces of at most PIECE_BYTES_MAX. Raises BlobMissing, BlobCorrupt."""
        fd = self._open(hash)
        try:
            yield from pieces(self._codec, fd, start, end)
        except BlobCorrupt as error:
            raise BlobCorrupt(f"{hash.hex()}: {error}") from None
        finally:
            os.close(fd)

    def size(self, hash: bytes) -> int | None:
        try:
            fd = self._open(hash)
        except BlobMissing:
            return None
        try:
            return shape_at(fd).clear
        except BlobCorrupt:
            return None
        finally:
            os.close(fd)

    def verify(self, hash: bytes) -> None:
        digest = hashlib.sha256()
        for piece in self.pieces(hash):
            digest.update(piece)
        if digest.digest() != hash:
            raise BlobCorrupt(f"{hash.hex()} has the bytes of {digest.hexdigest()}")

    def walk(self) -> Iterator[bytes]:
        for outer in _folders(self._root):
            for inner in _folders(outer):
                for name in sorted(os.listdir(inner)):
                    if len(name) == 2 * HASH_BYTES:
                        yield bytes.fromhex(name)

    # -- inside -------------------------------------------------------------------------------------------------------
    def _path(self, hash: bytes) -> str:
        if len(hash) != HASH_BYTES:
            raise ValueError(f"a blob's name has {HASH_BYTES} bytes, not {len(hash)}")
        name = hash.hex()
        return f"{self._root}/{name[:2]}/{name[2:4]}/{name}"

    def _open(self, hash: bytes) -> int:
        try:
            return os.open(self._path(hash), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise BlobMissing(hash.hex()) from None

    def _temporary(self) -> tuple[int, str]:
        while True:
            name = f"{self._tmp}/{os.getpid()}-{next(self._numbers)}"
            try:
                return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), name
            except FileExistsError:
                continue  # left by a process that had our number before us

    def _is_known(self, hash: bytes, path: str) -> bool:
        """Whether this process compared or wrote the file that is there now, so that it is synced or about to be."""
        stamp = self._known.get(hash)
        if stamp is None:
            return False
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return False
        return stamp == (status.st_ino, status.st_mtime_ns)

    def _holding(self, path: str, data: bytes) -> _Stamp | None:
        """The file's stamp if it has exactly these bytes: after a crash its length alone may deceive."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if shape_at(fd).clear != len(data):
                return None
            view, at = memoryview(data), 0
            for piece in pieces(self._codec, fd, 0, None):
                if piece != view[at : at + len(piece)]:
                    return None
                at += len(piece)
            status = os.fstat(fd)
            return status.st_ino, status.st_mtime_ns
        except BlobCorrupt:
            return None
        finally:
            os.close(fd)

    def _note(self, hash: bytes, stamp: _Stamp) -> None:
        with self._lock:
            self._broken.discard(hash)
            self._dirty.add(hash)
            self._known[hash] = stamp
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)

    def _mend(self, hash: bytes) -> None:
        """Writes a blob anew from what can be read of it, if that is it."""
        sink = self.sink()
        digest = hashlib.sha256()
        try:
            for piece in self.pieces(hash):
                digest.update(piece)
                sink.add(piece)
            if digest.digest() == hash:
                sink.commit(hash)
        except BlobMissing:  # deleted on purpose
            with self._lock:
                self._broken.discard(hash)
        except BlobCorrupt:
            pass  # it stays broken
        finally:
            sink.discard()

    def _sync_filesystem(self) -> bool:
        """Everything on the root's filesystem; False where that cannot be done, or could fail in silence. Raises OSError."""
        if self._syncfs is None:
            return False
        fd = os.open(self._root, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if self._syncfs(fd) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), self._root)
            # The root's own entry may lie on another filesystem.
            _fsync([os.path.dirname(self._root)])
        finally:
            os.close(fd)
        return True

    def _sync_all(self, paths: Iterable[str]) -> None:
        todo = list(paths)
        lanes = min(SYNC_THREADS, len(todo))
        for done in [self._syncers.submit(_fsync, todo[lane::lanes]) for lane in range(lanes)]:
            done.result()


class FileSink:
    """A large blob being written into `name` (see intake.Sink)."""

    def __init__(self, shelf: FileShelf, codec: Codec, fd: int, name: str) -> None:
        self._shelf = shelf
        self._fd = fd
        self._name = name
        self._open = True
        try:
            self._writer = FrameWriter(codec, fd)
        except OSError:
            self.discard()
            raise

    def add(self, data: bytes) -> None:
        self._writer.add(data)

    def commit(self, hash: bytes) -> None:
        self._writer.finish()
        self._shelf.place(hash, self._fd, self._name)
        self.discard()

    def discard(self) -> None:
        if self._open:
            self._open = False
            os.close(self._fd)
            _unlink(self._name)


def _named(root: str) -> str:
    """The store's name, given to it if it has none. Several processes may try at once. Raises OSError."""
    path = f"{root}/{NAME_FILE}"
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        pass
    fresh = f"{root}/tmp/{NAME_FILE}-{os.urandom(8).hex()}"
    with open(fresh, "x", encoding="ascii") as file:
        file.write(os.urandom(16).hex())
    _fsync([fresh])
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass  # another process was first
    finally:
        _unlink(fresh)
    _fsync([root])
    with open(path, encoding="ascii") as file:
        return file.read()


def _syncfs() -> Callable[[int], int] | None:
    """The C library's syncfs, where it tells what failed."""
    release = os.uname().release.split(".")
    try:
        if (int(release[0]), int(release[1])) < SYNCFS_TELLS_SINCE:
            return None
        found: Callable[[int], int] = ctypes.CDLL(None, use_errno=True).syncfs
        return found
    except (AttributeError, OSError, ValueError, IndexError):
        return None


def _fsync(paths: list[str]) -> None:
    for path in paths:
        with suppress(FileNotFoundError):  # deleted meanwhile, on purpose
            fsync(path)


def fsync(path: str) -> None:
    """A file or a folder. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _folders(path: str) -> list[str]:
    """Those of the fan: two hexadecimal digits."""
    return [f"{path}/{name}" for name in sorted(os.listdir(path)) if len(name) == 2]


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
