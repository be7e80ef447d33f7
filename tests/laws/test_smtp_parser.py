"""SMTP's parser: any split of the bytes gives the same requests; any bytes raise nothing but SyntaxRefused; only
<CRLF>.<CRLF> ends a message."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.smtp.model import Answer, Command, Piece, SyntaxRefused
from protocols.smtp.parser import COMMAND_BYTES_MAX, LINE_BYTES_MAX, RUNAWAY_BYTES_MAX, Parser

Told = tuple[str, object]


def requests(stream: bytes, cuts: list[int], mode: str = "command", size: int = 0) -> list[Told]:
    """What a parser says to the stream cut at these places; pieces joined, whatever the cuts; DATA after each DATA."""
    parser = Parser()
    start(parser, mode, size)
    told: list[Told] = []
    body, clean = b"", True
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {len(stream)})
    at = 0
    for end in ends:
        parser.feed(stream[at:end])
        at = end
        while True:
            try:
                request = parser.next()
            except SyntaxRefused as refused:
                told.append(("refused", refused.text))
                if refused.fatal:
                    return told
                continue
            if request is None:
                break
            if isinstance(request, Piece):
                body, clean = body + request.data, clean and request.clean
                if request.last:
                    told.append(("message", (body, clean)))
                    body, clean = b"", True
            elif isinstance(request, Answer):
                told.append(("answer", request.line))
            else:
                told.append(("command", request))
                if request == Command("DATA", b""):
                    parser.expect_data()
    return told


def start(parser: Parser, mode: str, size: int) -> None:
    if mode == "data":
        parser.expect_data()
    elif mode == "chunk":
        parser.expect_chunk(size, True, True)
    elif mode == "answer":
        parser.expect_answer()


WIRE = st.lists(
    st.sampled_from(
        [b"\r\n", b"\r", b"\n", b".", b"..", b"\r\n.\r\n", b"DATA\r\n", b"MAIL FROM:<a@b>\r\n", b"x", b" ", b"\0", b"\xff",
         b"\n.\n", b"\r.\r", b"RSET\r\n", b"AUTH PLAIN x\r\n"]
    ),
    max_size=30,
).map(b"".join)  # fmt: skip
CUTS = st.lists(st.integers(0, 120), max_size=12)


@settings(max_examples=300)
@given(WIRE, CUTS, st.sampled_from(["command", "data", "chunk", "answer"]), st.integers(0, 40))
def test_any_split_gives_the_same_requests(stream: bytes, cuts: list[int], mode: str, size: int) -> None:
    assert requests(stream, cuts, mode, size) == requests(stream, [], mode, size)


@settings(max_examples=200)
@given(st.binary(max_size=300), CUTS, st.sampled_from(["command", "data", "chunk", "answer"]))
def test_any_bytes_raise_nothing_but_syntax_refused(stream: bytes, cuts: list[int], mode: str) -> None:
    requests(stream, cuts, mode, 7)


@settings(max_examples=200)
@given(st.lists(st.sampled_from([b".", b"..", b"a", b"", b".b", b". ", b"\xc3\xa9"]), max_size=12), CUTS)
def test_a_stuffed_message_comes_back(lines: list[bytes], cuts: list[int]) -> None:
    """RFC 5321 §4.5.2."""
    message = b"".join(line + b"\r\n" for line in lines)
    stuffed = b"".join((b"." + line if line.startswith(b".") else line) + b"\r\n" for line in lines)
    told = requests(stuffed + b".\r\nNOOP\r\n", cuts, "data")
    assert told == [("message", (message, True)), ("command", Command("NOOP", b""))]


NOT_AN_END = [
    b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\n.\r", b"\r.\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n",
    b"\r\n. \r\n", b"\r\r\n.\n", b"\r\n.\r\r\n", b"\r\n\r.\r\n",
]  # fmt: skip


@pytest.mark.parametrize("end", NOT_AN_END)
@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_what_is_alike_does_not_end_a_message(end: bytes, step: int) -> None:
    """RFC 5321 §4.1.1.4: SMTP smuggling lives from servers that take these for an end."""
    stream = b"Subject: a\r\n\r\nbody" + end + b"MAIL FROM:<evil@x>\r\nRCPT TO:<y@z>\r\nDATA\r\n\r\n.\r\nNOOP\r\n"
    told = requests(stream, list(range(0, len(stream), step)), "data")
    assert len(told) == 2 and told[1] == ("command", Command("NOOP", b""))
    kind, message = told[0]
    assert kind == "message" and isinstance(message, tuple)
    body, clean = message
    assert b"MAIL FROM:<evil@x>" in body
    bare = b"\n" in body.replace(b"\r\n", b"") or b"\r" in body.replace(b"\r\n", b"")
    assert clean == (not bare)


@pytest.mark.parametrize("line", [b"MAIL FROM:<a@b>\n", b"NOOP\rRSET\r\n", b"\r\r\n", b"NOOP\r\r\n"])
def test_bare_ends_of_lines_are_refused_in_commands(line: bytes) -> None:
    """RFC 5321 §2.3.8."""
    told = requests(line + b"NOOP\r\n", [])
    assert told[0][0] == "refused" and told[-1] == ("command", Command("NOOP", b""))


def test_lines_are_bounded() -> None:
    told = requests(b"MAIL FROM:<" + b"a" * COMMAND_BYTES_MAX + b">\r\nNOOP\r\n", [])
    assert told == [("refused", "Line too long"), ("command", Command("NOOP", b""))]
    long = b"AUTH PLAIN " + b"a" * (LINE_BYTES_MAX - 11)
    assert requests(long + b"\r\n", [100, 12000, 12289]) == [("command", Command("AUTH", long[5:]))]
    for cuts in ([], [LINE_BYTES_MAX], list(range(0, 40000, 7000)), [40000 + 10, 40000 + 11, 40000 + 12]):
        told = requests(b"AUTH PLAIN" + b"a" * 40000 + b"\r\nNOOP\r\n", cuts)
        assert told == [("refused", "Line too long"), ("command", Command("NOOP", b""))]


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    parser = Parser()
    with pytest.raises(SyntaxRefused) as refused:
        for _ in range(RUNAWAY_BYTES_MAX // 4096 + 8):
            parser.feed(b"x" * 4096)
            assert parser.next() is None
            assert parser.buffered <= LINE_BYTES_MAX + 2 + 4096
    assert refused.value.fatal


@pytest.mark.parametrize("cut", range(9))
def test_a_chunk_may_be_cut_between_cr_and_lf(cut: int) -> None:
    """RFC 3030 §2: chunks end where they like, also between two chunks of one message."""
    message = b"ab\r\n\r\ncd"
    parser = Parser()
    pieces = []
    for part, first, last in ((message[:cut], True, False), (message[cut:], False, True)):
        parser.expect_chunk(len(part), first, last)
        parser.feed(part)
        piece = parser.next()
        assert isinstance(piece, Piece) and piece.last
        pieces.append(piece)
    assert b"".join(piece.data for piece in pieces) == message and all(piece.clean for piece in pieces)


@pytest.mark.parametrize("message", [b"a\rb", b"a\nb", b"a\r", b"\n", b"a\r\n\n", b"\r\r\n"])
@pytest.mark.parametrize("step", [1, 2, 9])
def test_bare_ends_of_lines_are_seen_in_chunks(message: bytes, step: int) -> None:
    told = requests(message, list(range(0, len(message), step)), "chunk", len(message))
    assert told == [("message", (message, False))]
