"""The port `Blobs`, over every store that keeps it; then what only files can suffer."""

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.domain.mailbox.content import Segment
from cluster.log.model import Blob, Record
from storage.blobs import PIECE_BYTES_MAX, BlobCorrupt, BlobMissing, Blobs, BlobsUnavailable
from storage.blobs.disk import DiskBlobs
from storage.blobs.intake import UNFINISHED_MAX, UNFINISHED_S_MAX
from storage.blobs.memory import MemoryBlobs
from tests.contracts.memory import peak, restart_peak
from tests.file_blobs import FileBlobs
from tests.live import REPOSITORY

MIB = 1 << 20
SIZES = (0, 1, 1000, PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1, 3 * PIECE_BYTES_MAX, 3 * MIB + 5)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def sample(size: int, seed: int = 0) -> bytes:
    """Half of it shrinks, half does not."""
    noise = hashlib.shake_256(seed.to_bytes(8, "big")).digest(size // 2)
    return noise + b"the same words again and again, " * ((size - len(noise)) // 32) + b"x" * ((size - len(noise)) % 32)


def blob(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).digest(), data)


def chunks(data: bytes, size: int = MIB, first: int = 1) -> list[Record]:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    name = hashlib.sha256(data).digest()
    return [Record(first + n, "", "acc", part, name, n, len(parts)) for n, part in enumerate(parts)]


def path_of(root: Path, name: bytes) -> Path:
    return root / name.hex()[:2] / name.hex()[2:4] / name.hex()


async def read(blobs: Blobs, segments: list[Segment], start: int = 0, end: int | None = None) -> bytes:
    pieces = [piece async for piece in blobs.read(segments, start, end)]
    assert all(0 < len(piece) <= PIECE_BYTES_MAX for piece in pieces)
    return b"".join(pieces)


async def names(blobs: Blobs) -> list[bytes]:
    return [name async for batch in blobs.walk() for name in batch]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["disk", "files", "memory"])
async def blobs(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Blobs]:
    on_disk = {"disk": DiskBlobs, "files": FileBlobs}.get(request.param)
    store: Blobs = on_disk(tmp_path / "blobs", clock) if on_disk is not None else MemoryBlobs(clock)
    yield store
    await store.close()


async def test_what_is_put_comes_back(blobs: Blobs) -> None:
    all_of_them = [blob(sample(size, size)) for size in SIZES]
    assert await blobs.put(all_of_them) == len(SIZES)
    await blobs.sync()
    assert await blobs.put(all_of_them) == 0
    for one in all_of_them:
        assert await blobs.get(one.hash) == one.data
        assert await blobs.size(one.hash) == len(one.data)
        assert await read(blobs, [Segment(one.hash, len(one.data))]) == one.data
        await blobs.verify(one.hash)
    assert await names(blobs) == sorted(one.hash for one in all_of_them)


async def test_what_is_not_there(blobs: Blobs) -> None:
    here, absent = blob(b"here"), blob(b"absent")
    await blobs.put([here])
    assert await blobs.get_many([absent.hash, here.hash, absent.hash]) == [None, b"here", None]
    assert await blobs.missing([absent.hash, here.hash]) == [absent.hash]
    assert await blobs.size(absent.hash) is None
    assert not await blobs.delete(absent.hash)
    for failing in (blobs.get(absent.hash), blobs.verify(absent.hash), read(blobs, [Segment(absent.hash, 6)])):
        with pytest.raises(BlobMissing):
            await failing


async def test_bytes_that_belie_their_name_are_not_taken(blobs: Blobs) -> None:
    liar = Blob(hashlib.sha256(b"one").digest(), b"two")
    with pytest.raises(BlobCorrupt):
        await blobs.put([liar])
    taken = await blobs.intake().take([Record(1, "", "acc", liar.data, liar.hash), *chunks(b"good")])
    assert taken == ((blob(b"good").hash,), (liar.hash,))
    assert await names(blobs) == [blob(b"good").hash]


async def test_deleted_and_put_again(blobs: Blobs) -> None:
    one = blob(b"once more")
    await blobs.put([one])
    await blobs.sync()
    assert await blobs.delete(one.hash)
    assert await names(blobs) == []
    assert await blobs.put([one]) == 1
    await blobs.sync()
    assert await blobs.get(one.hash) == one.data


async def test_large_blobs_interleaved_and_repeated(blobs: Blobs) -> None:
    intake = blobs.intake()
    a, b = chunks(sample(2 * MIB + 7, 1), 300_000, first=10), chunks(sample(MIB, 2), 200_000, first=11)
    small = blob(b"between")
    mixed = [record for pair in zip(a, b, strict=False) for record in pair] + a[len(b) :]
    first, rest = mixed[:7], mixed[7:]
    assert await intake.take(first) == ((), ())
    assert intake.confirmable(50) == 9  # the first chunk of `a` would be needed again
    repeated = [Record(60, "", "acc", small.data, small.hash), *first, Record(61, "mailbox", "acc", b"an event")]
    assert await intake.take(repeated) == ((small.hash,), ())
    taken = await intake.take(rest)
    assert set(taken.complete) == {a[0].hash, b[0].hash} and not taken.corrupt
    assert intake.confirmable(70) == 70
    await blobs.sync()
    for name in taken.complete:
        await blobs.verify(name)


