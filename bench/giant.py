"""Mailboxes as they should not be and are: how each command grows with 500,000 messages in one, and 10,000 mailboxes in one
account."""

import os
import time
from collections.abc import Awaitable
from typing import TypeVar

from bench.figures import Value, append, session
from bench.searching import indexed
from bench.wire import Imap
from tests.faults.site import Site

LARGEST = int(os.environ.get("BENCH_GIANT_MESSAGES", "500000"))
SIZES = (*(size for size in (1_000, 10_000, 100_000) if size < LARGEST), LARGEST)
BOXES = int(os.environ.get("BENCH_GIANT_MAILBOXES", "10000"))
SEED_MESSAGES, APPENDS_A_COMMAND = 1_000, 100
COPIED_AT_ONCE_MAX = 20_000  # the site says so where its tables need longer than a client waits
PIPELINED = 100

T = TypeVar("T")


class Timed:
    """Seconds that things took, by name."""

    def __init__(self) -> None:
        self.took: dict[str, float] = {}

    async def __call__(self, name: str, work: Awaitable[T]) -> T:
        began = time.perf_counter()
        answer = await work
        self.took[name] = time.perf_counter() - began
        return answer


async def messages(site: Site) -> list[Value]:
    """Seconds of each command with more and more messages in the mailbox, and what each message costs at each size."""
    imap = await session(site)
    await imap.ask(b"CREATE Giant")
    for n in range(0, SEED_MESSAGES, APPENDS_A_COMMAND):
        await imap.ask(append(b"Giant", [_small(n + m) for m in range(APPENDS_A_COMMAND)]))
    there, took = SEED_MESSAGES, dict[str, dict[int, float]]()
    for size in SIZES:
        await imap.ask(b"SELECT Giant")
        while there < size:
            more = min(there, size - there, COPIED_AT_ONCE_MAX)
            await imap.ask(b"COPY 1:%d Giant" % more)
            there += more
        await indexed(site, size)  # which takes processor time of its own: bench/searching.py
        for name, seconds in (await _measured(site, size)).items():
            took.setdefault(name, {})[size] = seconds
    imap.close()
    return [_curve(name, by_size) for name, by_size in took.items()]


def _curve(name: str, by_size: dict[int, float]) -> Value:
    each = {size: 1e6 * seconds / size for size, seconds in by_size.items()}
    notes = "µs a message: " + ", ".join(f"{size:,} {cost:.1f}" for size, cost in each.items())
    return Value(f"{SIZES[-1]:,} messages: {name}", by_size[SIZES[-1]], "s", notes=notes)


async def _measured(site: Site, size: int) -> dict[str, float]:
    imap, timed = await session(site), Timed()
    assert b"* %d EXISTS" % size in await timed("SELECT", imap.ask(b"SELECT Giant"))
    await timed("FETCH 1:* (UID FLAGS)", imap.ask(b"FETCH 1:* (UID FLAGS)"))
    await timed("UID SEARCH UNSEEN", imap.ask(b"UID SEARCH RETURN (COUNT) UNSEEN"))
    await timed("UID SEARCH ALL", imap.ask(b"UID SEARCH ALL"))
    await timed("UID SEARCH SUBJECT", imap.ask(b'UID SEARCH RETURN (COUNT) SUBJECT "number 7"'))
    await timed("UID SORT (DATE)", imap.ask(b"UID SORT (DATE) UTF-8 ALL"))
    await timed("STORE 1:* +FLAGS.SILENT", imap.ask(b"STORE 1:* +FLAGS.SILENT (\\Seen $Giant)"))
    await timed("STORE 1:* -FLAGS", imap.ask(b"STORE 1:* -FLAGS (\\Seen $Giant)"))
    await imap.ask(b"CREATE Gone")
    began = time.perf_counter()
    for first in range(1, size, COPIED_AT_ONCE_MAX):
        await imap.ask(b"COPY %d:%d Gone" % (first, min(size, first + COPIED_AT_ONCE_MAX - 1)))
    timed.took[f"COPY, {COPIED_AT_ONCE_MAX:,} at once"] = time.perf_counter() - began
    await imap.ask(b"SELECT Gone")
    await imap.ask(b"STORE 1:* +FLAGS.SILENT (\\Deleted)")
    await timed("EXPUNGE", imap.ask(b"EXPUNGE"))
    await imap.ask(b"SELECT Giant")
    await timed("STATUS", imap.ask(b"STATUS Gone (MESSAGES UNSEEN UIDNEXT SIZE)"))
    await imap.ask(b"DELETE Gone")
    imap.close()
    return timed.took


async def mailboxes(site: Site) -> list[Value]:
    """What an account with BOXES mailboxes feels like; half of them under one root that is renamed."""
    imap = await session(site)
    timed = Timed()
    names = [b"Root/%d/%d" % (n // 100, n) if n % 2 else b"Flat%d" % n for n in range(BOXES)]
    await timed("CREATE of all, pipelined", _each(imap, [b"CREATE %b" % name for name in names]))
    await timed("CREATE of one more", imap.ask(b"CREATE More"))
    await timed('LIST "" *', imap.ask(b'LIST "" *'))
    await timed('LIST "" %', imap.ask(b'LIST "" %'))
    await timed("LIST with STATUS", imap.ask(b'LIST "" * RETURN (SUBSCRIBED STATUS (MESSAGES UNSEEN UIDNEXT SIZE))'))
    await timed("SUBSCRIBE of one", imap.ask(b"SUBSCRIBE More"))
    await timed("RENAME of a root of half of them", imap.ask(b"RENAME Root Tree"))
    await timed("SELECT of one", imap.ask(b"SELECT Flat0"))
    await timed("NOOP", imap.ask(b"NOOP"))
    await timed("APPEND to one", imap.ask(append(b"Flat0", [_small(1)])))
    left = [name.replace(b"Root", b"Tree") for name in names]
    await timed("DELETE of all, pipelined", _each(imap, [b"DELETE %b" % name for name in left]))
    imap.close()
    name = f"{BOXES:,} mailboxes: "
    return [Value(name + what, 1000 * seconds, "ms", notes=_each_of(what, seconds)) for what, seconds in timed.took.items()]


def _each_of(what: str, seconds: float) -> str:
    return f"{1000 * seconds / BOXES:.2f} ms each" if "pipelined" in what else ""


async def _each(imap: Imap, commands: list[bytes]) -> None:
    for start in range(0, len(commands), PIPELINED):
        *some, last = commands[start : start + PIPELINED]
        for command in some:
            imap.begin(command)
        answer = await imap.ask(last)
        assert answer.count(b" OK ") > len(some), answer[-300:]


def _small(n: int) -> bytes:
    return b"From: w%d@example.net\r\nSubject: number %d\r\n\r\nSmall.\r\n" % (n % 50, n)


FIGURES = {"giant": messages, "mailboxes": mailboxes}
