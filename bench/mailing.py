"""IMAP as mail programs use it, beside Debian's dovecot-imapd: a mixed load with 1, 10 and 100 sessions over TLS. The same mail,
the same client, one server after the other; each command's latency, and the processor time of the whole server."""

import asyncio
import os
import random
import ssl
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from bench import machine
from bench.figures import Value, append
from bench.idling import trusting
from bench.peers import dovecot
from bench.place import PASSWORD, api
from bench.wire import Imap
from tests.faults.site import Site

PEOPLE = 10
MESSAGES = int(os.environ.get("BENCH_IMAP_MESSAGES", "1000"))  # in each person's INBOX
ROUNDS = {1: 60, 10: 12, 100: 3}  # of each session
WAKES = 50
APPENDS_A_COMMAND = 50
WINDOW = 50  # messages that a program shows at once
SETTLE_S = 2.0
REFUSED = "refused"

Took = dict[str, list[float]]  # milliseconds by command


class Server(NamedTuple):
    name: str
    imaps: int
    tls: ssl.SSLContext
    people: list[str]
    cpu_s: Callable[[], float]

    async def session(self, n: int) -> Imap:
        return await Imap.connect(self.imaps, self.people[n % len(self.people)], PASSWORD, self.tls)


async def imap(site: Site) -> list[Value]:
    """Ours, and the peer where it is installed."""
    letters = [letter(n) for n in range(MESSAGES)]
    found: list[Measured] = []
    async for server in servers(site, [f"mailer{n}" for n in range(PEOPLE)]):
        took = await _measured(server, letters)
        took[0, "idle wake-up"] = await _wakes(server)
        found.append(took)
    return compared(*found)


async def servers(site: Site, names: list[str]) -> AsyncIterator[Server]:
    """Ours, then the peer where it is installed, running while it is looked at; with these people."""
    people = [f"{name}@example.org" for name in names]
    for address in people:
        await api(site, "POST", "/accounts", {"address": address, "password": PASSWORD, "name": address})

    def cpu_s() -> float:
        return sum(machine.cpu(site.config.run_dir))

    ours = Server("angarium", site.config.ports.imaps, trusting(site), people, cpu_s)
    yield ours
    if dovecot.installed():
        with tempfile.TemporaryDirectory(dir=site.config.dir.parent, prefix="dovecot-") as folder:
            async with dovecot.running(Path(folder) / "peer", site.config.tls) as peer:
                yield Server("dovecot", peer.imaps, ours.tls, people, peer.cpu_s)


Measured = dict[tuple[int, str], list[float]]


def compared(ours: Measured, theirs: Measured | None = None) -> list[Value]:
    theirs = theirs or {}
    values = []
    for (sessions, word), times in ours.items():
        if word == REFUSED:
            values.append(Value(f"imap, {sessions} sessions: rounds ended by a refusal", len(times), "rounds", "0"))
            continue
        p50, p99 = statistics.median(times), _p99(times)
        there = theirs.get((sessions, word))
        notes = f"p99 {p99:.2f}"
        if there:
            peer50, peer99 = statistics.median(there), _p99(there)
            notes += (
                f"; dovecot p50 {peer50:.2f}, p99 {peer99:.2f}; ratio {p50 / peer50:.2f}, of p99 {p99 / peer99:.2f}"
            )
        name = f"imap, {sessions} session{'s' * (sessions > 1)}: {word}" if sessions else f"imap: {word}"
        values.append(Value(f"{name}, p50", p50, "ms", notes=notes))
    return values


def _p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


async def _measured(server: Server, letters: list[bytes]) -> Measured:
    await asyncio.gather(*(_filled(server, n, letters) for n in range(len(server.people))))
    await _round(server, 0, random.Random(0), defaultdict(list))  # noqa: S311  # whatever is slow once
    await asyncio.sleep(SETTLE_S)
    found: Measured = {}
    for sessions, rounds in ROUNDS.items():
        took: Took = defaultdict(list)
        cpu = server.cpu_s()
        await asyncio.gather(*(_session(server, n, rounds, took) for n in range(sessions)))
        found |= {(sessions, word): times for word, times in took.items()}
        found[sessions, "processor time a round"] = [(server.cpu_s() - cpu) * 1000 / (sessions * rounds)]
    return found


async def _filled(server: Server, n: int, letters: list[bytes]) -> None:
    imap = await server.session(n)
    for name in (b"Filed", b"Kept"):
        await imap.ask(b"CREATE " + name)
    for at in range(0, len(letters), APPENDS_A_COMMAND):
        await imap.ask(append(b"INBOX", letters[at : at + APPENDS_A_COMMAND]))
    imap.close()


