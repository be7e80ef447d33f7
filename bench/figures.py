"""What is measured. Each figure is a function of a running site and gives values with the goal that they are held to."""

import asyncio
import os
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from bench import machine
from bench.wire import Imap
from tests.faults.site import Site

MESSAGE_BYTES = 10_240
SMTP_RUNS = ((1, 400), (10, 4000), (100, 6000))  # connections, messages
TRIES = 3
IDLE_ROUNDS = 300
MANY = 100_000
SEED_MESSAGES = 1000
APPENDS_A_COMMAND = 100
BODIES, BODY_BYTES = 1000, 50_000
NOOP_EVERY_S = 0.005
SETTLE_S = 5.0


class Value(NamedTuple):
    name: str
    value: float
    unit: str
    goal: str = ""
    notes: str = ""


async def smtp(site: Site) -> list[Value]:
    """Delivery by postfix's smtp-source over 1, 10 and 100 connections that stay open."""
    anna = next(iter(site.people))
    rates: dict[int, float] = {}
    values = []
    await source(site, anna, 10, 500)  # whatever is slow once
    for connections, count in SMTP_RUNS:
        runs: list[tuple[float, machine.Cpu]] = []
        for _ in range(TRIES):
            before, began = machine.cpu(site.config.run_dir), time.perf_counter()
            await source(site, anna, connections, count)
            took = time.perf_counter() - began
            await _shown(site)  # the tables' work belongs to the message too
            runs.append((count / took, machine.cpu(site.config.run_dir).since(before)))
        rate, cpu = sorted(runs)[len(runs) // 2]
        rates[connections] = rate
        goal = "≥ 500, goal 1,000" if connections == 10 else ""
        values.append(Value(f"smtp {connections} connections", rate, "messages/s", goal, cpu.ms_each(count)))
    values.append(Value("smtp 100 over 1 connection", rates[100] / rates[1], "times", "≥ 3"))
    values.append(Value("disk: fdatasync of 10 KB, p50", machine.sync_ms(site.config.dir), "ms"))
    return values


async def wake(site: Site) -> list[Value]:
    """From sending APPEND to EXISTS in another session."""
    watching, appending = await session(site), await session(site)
    await watching.ask(b"CREATE Watched")
    await watching.ask(b"SELECT Watched")
    await watching.idle()
    message = mail(1000)
    took = []
    for _ in range(IDLE_ROUNDS):
        seen = asyncio.create_task(watching.exists())
        await asyncio.sleep(0)
        began = time.perf_counter()
        answered = asyncio.create_task(appending.ask(append(b"Watched", [message])))
        await seen
        took.append((time.perf_counter() - began) * 1000)
        await answered
    took.sort()
    return [
        Value("append → IDLE sees it, p50", statistics.median(took), "ms", "≤ 10"),
        Value("append → IDLE sees it, p99", took[len(took) * 99 // 100], "ms"),
    ]


async def fetch(site: Site) -> list[Value]:
    """FLAGS and UIDs of 100,000 messages, and what another session feels meanwhile."""
    imap, other = await session(site), await session(site)
    await _fill(imap)
    await imap.ask(b"SELECT Many")
    times, cpu = await _timed(site, TRIES, lambda: imap.ask(b"FETCH 1:* (FLAGS UID)"), MANY)
    await other.ask(b"SELECT INBOX")
    stop = asyncio.Event()
    noops = asyncio.create_task(_noops(other, stop))
    began, rounds = time.perf_counter(), 0
    while rounds < TRIES:
        await imap.ask(b"FETCH 1:* (FLAGS UID)")
        rounds += 1
    meanwhile = (time.perf_counter() - began) / rounds
    stop.set()
    latencies = sorted(await noops)
    return [
        Value("FETCH 1:* (FLAGS UID) of 100,000", statistics.median(times), "s", "≤ 1.5", cpu),
        Value("  another session's NOOP, p50", statistics.median(latencies), "ms"),
        Value("  another session's NOOP, p99", latencies[len(latencies) * 99 // 100], "ms", "≤ 50"),
        Value("  another session's NOOP, max", latencies[-1], "ms", "≤ 50", f"the FETCH took {meanwhile:.2f} s"),
    ]


async def bodies(site: Site) -> list[Value]:
    """BODY[] of 1,000 messages of 50 KB."""
    imap = await session(site)
    await imap.ask(b"CREATE Bodies")
    for first in range(0, BODIES, 20):
        await imap.ask(append(b"Bodies", [mail(BODY_BYTES, n) for n in range(first, first + 20)]))
    await imap.ask(b"SELECT Bodies")
    answer = await imap.ask(b"FETCH 1:* BODY.PEEK[]")
    assert len(answer) > BODIES * BODY_BYTES
    times, cpu = await _timed(site, TRIES, lambda: imap.ask(b"FETCH 1:* BODY.PEEK[]"), BODIES)
    rate = len(answer) / 1e6 / statistics.median(times)
    return [Value("BODY[] of 1,000 messages of 50 KB", rate, "MB/s", "≥ 100", cpu)]


async def memory(site: Site) -> list[Value]:
    """The whole site, supervisor and engines too, when it has nothing to do."""
    await asyncio.sleep(SETTLE_S)
    parts = machine.pss_bytes(site.config.run_dir)
    notes = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in parts.items())
    return [Value("idle site, PSS", sum(parts.values()) / 1e6, "MB", "≤ 400", notes)]


FIGURES: dict[str, Callable[[Site], Awaitable[list[Value]]]] = {
    "memory": memory,
    "smtp": smtp,
    "wake": wake,
    "fetch": fetch,
    "bodies": bodies,
}


def mail(size: int, n: int = 0) -> bytes:
    """About `size` bytes that shrink about as mail does: half of it is random."""
    head = b"From: <sender@example.net>\r\nTo: <anna@example.org>\r\nSubject: minutes %d\r\n" % n
    head += b"Message-ID: <%d.%b@example.net>\r\n\r\n" % (n, os.urandom(8).hex().encode())
    lines = []
    length = len(head)
    while length < size:
        line = os.urandom(18).hex().encode() + b" as we said before, minutes again\r\n"
        lines.append(line)
        length += len(line)
    return head + b"".join(lines)


def append(mailbox: bytes, messages: list[bytes]) -> bytes:
    """One command (RFC 3502), its literals without waiting for leave (RFC 7888)."""
    return b"APPEND " + mailbox + b"".join(b" {%d+}\r\n%b" % (len(message), message) for message in messages)


async def session(site: Site) -> Imap:
    anna, password = next(iter(site.people.items()))
    return await Imap.connect(site.config.ports.imap, anna, password)


async def source(site: Site, to: str, connections: int, count: int) -> None:
    """Mail of MESSAGE_BYTES by postfix's smtp-source."""
    program = shutil.which("smtp-source") or "/usr/sbin/smtp-source"
    file = site.config.dir / "message"
    file.write_bytes(mail(MESSAGE_BYTES).replace(b"\r\n", b"\n"))  # as smtp-source wants it
    # -d: a connection is used for many messages
    words = ("-d", "-s", str(connections), "-m", str(count), "-F", str(file), "-f", "sender@example.net", "-t", to)
    process = await asyncio.create_subprocess_exec(program, *words, f"inet:127.0.0.1:{site.config.ports.smtp}")
    assert await process.wait() == 0, "smtp-source failed"


async def _shown(site: Site) -> None:
    """Returns when the tables have what was delivered: an APPEND is answered after that."""
    imap = await session(site)
    await imap.ask(append(b"Drafts", [b"Subject: last\r\n\r\n"]))
    imap.close()


async def _fill(imap: Imap) -> None:
    await imap.ask(b"CREATE Many")
    for _ in range(0, SEED_MESSAGES, APPENDS_A_COMMAND):
        await imap.ask(append(b"Many", [b"Subject: small\r\n\r\n"] * APPENDS_A_COMMAND))
    await imap.ask(b"SELECT Many")
    there = SEED_MESSAGES
    while there < MANY:
        more = min(there, MANY - there)
        await imap.ask(b"COPY 1:%d Many" % more)
        there += more


async def _timed(
    site: Site, tries: int, question: Callable[[], Awaitable[bytes]], count: int
) -> tuple[list[float], str]:
    before = machine.cpu(site.config.run_dir)
    times = []
    for _ in range(tries):
        began = time.perf_counter()
        await question()
        times.append(time.perf_counter() - began)
    return times, machine.cpu(site.config.run_dir).since(before).ms_each(tries * count)


async def _noops(imap: Imap, stop: asyncio.Event) -> list[float]:
    """Milliseconds of each."""
    took = []
    while not stop.is_set():
        began = time.perf_counter()
        await imap.ask(b"NOOP")
        took.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(NOOP_EVERY_S)
    return took
