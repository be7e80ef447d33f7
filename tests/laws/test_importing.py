"""Reading mail as other systems keep it, and bringing each message once whatever is interrupted."""

import hashlib
import io
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.domain.mailbox import names
from node.importing import imap
from node.importing.batches import Batches, Present
from node.importing.imap import ImapSource, Server
from node.importing.journal import Journal, JournalTaken, content_key
from node.importing.lines import dated, with_crlf
from node.importing.maildir import MaildirSource
from node.importing.many import ListUnreadable, parsed
from node.importing.mbox import MboxSource, NotAnMbox, from_date, split, unmarked
from node.importing.model import Bad, Folder, Item, Known, SourceUnreadable
from node.importing.names import keywords, mailbox_name

LIMIT = 1 << 20
FROM = b"From anna@example.org Sat Jan  3 01:05:34 1998\n"
NONCE = b"n" * 16

line = st.one_of(
    st.sampled_from(
        [b"", b"From ", b">From x", b">>From here", FROM.strip(), b"From me to you, in 1998", b"Subject: x"]
    ),
    st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"").replace(b"\r", b"")),
)
body = st.lists(line, min_size=1, max_size=8).map(lambda lines: b"Subject: s\n\n" + b"\n".join(lines) + b"\n")


# -- mbox -------------------------------------------------------------------------------------------------------------


def quoted(message: bytes) -> bytes:
    """As mboxrd has it."""
    out = []
    for one in message.split(b"\n"):
        out.append(b">" + one if one.lstrip(b">").startswith(b"From ") else one)
    return b"\n".join(out)


@given(st.lists(body, min_size=1, max_size=5))
def test_an_mbox_gives_back_what_was_put_in(messages: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.mbox"
        file.write_bytes(b"".join(FROM + quoted(one) + b"\n" for one in messages))
        source = MboxSource((file,), "", LIMIT)
        (there,) = source.folders()
        assert there.levels == ("x",) and source.count(there) == len(messages)
        items = [one for one in source.messages(there, lambda _: False) if isinstance(one, Item)]
        assert [one.content for one in items] == [with_crlf(one) for one in messages]
        assert {(one.internal_at, one.internal_zone) for one in items} == {(883789534, 0)}
        assert len({one.key for one in items}) == len(items)
        # The same file elsewhere gives the same names to the same messages, and what is known is not read again.
        known = {one.key for one in items}
        (Path(folder) / "y").write_bytes(file.read_bytes())
        other = MboxSource((Path(folder) / "y",), "", LIMIT)
        assert list(other.messages(other.folders()[0], known.__contains__)) == []


@given(st.binary(max_size=300), st.integers(0, 100))
def test_any_bytes_are_an_mbox_or_none(data: bytes, limit: int) -> None:
    for given_data in (data, FROM + data):
        try:
            found = list(split(io.BytesIO(given_data), limit))
        except NotAnMbox:
            assert data and not given_data.startswith(b"From ")
        else:
            assert all(content is None or len(content) <= limit for _, content, _ in found)


@pytest.mark.parametrize(
    ("text", "at", "zone"),
    [
        (b"From a@b Sat Jan  3 01:05:34 1998\n", 883789534, 0),
        (b"From a b c Sat Jan 3 01:05 1998\n", 883789500, 0),
        (b"From 1234@xxx Sat Jan 03 02:05:34 +0100 1998\r\n", 883789534, 60),
        (b"From - Sat Jan 03 01:05:34 1998 -0530\n", 883789534 + 330 * 60, -330),
        (b"From a@b Sat Jan  3 01:05:34 GMT 1998\n", 883789534, 0),
    ],
)
def test_the_date_of_a_from_line(text: bytes, at: int, zone: int) -> None:
    assert from_date(text) == (at, zone)


def test_what_mail_programs_wrote_into_the_header_is_read_and_not_kept() -> None:
    data = (
        b"Status: RO\r\nX-Status: AF\r\nSubject: s\r\nX-Keywords: Work  $MDNSent\r\nX-UID: 7\r\n"
        b"X-Mozilla-Status: 1001\r\nX-Mozilla-Keys: later\r\n \r\nContent-Length: 5\r\n\r\nStatus: no\r\n"
    )
    content, marks = unmarked(data)
    assert content == b"Subject: s\r\n\r\nStatus: no\r\n"
    assert set(marks.flags) == {"\\Seen", "\\Answered", "\\Flagged"}
    assert set(marks.keywords) == {"Work", "$MDNSent", "later", "$Forwarded"} and not marks.gone
    assert unmarked(b"X-Mozilla-Status: 0009\r\n\r\n")[1].gone


def test_a_file_that_is_no_mbox_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"Subject: a single message\n\n")
    source = MboxSource((tmp_path / "x",), "", LIMIT)
    with pytest.raises(SourceUnreadable, match="is no mbox"):
        list(source.messages(source.folders()[0], lambda _: False))


