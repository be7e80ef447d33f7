"""People who idle: what each of their sessions costs the site in memory, and how soon all of them hear of new mail."""

import asyncio
import os
import resource
import ssl
import statistics
import time
from collections.abc import Iterable
from functools import partial
from typing import cast

from bench import machine
from bench.figures import Value, append, mail
from bench.place import PASSWORD, api, until
from bench.wire import Imap, Smtp
from tests.faults.site import Site

SESSIONS = int(os.environ.get("BENCH_IDLE_SESSIONS", "10000"))
SESSIONS_A_PERSON = 10  # programs of one person that watch the same mailbox
CONNECTING_MAX = 32  # at once
DELIVERIES_A_S, DELIVERIES_S = 100, 20.0
MESSAGE_BYTES = 10_240
LARGE_MESSAGES, LARGE_SESSIONS = 20_000, 200
USED_BYTES = 1_000_000
SPARE_FILES = 200
ANSWER_S_MAX = 120.0
MEMBERS_A_REQUEST = 500


class Idler(asyncio.Protocol):
    """One session over TLS that idles in INBOX, and notes when it heard of how many messages. It reads lines and no more."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.heard: list[tuple[float, int]] = []
        self._rest = b""
        self._said: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._idles = False

    @classmethod
    async def connect(cls, port: int, context: ssl.SSLContext, address: str, first: tuple[bytes, ...] = ()) -> "Idler":
        """`first`: commands that it gives before it idles."""
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(cls, "127.0.0.1", port, ssl=context)
        async with asyncio.timeout(ANSWER_S_MAX):
            await made._until(b"* OK")
            for words in (f"LOGIN {address} {PASSWORD}".encode(), b"SELECT INBOX", *first):
                made.write(b"t %b\r\n" % words)
                await made._until(b"t OK")
            made.write(b"t IDLE\r\n")
            await made._until(b"+ ")
        made._idles = True
        return made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports inherit nothing

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            if not self._idles:
                self._said.put_nowait(line)
            elif line.endswith(b" EXISTS"):
                self.heard.append((time.perf_counter(), int(line.split()[1])))

    def connection_lost(self, exc: Exception | None) -> None:
        self._said.put_nowait(None)

    def write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    async def _until(self, word: bytes) -> None:
        """A line that begins so. Raises EOFError."""
        while (line := await self._said.get()) is None or not line.startswith(word):
            if line is None or line.startswith((b"t NO", b"t BAD", b"* BYE")):
                raise EOFError(f"the session ended: {line!r}")

    def knew(self, count: int) -> float | None:
        """When it was told of so many messages."""
        return next((at for at, there in self.heard if there >= count), None)


async def idle(site: Site) -> list[Value]:
    """SESSIONS sessions in IDLE; SESSIONS_A_PERSON of each person, in INBOX."""
    raise_files(SESSIONS + SPARE_FILES)
    people = await _people(site, max(1, SESSIONS // SESSIONS_A_PERSON))
    context = trusting(site)
    await _warm(site, context, people[0])
    before, cpu = _workers(site), machine.cpu(site.config.run_dir)
    began = time.perf_counter()
    idlers = await _connected(site, context, [people[n % len(people)] for n in range(SESSIONS)])
    took = time.perf_counter() - began
    try:
        await asyncio.sleep(5)  # what was young is let go
        each = (_workers(site) - before) / len(idlers)
        spent = machine.cpu(site.config.run_dir).since(cpu).ms_each(len(idlers))
        values = [
            Value(f"{len(idlers):,} idle TLS sessions, each", each / 1024, "KB", "≤ 150", "PSS of the workers"),
            Value("  signed in and idle", len(idlers) / took, "sessions/s", notes=spent),
        ]
        values += await _spread(site, people, idlers)
        values += await _to_all(site, people, idlers)
        each = (_workers(site) - before) / len(idlers)
        values.append(Value("  afterwards, each", each / 1024, "KB", "≤ 150"))
    finally:
        for idler in idlers:
            idler.close()
    return values


async def large(site: Site) -> list[Value]:
    """Sessions that idle in one large mailbox."""
    raise_files(LARGE_SESSIONS + SPARE_FILES)
    (person,) = await _people(site, 1, "large")
    imap = await Imap.connect(site.config.ports.imap, person, PASSWORD)
    await imap.ask(append(b"INBOX", [b"Subject: small\r\n\r\n"] * 100))
    await imap.ask(b"SELECT INBOX")
    there = 100
    while there < LARGE_MESSAGES:
        more = min(there, LARGE_MESSAGES - there)
        await imap.ask(b"COPY 1:%d INBOX" % more)
        there += more
    imap.close()
    context = trusting(site)
    await _warm(site, context, person)
    before, began = _workers(site), time.perf_counter()
    idlers = await _connected(site, context, [person] * LARGE_SESSIONS)
    took = time.perf_counter() - began
    await asyncio.sleep(5)
    each = (_workers(site) - before) / len(idlers)
    for idler in idlers:
        idler.close()
    return [
        Value(f"{LARGE_SESSIONS} idle in one mailbox of {LARGE_MESSAGES:,}, each", each / 1024, "KB", "≤ 150"),
        Value("  signed in and idle", len(idlers) / took, "sessions/s"),
    ]


async def used(site: Site) -> list[Value]:
    """Sessions that have read and filed a large message before they idle, as programs do."""
    raise_files(LARGE_SESSIONS + SPARE_FILES)
    (person,) = await _people(site, 1, "used")
    message = mail(USED_BYTES)
    imap = await Imap.connect(site.config.ports.imap, person, PASSWORD)
    await imap.ask(append(b"INBOX", [message]))
    imap.close()
    first = (b"FETCH 1 BODY.PEEK[]", append(b"Drafts", [message]))
    context = trusting(site)
    await _warm(site, context, person, first)
    before = _workers(site)
    idlers = await _connected(site, context, [person] * LARGE_SESSIONS, first)
    await asyncio.sleep(5)
    each = (_workers(site) - before) / len(idlers)
    for idler in idlers:
        idler.close()
    return [Value(f"{LARGE_SESSIONS} that idle after having read and filed 1 MB, each", each / 1024, "KB", "≤ 150")]


async def _spread(site: Site, people: list[str], idlers: list[Idler]) -> list[Value]:
    """DELIVERIES_A_S for DELIVERIES_S, to one person after the other, whether or not those before were taken."""
    there = dict.fromkeys(people, 0)
    due: list[tuple[str, int, float]] = []
    free: asyncio.Queue[Smtp] = asyncio.Queue()
    for _ in range(20):
        free.put_nowait(await Smtp.connect(site.config.ports.smtp))
    message = mail(MESSAGE_BYTES)
    cpu = machine.cpu(site.config.run_dir)
    late: list[float] = []

    async def send(to: str) -> None:
        smtp = await free.get()
        assert await smtp.send(to, message)
        free.put_nowait(smtp)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for n in range(int(DELIVERIES_A_S * DELIVERIES_S)):
            at = began + n / DELIVERIES_A_S
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            late.append(time.perf_counter() - at)
            to = people[n % len(people)]
            there[to] += 1
            due.append((to, there[to], time.perf_counter()))
            group.create_task(send(to))
    took = await _all_heard(people, idlers, there)
    spent = machine.cpu(site.config.run_dir).since(cpu).ms_each(len(due))
    watching = {
        person: [idler for n, idler in enumerate(idlers) if people[n % len(people)] == person] for person in people
    }
    waits = sorted(
        (when - at) * 1000 for to, count, at in due for idler in watching[to] if (when := idler.knew(count)) is not None
    )
    notes = f"{len(waits):,} times, from sending; max {waits[-1]:.0f}; offered {max(late) * 1000:.0f} ms late at worst; {spent}"
    while not free.empty():
        free.get_nowait().close()
    return [
        Value(f"{DELIVERIES_A_S} deliveries/s, announced, p50", statistics.median(waits), "ms", "", notes),
        Value(f"{DELIVERIES_A_S} deliveries/s, announced, p99", waits[len(waits) * 99 // 100], "ms", "≤ 1,000"),
        Value("  the last is heard after the last was sent", took, "s"),
    ]


async def _to_all(site: Site, people: list[str], idlers: list[Idler]) -> list[Value]:
    """One message to a group that everybody is in."""
    everybody = "everybody@example.org"
    await api(site, "POST", "/groups", {"address": everybody, "name": "Everybody"})
    for at in range(0, len(people), MEMBERS_A_REQUEST):
        await api(site, "PATCH", f"/groups/{everybody}/members", {"add": people[at : at + MEMBERS_A_REQUEST]})
    for idler in idlers:
        idler.heard.clear()
    smtp = await Smtp.connect(site.config.ports.smtp)
    cpu, began = machine.cpu(site.config.run_dir), time.perf_counter()
    assert await smtp.send(everybody, mail(MESSAGE_BYTES))
    taken = time.perf_counter() - began
    await until("everybody has heard", partial(_each_heard, idlers), every_s=0.05)
    waits = sorted(idler.heard[0][0] - began for idler in idlers)
    spent = machine.cpu(site.config.run_dir).since(cpu).ms_each(len(idlers))
    smtp.close()
    notes = f"taken after {taken:.2f} s, p50 {statistics.median(waits):.2f} s; {spent}"
    return [Value("one message to all, heard by the last", waits[-1], "s", "≤ 10", notes)]


async def _each_heard(idlers: list[Idler]) -> bool:
    return all(idler.heard for idler in idlers)


async def _all_heard(people: list[str], idlers: list[Idler], there: dict[str, int]) -> float:
    began = time.perf_counter()

    async def heard() -> bool:
        return all(
            not (count := there[people[n % len(people)]]) or idler.knew(count) is not None
            for n, idler in enumerate(idlers)
        )

    return await until("all was heard", heard, every_s=0.1) - began


async def _people(site: Site, count: int, name: str = "idler") -> list[str]:
    people = [f"{name}{n}@example.org" for n in range(count)]
    room = asyncio.Semaphore(8)

    async def make(address: str) -> None:
        async with room:
            await api(site, "POST", "/accounts", {"address": address, "password": PASSWORD, "name": address})

    await asyncio.gather(*map(make, people))
    return people


async def _connected(
    site: Site, context: ssl.SSLContext, people: Iterable[str], first: tuple[bytes, ...] = ()
) -> list[Idler]:
    room = asyncio.Semaphore(CONNECTING_MAX)

    async def connect(person: str) -> Idler:
        async with room:
            return await Idler.connect(site.config.ports.imaps, context, person, first)

    return await asyncio.gather(*map(connect, people))


async def _warm(site: Site, context: ssl.SSLContext, person: str, first: tuple[bytes, ...] = ()) -> None:
    """Whatever is loaded once is loaded before."""
    for idler in await _connected(site, context, [person] * 20, first):
        idler.close()
    await asyncio.sleep(2)


def trusting(site: Site) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(site.config.tls.ca)
    context.check_hostname = False
    return context


def raise_files(wanted: int) -> None:
    """So many files may be open in this process. Raises ValueError where the machine's limit is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _workers(site: Site) -> int:
    found = machine.pss_bytes(site.config.run_dir)
    return sum(size for name, size in found.items() if name.startswith("worker"))


FIGURES = {"idle": idle, "idle-large": large, "idle-used": used}