async def test_an_upload_that_starts_anew_completes(blobs: Blobs) -> None:
    intake = blobs.intake()
    parts = chunks(sample(5 * 1000, 3), 1000)
    assert await intake.take([parts[2], parts[4]]) == ((), ())  # the beginning was dropped from the log
    assert intake.confirmable(9) == 9
    assert (await intake.take([parts[0], parts[1], *parts])).complete == (parts[0].hash,)


async def test_chunks_that_do_not_make_their_name(blobs: Blobs) -> None:
    intake = blobs.intake()
    parts = chunks(sample(3000, 4), 1000)
    wrong = [*parts[:2], Record(3, "", "acc", b"other", parts[0].hash, 2, 3)]
    assert await intake.take(wrong) == ((), (parts[0].hash,))
    assert intake.confirmable(9) == 9
    assert await names(blobs) == []
    assert (await intake.take(parts)).complete == (parts[0].hash,)


async def test_unfinished_blobs_are_dropped_by_age_and_number(blobs: Blobs, clock: Clock) -> None:
    intake = blobs.intake()
    old = chunks(sample(2000, 5), 1000, first=1)
    await intake.take(old[:1])
    clock.now = UNFINISHED_S_MAX + 1
    many = [chunks(sample(2000, 100 + n), 1000, first=100 + 2 * n) for n in range(UNFINISHED_MAX + 1)]
    assert (await intake.take([two[0] for two in many] + old[1:])).complete == ()
    assert intake.confirmable(999) == 101  # the second of many: the first had to make room
    taken = await intake.take([two[1] for two in many])
    assert taken.complete == tuple(two[0].hash for two in many[1:])
    intake.close()


MESSAGE = [blob(sample(size, 50 + size)) for size in (0, 7, 3000, PIECE_BYTES_MAX, 2 * MIB + 100, 1)]
WHOLE = b"".join(one.data for one in MESSAGE)
EDGES = [0, 7, 3007, 3007 + PIECE_BYTES_MAX, 3007 + PIECE_BYTES_MAX + MIB, len(WHOLE) - 1, len(WHOLE)]
OFFSETS = st.one_of(st.sampled_from(EDGES), st.integers(-len(WHOLE) - 10, len(WHOLE) + 10))


@given(start=OFFSETS, end=st.none() | OFFSETS, offset=st.integers(-2, 2))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ranges_are_slices(tmp_path: Path, start: int, end: int | None, offset: int) -> None:
    async def both() -> None:
        for blobs in (DiskBlobs(tmp_path), FileBlobs(tmp_path), MemoryBlobs()):
            await blobs.put(MESSAGE)
            segments = [Segment(one.hash, len(one.data)) for one in MESSAGE]
            assert await read(blobs, segments, start + offset, end) == WHOLE[start + offset : end]
            await blobs.close()

    asyncio.run(both())


# -- files only -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 3 * MIB])
@pytest.mark.parametrize("keep", [0, 10, 24, 500, -1])
async def test_a_torn_file_is_mended_when_it_comes_again(tmp_path: Path, size: int, keep: int) -> None:
    one = blob(sample(size))
    before = FileBlobs(tmp_path)
    await before.put([one])
    await before.close()
    path = path_of(tmp_path, one.hash)
    os.truncate(path, keep % path.stat().st_size)

    after = FileBlobs(tmp_path)
    assert await after.missing([one.hash]) == [one.hash]
    assert await after.get_many([one.hash]) == [None]
    for failing in (after.get(one.hash), after.verify(one.hash), read(after, [Segment(one.hash, size)])):
        with pytest.raises(BlobCorrupt):
            await failing
    assert await after.put([one]) == 1
    await after.verify(one.hash)
    await after.sync()
    await after.close()


@pytest.mark.parametrize("size", [1000, 3 * MIB])
async def test_a_file_of_the_right_length_with_wrong_bytes_is_mended_too(tmp_path: Path, size: int) -> None:
    """A filesystem may have written the length before a crash, and not the bytes."""
    one = blob(sample(size))
    before = FileBlobs(tmp_path)
    await before.put([one])
    await before.close()
    path = path_of(tmp_path, one.hash)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 8] = bytes(8)
    path.write_bytes(raw)

    after = FileBlobs(tmp_path)
    with pytest.raises(BlobCorrupt):
        await after.get(one.hash)
    assert await after.put([one]) == 1
    assert await after.get(one.hash) == one.data
    await after.close()


async def test_a_file_with_another_blobs_bytes_is_found(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    one, two = blob(b"a" * 5000), blob(b"b" * 5000)
    await blobs.put([one, two])
    path_of(tmp_path, one.hash).write_bytes(path_of(tmp_path, two.hash).read_bytes())
    with pytest.raises(BlobCorrupt):
        await blobs.verify(one.hash)
    assert await blobs.put([one]) == 1  # it is not the file that we wrote
    await blobs.verify(one.hash)
    await blobs.close()


async def test_any_damage_is_told_and_none_crashes(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    one = blob(sample(2 * PIECE_BYTES_MAX + 100))
    await blobs.put([one])
    path = path_of(tmp_path, one.hash)
    whole = path.read_bytes()
    for at in (*range(0, 64), *range(64, len(whole) - 64, 4999), *range(len(whole) - 16, len(whole))):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x81]) + whole[at + 1 :])
        with pytest.raises(BlobCorrupt):
            await blobs.get(one.hash)
    await blobs.close()


