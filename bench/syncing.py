"""How programs come level with a large mailbox, beside Debian's dovecot-imapd: one that was here before (QRESYNC), and one that
sees it for the first time (mbsync)."""

import asyncio
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

from bench.figures import Value, append
from bench.mailing import Measured, Server, compared, letter, servers
from bench.place import PASSWORD
from tests.faults.site import Site
from tests.mbsync import ACCOUNT, configuration

LARGE = int(os.environ.get("BENCH_RESYNC_MESSAGES", "100000"))
FIRST = int(os.environ.get("BENCH_SYNC_MESSAGES", "50000"))
DIFFERENT, APPENDS_A_COMMAND = 1000, 50
CHANGES = 10
ROUNDS = 20
MBSYNC_S_MAX = 3600
IMAP_S_MAX = 600


async def resync(site: Site) -> list[Value]:
    """SELECT of a mailbox of LARGE messages, bare and with QRESYNC after CHANGES changes, by a session that is new each time."""
    found: list[Measured] = []
    async for server in servers(site, ["resyncer"]):
        await _filled(server, LARGE)
        found.append(await _resynced(server))
    return compared(*found)


async def first_sync(site: Site) -> list[Value]:
    """All of INBOX with FIRST messages by mbsync into an empty Maildir."""
    if shutil.which("mbsync") is None:
        return []
    values: list[Value] = []
    async for server in servers(site, ["syncer"]):
        await _filled(server, FIRST)
        cpu, began = server.cpu_s(), time.perf_counter()
        count = await _mbsync(server, site.config.tls.ca)
        took, spent = time.perf_counter() - began, server.cpu_s() - cpu
        assert count == FIRST, f"{count} of {FIRST} messages came"
        ratio = f"; ours took {values[0].value / took:.2f} of it" if values else ""
        name = f"first sync of {FIRST:,} by mbsync, {server.name}"
        values.append(Value(name, took, "s", notes=f"{spent:.1f} s of the server's processor time{ratio}"))
    return values


async def _filled(server: Server, count: int) -> None:
    """DIFFERENT letters, copied until there are enough."""
    imap = await server.session(0)
    for at in range(0, DIFFERENT, APPENDS_A_COMMAND):
        await imap.ask(append(b"INBOX", [letter(n) for n in range(at, at + APPENDS_A_COMMAND)]))
    await imap.ask(b"SELECT INBOX")
    there = DIFFERENT
    while there < count:
        more = min(there, count - there, 10_000)  # Dovecot holds a Maildir's lock meanwhile
        await imap.ask(b"COPY 1:%d INBOX" % more)
        there += more
        await imap.ask(b"NOOP")
    imap.close()


async def _resynced(server: Server) -> Measured:
    chance = random.Random(1)  # noqa: S311
    took: Measured = {(0, "SELECT"): [], (0, "SELECT with QRESYNC"): []}
    other = await server.session(0)
    await other.ask(b"ENABLE CONDSTORE")
    for _ in range(ROUNDS):
        answer = await other.ask(b"SELECT INBOX")
        uidvalidity, modseq = (
            int(answer.partition(word)[2].partition(b"]")[0]) for word in (b"UIDVALIDITY ", b"HIGHESTMODSEQ ")
        )
        for uid in chance.sample(range(1, LARGE), CHANGES):
            await other.ask(b"UID STORE %d %bFLAGS (\\Flagged)" % (uid, chance.choice((b"+", b"-"))))
        imap = await server.session(0)
        await imap.ask(b"ENABLE QRESYNC")
        began = time.perf_counter()
        await imap.ask(b"SELECT INBOX (QRESYNC (%d %d))" % (uidvalidity, modseq))
        took[0, "SELECT with QRESYNC"].append((time.perf_counter() - began) * 1000)
        imap.close()
        plain = await server.session(0)
        began = time.perf_counter()
        await plain.ask(b"SELECT INBOX")
        took[0, "SELECT"].append((time.perf_counter() - began) * 1000)
        plain.close()
    other.close()
    return {(0, f"{word}, {LARGE:,} messages"): times for (_, word), times in took.items()}


async def _mbsync(server: Server, ca: Path) -> int:
    """How many messages came."""
    with tempfile.TemporaryDirectory(prefix="mbsync-") as folder:
        home = Path(folder)
        (home / "near").mkdir()
        account = f"{ACCOUNT}Timeout {IMAP_S_MAX}\n".format(port=server.imaps, user=server.people[0], password=PASSWORD, ca=ca)
        text = configuration(account).replace("Patterns *", "Patterns INBOX").format(near=home / "near")
        (home / "mbsyncrc").write_text(text)
        process = await asyncio.create_subprocess_exec("mbsync", "-q", "-c", str(home / "mbsyncrc"), "-a")
        async with asyncio.timeout(MBSYNC_S_MAX):
            assert await process.wait() == 0, "mbsync failed"
        return sum(1 for sub in ("new", "cur") for _ in (home / "near" / "INBOX" / sub).iterdir())


FIGURES = {"resync": resync, "first-sync": first_sync}