# -- Maildir ----------------------------------------------------------------------------------------------------------


def test_folders_of_both_layouts(tmp_path: Path) -> None:
    for folder in ("cur", "new", ".A.B/cur", "Work/Sub/cur", "Work/cur", ".nothing", "Work/new"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "subscriptions").write_text("V\t2\n\nWork\tSub\nINBOX\n")
    found = {one.levels: one.subscribed for one in MaildirSource(tmp_path, LIMIT).folders()}
    assert found == {("INBOX",): True, ("A", "B"): False, ("Work",): False, ("Work", "Sub"): True}
    with pytest.raises(SourceUnreadable, match="is no Maildir"):
        MaildirSource(tmp_path / ".nothing", LIMIT).folders()


@given(st.sets(st.sampled_from("DFPRSTabz")))
def test_the_letters_of_a_file_name(letters: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "cur").mkdir()
        (root / "dovecot-keywords").write_text("0 First\n1 Second\n25 Last\n26 TooMany\nnonsense\n")
        (root / "cur" / f"1.x,S=5:2,{''.join(sorted(letters))}").write_bytes(b"a\nb\r\n")
        source = MaildirSource(root, LIMIT)
        (item,) = source.messages(source.folders()[0], lambda _: False)
        assert isinstance(item, Item) and item.content == b"a\r\nb\r\n"
        flags = {"D": "\\Draft", "F": "\\Flagged", "R": "\\Answered", "S": "\\Seen", "T": "\\Deleted"}
        words = {"P": "$Forwarded", "a": "First", "b": "Second", "z": "Last"}
        assert set(item.flags) == {flags[one] for one in letters if one in flags}
        assert set(item.keywords) == {words[one] for one in letters if one in words}


def test_what_cannot_be_read_is_told_and_the_rest_comes(tmp_path: Path) -> None:
    (tmp_path / "cur").mkdir()
    (tmp_path / "cur" / "1.big").write_bytes(b"x" * (LIMIT + 1))
    (tmp_path / "cur" / "2.folder").mkdir()
    (tmp_path / "cur" / "3.gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "cur" / "4.packed").write_bytes(b"\x1f\x8b\x08\x00")
    (tmp_path / "cur" / "5.good").write_bytes(b"Subject: x\n\n")
    source = MaildirSource(tmp_path, LIMIT)
    found = list(source.messages(source.folders()[0], lambda _: False))
    assert [type(one) for one in found] == [Bad, Bad, Bad, Bad, Item]


# -- names ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=12), max_size=30))
def test_every_name_becomes_a_possible_one(levels: list[str]) -> None:
    name = mailbox_name(tuple(levels))
    assert names.invalid(name) is None
    assert mailbox_name(tuple(name.split("/"))) == name


@given(st.lists(st.text(max_size=8), max_size=80))
def test_keywords_are_kept_or_named(given_words: list[str]) -> None:
    kept, dropped = keywords(tuple(given_words))
    assert names.keywords(kept) == kept
    assert all(word in given_words for word in dropped)


def test_a_date_is_found_in_the_header() -> None:
    received = b"Received: from x; by y\r\n\t; Sat, 3 Jan 1998 02:05:34 +0100\r\n"
    assert dated(received + b"Date: Thu, 1 Jan 1998 00:00:00 +0000\r\n\r\n") == (883789534, 60)
    assert dated(b"Date: Thu, 1 Jan 1998 00:00:00 +0000\r\n\r\n") == (883612800, 0)
    assert dated(b"Subject: x\r\n\r\nDate: Thu, 1 Jan 1998 00:00:00 +0000\r\n") is None


# -- once and only once -----------------------------------------------------------------------------------------------


class Listed:
    """A source of texts; `keyed` False: as when a server's UIDVALIDITY has changed."""

    name = "a list"

    def __init__(self, texts: list[str], salt: str = "") -> None:
        self.texts, self.salt = texts, salt

    def folders(self) -> list[Folder]:
        return [Folder(("x",), "x", "x")]

    def count(self, folder: Folder) -> int:
        return len(self.texts)

    def messages(self, folder: Folder, known: Known) -> Iterator[Item | Bad]:
        for number, text in enumerate(self.texts):
            key = f"{self.salt}{number}".encode().ljust(16)
            if not known(key):
                yield Item(key, text, text.encode(), 0)

    def close(self) -> None:
        pass


class Killed(Exception):
    pass


def brought(there: list[bytes], source: Listed, journal: Journal, kill_at: int, *, appended: bool) -> None:
    """Into the mailbox `there`; killed at that append: before it is noted, or before it is done."""
    present = Present()
    present.there.update(there)
    batches = Batches(source, source.folders()[0], "1", journal, present, at_once=2)
    appends = 0
    while True:
        ready = batches.gather()
        journal.note(ready.found)
        appends += bool(ready.items)
        killed = bool(ready.items) and appends == kill_at
        if not killed or appended:
            there += [content for _, content in ready.keys]
        if killed:
            raise Killed
        journal.note(ready.keys)
        if ready.last:
            return


def _content(text: str) -> bytes:
    return content_key(hashlib.sha256(text.encode()).digest(), 0)


@given(
    st.lists(st.sampled_from("ab"), max_size=12),
    st.lists(st.sampled_from("ab"), max_size=3),
    st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=4),
    st.booleans(),
)
@example(["a"] * 4, [], [(2, False)], False)
def test_killed_anywhere_nothing_is_missing_and_nothing_twice(
    texts: list[str], before: list[str], kills: list[tuple[int, bool]], new_uidvalidity: bool
) -> None:
    there = [_content(text) for text in before]
    wanted = Counter(there) | Counter(map(_content, texts))  # of each as many as there were, or as the source has
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1.journal"
        for n, (kill_at, appended) in enumerate([*kills, (0, True)]):
            source = Listed(texts, salt=f"{n}." if new_uidvalidity else "")
            with Journal(path, NONCE) as journal:
                try:
                    brought(there, source, journal, kill_at, appended=appended)
                except Killed:
                    continue
        assert Counter(there) == wanted


