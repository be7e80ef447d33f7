"""SEARCH in a large mailbox: how long each kind of question takes when it is indexed, how fast the index is made, and what
delivery feels of that; beside Debian's dovecot-imapd, which reads all mail."""

import asyncio
import itertools
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.figures import Value, append, session, source
from bench.peers import dovecot
from bench.place import PASSWORD, api
from bench.wire import Imap
from tests.faults.site import Site

MESSAGES = int(os.environ.get("BENCH_SEARCH_MESSAGES", "100000"))
DIFFERENT_MAX = 20_000  # the others are copies: to the index each is a message of its own
APPENDS_A_COMMAND = 50
BODY_WORDS = (250, 1300)  # 2 to 8 KB
VOCABULARY = 60_000
TRIES, PEER_TRIES = 20, 3  # a peer that reads all mail takes seconds for each
READ_MESSAGES = 1_000  # searched without an index, to compare
DELIVERIES = 2_000
WAIT_S_MAX = 1_800.0
LOOK_EVERY_S = 1.0
SYLLABLES = "ba ne ko ri ta lu mi so ver den ing er st an pro con de al um ge".split()
RARE, FREQUENT, ABSENT, CJK = "zanzibarquux", "minutes", "qqxzzy", "会議"
QUESTIONS = (
    ("a rare word", f"TEXT {RARE}"),
    ("a word in every message", f"BODY {FREQUENT}"),
    ("no hit", f"TEXT {ABSENT}"),
    ("a word in Chinese", f"CHARSET UTF-8 BODY {{{len(CJK.encode())}+}}\r\n{CJK}"),
    ("three letters", "BODY zan"),
    ("three frequent letters", "BODY ing"),
    ("a sender", "FROM p77@example"),
    ("a subject", f"SUBJECT {RARE}"),
    ("a subject with a blank", f'SUBJECT "{RARE} "'),
    ("another header", "HEADER X-Ticket T-00077"),
    ("one letter", "SUBJECT z"),
    ("two letters", "BODY zz"),
    ("not a word", f"NOT BODY {RARE}"),
    ("one of two words", f"OR BODY {RARE} BODY {ABSENT}"),
    ("two words", f'TEXT "{RARE} {FREQUENT}"'),
    ("what clients ask", f"OR OR FROM {RARE} SUBJECT {RARE} BODY {RARE}"),
)  # fmt: skip


async def search(site: Site) -> list[Value]:
    """Of MESSAGES messages of 2 to 8 KB with headers as they come."""
    imap = await session(site)
    await _fill(imap)
    await imap.ask(b"SELECT Searched")
    values = [await _unindexed(imap)]
    began, before = time.perf_counter(), await _waiting(site)
    during, left = await _rate(site), await _waiting(site)
    await indexed(site)
    took = time.perf_counter() - began
    after = await _rate(site)
    values.append(Value("search index level after the last append", took, "s", notes=f"{before:,} messages waited"))
    values.append(
        Value("delivery while it is made", during, "messages/s", notes=f"{left:,} messages waited at its end")
    )
    values.append(Value("delivery when it is made", after, "messages/s", notes="10 connections"))
    values.append(Value("  share", 100 * during / after, "%", "≥ 90"))
    ours = {name: await _timed(imap, question, TRIES) for name, question in QUESTIONS}
    imap.close()
    peers = {"dovecot": await _peer(site)} if dovecot.installed() else {}
    return values + [_beside(name, answer, peers) for name, answer in ours.items()]


class Answer(NamedTuple):
    """`times`: milliseconds, ascending. `hits`: how many were found."""

    times: list[float]
    hits: int


async def _peer(site: Site) -> dict[str, Answer]:
    """What it says of each question, without an index."""
    with tempfile.TemporaryDirectory(dir=site.config.dir.parent, prefix="dovecot-") as folder:
        async with dovecot.running(Path(folder) / "peer", site.config.tls) as peer:
            imap = await Imap.connect(peer.imap, "searcher@example.org", PASSWORD)
            await _fill(imap)
            await imap.ask(b"SELECT Searched")
            found = {name: await _timed(imap, question, PEER_TRIES) for name, question in QUESTIONS}
            imap.close()
            return found


