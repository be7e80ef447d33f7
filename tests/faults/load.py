"""Clients that never stop: some deliver by SMTP, one works in a mailbox of its own by IMAP, one only looks. Each writes
down what it asked, what it was promised and what it was shown; `verdict.py` compares that with what is there afterwards.
"""

import asyncio
import hashlib
import random
import re
from dataclasses import dataclass, field

from tests.faults.clients import GONE, Imap, Smtp
from tests.faults.site import Site

POLL_S = 0.02
WORK, DONE = "Work", "Done"

_UID = re.compile(rb"UID (\d+)")
_MODSEQ = re.compile(rb"MODSEQ \((\d+)\)")
_FLAGS = re.compile(rb"FLAGS \(([^)]*)\)")
_ID = re.compile(rb"X-Id: (\S+)")
_HIGHEST = re.compile(rb"HIGHESTMODSEQ (\d+)")
_VALIDITY = re.compile(rb"UIDVALIDITY (\d+)")
_APPENDUID = re.compile(r"APPENDUID (\d+) (\d+)")

Place = tuple[str, int, int]  # mailbox, UIDVALIDITY, UID


@dataclass(frozen=True, slots=True)
class Shown:
    uid: int
    modseq: int
    flagged: bool
    name: str
    raw: bytes


@dataclass(slots=True)
class Story:
    """`sent`: mail's messages, each with its recipients, and those for whom 250 came. `states`: of each message that the worker
    of the mailbox put there, every state that it may be in (None = not there; else mailbox, flagged); one = promised.
    `seen`: what stood at a UID when someone looked. `acks`: (asked, answered) by the loop's clock."""

    sent: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    states: dict[str, set[tuple[str, bool] | None]] = field(default_factory=dict)
    seen: dict[tuple[str, Place], str] = field(default_factory=dict)
    modseqs: dict[tuple[str, Place], int] = field(default_factory=dict)
    highest: dict[tuple[str, str], int] = field(default_factory=dict)
    smtp_acks: list[tuple[float, float]] = field(default_factory=list)
    imap_acks: list[tuple[float, float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def acks(self) -> int:
        return len(self.smtp_acks) + len(self.imap_acks)

    def look(self, who: str, mailbox: str, validity: int, shown: Shown) -> None:
        at = (who, (mailbox, validity, shown.uid))
        known = self.seen.setdefault(at, shown.name)
        if known != shown.name:
            self.wrong.append(f"{at} was {known} and is {shown.name}")
        if shown.modseq < self.modseqs.get(at, 0):
            self.wrong.append(f"MODSEQ of {at} fell from {self.modseqs[at]} to {shown.modseq}")
        self.modseqs[at] = shown.modseq

    def look_highest(self, who: str, mailbox: str, modseq: int) -> None:
        if modseq < self.highest.get((who, mailbox), 0):
            self.wrong.append(f"HIGHESTMODSEQ of {mailbox} fell from {self.highest[who, mailbox]} to {modseq}")
        self.highest[who, mailbox] = modseq


def text(name: str, lines: int = 4) -> bytes:
    """A message that says what it is, and of what its body's bytes must be."""
    body = b"".join(b"%s line %d\r\n" % (name.encode(), n) for n in range(lines))
    head = f"From: <sender@elsewhere.example>\r\nSubject: load\r\nX-Id: {name}\r\nX-Sum: {_sum(body)}\r\n\r\n"
    return head.encode() + body


def whole(raw: bytes) -> bool:
    """Whether a message's bytes are those that `text` made, whatever trace was put before them."""
    head, _, body = raw.partition(b"\r\n\r\n")
    return f"X-Sum: {_sum(body)}".encode() in head


def _sum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class Load:
    """Runs until `stop` is set; every client then finishes what it is at."""

    def __init__(self, site: Site, rng: random.Random, story: Story, prefix: str, *, queues: bool = False) -> None:
        """`queues`: also by SMTP to several, of whom some may get it minutes later, by the outbox."""
        self.site = site
        self._queues = queues
        self.story = story
        self.stop = asyncio.Event()
        self._rng = rng
        self._prefix = prefix
        self._count = 0
        self.anna, self.ben = list(site.people)

    async def run(self, deliverers: int = 3) -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(deliverers):
                group.create_task(self._deliver(lmtp=n == 0))
            group.create_task(self._work())
            group.create_task(self._watch())

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{self._prefix}-{kind}-{self._count}"

    async def _deliver(self, *, lmtp: bool) -> None:
        ports = self.site.config.ports
        while not self.stop.is_set():
            try:
                smtp = await Smtp.connect(ports.lmtp if lmtp else ports.smtp, lmtp=lmtp)
            except GONE:
                await asyncio.sleep(POLL_S)
                continue
            try:
                while not self.stop.is_set():
                    await self._deliver_one(smtp, lmtp)
            except GONE:
                await asyncio.sleep(POLL_S)
            finally:
                smtp.close()

    async def _deliver_one(self, smtp: Smtp, lmtp: bool) -> None:
        clock = asyncio.get_running_loop().time
        name = self._name("l" if lmtp else "s")
        both = self._rng.random() < (0.5 if lmtp else 0.1 if self._queues else 0)
        recipients = (self.anna, self.ben) if both else (self.anna,)
        self.story.sent[name] = (recipients, ())
        data = text(name, 2000 if self._rng.random() < 0.02 else 4)
        asked = clock()
        if lmtp:
            have = tuple(await smtp.share(list(recipients), data))
        else:
            have = recipients if await smtp.send(list(recipients), data) == 250 else ()
        self.story.sent[name] = (recipients, have)
        if have:
            self.story.smtp_acks.append((asked, clock()))

    async def _work(self) -> None:
        """Appends, flags, moves and expunges. A message whose last command had no answer is left alone from then on."""
        while not self.stop.is_set():
            try:
                imap = await Imap.connect(self.site.config.ports.imap, self.ben, self.site.people[self.ben])
            except GONE:
                await asyncio.sleep(POLL_S)
                continue
            try:
                await self._work_session(imap)
            except GONE:
                await asyncio.sleep(POLL_S)
            finally:
                imap.close()

    async def _work_session(self, imap: Imap) -> None:
        for mailbox in (WORK, DONE):
            await imap.ask(f"CREATE {mailbox}")
        selected = await imap.ask(f"SELECT {WORK} (CONDSTORE)")
        if selected.state != "OK":
            return
        story, validity = self.story, validity_of(selected.untagged)
        story.look_highest(self.ben, WORK, highest_of(selected.untagged))
        while not self.stop.is_set():
            name = self._name("a")
            story.states[name] = {None}
            answer = await self._asked(imap, name, (WORK, False), f"APPEND {WORK}", text(name))
            found = _APPENDUID.search(answer)
            if found is None:
                continue
            uid = int(found[2])
            story.look(self.ben, WORK, validity, Shown(uid, 0, False, name, b""))
            if self._rng.random() < 0.7:
                flagged = await self._asked(imap, name, (WORK, True), f"UID STORE {uid} +FLAGS (\\Flagged \\Deleted)")
                if flagged and self._rng.random() < 0.3:
                    await self._asked(imap, name, None, f"UID EXPUNGE {uid}")
                    continue
            if len(story.states[name]) == 1 and self._rng.random() < 0.5:
                ((_, was_flagged),) = (state for state in story.states[name] if state is not None)
                await self._asked(imap, name, (DONE, was_flagged), f"UID MOVE {uid} {DONE}")

    async def _asked(
        self, imap: Imap, name: str, after: tuple[str, bool] | None, words: str, literal: bytes = b""
    ) -> str:
        """The tagged reply's text, "" for a refusal; keeps the states that the message may be in."""
        clock = asyncio.get_running_loop().time
        self.story.states[name].add(after)
        asked = clock()
        answer = await imap.ask(words, literal)
        if answer.state != "OK":
            return ""
        self.story.states[name] = {after}
        self.story.imap_acks.append((asked, clock()))
        return answer.text

    async def _watch(self) -> None:
        """Reads what is new in INBOX, all the time, as a client with a cache does."""
        above = 0
        while not self.stop.is_set():
            try:
                imap = await Imap.connect(self.site.config.ports.imap, self.anna, self.site.people[self.anna])
            except GONE:
                await asyncio.sleep(POLL_S)
                continue
            try:
                while not self.stop.is_set():
                    selected = await imap.ask("SELECT INBOX (CONDSTORE)")
                    if selected.state != "OK":
                        continue
                    validity = validity_of(selected.untagged)
                    self.story.look_highest(self.anna, "INBOX", highest_of(selected.untagged))
                    for shown in await listed(imap, f"{above + 1}:*", header_only=True):
                        self.story.look(self.anna, "INBOX", validity, shown)
                        above = max(above, shown.uid)
                    await asyncio.sleep(POLL_S)
            except GONE:
                await asyncio.sleep(POLL_S)
            finally:
                imap.close()


async def listed(imap: Imap, uids: str, *, header_only: bool) -> list[Shown]:
    section = "BODY.PEEK[HEADER.FIELDS (X-Id)]" if header_only else "BODY.PEEK[]"
    answer = await imap.ask(f"UID FETCH {uids} (UID FLAGS MODSEQ {section})")
    shown = []
    for line in answer.untagged:
        uid, modseq, flags, name = _UID.search(line), _MODSEQ.search(line), _FLAGS.search(line), _ID.search(line)
        if uid and modseq and flags and name:
            raw = line[line.index(b"}\r\n") + 3 :].removesuffix(b")\r\n")
            shown.append(Shown(int(uid[1]), int(modseq[1]), b"\\Flagged" in flags[1], name[1].decode(), raw))
    return shown


def highest_of(untagged: list[bytes]) -> int:
    return next(int(found[1]) for line in untagged if (found := _HIGHEST.search(line)))


def validity_of(untagged: list[bytes]) -> int:
    return next(int(found[1]) for line in untagged if (found := _VALIDITY.search(line)))