def test_a_journal_is_held_alone_and_survives_half_a_record(tmp_path: Path) -> None:
    path = tmp_path / "imports" / "1.journal"
    pair = (b"k" * 16, b"c" * 16)
    with Journal(path, NONCE) as journal:
        journal.note([pair])
        with pytest.raises(JournalTaken):
            Journal(path, NONCE)
    with path.open("ab") as file:
        file.write(b"half")
    with Journal(path, b"m" * 16) as journal:
        assert journal.nonce == NONCE and len(journal) == 1 and journal.content_of(pair[0]) == pair[1]
        journal.note([(b"l" * 16, b"d" * 16)])
    with Journal(path, b"m" * 16) as journal:
        assert len(journal) == 2
    with Journal(path, b"m" * 16, again=True) as journal:
        assert journal.nonce == b"m" * 16 and len(journal) == 0


# -- IMAP -------------------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(1, 60)))
def test_uids_as_a_sequence_set(uids: set[int]) -> None:
    text = imap._ranges(sorted(uids))
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, _, last = part.partition(":")
        found |= set(range(int(first), int(last or first) + 1))
    assert found == uids


def test_lines_of_list() -> None:
    assert imap._listed(rb'(\HasNoChildren \Sent) "/" "Sent \"x\""') == (
        {"\\hasnochildren", "\\sent"},
        "/",
        b'Sent "x"',
    )
    assert imap._listed(rb"(\Noselect) NIL atom") == ({"\\noselect"}, "", b"atom")
    assert imap._listed((rb'() "\\" {3}', b"a b")) == (set(), "\\", b"a b")
    assert imap._listed(b"nonsense")[2] == b""


GREETING = b"* OK [CAPABILITY IMAP4rev1] ready\r\n"


