"""Messages coming in (protocols.port.Ingest and Spooled): in memory, on disk, at the edges and when the disk is full."""

import asyncio
import base64
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.domain.refusal import Reason, Refusal
from cluster.formats import mime
from cluster.log.model import INLINE_BYTES_MAX
from protocols import port
from storage.ingest import SEGMENT_BYTES_MAX, SPOOL_BYTES, WRITE_BYTES, MessageIngest, Spool, SpooledMessage
from tests.contracts.memory import peak, restart_peak

MIB = 1 << 20
HEAD = b"From: a@example.org\r\nSubject: x\r\nDate: Tue, 24 Nov 2026 06:00:00 +0000\r\nContent-Type: application/pdf\r\n\r\n"
TRACE = b"Received: from a by b; Tue, 24 Nov 2026 06:00:01 +0000\r\n"
SENT = 1795500000


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool")
    yield made
    made.close()


def message(size: int) -> bytes:
    """Exactly `size` bytes, with a header, all lines short."""
    body = hashlib.shake_256(size.to_bytes(8, "big")).digest(size)
    lines = base64.encodebytes(body).replace(b"\n", b"\r\n")
    return (HEAD + lines)[:size]


async def fed(spool: Spool, data: bytes, step: int = 65_536, limit: int = 1 << 30) -> MessageIngest:
    ingest = spool.ingest(limit)
    for at in range(0, len(data), step):
        assert await ingest.feed(memoryview(bytearray(data[at : at + step])))
    return ingest


async def bytes_of(spooled: SpooledMessage) -> bytes:
    """The message put together from its segments, as a site would from its blobs; all hashes looked at on the way."""
    blobs = {}
    async for blob in spooled.blobs():
        assert blob.hash not in blobs and hashlib.sha256(blob.data).digest() == blob.hash
        assert 0 < len(blob.data) <= SEGMENT_BYTES_MAX
        blobs[blob.hash] = blob.data
    assert spooled.inline_bytes == sum(map(len, blobs.values()))
    assert all(len(blobs[segment.hash]) == segment.size for segment in spooled.content.segments)
    data = b"".join(blobs[segment.hash] for segment in spooled.content.segments)
    assert (spooled.content.size, spooled.content.hash) == (len(data), hashlib.sha256(data).digest())
    assert spooled.content.description == msgspec.msgpack.encode(mime.describe(data))
    return data


async def finished(ingest: MessageIngest, prepend: bytes = b"", header: bytes | None = None) -> SpooledMessage:
    spooled = await ingest.finish(prepend, header)
    assert isinstance(spooled, SpooledMessage)
    return spooled


def test_it_is_what_the_port_asks_for(spool: Spool) -> None:
    """The type checker looks at this one."""
    ingest: port.Ingest = spool.ingest(1)
    ingest.abandon()


EDGES = (0, 1, len(HEAD), 10_000, 128 * 1024 + 1, SPOOL_BYTES - 1, SPOOL_BYTES, SPOOL_BYTES + 1)
EDGES_ON_DISK = (SPOOL_BYTES + WRITE_BYTES, SPOOL_BYTES + WRITE_BYTES + 1, 3 * MIB + 17)


@pytest.mark.parametrize("size", EDGES + EDGES_ON_DISK)
async def test_as_it_came(spool: Spool, size: int) -> None:
    data = message(size)
    ingest = await fed(spool, data)
    assert ingest.size == size
    for limit in (0, 1, 100, SPOOL_BYTES):
        assert ingest.head(limit) == data[:limit]
    spooled = await finished(ingest)
    assert await bytes_of(spooled) == data
    assert spooled.content.sent == (SENT if size >= len(HEAD) else None)
    inline = await spooled.inline()
    if size <= INLINE_BYTES_MAX:
        assert inline is not None and sum(len(blob.data) for blob in inline) == size
    else:
        assert inline is None
    spooled.release()
    spooled.release()


@pytest.mark.parametrize("size", (len(HEAD), 10_000, SPOOL_BYTES - 10, SPOOL_BYTES + 1, 3 * MIB))
@pytest.mark.parametrize("header", (None, b"", b"Subject: mended\r\n\r\n", HEAD + b"X-More: " + b"y" * 5000 + b"\r\n"))
async def test_prepended_and_mended(spool: Spool, size: int, header: bytes | None) -> None:
    data = message(size)
    spooled = await finished(await fed(spool, data), TRACE, header)
    assert await bytes_of(spooled) == TRACE + (data if header is None else header + data[len(HEAD) :])


