"""SEARCH against a slow, plain reading of RFC 9051 §6.4.4: random mailboxes, random criteria."""

import asyncio
import ipaddress
from collections.abc import Callable
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.domain.actor import SYSTEM
from cluster.domain.mailbox.commands import AppendMessage, NewMessage
from cluster.domain.mailbox.events import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from cluster.domain.refusal import Refusal
from protocols.imap.server import ImapServer
from protocols.imap.settings import Settings
from tests.memory_site import MemorySite, spool
from tests.transcripts.play import Client

DAY_S = 86_400
BASE = 19_000  # 2022-01-08
DATES = {BASE + n: f"{8 + n}-Jan-2022" for n in range(4)}
WORDS = ("apple", "Birne", "ÇA VA", "plum")


class Mail(NamedTuple):
    flags: int
    keywords: tuple[str, ...]
    at: int
    zone: int
    sent: int | None
    sender: str
    subject: str
    note: str | None
    body: str

    def data(self) -> bytes:
        head = [f"From: {self.sender} <{self.sender.lower()[:2]}@example.org>", f"Subject: {self.subject}"]
        if self.sent is not None:
            head.append(f"Date: {DATES[self.sent].replace('-', ' ')} 12:00:00 +0000")
        if self.note is not None:
            head.append(f"X-Note: {self.note}")
        head.append("Content-Type: text/plain; charset=utf-8")
        return ("\r\n".join(head) + f"\r\n\r\n{self.body}\r\n").encode()

    def text(self) -> str:
        """The header's fields without their line ends, and the body."""
        return self.data().decode()


class Place(NamedTuple):
    number: int
    uid: int
    last: int
    mail: Mail


Test = Callable[[Place], bool]
Criterion = tuple[str, Test]

mails = st.builds(
    Mail,
    st.integers(0, 31),
    st.sets(st.sampled_from(("$work", "later"))).map(lambda found: tuple(sorted(found))),
    st.integers(BASE * DAY_S, (BASE + 4) * DAY_S - 1),
    st.sampled_from((0, -300, 720)),
    st.one_of(st.none(), st.sampled_from(sorted(DATES))),
    st.sampled_from(("Anna", "Bob")),
    st.sampled_from(WORDS),
    st.one_of(st.none(), st.sampled_from(("", *WORDS))),
    st.sampled_from(WORDS),
)

FLAGS = {"SEEN": SEEN, "ANSWERED": ANSWERED, "FLAGGED": FLAGGED, "DELETED": DELETED, "DRAFT": DRAFT}
ORDERS: dict[str, Callable[[int, int], bool]] = {
    "BEFORE": lambda a, b: a < b,
    "ON": lambda a, b: a == b,
    "SINCE": lambda a, b: a >= b,
}


def flag(word: str, wanted: bool) -> Criterion:
    return ("" if wanted else "UN") + word, lambda one: bool(one.mail.flags & FLAGS[word]) is wanted


def keyword(word: str, wanted: bool) -> Criterion:
    return f"{'' if wanted else 'UN'}KEYWORD {word}", lambda one: (word.lower() in one.mail.keywords) is wanted