def _beside(name: str, ours: Answer, peers: dict[str, dict[str, Answer]]) -> Value:
    """Times smaller than 1: ours is the faster."""
    p50 = statistics.median(ours.times)
    notes = [f"{ours.hits:,} found; worst {ours.times[-1]:.0f} ms"]
    for peer, answers in peers.items():
        there = answers[name]
        theirs = statistics.median(there.times)
        other = f", finds {there.hits:,}" if there.hits != ours.hits else ""
        notes.append(f"{peer} p50 {theirs:.1f}{other}, ratio {p50 / theirs:.3f}")
    return Value(f"SEARCH in {MESSAGES:,}: {name}, p50", p50, "ms", "≤ 200", "; ".join(notes))


async def _fill(imap: Imap) -> None:
    await imap.ask(b"CREATE Searched")
    different = min(MESSAGES, DIFFERENT_MAX)
    write = _writer()
    for first in range(0, different, APPENDS_A_COMMAND):
        await imap.ask(append(b"Searched", [write(n) for n in range(first, min(different, first + APPENDS_A_COMMAND))]))
    await imap.ask(b"SELECT Searched")
    for there in range(different, MESSAGES, different):
        await imap.ask(b"COPY 1:%d Searched" % min(different, MESSAGES - there))


def _writer() -> Callable[[int], bytes]:
    chance = random.Random(1)  # noqa: S311
    vocabulary = ["".join(chance.choices(SYLLABLES, k=chance.randint(1, 5))) for _ in range(VOCABULARY)]
    weights = list(itertools.accumulate(1 / n for n in range(1, VOCABULARY + 1)))
    ideographs = [chr(code) for code in range(0x4E00, 0x5600)]

    def write(n: int) -> bytes:
        words = chance.choices(vocabulary, cum_weights=weights, k=chance.randint(*BODY_WORDS))
        words[0] = FREQUENT
        if n % 1000 == 7:
            words[1] = RARE
        subject = " ".join((RARE if n % 1000 == 8 else words[2], *words[3:6]))
        head = [
            f"From: Person {n % 500} <p{n % 500}@example.org>",
            "To: Anna <anna@example.org>",
            f"Subject: {subject}",
            f"Message-ID: <{chance.getrandbits(96):x}@example.org>",
            f"X-Ticket: T-{n:05}",
            *(
                f"Received: from mx{n % 9}.example.net by example.org with ESMTPS id {chance.getrandbits(48):x}"
                for _ in "123"
            ),
            "DKIM-Signature: v=1; b=" + "\r\n ".join(f"{chance.getrandbits(256):x}" for _ in range(8)),
            "Content-Type: text/plain; charset=utf-8",
        ]
        if n % 20 == 0:
            words += ["".join(chance.choices(ideographs, k=200)), CJK if n % 200 == 0 else ""]
        lines = [" ".join(words[at : at + 12]) for at in range(0, len(words), 12)]
        return ("\r\n".join(head) + "\r\n\r\n" + "\r\n".join(lines) + "\r\n").encode()

    return write


async def _unindexed(imap: Imap) -> Value:
    """What comes last is read: the index has not come so far yet, or the search would be quicker."""
    first = max(1, MESSAGES - READ_MESSAGES)
    began = time.perf_counter()
    await imap.ask(f"SEARCH {first}:* BODY {ABSENT}".encode())
    took = time.perf_counter() - began
    return Value(f"SEARCH in {MESSAGES - first + 1:,}, just delivered", took * 1000, "ms")


async def _timed(imap: Imap, question: str, tries: int) -> Answer:
    times, answer = [], b""
    await imap.ask(f"SEARCH {question}".encode())
    for _ in range(tries):
        began = time.perf_counter()
        answer = await imap.ask(f"SEARCH {question}".encode())
        times.append((time.perf_counter() - began) * 1000)
    found = next(line for line in answer.splitlines() if line.startswith(b"* SEARCH"))
    return Answer(sorted(times), len(found.split()) - 2)


async def _rate(site: Site) -> float:
    anna = next(iter(site.people))
    await source(site, anna, 10, 200)
    began = time.perf_counter()
    await source(site, anna, 10, DELIVERIES)
    return DELIVERIES / (time.perf_counter() - began)


async def _waiting(site: Site) -> int:
    """Messages that are to be in the index and are not yet."""
    (state,) = await api(site, "GET", "/state")
    return int(state["search"]["waiting"])


async def indexed(site: Site, messages: int = MESSAGES) -> None:
    """Returns when that many at least are in the index, and none waits."""
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            (state,) = await api(site, "GET", "/state")
            if not state["search"]["waiting"] and state["search"]["indexed"] >= messages:
                return
            await asyncio.sleep(LOOK_EVERY_S)
