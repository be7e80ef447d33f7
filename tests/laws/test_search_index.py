"""What the search index answers is what reading every message answers: random messages, needles, and parts of a mailbox that
are in the index."""

import asyncio
import ipaddress
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.domain.actor import SYSTEM
from cluster.domain.mailbox.commands import AppendMessage, NewMessage
from cluster.domain.refusal import Refusal
from cluster.formats import mime
from cluster.formats.searched import INDEXED_CHARS_MAX, needle, searched, words
from protocols.imap.server import ImapServer
from protocols.imap.settings import Settings
from storage.search.index import Lookup, Place, SearchIndex
from storage.search.segment import Builder, Segment, SegmentDamaged, merged
from tests.memory_site import MemorySite, spool
from tests.transcripts.play import Client

# Few letters, so that needles are met; and what is hard: foldings that change lengths, marks, blanks of many kinds, scripts
# without blanks, a soft hyphen, a joiner, an emoji.
LETTERS = "ab.<@ \tßẞİıée\u0301ΣσςЖж\u00ad\u200d\u00a0\u3000日本語ก็あア漢\U00020000한글😀"
text = st.text(st.sampled_from(LETTERS), max_size=24)
KEYS = ("TEXT", "BODY", "SUBJECT", "FROM", "TO", "CC", "HEADER X-Note", "HEADER Subject", "HEADER Message-ID")


class Mail(NamedTuple):
    subject: str
    sender: str
    note: str
    body: str
    folded: bool
    html: bool

    def data(self) -> bytes:
        note = self.note.replace(" ", "\r\n ") if self.folded and self.note.strip() else self.note
        head = [
            f"From: {self.sender} <anna@example.org>",
            "To: Berg, a.b@example.org, x:;",
            f"Subject: {self.subject}",
            f"X-Note:{note}",
            "Message-ID: <A1.b@example.org>",
            f"Content-Type: text/{'html' if self.html else 'plain'}; charset=utf-8",
        ]
        return ("\r\n".join(head) + f"\r\n\r\n{self.body}\r\n").encode()


class Asked(NamedTuple):
    key: str
    needle: str
    negated: bool
    second: str
    either: bool = False


mails = st.builds(Mail, text, text, text, text, st.booleans(), st.booleans())


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[Mail], list[Asked]]:
    """Mail, and needles that are mostly pieces of it."""
    mail = draw(st.lists(mails, min_size=1, max_size=5))
    near = [part for one in mail for part in one[:4] if part] + ["anna@example.org", "x-note:", "<A1.b@"]

    def piece() -> str:
        whole = draw(st.one_of(st.sampled_from(near), text.filter(bool)))
        start = draw(st.integers(0, len(whole) - 1))
        found = whole[start : start + draw(st.integers(1, 6))]
        return found.swapcase() if draw(st.booleans()) else found

    asked = [
        Asked(
            draw(st.sampled_from(KEYS)),
            piece(),
            draw(st.booleans()),
            piece() if draw(st.booleans()) else "",
            draw(st.booleans()),
        )
        for _ in range(draw(st.integers(1, 10)))
    ]
    return mail, asked


def build(path: Path, first: int, last: int, mail: list[Mail], unread: int) -> None:
    builder = Builder(first)
    for uid in range(first, last + 1):
        data = mail[uid - 1].data()
        if uid == unread:
            builder.unread(uid)
        else:
            builder.add(uid, searched(data, mime.describe(data)))
    builder.write(path, last)


def lay(index: SearchIndex, place: Place, mail: list[Mail], cuts: list[int], unread: int) -> None:
    """Segments between the cuts; what comes after the last is not in the index."""
    (index.folder / place.name).mkdir(parents=True)
    paths, first = [], 1
    for last in cuts:
        paths.append(index.path(place, first, last))
        build(paths[-1], first, last, mail, unread)
        first = last + 1
    if len(paths) > 1:
        merged([Segment(path) for path in paths[:2]], index.path(place, 1, cuts[1]))


async def answers(
    mail: list[Mail], wanted: list[Asked], cuts: list[int], unread: int, folder: Path
) -> list[tuple[str, ...]]:
    """By reading, and by the index."""
    site = MemorySite()
    account = await site.account("anna@example.org", "secret")
    for one in mail:
        spooled = spool(one.data())
        new = NewMessage(spooled.content, 0, 0, 0, ())
        assert not isinstance(
            await site.execute(SYSTEM, AppendMessage(account.id, "INBOX", (new,)), (spooled,)), Refusal
        )
    selected = await site.select(account.id, "INBOX")
    assert not isinstance(selected, Refusal)
    index = SearchIndex(folder)
    lay(index, Place(selected.status.mailbox.id, selected.status.mailbox.uidvalidity), mail, cuts, unread)
    server = ImapServer(site, Settings(plaintext_networks=(ipaddress.ip_network("127.0.0.0/8"),)))
    client = Client(server)
    await client.ask("a", b"a LOGIN anna@example.org secret\r\n")
    await client.ask("b", b"b EXAMINE INBOX\r\n")
    out = []
    for one_asked in wanted:
        said = []
        for site.index in (None, index):
            await client.send(request(one_asked), "whole")
            said.append(await client.line())
            end = await client.line()
            assert end is not None and end.startswith("c OK"), (one_asked, said, end)
        out.append(tuple(str(line) for line in said))
    client.transport.close()
    await server.close()
    return out


