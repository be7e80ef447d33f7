"""SORT (RFC 5256 §3) against a plain reading of it, by one comparison of two messages; and i;unicode-casemap."""

import functools
import unicodedata
from typing import NamedTuple

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cluster.formats import mime
from cluster.formats.casemap import casemap
from protocols.imap import sorting
from protocols.imap.model import SortKey
from protocols.imap.sorting import SORT_WORDS
from protocols.port import Message

NAMES = ("", "Ada", "ada", "Änne", "A\u0308NNE", "ß", "Zoë")


class Mail(NamedTuple):
    at: int
    date: str | None
    sender: str
    subject: str
    note: str

    def row(self, uid: int) -> Message:
        head = f"From: {self.sender} <{self.note or 'x'}@example.org>\r\nTo: {self.sender or 'G'}: a@x;\r\nSubject: {self.subject}\r\n"
        if self.date is not None:
            head += f"Date: {self.date}\r\n"
        data = (head + f"Cc: {self.note}\r\n\r\n").encode()
        known = mime.describe(data)
        return Message(uid, 0, (), 1, len(data), self.at, 0, 0, known.sent, b"", 0, msgspec.msgpack.encode(known))


mails = st.builds(
    Mail,
    st.integers(0, 2),
    st.sampled_from((None, "Thu, 1 Jan 1970 00:00:01 +0000", "Thu, 1 Jan 1970 01:00:01 +0100", "nonsense")),
    st.sampled_from(NAMES),
    st.sampled_from(("", "plan", "Re: PLAN", "[x] plan (fwd)", *NAMES)),
    st.sampled_from(("", "ada", "BOB", "Bob")),
)
keys = st.lists(st.builds(SortKey, st.sampled_from(sorted(SORT_WORDS)), st.booleans()), min_size=1, max_size=3)


def value(row: Message, word: str) -> int | str:
    known = mime.describe(b"")
    if row.description:
        known = msgspec.msgpack.decode(row.description, type=mime.Description)
    people = {"FROM": known.envelope.from_, "TO": known.envelope.to, "CC": known.envelope.cc}
    match word:
        case "ARRIVAL":
            return row.internal_at
        case "DATE":
            return row.internal_at if known.sent is None else known.sent
        case "SIZE":
            return row.size
        case "SUBJECT":
            return casemap(mime.base_subject((known.envelope.subject or b"").decode()))
        case "FROM" | "TO" | "CC":
            return casemap((people[word][0].mailbox or b"").decode()) if people[word] else ""
    first = people[word.removeprefix("DISPLAY")][:1]
    if not first:
        return ""
    if first[0].name:
        return casemap(first[0].name.decode())
    host = f"@{first[0].host.decode()}" if first[0].host else ""
    return casemap((first[0].mailbox or b"").decode() + host)


@given(st.lists(mails, max_size=8), keys)
def test_sort(found: list[Mail], by: list[SortKey]) -> None:
    rows = [mail.row(uid) for uid, mail in enumerate(found, 1)]

    def compared(a: Message, b: Message) -> int:
        for key in by:
            x, y = value(a, key.word), value(b, key.word)
            if x != y:
                below = x < y  # type: ignore[operator]  # two of one kind
                return 1 if below is key.reverse else -1
        return a.uid - b.uid

    wanted = [row.uid for row in sorted(rows, key=functools.cmp_to_key(compared))]
    assert sorting.in_order([(row.uid, sorting.values(row, by)) for row in rows], by) == wanted


@given(st.text(max_size=20))
def test_casemap(text: str) -> None:
    """RFC 5051 §2: done twice it changes nothing; composed and decomposed text are one; ASCII has one case."""
    once = casemap(text)
    assert casemap(unicodedata.normalize("NFC", text)) == casemap(unicodedata.normalize("NFD", text))
    assert casemap(text.swapcase() if text.isascii() else text) == once


def test_casemap_keeps_what_has_no_simple_title_case() -> None:
    assert casemap("straße") == "STRAßE"
    assert casemap("ǆ") == casemap("Ǆ") == casemap("ǅ")
    assert casemap("ﬁ") == "fi"


@given(st.lists(st.sampled_from(("a", "b", "c")), max_size=3), st.lists(st.sampled_from(("c", "d", "e")), max_size=2))
def test_references(own: list[str], answered: list[str]) -> None:
    """RFC 5256 §3: In-Reply-To counts only where References has none, and then its first."""
    head = "".join(f"References: {' '.join(f'<{one}@x>' for one in own)}\r\n" for _ in [1] if own)
    head += f"In-Reply-To: {' '.join(f'<{one}@x>' for one in answered)}\r\n\r\n"
    known = sorting.described(msgspec.msgpack.encode(mime.describe(head.encode())))
    wanted = [f"{one}@x" for one in dict.fromkeys(own)] or [f"{one}@x" for one in answered[:1]]
    assert list(sorting.references(known)) == wanted
