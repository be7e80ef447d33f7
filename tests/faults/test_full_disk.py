"""A disk without room for contents: mail is put off, not lost, and taken again as soon as there is room."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults import site as sites
from tests.faults.clients import Smtp
from tests.faults.load import Story, text
from tests.faults.verdict import judge, signed_in

DISK_BYTES = 32 << 20
ANSWERED_S_MAX = 12.0
RECOVERED_S_MAX = 20.0
POLL_S = 0.1


def mounted(folder: Path) -> bool:
    """A small disk of its own at `folder`, where this process may make one."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "angarium-test", str(folder))
    return (
        os.geteuid() == 0
        and shutil.which("mount") is not None
        and subprocess.run(words, capture_output=True).returncode == 0
    )


@pytest.mark.long
async def test_a_full_disk_puts_mail_off_and_loses_none(tmp_path: Path) -> None:
    site = sites.made(tmp_path / "site")
    anna, ben = site.people
    folders = (site.config.blob_dir, site.config.dir / "spool")
    held = [folder for folder in folders if mounted(folder)]
    if len(held) < len(folders):
        for folder in held:
            subprocess.run(("umount", str(folder)), check=True)
        pytest.skip("needs root and mount(8): a small disk is mounted for the contents")
    story = Story()
    try:
        await site.start()
        smtp = await Smtp.connect(site.config.ports.smtp)
        imap = await signed_in(site, ben)
        for mailbox in ("Work", "Done"):
            await imap.ask(f"CREATE {mailbox}")
        assert await sent(smtp, story, "before", anna) == 250
        fillers = [fill(folder) for folder in folders]
        # Small mail needs no spool; it is in the log, whose disk has room. Large mail needs the spool.
        code = await asyncio.wait_for(sent(smtp, story, "large", anna, lines=100_000), ANSWERED_S_MAX)
        assert 400 <= code < 500, code
        for n in range(3):
            await asyncio.wait_for(sent(smtp, story, f"full-{n}", anna), ANSWERED_S_MAX)
        answer = await asyncio.wait_for(imap.ask("NOOP"), ANSWERED_S_MAX)
        assert answer.state == "OK"
        for filler in fillers:
            filler.unlink()
        async with asyncio.timeout(RECOVERED_S_MAX):
            tries = 0
            while await sent(smtp, story, f"after-{tries}", anna, lines=100_000) != 250:
                tries += 1
                await asyncio.sleep(POLL_S)
            while (await imap.ask("APPEND Work", text("appended"))).state != "OK":  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
        story.states["appended"] = {("Work", False)}
        async with asyncio.timeout(RECOVERED_S_MAX):
            while wrong := await judge(site, story):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
        assert not wrong
    finally:
        await site.stop()
        for folder in held:
            subprocess.run(("umount", str(folder)), check=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            return filler


async def sent(smtp: Smtp, story: Story, name: str, to: str, lines: int = 4) -> int:
    code = await smtp.send([to], text(name, lines))
    story.sent[name] = ((to,), (to,) if code == 250 else ())
    return code