@contextmanager
def scripted(answers: dict[str, list[bytes]], greeting: bytes = GREETING) -> Iterator[int]:
    """An IMAP server that answers each word with what it is told, whatever was asked exactly."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            connection.sendall(greeting)
            for raw in lines:
                tag, word, *rest = raw.split()
                name = (word + b" " + rest[0] if word == b"UID" else word).decode().upper()
                if name == "UID FETCH" and b"BODY" in raw:
                    name = "BODY"
                connection.sendall(b"".join(answers.get(name, [])) + tag + b" OK done\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join(20)
        listener.close()


SEARCHED = {
    "CAPABILITY": [b"* CAPABILITY IMAP4rev1\r\n"],
    "LIST": [
        b'* LIST () "." INBOX\r\n',
        b'* LIST (\\Noselect) "." "x"\r\n',
        b'* LIST () "." "a.b/c"\r\n',
        b"* LIST junk\r\n",
    ],
    "EXAMINE": [b"* 3 EXISTS\r\n* OK [UIDVALIDITY 9] x\r\n"],
    "UID SEARCH": [b"* SEARCH 3 1 2 1\r\n"],
    "UID FETCH": [
        b'* 1 FETCH (UID 1 RFC822.SIZE 5 FLAGS (\\seen Word \\Strange) INTERNALDATE " 5-Apr-2003 06:07:08 +0200")\r\n',
        b"* 2 FETCH (UID 2 RFC822.SIZE 9999999999 FLAGS ())\r\n* 77 FETCH (FLAGS (\\Seen))\r\n",
    ],
}


def test_the_prefix_of_the_own_names_is_no_part_of_them_and_others_are_left_out() -> None:
    namespaces = [b'* NAMESPACE (("INBOX." ".")("#mh/" "/")) (("user.\\"x" ".")) NIL\r\n']
    listed = [b'* LIST (\\Sent) "." "INBOX.Sent"\r\n', b'* LIST () "." "user.\\"x.y"\r\n', b'* LIST () "." INBOX\r\n']
    capable = [b"* CAPABILITY IMAP4rev1 NAMESPACE\r\n"]
    with scripted({"CAPABILITY": capable, "NAMESPACE": namespaces, "LIST": listed}, greeting=b"* OK ready\r\n") as port:
        source = opened(port)
        found = {one.levels: one.special_use for one in source.folders()}
        source.close()
    assert found == {("Sent",): "\\Sent", ("INBOX",): ""}
    assert imap._groups(b'NIL (("" "/")) (("a" NIL "X-P" ("b")) ("c" "/"))') == [[], [b""], [b"a", b"c"]]


def opened(port: int) -> ImapSource:
    return ImapSource(Server("127.0.0.1", port, "u", "p", "none"), LIMIT)


def test_a_server_that_is_broken_here_and_there() -> None:
    bodies = [b"* 1 FETCH (BODY[] {5}\r\na\r\nb\n UID 1 FLAGS (\\Seen))\r\n", b"* 2 FETCH (UID 2 BODY[] NIL)\r\n"]
    with scripted(SEARCHED | {"BODY": bodies}) as port:
        source = opened(port)
        inbox, other = source.folders()
        assert (inbox.levels, other.levels) == (("INBOX",), ("a", "b/c"))
        assert mailbox_name(other.levels) == "a/b_c"
        assert source.count(inbox) == 3
        first, *rest = source.messages(inbox, lambda _: False)
        source.close()
    assert isinstance(first, Item) and first.content == b"a\r\nb\r\n"
    assert (first.flags, first.keywords) == (("\\Seen",), ("Word",))
    assert (first.internal_at, first.internal_zone) == (1049515628, 120)
    assert [one.why for one in rest if isinstance(one, Bad)] == [
        f"it has 9999999999 bytes, where {LIMIT} is the most (limits.message_bytes_max)",
        "the server lists it and does not give it",
    ]


def test_a_literal_without_end_ends_the_connection() -> None:
    with scripted(SEARCHED | {"BODY": [b"* 1 FETCH (UID 1 BODY[] {99999999999}\r\n"]}) as port:
        source = opened(port)
        with pytest.raises(SourceUnreadable, match="99999999999"):
            list(source.messages(source.folders()[0], lambda _: False))


# -- a list of many ---------------------------------------------------------------------------------------------------


def test_a_list_is_read_whole_or_complained_of() -> None:
    text = '\ufeffAddress,kind,source,user,password\na@b.example,imap,mail.example,"u, v"," p"\n\n'
    (row,) = parsed(text)
    assert (row.address, row.source, row.user, row.password) == ("a@b.example", "mail.example", "u, v", " p")
    for wrong, why in (
        ("address,kind\n", "first line"),
        ("address,kind,source,source\n", "first line"),
        ("address,kind,source\nx,imap,y\n", "line 2: an IMAP account needs"),
        ("address,kind,source\nx,y\n", "line 2: 2 columns"),
        ("address,kind,source,port\nx,mbox,y,99999\n", "line 2: '99999' is no port"),
    ):
        with pytest.raises(ListUnreadable, match=why):
            parsed(wrong)
