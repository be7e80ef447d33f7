"""Debian's dovecot-imapd on free ports in a folder of its own."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from bench import machine
from bench.place import PASSWORD
from node.config import STANDARD_PORTS, TlsConfig
from tests.live import port_base

PROGRAM = "/usr/sbin/dovecot"
START_S_MAX = STOP_S_MAX = 20.0
POLL_S = 0.05

FTS = """
plugin {
  plugin = fts fts_xapian
  fts = xapian
  fts_xapian = partial=3 full=20
  fts_autoindex = yes
  fts_enforced = yes
}
"""


class Dovecot(NamedTuple):
    imap: int
    imaps: int
    process: "subprocess.Popen[bytes]"

    def cpu_s(self) -> float:
        return machine.cpu_s(self.process.pid)


def installed() -> bool:
    return os.geteuid() == 0 and Path(PROGRAM).exists()


@asynccontextmanager
async def running(folder: Path, tls: TlsConfig, *, indexed: bool = False) -> AsyncIterator[Dovecot]:
    """Until the block ends. `indexed`: with dovecot-fts-xapian. Raises AssertionError with its log where it does not start."""
    base = port_base()
    imap, imaps = base + STANDARD_PORTS["imap"], base + STANDARD_PORTS["imaps"]
    folder.mkdir(mode=0o755)
    for parent in folder.parents:  # it reads mail as another user
        if str(parent) not in ("/", "/tmp"):  # noqa: S108
            parent.chmod(parent.stat().st_mode | 0o011)
    (folder / "mail").mkdir()
    shutil.chown(folder / "mail", "mail", "mail")
    text = (Path(__file__).parent / "dovecot.conf").read_text()
    config = folder / "dovecot.conf"
    config.write_text(
        text.format(
            folder=folder,
            certificate=tls.certificate,
            key=tls.key,
            password=PASSWORD,
            imap=imap,
            imaps=imaps,
            plugins="fts fts_xapian" if indexed else "",
            fts=FTS if indexed else "",
        )
    )
    process = subprocess.Popen((PROGRAM, "-F", "-c", str(config)), start_new_session=True)
    try:
        await _answers(process, imap, folder / "log")
        yield Dovecot(imap, imaps, process)
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, STOP_S_MAX)


async def _answers(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    async with asyncio.timeout(START_S_MAX):
        while True:
            assert process.poll() is None, log.read_text() if log.exists() else "it did not start"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(POLL_S)
                continue
            writer.close()
            return