def request(one: Asked) -> bytes:
    raw, second = one.needle.encode(), one.second.encode()
    head = f"{'OR ' if one.either and second else ''}{'NOT ' if one.negated else ''}{one.key} "
    search = b"c SEARCH CHARSET UTF-8 " + head.encode() + b"{%d+}\r\n" % len(raw) + raw
    return search + (b" BODY {%d+}\r\n" % len(second) + second if second else b"") + b"\r\n"


@settings(deadline=None, max_examples=150)
@given(
    stories(),
    st.lists(st.integers(1, 5), max_size=3),
    st.integers(0, 5),
)
@example(([Mail("STRAßE", "İ", "a\u3000b", "日本語", True, False)], [Asked("TEXT", "strasse", False, "日本")]), [1], 0)
@example(([Mail("b a", "", "", "本語 日本", False, False)], [Asked("SUBJECT", "a b", False, "")]), [1], 0)
@example(([Mail("b a", "", "", "本語 日本", False, False)], [Asked("TEXT", "日本語", True, "")]), [1], 0)
@example(([Mail("", "", "b", "a<b>a", False, True)], [Asked("BODY", "aa", True, "")]), [1], 0)
def test_the_index_finds_what_reading_finds(
    story: tuple[list[Mail], list[Asked]], cuts: list[int], unread: int
) -> None:
    mail, wanted = story
    cuts = sorted({cut for cut in cuts if cut <= len(mail)})
    with tempfile.TemporaryDirectory() as folder:
        for one, (read, found) in zip(
            wanted, asyncio.run(answers(mail, wanted, cuts, unread, Path(folder) / "search")), strict=True
        ):
            assert found == read, one


@settings(deadline=None, max_examples=500)
@given(text, text, text)
def test_what_is_in_a_text_is_found_in_its_words(before: str, wanted: str, after: str) -> None:
    folded, whole = wanted.casefold(), (before + wanted + after).casefold()
    asked_for = needle(folded)
    if asked_for is None:
        assert not folded.split()
        return
    lines = "\n" + "\n".join(words(whole)) + "\n"
    assert all(piece in lines for piece in asked_for.pieces)
    other = (before + after).casefold()
    if asked_for.exact and folded not in other:
        assert not all(piece in "\n" + "\n".join(words(other)) + "\n" for piece in asked_for.pieces)


async def test_a_message_that_was_too_long_is_still_read_behind_its_end(tmp_path: Path) -> None:
    index, place = SearchIndex(tmp_path), Place(1, 1)
    data = b"Subject: long\r\n\r\n" + b"early " + b"x" * INDEXED_CHARS_MAX + b" late\r\n"
    index.path(place, 1, 7).parent.mkdir(parents=True)
    builder = Builder(1)
    builder.add(7, searched(data, mime.describe(data)))
    builder.write(index.path(place, 1, 7), 7)
    early, late = await index.look_up(
        place, [Lookup(("body",), "early", exact=True), Lookup(("body",), "late", exact=True)]
    )
    assert early is not None and early.surely == {7}
    assert late is not None and late.perhaps == {7}


async def test_a_flipped_bit_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "1-1.words"
    build(path, 1, 1, [Mail("a", "b", "c", "d", False, False)], 0)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes((whole[at] ^ 4,)) + whole[at + 1 :])
        with pytest.raises(SegmentDamaged):
            Segment(path)


@pytest.mark.parametrize("keep", (0, 5, 40, -1))
async def test_a_torn_segment_is_thrown_away_and_tells_nothing(tmp_path: Path, keep: int) -> None:
    index, place = SearchIndex(tmp_path), Place(1, 1)
    path = index.path(place, 1, 1)
    path.parent.mkdir(parents=True)
    build(path, 1, 1, [Mail("a", "b", "c", "d", False, False)], 0)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SegmentDamaged):
        Segment(path)
    (told,) = await index.look_up(place, [Lookup(("subject",), "a", exact=True)])
    assert told is None or told.spans == ()
    assert index.segments(place) == []