@pytest.mark.parametrize(
    ("data", "body"),
    (
        (b"", b""),
        (b"A: b", b""),
        (b"A: b\r\n", b""),
        (b"\r\nbody", b"body"),
        (b"\nbody", b"body"),
        (b"A: b\n\nbody\r\n\r\nmore", b"body\r\n\r\nmore"),
        (b"A: b\r\n\r\nbody\n\nmore", b"body\n\nmore"),
        (b"A: b\n\r\nbody", b"body"),
    ),
)
async def test_where_a_header_ends(spool: Spool, data: bytes, body: bytes) -> None:
    """RFC 5322 §2.1: with the first empty line; bare LF is met in appended messages."""
    assert await bytes_of(await finished(await fed(spool, data), b"", b"H: 1\r\n\r\n")) == b"H: 1\r\n\r\n" + body


async def test_a_header_without_end(spool: Spool) -> None:
    data = b"X: " + b"y" * (2 * MIB)
    assert await bytes_of(await finished(await fed(spool, data), TRACE)) == TRACE + data
    refusal = await (await fed(spool, data)).finish(b"", b"H: 1\r\n\r\n")
    assert isinstance(refusal, Refusal) and refusal.reason is Reason.TOO_BIG
    refusal = await (await fed(spool, message(2 * MIB))).finish(b"Z" * (2 * MIB))
    assert isinstance(refusal, Refusal) and refusal.reason is Reason.TOO_BIG


@given(cuts=st.lists(st.integers(1, 400_000), min_size=1, max_size=12), size=st.integers(0, 2 * MIB))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_chunking_gives_the_same(tmp_path: Path, cuts: list[int], size: int) -> None:
    async def both() -> None:
        spool = Spool(tmp_path)
        data = message(size)
        ingest, at = spool.ingest(size), 0
        while at < size:
            for cut in cuts:
                assert await ingest.feed(data[at : at + cut])
                at += cut
        assert await bytes_of(await finished(ingest, TRACE)) == TRACE + data
        spool.close()

    asyncio.run(both())


async def test_a_large_part_is_named_the_same_whatever_surrounds_it(spool: Spool) -> None:
    part = base64.encodebytes(hashlib.shake_256(b"attachment").digest(2 * MIB)).replace(b"\n", b"\r\n")
    named = []
    for text in (b"one", b"another text\r\n" * 9):
        data = b"\r\n".join(
            (
                b"Content-Type: multipart/mixed; boundary=b\r\n",
                b"--b\r\n\r\n" + text,
                b"--b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n",
                part.removesuffix(b"\r\n"),
                b"--b--\r\n",
            )
        )
        spooled = await finished(await fed(spool, data), TRACE)
        assert await bytes_of(spooled) == TRACE + data
        named.append({segment.hash for segment in spooled.content.segments})
    assert len(named[0] & named[1]) >= len(part) // SEGMENT_BYTES_MAX


@pytest.mark.parametrize("limit", (0, 10_000, SPOOL_BYTES, 2 * MIB))
async def test_the_limit(spool: Spool, limit: int) -> None:
    ingest = await fed(spool, message(limit), limit=limit)
    assert await bytes_of(await finished(ingest, TRACE)) == TRACE + message(limit)  # trace headers do not count

    ingest = await fed(spool, message(limit), limit=limit)
    assert not await ingest.feed(b"x")
    assert not await ingest.feed(b"y" * 100_000)
    assert ingest.size == limit + 100_001
    assert ingest.head(100) == b""  # nothing is kept
    refusal = await ingest.finish()
    assert isinstance(refusal, Refusal) and refusal.reason is Reason.TOO_BIG


@pytest.mark.parametrize("size", (10_000, 3 * MIB))
async def test_given_up(spool: Spool, size: int) -> None:
    ingest = await fed(spool, message(size))
    ingest.abandon()
    ingest.abandon()
    assert isinstance(await ingest.finish(), Refusal)

    ingest = await fed(spool, message(size))
    spooled = await finished(ingest)
    ingest.abandon()
    assert await bytes_of(spooled) == message(size)  # it is not the ingest's any more
    spooled.release()
    with pytest.raises(ValueError):
        await spooled.inline() or await bytes_of(spooled)


