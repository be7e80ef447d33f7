"""Moving in: how fast `angarium import` brings a Maildir and another account by IMAP, and a second run over the same."""

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.figures import Value, mail
from bench.place import PASSWORD, api
from tests.faults.site import Site
from tests.live import CLI, REPOSITORY

MESSAGES = int(os.environ.get("BENCH_IMPORT_MESSAGES", "5000"))
MESSAGE_BYTES = 10_000
GOAL = "≥ 500/s"


async def moving_in(site: Site) -> list[Value]:
    """MESSAGES messages of 10 KB, one account, with the start of the program; then several accounts at once."""
    anna, ben, *others = await _people(site, 6)
    with tempfile.TemporaryDirectory(prefix="angarium-bench-") as home:
        folder = Path(home) / "Maildir"
        await asyncio.to_thread(_fill, folder)
        first = await _imported(site, "maildir", anna, str(folder))
        second = await _imported(site, "maildir", anna, str(folder))
        server = ("--host", "localhost", "--port", str(site.config.ports.imaps), "--no-verify", "--user", anna)
        by_imap = await _imported(site, "imap", ben, *server, "--password-file", "-")
        rows = ["address,kind,source", *(f"{address},maildir,{folder}" for address in others)]
        table = Path(home) / "many.csv"
        await asyncio.to_thread(table.write_text, "\n".join(rows))
        many = await _imported(site, "many", str(table))
    notes = f"{MESSAGES} of {MESSAGE_BYTES // 1000} KB"
    return [
        Value("import of a Maildir", MESSAGES / first, "messages/s", GOAL, notes),
        Value("the same again, nothing new", second, "s", "", notes),
        Value("import by IMAP from the same site", MESSAGES / by_imap, "messages/s", "", notes),
        Value(f"import into {len(others)} accounts at once", MESSAGES * len(others) / many, "messages/s", GOAL, notes),
    ]


async def _people(site: Site, count: int) -> list[str]:
    addresses = [f"moving{number}@{site.config.domain}" for number in range(count)]
    for address in addresses:
        await api(site, "POST", "/accounts", {"address": address, "password": PASSWORD})
    return addresses


def _fill(folder: Path) -> None:
    (folder / "cur").mkdir(parents=True)
    for number in range(MESSAGES):
        (folder / "cur" / f"{number}.bench:2,S").write_bytes(mail(MESSAGE_BYTES, number))


async def _imported(site: Site, *words: str) -> float:
    """Seconds. The program's own start is in it."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *CLI,
        "--dir",
        str(site.config.dir),
        "import",
        *words,
        "--json",
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=sys.stderr,
    )
    said, _ = await process.communicate(PASSWORD.encode())
    last: dict[str, Any] = json.loads(said.splitlines()[-1])
    assert process.returncode == 0 and last["imported"] + last["found"] in (MESSAGES, 4 * MESSAGES), last
    return time.perf_counter() - began