async def test_two_processes_share_a_root(tmp_path: Path) -> None:
    ours, theirs = FileBlobs(tmp_path), FileBlobs(tmp_path)
    one = blob(b"shared")
    assert await ours.put([one]) == 1
    assert await theirs.put([one]) == 0
    assert await ours.delete(one.hash)
    assert await theirs.put([one]) == 1  # theirs remembers a file that is gone
    await theirs.sync()
    await ours.sync()
    await asyncio.gather(ours.close(), theirs.close())


async def test_sync_reaches_every_file_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What sync promises cannot be seen without pulling the plug, so look at what it asks of the kernel."""
    root = tmp_path / "blobs"
    blobs = FileBlobs(root)
    synced: list[str] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    one, large = blob(b"one"), sample(2 * MIB)
    path = path_of(root, one.hash)
    await blobs.put([one])
    await blobs.sync()
    assert set(synced) == {str(at) for at in (path, path.parent, path.parent.parent, root, root.parent)}
    synced.clear()
    await blobs.sync()
    assert synced == []
    await blobs.intake().take(chunks(large))
    await blobs.sync()
    assert str(path_of(root, blob(large).hash)) in synced
    synced.clear()
    await blobs.put([one])
    await blobs.sync()
    assert synced == []  # known to be on disk
    again = FileBlobs(root)
    await again.put([one])
    await again.sync()
    assert str(path) in synced  # another process cannot know that
    await asyncio.gather(blobs.close(), again.close())


@pytest.mark.parametrize("lost", (False, True))
async def test_a_sync_that_failed_is_done_with_new_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """The kernel reports a page that it lost once only, and the next fsync of that file would succeed."""
    blobs = FileBlobs(tmp_path)
    one, other = blob(b"one"), blob(b"another")
    await blobs.put([one])
    path = path_of(tmp_path, one.hash)
    first = path.open()  # held, so that its inode is not used again

    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        for _ in range(2):
            with pytest.raises(BlobsUnavailable):
                await blobs.sync()
    if lost:
        path.write_bytes(bytes(path.stat().st_size))
        await blobs.put([other])
        with pytest.raises(BlobsUnavailable):
            await blobs.sync()
        assert await blobs.put([one]) == 1
    await blobs.sync()
    assert os.fstat(first.fileno()).st_nlink == 0
    first.close()
    await blobs.verify(one.hash)
    await blobs.close()


def test_leftovers_of_a_crash_are_removed(tmp_path: Path) -> None:
    shelf = FileBlobs(tmp_path).files
    shelf.sink().add(b"never finished")
    left = list((tmp_path / "tmp").iterdir())
    assert len(left) == 1
    assert shelf.clean(left[0].stat().st_mtime - 1) == 0
    assert shelf.clean(left[0].stat().st_mtime + 1) == 1
    assert list((tmp_path / "tmp").iterdir()) == []


FULL_DISK = """
import asyncio, hashlib, resource, sys
from pathlib import Path
from cluster.log.model import Blob, Record
from storage.blobs import BlobsUnavailable
from tests.file_blobs import FileBlobs

async def main(root):
    blobs = FileBlobs(root)
    noise = hashlib.shake_256(b"").digest(2 << 20)
    name = hashlib.sha256(noise).digest()
    intake = blobs.intake()
    chunk = [Record(n, "", "a", noise[n << 20 : (n + 1) << 20], name, n, 2) for n in range(2)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    for work in (lambda: blobs.put([Blob(name, noise)]), lambda: intake.take(chunk)):
        try:
            await work()
        except BlobsUnavailable:
            continue
        sys.exit("no refusal")
    assert intake.confirmable(9) == 9 and not list((root / "tmp").iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (await intake.take(chunk)).complete == (name,)
    await blobs.sync()
    assert await blobs.get(name) == noise
    await blobs.close()

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    """A limit on file sizes gives the same errors in the same places as a full disk, and needs no root."""
    script = (sys.executable, "-c", FULL_DISK, str(tmp_path))
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr


async def test_large_blobs_take_little_memory(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    intake = blobs.intake()
    chunk = sample(MIB)
    digest = hashlib.sha256()
    for _ in range(200):
        digest.update(chunk)
    before = restart_peak()
    for n in range(200):
        taken = await intake.take([Record(n + 1, "", "acc", chunk, digest.digest(), n, 200)])
    assert taken.complete == (digest.digest(),)
    count = 0
    async for piece in blobs.read([Segment(digest.digest(), 200 * MIB)]):
        count += len(piece)
    assert count == 200 * MIB
    await blobs.verify(digest.digest())
    assert peak() - before < 40 * MIB
    await blobs.close()