def open_spool_files(folder: str) -> list[str]:
    targets = []
    for fd in Path("/proc/self/fd").iterdir():
        try:
            targets.append(str(fd.readlink()))
        except FileNotFoundError:  # the one that listed them
            continue
    return [target for target in targets if target.startswith(folder)]


async def test_no_file_outlives_its_message(spool: Spool) -> None:
    kept = await finished(await fed(spool, message(2 * MIB)))
    given_up = await fed(spool, message(2 * MIB))
    assert len(open_spool_files(spool.folder)) == 2
    assert list(Path(spool.folder).iterdir()) == []  # without a name: nothing is left when the process is killed
    given_up.abandon()
    kept.release()
    await asyncio.get_running_loop().run_in_executor(spool.files, lambda: None)
    assert open_spool_files(spool.folder) == []


def test_leftovers_are_removed(spool: Spool) -> None:
    left = Path(spool.folder) / "angarium-spool-left"
    left.touch()
    other = Path(spool.folder) / "not-ours"
    other.touch()
    at = left.stat().st_mtime
    assert spool.clean(at - 1) == 0
    assert spool.clean(at + 1) == 1
    assert list(Path(spool.folder).iterdir()) == [other]


async def test_cancelled_while_it_writes(spool: Spool) -> None:
    """The thread that still writes must not meet another message's file under the same number."""
    for _ in range(20):
        ingest = spool.ingest(1 << 30)
        task = asyncio.create_task(ingest.feed(b"x" * (4 * MIB)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ingest.abandon()
        data = message(SPOOL_BYTES + WRITE_BYTES)
        assert await bytes_of(await finished(await fed(spool, data))) == data


async def test_ten_large_messages_at_once_take_little_memory(spool: Spool) -> None:
    """The acceptance asks for at most 100 MiB over ten messages of 50 MiB."""
    size = 50 * MIB
    line = b"A line of a large message, as long as most lines of mail are, more or less.\r\n"
    step = line * 800

    async def one() -> None:
        ingest = spool.ingest(size * 2)
        await ingest.feed(HEAD)
        while ingest.size < size:
            assert await ingest.feed(step)
            await asyncio.sleep(0)  # as bytes come from the wire: all ten grow together
        spooled = await finished(ingest, TRACE)
        total = 0
        async for blob in spooled.blobs():
            total += len(blob.data)
        assert 0 < total <= spooled.content.size == ingest.size + len(TRACE)
        spooled.release()

    before = restart_peak()
    await asyncio.gather(*(one() for _ in range(10)))
    assert peak() - before < 100 * MIB


async def test_single_bytes_take_little_memory(spool: Spool) -> None:
    before = restart_peak()
    ingest = spool.ingest(MIB)
    for n in range(600_000):
        await ingest.feed(b"%d" % (n % 10))
    assert peak() - before < 8 * MIB
    assert (await finished(ingest)).content.size == 600_000


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from cluster.domain.refusal import Reason, Refusal
from storage.ingest import Spool, SpooledMessage

async def take(spool, prepend=b""):
    ingest = spool.ingest(10 << 20)
    for _ in range(50):
        assert await ingest.feed(b"x" * 65536)
    return await ingest.finish(prepend)

async def main(folder):
    spool = Spool(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (0, 100_000, (1 << 20) + 5, 4_000_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        refusal = await take(spool)
        assert isinstance(refusal, Refusal) and refusal.reason is Reason.UNAVAILABLE, (room, refusal)
    small = spool.ingest(1000)
    assert await small.feed(b"A: b\\r\\n\\r\\nsmall mail goes on")
    assert isinstance(await small.finish(), SpooledMessage)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(await take(spool, b"Received: x\\r\\n"), SpooledMessage)
    spool.close()

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    """A limit on file sizes gives the same errors in the same places as a full disk, and needs no root."""
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_is_gone(spool: Spool) -> None:
    Path(spool.folder).rmdir()
    ingest = await fed(spool, message(2 * MIB))
    refusal = await ingest.finish()
    assert isinstance(refusal, Refusal) and refusal.reason is Reason.UNAVAILABLE
    Path(spool.folder).mkdir()
    assert await bytes_of(await finished(await fed(spool, message(2 * MIB)))) == message(2 * MIB)
