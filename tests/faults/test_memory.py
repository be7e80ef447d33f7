"""Ten messages of 50 MiB at once cost a worker little memory: they wait on disk and pass in pieces."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from tests.faults import site as sites
from tests.faults.clients import Smtp
from tests.faults.load import text

MIB = 1 << 20
MESSAGES = 10
MESSAGE_BYTES = 50 * MIB - 64 * 1024
RISE_BYTES_MAX = 100 * MIB
LOOK_EVERY_S = 0.05


def pss(pid: int) -> int:
    """Bytes of memory that are its own, shared pages counted by its part of them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss in smaps_rollup")


def large(n: int) -> bytes:
    """Lines of 76 letters that differ from message to message, as an attachment's do."""
    block = b"".join(hashlib.sha256(b"%d %d" % (n, k)).hexdigest().encode() + b"ABCDEFGHIJKL\r\n" for k in range(1000))
    return text(f"large-{n}") + block * (MESSAGE_BYTES // len(block))


async def highest(pid: int, stop: asyncio.Event) -> int:
    most = 0
    while not stop.is_set():
        most = max(most, pss(pid))
        await asyncio.sleep(LOOK_EVERY_S)
    return most


async def deliver(port: int, to: str, n: int) -> int:
    smtp = await Smtp.connect(port)
    try:
        return await smtp.send([to], large(n))
    finally:
        smtp.close()


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_large_messages_do_not_live_in_memory(tmp_path: Path) -> None:
    site = sites.made(tmp_path / "site")
    anna = next(iter(site.people))
    await site.start()
    try:
        assert await deliver(site.config.ports.smtp, anna, MESSAGES) == 250  # whatever is loaded once is loaded now
        pid, stop = site.pid("worker-0"), asyncio.Event()
        before = pss(pid)
        watching = asyncio.create_task(highest(pid, stop))
        codes = await asyncio.gather(*(deliver(site.config.ports.smtp, anna, n) for n in range(MESSAGES)))
        stop.set()
        rise = await watching - before
        print(f"  {MESSAGES} of {MESSAGE_BYTES / MIB:.0f} MiB: from {before / MIB:.0f} MiB by {rise / MIB:.0f} MiB")
        assert codes == [250] * MESSAGES
        assert rise <= RISE_BYTES_MAX
    finally:
        await site.stop()
