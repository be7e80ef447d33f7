"""Small blobs as rows of one file: what a crash, a broken disk, a damaged or a lost file make of them."""

import asyncio
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.domain.mailbox.content import Segment
from cluster.log.model import Blob
from storage.blobs import BlobCorrupt, BlobMissing, BlobsUnavailable
from storage.blobs.disk import DiskBlobs
from storage.blobs.small import SMALL_BYTES_MAX
from tests.file_blobs import FileBlobs


def blob(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).digest(), data)


def noise(size: int, seed: int = 0) -> bytes:
    return hashlib.shake_256(b"%d" % seed).digest(size)


def files(root: Path) -> list[str]:
    return sorted(file.name for file in root.glob("??/??/*"))


async def test_small_ones_are_rows_and_others_files(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path)
    small, large = blob(noise(SMALL_BYTES_MAX)), blob(noise(SMALL_BYTES_MAX + 1))
    assert await blobs.put([small, large]) == 2
    assert files(tmp_path) == [large.hash.hex()]
    for one in (small, large):
        assert await blobs.get(one.hash) == one.data
        assert await blobs.size(one.hash) == len(one.data)
    await blobs.close()


async def test_a_small_one_in_a_file_is_found_there(tmp_path: Path) -> None:
    """From an earlier release."""
    before = FileBlobs(tmp_path)
    old = blob(b"as it was kept before")
    await before.put([old])
    await before.sync()
    await before.close()
    blobs = DiskBlobs(tmp_path)
    assert blobs.name == before.name
    new = blob(b"new")
    await blobs.put([new])
    assert await blobs.get_many([old.hash, new.hash]) == [old.data, new.data]
    pieces = [piece async for piece in blobs.read([Segment(old.hash, len(old.data))], 3, 5)]
    assert b"".join(pieces) == old.data[3:5]
    await blobs.put([old])
    assert [name async for batch in blobs.walk() for name in batch] == sorted((old.hash, new.hash)), "each once"
    assert await blobs.delete(old.hash)
    with pytest.raises(BlobMissing):
        await blobs.verify(old.hash)
    await blobs.close()


KILLED = """
import asyncio, hashlib, os, signal, sys
from pathlib import Path
from cluster.log.model import Blob
from storage.blobs.disk import DiskBlobs

async def main(root):
    blobs = DiskBlobs(root)
    await blobs.put([Blob(hashlib.sha256(b"%d" % n).digest(), b"%d" % n) for n in range(50)])
    with blobs.disk.together():
        for n in range(50, 100):
            blobs.disk.put(hashlib.sha256(b"%d" % n).digest(), b"%d" % n)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_a_killed_process_leaves_what_it_had_put_and_no_half_of_a_transaction(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    blobs = DiskBlobs(tmp_path)
    names = [hashlib.sha256(b"%d" % n).digest() for n in range(100)]
    assert [got is not None for got in await blobs.get_many(names)] == [True] * 50 + [False] * 50
    await blobs.close()


async def test_wrong_bytes_are_told_and_mended(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path)
    one, other = blob(noise(5000, 1)), blob(noise(5000, 2))
    await blobs.put([one, other])
    direct = sqlite3.connect(tmp_path / "small.sqlite", isolation_level=None)
    (raw,) = direct.execute("SELECT data FROM blob WHERE hash = ?", (one.hash,)).fetchone()
    (others,) = direct.execute("SELECT data FROM blob WHERE hash = ?", (other.hash,)).fetchone()
    for wrong in (b"", raw[:10], raw[:-1], raw[:200] + b"\x00\x00\x00\x00" + raw[204:], others):
        direct.execute("UPDATE blob SET data = ? WHERE hash = ?", (wrong, one.hash))
        with pytest.raises(BlobCorrupt):
            await blobs.verify(one.hash)
        if wrong != others:
            assert await blobs.get_many([one.hash]) == [None]
        assert await blobs.put([one]) == 1
        await blobs.verify(one.hash)
    direct.close()
    await blobs.close()


async def test_sync_reaches_the_log_of_the_file_and_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "blobs"
    blobs = DiskBlobs(root)
    synced: list[str] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    one = blob(b"one")
    await blobs.put([one])
    await blobs.sync()
    assert set(synced) == {str(root / "small.sqlite-wal"), str(root)}
    synced.clear()
    await blobs.sync()
    assert synced == []
    again = DiskBlobs(root)
    synced.clear()
    await again.put([one])
    await again.sync()
    assert str(root / "small.sqlite-wal") in synced, "another process cannot know that it is on disk"
    await asyncio.gather(blobs.close(), again.close())


@pytest.mark.parametrize("lost", (False, True))
async def test_a_sync_that_failed_is_done_with_new_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    blobs = DiskBlobs(tmp_path)
    one, other = blob(b"one"), blob(b"another")
    await blobs.put([one])
    direct = sqlite3.connect(tmp_path / "small.sqlite", isolation_level=None)

    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    def row() -> tuple[int, ...]:
        found: tuple[int, ...] = direct.execute("SELECT id FROM blob WHERE hash = ?", (one.hash,)).fetchone()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        for _ in range(2):
            with pytest.raises(BlobsUnavailable):
                await blobs.sync()
    await blobs.put([other])
    if lost:
        direct.execute("UPDATE blob SET data = zeroblob(length(data)) WHERE hash = ?", (one.hash,))
        with pytest.raises(BlobsUnavailable, match="to be put again"):
            await blobs.sync()
        assert await blobs.put([one]) == 1
    was = row()
    await blobs.sync()
    assert lost or row() != was
    await blobs.verify(one.hash)
    await blobs.verify(other.hash)
    direct.close()
    await blobs.close()


async def test_what_the_log_of_the_file_holds_is_moved_while_it_grows(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path)
    wal = tmp_path / "small.sqlite-wal"
    many = [blob(noise(60_000, n)) for n in range(400)]
    await blobs.put(many)
    assert wal.stat().st_size > 16 << 20
    await blobs.sync()
    assert wal.stat().st_size == 0
    assert await blobs.missing([one.hash for one in many]) == []
    await blobs.close()


async def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path)
    one = blob(noise(60_000, 1))
    # The database's own limit gives the same error in the same place, and needs no root.
    writer = blobs.disk._small._writer
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(BlobsUnavailable, match="full"):
        await blobs.put([blob(b"before it"), one])
    assert await blobs.missing([blob(b"before it").hash]) == [blob(b"before it").hash], "all or none"
    writer.execute("PRAGMA max_page_count = 1000000")
    assert await blobs.put([one]) == 1
    await blobs.sync()
    await blobs.verify(one.hash)
    await blobs.close()


async def test_a_damaged_file_is_told_and_takes_nothing(tmp_path: Path) -> None:
    before = DiskBlobs(tmp_path)
    many = [blob(noise(3_000, n)) for n in range(200)]
    await before.put(many)
    await before.sync()
    await before.close()
    path = tmp_path / "small.sqlite"
    raw = path.read_bytes()
    path.write_bytes(raw[:4096] + bytes(4096 * 3) + raw[4096 * 4 :])

    blobs = DiskBlobs(tmp_path)
    assert await blobs.get_many([many[0].hash]) == [None], "other sites are asked"
    with pytest.raises(BlobsUnavailable, match="malformed"):
        await blobs.put([blob(b"new")])
    await blobs.close()
    path.unlink()
    anew = DiskBlobs(tmp_path)
    assert anew.name != before.name, "as another store it is given everything once more"
    assert await anew.put(many) == len(many)
    await anew.close()
