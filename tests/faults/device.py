"""A mail program with a cache, as it is at a person's desk: what it kept it keeps, at whatever site it signs in."""

import asyncio
import hashlib
import re
from typing import NamedTuple

from protocols.imap.writer import numbers
from tests.faults.clients import Answer, Imap
from tests.faults.site import Site
from tests.faults.test_sites import SHOWN_S_MAX, Seen, signed_in

_ROW = re.compile(rb"\d+ FETCH \((.*)\)\r\n", re.DOTALL)
_UID = re.compile(rb"UID (\d+)")
_FLAGS = re.compile(rb"FLAGS \(([^)]*)\)")
_MODSEQ = re.compile(rb"MODSEQ \((\d+)\)")
_BODY = re.compile(rb"BODY\[\] \{\d+\}\r\n(.*)", re.DOTALL)
_VANISHED = re.compile(rb"VANISHED \(EARLIER\) ([0-9,:]+)\r\n")


class Delta(NamedTuple):
    """What one synchronisation was told. `told`: UIDs it had whose MODSEQ the SELECT named anew;
    `bytes`: of its untagged lines; `fetched`: UIDs downloaded after it."""

    bytes: int
    told: frozenset[int]
    vanished: frozenset[int]
    fetched: frozenset[int]


class Device:
    """`cache`: UID → hash of the content, for ever checked; `modseq`, `uidvalidity`: 0 before the first time;
    `refused`: how often a site could not tell what it is to be told."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.uidvalidity = self.modseq = self.refused = 0
        self.cache: dict[int, str] = {}
        self.flags: dict[int, frozenset[bytes]] = {}
        self.modseqs: dict[int, int] = {}
        # Every name that this device ever had for a content: none may come to mean another one (RFC 3501 §2.3.1.1).
        self.names: dict[int, str] = {}

    def clone(self) -> "Device":
        """Another one that was last on line at the same moment."""
        made = Device(self.address)
        made.uidvalidity, made.modseq = self.uidvalidity, self.modseq
        made.cache, made.flags, made.names = dict(self.cache), dict(self.flags), dict(self.names)
        made.modseqs = dict(self.modseqs)
        return made

    async def sync(self, site: Site) -> Delta:
        """Flags and what went by QRESYNC (RFC 7162 §3.2.5), then the contents that are new. While the site cannot tell it
        asks again, as people do."""
        client = await signed_in(site, self.address)
        try:
            assert (await client.ask("ENABLE QRESYNC")).state == "OK"
            known = f" {numbers(sorted(self.cache))}" if self.cache else ""
            words = f" (QRESYNC ({self.uidvalidity} {self.modseq}{known}))" if self.uidvalidity else ""
            async with asyncio.timeout(SHOWN_S_MAX):
                while (answer := await client.ask(f"SELECT INBOX{words}")).state == "NO":
                    assert answer.text.startswith("[UNAVAILABLE]"), answer
                    assert b"VANISHED" not in b"".join(answer.untagged), "it does not know, so it says nothing"
                    self.refused += 1
            assert answer.state == "OK", answer
            told, vanished = self._take(answer)
            fetched = await self._download(client)
        finally:
            client.close()
        return Delta(sum(map(len, answer.untagged)), told, vanished, fetched)

    def _take(self, answer: Answer) -> tuple[frozenset[int], frozenset[int]]:
        lines = b"".join(answer.untagged)
        uidvalidity, modseq = re.search(rb"UIDVALIDITY (\d+)", lines), re.search(rb"HIGHESTMODSEQ (\d+)", lines)
        assert uidvalidity is not None and modseq is not None
        assert self.uidvalidity in (0, int(uidvalidity[1])), "the cache stays good"
        self.uidvalidity, self.modseq = int(uidvalidity[1]), int(modseq[1])
        vanished = {uid for found in _VANISHED.findall(lines) for uid in self.cache if within(uid, found)}
        told = set()
        for row in filter(None, map(_ROW.fullmatch, answer.untagged)):
            number, flags, its = parts(row[1])
            if number in self.cache:
                # What came between the SELECT and the download of the last time is said once more.
                if self.modseqs[number] != its:
                    told.add(number)
                self.flags[number], self.modseqs[number] = flags, its
        for gone in vanished:
            del self.cache[gone], self.flags[gone], self.modseqs[gone]
        assert not told & vanished
        return frozenset(told), frozenset(vanished)

    async def _download(self, client: Imap) -> frozenset[int]:
        first, fetched = max(self.cache, default=0) + 1, set()
        for line in (await client.ask(f"UID FETCH {first}:* (UID FLAGS MODSEQ BODY.PEEK[])")).untagged:
            if (row := _ROW.fullmatch(line)) is None or (body := _BODY.search(row[1])) is None:
                continue
            (number, flags, its), hash = parts(row[1]), hashlib.sha256(body[1]).hexdigest()
            assert self.names.setdefault(number, hash) == hash, f"UID {number} names other content"
            if number >= first:
                self.cache[number], self.flags[number], self.modseqs[number] = hash, flags, its
                fetched.add(number)
        return frozenset(fetched)

    def check(self, now: Seen) -> None:
        """Every UID it ever knew names the same content or nothing."""
        assert now.uidvalidity == self.uidvalidity
        for uid, hash, *_ in now.rows:
            assert self.names.get(uid, hash) == hash, f"UID {uid} names other content"

    def is_level(self, now: Seen) -> None:
        """The cache is what the mailbox is."""
        self.check(now)
        assert self.cache == {uid: hash for uid, hash, *_ in now.rows}
        assert self.flags == {uid: flags for uid, _, _, flags in now.rows}


class Counter:
    """Carries connections on to `target`, which may change between them, and keeps all that came from there."""

    def __init__(self) -> None:
        self.target = 0
        self.received = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """The port."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def downloads(self) -> list[int]:
        """The bytes of every content that was fetched."""
        return [int(size) for size in re.findall(rb"BODY\[\] \{(\d+)\}\r\n", self.received)]

    def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, out = await asyncio.open_connection("127.0.0.1", self.target)
        for source, sink, kept in ((reader, out, None), (onward, writer, self.received)):
            task = asyncio.create_task(self._pump(source, sink, kept))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray | None) -> None:
        try:
            while data := await source.read(1 << 16):
                if kept is not None:
                    kept += data
                sink.write(data)
                await sink.drain()
        except OSError:
            return
        finally:
            sink.close()


def parts(row: bytes) -> tuple[int, frozenset[bytes], int]:
    """UID, flags and MODSEQ of a FETCH."""
    uid, flags, modseq = _UID.search(row), _FLAGS.search(row), _MODSEQ.search(row)
    assert uid is not None and flags is not None and modseq is not None, row
    return int(uid[1]), frozenset(flags[1].split()) - {b"\\Recent"}, int(modseq[1])


def within(uid: int, those: bytes) -> bool:
    for piece in those.split(b","):
        first, _, last = piece.partition(b":")
        if int(first) <= uid <= int(last or first):
            return True
    return False