async def _session(server: Server, n: int, rounds: int, took: Took) -> None:
    chance = random.Random(n)  # noqa: S311
    for _ in range(rounds):
        try:
            await _round(server, n, chance, took)
        except AssertionError:
            took[REFUSED].append(0.0)


async def _round(server: Server, n: int, chance: random.Random, took: Took) -> None:
    """What a program does between opening and closing, a step after the other."""

    async def timed(word: str, step: Awaitable[object]) -> None:
        began = time.perf_counter()
        await step
        took[word].append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    imap = await Imap.opened(server.imaps, server.tls)
    took["connect, TLS"].append((time.perf_counter() - began) * 1000)
    await timed("LOGIN", imap.login(server.people[n % len(server.people)], PASSWORD))
    await timed("SELECT", imap.ask(b"SELECT INBOX"))
    first = chance.randrange(1, MESSAGES - WINDOW)
    await timed(
        "FETCH 50 envelopes", imap.ask(b"FETCH %d:%d (UID FLAGS ENVELOPE BODYSTRUCTURE)" % (first, first + WINDOW - 1))
    )
    one = chance.randrange(1, MESSAGES)
    await timed("FETCH a body", imap.ask(b"UID FETCH %d (BODY.PEEK[])" % one))
    await timed("STORE", imap.ask(b"UID STORE %d %bFLAGS (\\Flagged)" % (one, chance.choice((b"+", b"-")))))
    await timed("APPEND", imap.ask(append(b"Kept", [letter(chance.randrange(10_000))])))
    await timed("COPY 5", imap.ask(b"COPY %d:%d Filed" % (first, first + 4)))
    await timed("SEARCH a subject", imap.ask(b'SEARCH SUBJECT "minutes %d"' % chance.randrange(MESSAGES)))
    await timed("SEARCH flags and dates", imap.ask(b"SEARCH FLAGGED SINCE 1-Jan-2020"))
    await timed("STATUS", imap.ask(b"STATUS Filed (MESSAGES UIDNEXT UNSEEN)"))
    await timed("NOOP", imap.ask(b"NOOP"))
    await timed("LOGOUT", imap.ask(b"LOGOUT"))
    imap.close()


async def _wakes(server: Server) -> list[float]:
    """From sending APPEND to EXISTS in another session."""
    watching, appending = await server.session(1), await server.session(1)
    await watching.ask(b"SELECT INBOX")
    await watching.idle()
    took = []
    for n in range(WAKES):
        seen = asyncio.create_task(watching.exists())
        await asyncio.sleep(0)
        began = time.perf_counter()
        answered = asyncio.create_task(appending.ask(append(b"INBOX", [letter(n)])))
        await seen
        took.append((time.perf_counter() - began) * 1000)
        await answered
    for one in (watching, appending):
        one.close()
    return took


def letter(n: int) -> bytes:
    """As mail comes: half of it plain, a third with HTML beside, the rest with an attachment of 40 KB."""
    chance = random.Random(n)  # noqa: S311
    words = " ".join(f"{chance.getrandbits(20):x}" for _ in range(chance.randint(50, 500)))
    text = "\r\n".join(words[at : at + 70] for at in range(0, len(words), 70)) + "\r\n"
    head = (
        f"From: Person {n % 50} <p{n % 50}@example.net>\r\nTo: Anna <anna@example.org>, Bert <bert@example.org>\r\n"
        f"Cc: All of them <all@example.org>\r\nSubject: minutes {n} of the meeting\r\nDate: Tue, 4 Aug 2026 10:{n % 60:02}:00 +0200\r\n"
        f"Message-ID: <{n}@example.net>\r\nReferences: <{n // 3}@example.net>\r\nMIME-Version: 1.0\r\n"
        "Received: from mx.example.net by example.org with ESMTPS id 1; Tue, 4 Aug 2026 10:00:00 +0200\r\n"
    )
    if n % 6 < 3:
        return f"{head}Content-Type: text/plain; charset=utf-8\r\n\r\n{text}".encode()
    second = f"Content-Type: text/html; charset=utf-8\r\n\r\n<html><body><p>{text}</p></body></html>\r\n"
    kind = "alternative"
    if n % 6 == 5:
        lines = "\r\n".join(f"{chance.getrandbits(300):075x}" for _ in range(520))
        kind, second = (
            "mixed",
            (
                "Content-Type: application/octet-stream; name=table.bin\r\nContent-Transfer-Encoding: base64\r\n"
                f'Content-Disposition: attachment; filename="table.bin"\r\n\r\n{lines}\r\n'
            ),
        )
    return (
        f'{head}Content-Type: multipart/{kind}; boundary="b{n}"\r\n\r\n'
        f"--b{n}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n--b{n}\r\n{second}\r\n--b{n}--\r\n"
    ).encode()


FIGURES = {"imap": imap}