def day(word: str, when: int) -> Criterion:
    return f"{word} {DATES[when]}", lambda one: ORDERS[word]((one.mail.at + one.mail.zone * 60) // DAY_S, when)


def sent(word: str, when: int) -> Criterion:
    return f"SENT{word} {DATES[when]}", lambda one: one.mail.sent is not None and ORDERS[word](one.mail.sent, when)


def texts(field: str, word: str) -> Criterion:
    wanted = word.casefold()
    test: Test
    match field:
        case "FROM":
            test = lambda one: wanted in one.mail.sender.casefold() or wanted in one.mail.sender.lower()[:2]  # noqa: E731
        case "SUBJECT":
            test = lambda one: wanted in one.mail.subject.casefold()  # noqa: E731
        case "BODY":
            test = lambda one: wanted in one.mail.body.casefold()  # noqa: E731
        case "HEADER X-Note":
            test = lambda one: one.mail.note is not None and wanted in one.mail.note.casefold()  # noqa: E731
        case _:
            test = lambda one: wanted in one.mail.text().casefold()  # noqa: E731
    return f'{field} "{word}"', test


def size(word: str, bytes_: int) -> Criterion:
    if word == "LARGER":
        return f"LARGER {bytes_}", lambda one: len(one.mail.data()) > bytes_
    return f"SMALLER {bytes_}", lambda one: len(one.mail.data()) < bytes_


def within(kind: str, low: int, high: int | None) -> Criterion:
    def test(one: Place) -> bool:
        value, highest = (one.uid, one.last) if kind == "UID " else (one.number, one.last)
        first, last = sorted((low, highest if high is None else high))
        return first <= value <= last

    return f"{kind}{low}:{'*' if high is None else high}", test


plain = st.one_of(
    st.just(("ALL", lambda one: True)),
    st.builds(flag, st.sampled_from(sorted(FLAGS)), st.booleans()),
    st.builds(keyword, st.sampled_from(("$WORK", "later", "none")), st.booleans()),
    st.builds(day, st.sampled_from(sorted(ORDERS)), st.sampled_from(sorted(DATES))),
    st.builds(sent, st.sampled_from(sorted(ORDERS)), st.sampled_from(sorted(DATES))),
    st.builds(texts, st.sampled_from(("FROM", "SUBJECT", "BODY", "TEXT", "HEADER X-Note")), st.sampled_from((*WORDS, "nn", ""))),
    st.builds(size, st.sampled_from(("LARGER", "SMALLER")), st.integers(100, 160)),
    st.builds(within, st.just("UID "), st.integers(1, 9), st.one_of(st.none(), st.integers(1, 9))),
)


def negated(one: Criterion) -> Criterion:
    return f"NOT {one[0]}", lambda place: not one[1](place)


def either(a: Criterion, b: Criterion) -> Criterion:
    return f"OR {a[0]} {b[0]}", lambda place: a[1](place) or b[1](place)


def both(a: Criterion, b: Criterion) -> Criterion:
    return f"({a[0]} {b[0]})", lambda place: a[1](place) and b[1](place)


criteria: st.SearchStrategy[Criterion] = st.recursive(
    plain,
    lambda inner: st.one_of(st.builds(negated, inner), st.builds(either, inner, inner), st.builds(both, inner, inner)),
    max_leaves=6,
)


async def found(mail: list[Mail], wanted: list[Criterion]) -> list[list[int]]:
    site = MemorySite()
    account = await site.account("anna@example.org", "secret")
    for one in mail:
        spooled = spool(one.data())
        new = NewMessage(spooled.content, one.at, one.zone, one.flags, one.keywords)
        done = await site.execute(SYSTEM, AppendMessage(account.id, "INBOX", (new,)), (spooled,))
        assert not isinstance(done, Refusal)
    server = ImapServer(site, Settings(plaintext_networks=(ipaddress.ip_network("127.0.0.0/8"),)))
    client = Client(server)
    await client.ask("a", b"a LOGIN anna@example.org secret\r\n")
    await client.ask("b", b"b EXAMINE INBOX\r\n")
    answers = []
    for text, _ in wanted:
        await client.send(f"c SEARCH {text}\r\n".encode(), "whole")
        line, end = await client.line(), await client.line()
        assert line is not None and end is not None and end.startswith("c OK"), (text, line, end)
        answers.append([int(number) for number in line.split()[2:]])
    client.transport.close()
    await server.close()
    return answers


@settings(deadline=None, max_examples=150)
@given(st.lists(mails, max_size=6), st.lists(criteria, min_size=1, max_size=5))
def test_a_search_finds_what_the_plain_reading_finds(mail: list[Mail], wanted: list[Criterion]) -> None:
    answers = asyncio.run(found(mail, wanted))
    for (text, test), answer in zip(wanted, answers, strict=True):
        slow = [n for n, one in enumerate(mail, 1) if test(Place(n, n, len(mail), one))]
        assert answer == slow, text


def test_what_the_tables_are_asked_is_what_was_meant() -> None:
    """Flags, days and sizes, each alone and negated, two together, and beside what only the message tells."""
    mail = [
        Mail(n * 5 % 32, (), BASE * DAY_S + n * DAY_S // 3, (0, -300, 720)[n % 3], None, "Anna", WORDS[n % 4], None, "x" * n * 9)
        for n in range(12)
    ]
    days = [day(word, when) for word in sorted(ORDERS) for when in sorted(DATES)]
    flags = [flag(word, wanted) for word in sorted(FLAGS) for wanted in (True, False)]
    sizes = [size(word, bytes_) for word in ("LARGER", "SMALLER") for bytes_ in (110, 140, len(mail[3].data()))]
    each = days + flags + sizes
    pairs = [both(each[n], each[(n * 7 + 3) % len(each)]) for n in range(len(each))]
    beside = [both(one, texts("SUBJECT", "plum")) for one in each] + [either(one, texts("SUBJECT", "plum")) for one in each]
    asked = each + [negated(one) for one in each] + pairs + [negated(one) for one in pairs] + beside
    answers = asyncio.run(found(mail, asked))
    for (text, test), answer in zip(asked, answers, strict=True):
        assert answer == [n for n, one in enumerate(mail, 1) if test(Place(n, n, len(mail), one))], text


async def test_a_long_search_says_how_far_it_is() -> None:
    """RFC 9585 §4: of what takes long; here already of what takes more than no time."""
    site = MemorySite()
    account = await site.account("anna@example.org", "secret")
    spooled = spool(b"Subject: x\r\n\r\n")
    for count in (*[100] * 20, 1):
        await site.execute(SYSTEM, AppendMessage(account.id, "INBOX", (NewMessage(spooled.content, 1),) * count), (spooled,))
    server = ImapServer(site, Settings(plaintext_networks=(ipaddress.ip_network("127.0.0.0/8"),), progress_every_s=0))
    client = Client(server)
    await client.line()
    await client.ask("a", b"a LOGIN anna@example.org secret\r\n")
    await client.ask("b", b"b SELECT INBOX\r\n")
    await client.send(b"c SEARCH RETURN (COUNT) SUBJECT x\r\n", "whole")
    assert await client.line() == '* OK [INPROGRESS ("c" 1000 2001)] Still at it.'
    assert await client.line() == '* OK [INPROGRESS ("c" 2000 2001)] Still at it.'
    assert await client.line() == '* ESEARCH (TAG "c") COUNT 2001'
    client.transport.close()
    await server.close()
