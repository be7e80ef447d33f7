"""The parser of IMAP: any split of the bytes gives the same values, any bytes raise nothing but SyntaxRefused."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.domain.mailbox.events import FlagMode
from protocols.imap.arguments import ARGUMENTS
from protocols.imap.model import (
    Fetch,
    FetchItem,
    Incoming,
    IncomingDone,
    Key,
    NeedMore,
    Piece,
    Request,
    Section,
    SequenceSet,
    Store,
    SyntaxRefused,
)
from protocols.imap.parser import Limits, Parser

LIMITS = Limits(line_bytes_max=200, literal_bytes_max=50, discard_bytes_max=300)
APPENDS_TAKEN_BYTES_MAX = 100


def heard(pieces: list[bytes], names_utf8: bool = False) -> list[object]:
    """All that the parser says; every APPEND up to APPENDS_TAKEN_BYTES_MAX is accepted. Pieces of a message are joined."""
    parser = Parser(LIMITS)
    parser.names_utf8 = names_utf8
    out: list[object] = []
    for piece in pieces:
        parser.feed(piece)
        while True:
            try:
                value = parser.next()
            except SyntaxRefused as refused:
                out.append(("refused", refused.text, refused.tag, refused.closing, refused.code))
                if refused.closing:
                    return out
                continue
            if isinstance(value, NeedMore):
                if value.invite:
                    out.append(value)
                    continue
                break
            if isinstance(value, Incoming):
                if value.size <= APPENDS_TAKEN_BYTES_MAX:
                    parser.accept()
                else:
                    parser.refuse()
            if isinstance(value, Piece) and out and isinstance(out[-1], Piece):
                out[-1] = Piece(out[-1].data + value.data)
            else:
                out.append(value)
    return out


WORDS = [word.encode() for word in ARGUMENTS] + [
    b"APPEND", b"APPEND INBOX CATENATE (", b"REPLACE 1 INBOX", b"UID  REPLACE 7 {1+}\r\na", b"REPLACE 0 &", b"NONSENSE"
]  # fmt: skip
BITS = [
    b" ", b"  ", b"(", b")", b"[", b"]", b"<0.5>", b'"', b'"quoted \\" string"', b"\\Seen", b"\\*", b"$", b"*", b"1:*", b"2,4:7",
    b"{3}\r\nabc", b"{3+}\r\nabc", b"{0}\r\n", b"{60}\r\n", b"{60+}\r\n" + b"x" * 60, b"{400+}\r\n", b"~{2+}\r\n\0\0", b"{1+}\r\n\0",
    b"BODY[", b"BODY.PEEK[1.2.MIME]", b"HEADER.FIELDS (To)", b"FLAGS", b"+FLAGS.SILENT", b"INBOX", b"&AOQ-", b"&", b"NIL", b"UID",
    b"RETURN (MIN)", b"NOT", b"OR", b"SINCE 1-Jan-2020", b'" 1-Jan-2020 00:00:00 +0000"', b"(CHANGEDSINCE 5)", b"\r\n", b"\n", b"\xff",
    b"CATENATE (", b"URL /a/;UID=1", b"URL {3+}\r\nabc", b"URL {3}\r\n\xffbc", b"TEXT", b"TEXT {2+}\r\nab)", b"UTF8 (~{1+}\r\na)",
    b"RETURN (PARTIAL -1:-5)", b"(REVERSE DATE)", b"REFERENCES", b"UTF-8", b"ALL",
    b"99999999999999999999", b"UTF8 (", b"CHARSET UTF-8", b"x" * 210,
]  # fmt: skip
commands = st.builds(
    lambda word, bits: b"t1 " + word + b" " + b" ".join(bits) + b"\r\n", st.sampled_from(WORDS), st.lists(st.sampled_from(BITS), max_size=6)
)
streams = st.lists(st.one_of(commands, st.binary(max_size=30), st.sampled_from(BITS)), max_size=6).map(b"".join)


@settings(deadline=None, max_examples=400)
@given(streams, st.lists(st.integers(1, 20), max_size=60), st.booleans())
def test_any_split_of_any_bytes_gives_the_same(stream: bytes, sizes: list[int], names_utf8: bool) -> None:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(stream[at : at + size])
        at += size
    pieces.append(stream[at:])
    whole = heard([stream], names_utf8)
    assert heard(pieces, names_utf8) == whole
    assert heard([stream[n : n + 1] for n in range(len(stream))], names_utf8) == whole


def one(line: bytes) -> Request:
    [request] = heard([line + b"\r\n"])
    assert isinstance(request, Request), request
    return request


def refused(line: bytes) -> str:
    [answer] = heard([line + b"\r\n"])
    assert isinstance(answer, tuple), answer
    return str(answer[1])


def test_words_are_the_same_in_any_case_and_tags_are_kept() -> None:
    assert one(b"aB.1 nOoP").word == "NOOP"
    assert one(b"aB.1 nOoP").tag == "aB.1"
    assert one(b"x uid expunge 1").word == "UID EXPUNGE"


def test_a_fetch_is_read_whole() -> None:
    read = one(b'a FETCH 1:*,3 (FLAGS BODY.PEEK[1.2.HEADER.FIELDS (To "X y")]<0.5> BINARY.SIZE[3]) (CHANGEDSINCE 9)').arguments
    section = Section((1, 2), "HEADER.FIELDS", (b"To", b"X y"))
    assert read == Fetch(
        uid=False,
        messages=SequenceSet(((1, 0), (3, 3))),
        items=(
            FetchItem("FLAGS", b"FLAGS"),
            FetchItem("BODY[]", b'BODY[1.2.HEADER.FIELDS (To "X y")]<0>', section, (0, 5), peek=True),
            FetchItem("BINARY.SIZE[]", b"BINARY.SIZE[3]", Section((3,))),
        ),
        changed_since=9,
    )


def test_a_store_is_read_whole() -> None:
    assert one(b"a UID STORE $ (UNCHANGEDSINCE 7) -FLAGS.SILENT (\\seen Foo)").arguments == Store(
        True, SequenceSet(saved=True), FlagMode.REMOVE, 1, ("Foo",), silent=True, unchanged_since=7
    )


def test_a_search_is_read_whole() -> None:
    read = one(b'a SEARCH RETURN () OR (SEEN 1:2) NOT SUBJECT "Gr\xc3\xbc\xc3\x9fe" SINCE 2-Jan-1970').arguments
    assert getattr(read, "returns", None) == frozenset(("ALL",))
    assert getattr(read, "key", None) == Key(
        "AND",
        keys=(
            Key(
                "OR",
                keys=(
                    Key("AND", keys=(Key("SEEN"), Key("SEQUENCE", messages=SequenceSet(((1, 2),))))),
                    Key("NOT", keys=(Key("SUBJECT", text="grüsse"),)),
                ),
            ),
            Key("SINCE", number=1),
        ),
    )


def test_what_is_no_imap_is_refused() -> None:
    for line in (
        b"a FETCH 0 FLAGS",
        b"a FETCH 4294967296 FLAGS",
        b"a FETCH 1 BODY[MIME]",
        b"a FETCH 1 BODY[]<0.0>",
        b"a FETCH 1 ()",
        b"a STORE 1 FLAGS (\\Seen",
        b"a SEARCH",
        b"a SEARCH ((((((((((((((((((((((((((((((((ALL",
        b"a SEARCH ON 31-Feb-2020",
        b"a UID LOGIN a b",
        b"a SELECT",
        b"a LOGIN a b c",
        b'a LIST "" (',
        b"+ NOOP",
        b"a STATUS INBOX ()",
        b"a ENABLE",
        b"a ID (a)",
    ):
        assert refused(line), line


def test_literals_invite_only_those_who_wait() -> None:
    assert heard([b"a LOGIN {1}\r\na {1+}\r\nb\r\n"])[0] == NeedMore(invite=True)
    assert len(heard([b"a LOGIN {1}\r\na {1+}\r\nb\r\n"])) == 2


def test_what_is_too_long_is_refused_and_the_next_command_is_read() -> None:
    for long in (b"a NOOP " + b"x" * 300, b"a LOGIN {60}", b"a LOGIN {60+}\r\n" + b"y" * 60 + b" {10+}\r\n0123456789 {2}"):
        first, second = heard([long + b"\r\nb NOOP\r\n"])
        assert isinstance(first, tuple) and first[2:] == ("a", False, "TOOBIG")
        assert isinstance(second, Request) and second.tag == "b"
    closing = heard([b"a LOGIN {400+}\r\n"])
    assert closing == [("refused", "the literal is too long", "a", True, "TOOBIG")]


def test_appends_stream_and_are_thrown_away_when_refused() -> None:
    data = b"a APPEND x {3+}\r\nabc (\\Seen) {2+}\r\nde\r\nb APPEND x {200+}\r\n" + b"z" * 200 + b" {3+}\r\nabc\r\nc NOOP\r\n"
    first, piece, second, more, done, big, over, noop = heard([data])
    assert isinstance(first, Incoming) and first.first and first.size == 3
    assert (piece, more, done) == (Piece(b"abc"), Piece(b"de"), IncomingDone("a"))
    assert isinstance(second, Incoming) and not second.first and second.flags == 1
    assert isinstance(big, Incoming) and over == IncomingDone("b")
    assert isinstance(noop, Request)
    # with a pause nothing comes, so nothing is thrown away
    assert heard([b"b APPEND x {200}\r\nc NOOP\r\n"])[1:] == [IncomingDone("b"), noop]


def test_a_refused_append_of_very_many_messages_is_thrown_away() -> None:
    data = b"a APPEND x {200+}\r\n" + b"z" * 200 + b" {1+}\r\nz" * 5000 + b"\r\nb NOOP\r\n"
    big, over, noop = heard([data])
    assert isinstance(big, Incoming) and over == IncomingDone("a")
    assert isinstance(noop, Request) and noop.tag == "b"


def test_the_tag_of_a_line_too_long_does_not_depend_on_how_it_came() -> None:
    stream = b"t" * 230 + b" NOOP\r\n"
    assert heard([stream]) == heard([stream[n : n + 1] for n in range(len(stream))])
